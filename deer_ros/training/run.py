"""A whole training run in a folder: frames, vision phase, policy phases, model directory.

Every part leaves a file behind and is skipped or resumed where the file is there. With several
processes all do the same on their share of every batch; the first of them writes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs
from torch import Tensor, nn

from deer_ros.checkpoint import save_model
from deer_ros.data.caches import reading
from deer_ros.data.episode import Episode
from deer_ros.data.outcomes import Outcomes
from deer_ros.model.action_head import SuccessGate
from deer_ros.model.config import DeerConfig
from deer_ros.model.proprioception import scaled
from deer_ros.training.config import TrainingConfig
from deer_ros.training.dataset import Needs, OnBad, is_read, load_frames, split_episodes
from deer_ros.training.evaluation import Evaluate, Evaluations
from deer_ros.training.folder import FRAMES
from deer_ros.training.gate_phase import GateTraining
from deer_ros.training.instructions import Instructions, meanings_of, paraphrases_of
from deer_ros.training.language_phase import MeaningClassifier, Sentences
from deer_ros.training.phases import Draw, Held, PhaseRunner, Report
from deer_ros.training.policy_phase import MultiExitTraining
from deer_ros.training.practice_phase import OutcomeBatches, PracticeTraining, split
from deer_ros.training.shift import shifted
from deer_ros.training.start import (
    model_from,
    new_model,
    open_gates,
    prompts_without_words,
    sight_of,
)
from deer_ros.training.trainer import Schedule
from deer_ros.training.vision_phase import StateBatches, StateRegressor, cache_latents, varying
from deer_ros.training.windows import Look, WindowBatches

# The others wait while the first process reads bags, encodes pictures or evaluates.
LONGEST_WAIT = timedelta(hours=12)

Practise = Callable[[Path, Path, Callable[[int, int], None]], Outcomes]
"""Model directory, and a folder to keep and find blocks in -> what came of its exits in closed
loop; hears of every block's end."""


class TrainingRun:
    """One run in `folder`, from what `episodes` yields; `report` hears of every logged step.

    on_bad: hears of episodes that cannot be trained on, which are left out then; None: they are
    refused. evaluate: what `config.evaluation` asks for now and then. sentences: instructions and
    their meanings, kind by kind, for `config.language` and `config.policy.paraphrases`. practise:
    what `config.practice` asks for, needed where the model's gate guesses success.
    """

    def __init__(
        self,
        config: TrainingConfig,
        episodes: Iterable[Episode],
        folder: Path,
        report: Report,
        *,
        on_bad: OnBad | None = None,
        evaluate: Evaluate | None = None,
        sentences: Sequence[Mapping[str, str]] = (),
        practise: Practise | None = None,
    ) -> None:
        self.config, self.folder, self.report = config, folder, report
        self.sentences, self.practise = sentences, practise
        self.accelerator = Accelerator(
            kwargs_handlers=[InitProcessGroupKwargs(timeout=LONGEST_WAIT)]
        )
        folder.mkdir(parents=True, exist_ok=True)
        start = None
        if config.start_from is not None:
            start = model_from(config.start_from, config.trained_in)
        sight = None
        if config.vision.start_from is not None:
            sight = sight_of(config.vision.start_from, config.model)
        model_config = config.model if start is None else start.model.config
        config.check_batches(model_config, self.accelerator.num_processes)
        evaluations = Evaluations(config.evaluation, model_config.exit_layers, folder, evaluate)
        self.phases = PhaseRunner(
            config, folder, self.accelerator, report, evaluations, self._save
        )
        layout = _layout(model_config)
        size = model_config.vision.image_size
        needs = Needs(
            1 if config.policy.pad_short_episodes else config.policy.window, layout,
            prompts_without_words(model_config) if start is None else start.prompts,
        )
        with self.accelerator.main_process_first():
            self._check_shared(folder / FRAMES)
            self.frames = load_frames(episodes, size, folder / FRAMES, needs, on_bad)
        count = len(self.frames.lengths)
        if count < 2:
            raise ValueError(f"there are {count} episodes; training and validation need two.")
        if start is None and config.vision.learns:
            varying(self.frames.states)
        if practise is None and model_config.head.guesses_success and config.practice.steps:
            raise ValueError(
                "the model's gate guesses success (head.gate_guesses), which it learns in a "
                "simulator, and there is none here; set practice.steps to 0, or use a gate that "
                "guesses distance."
            )
        if (config.language.steps or config.policy.paraphrases) and not sentences:
            raise ValueError(
                "language.steps and policy.paraphrases ask for instructions and their meanings, "
                "and none are given; set them to 0 and to false."
            )
        self.training, self.validation = split_episodes(count, config.holdout, config.seed)
        if start is None:
            learned = self.frames.windows(self.training, 1)
            said = {text for kind in sentences for text in kind}
            start = new_model(model_config, self.frames, learned, said, config.seed, sight)
        self.start = start
        self.model = start.model.to(self.accelerator.device)

    def __call__(self) -> Path:
        """Train what is not trained yet; the model directory."""
        read_outs = None
        if not self.start.pretrained:
            self._train_vision()
            read_outs = self._train_language()
            open_gates(self.model, self.config.first_gates)
        torch.manual_seed(self.config.seed)
        training = MultiExitTraining(
            self.model, self.config.policy, self.start.pretrained,
            read_outs if self.config.policy.meaning_weight else None,
        )
        self._train_policy(training)
        gate = self.model.head.gate
        if gate is not None and len(self.model.config.exit_layers) > 1:
            self._practise(gate) if isinstance(gate, SuccessGate) else self._train_gate()
        folder = self.folder / "model"
        if self.accelerator.is_main_process:
            self._save(folder)
        self.accelerator.wait_for_everyone()
        return folder

    def _check_shared(self, frames: Path) -> None:
        """The first process reads the data for all; ValueError where this one sees nothing of it.
        """
        if not self.accelerator.is_main_process and not is_read(frames):
            raise ValueError(
                f"{frames} is not there: the first process has refused the data, or the run's "
                "folder is not on a file system that all machines share, as it must be."
            )

    def unknown_instructions(self) -> list[str]:
        """What was demonstrated and is none of `sentences`, where there are any: told as it is."""
        known = {text for kind in self.sentences for text in kind}
        return sorted(set(self.frames.instructions) - known) if known else []

    def unknown_words(self) -> list[str]:
        """Words of what was demonstrated that the model takes for one and the same."""
        prompts = self.start.prompts
        return sorted({w for text in self.frames.instructions for w in prompts.unknown_words(text)})

    def _train_vision(self) -> None:
        phase = self.config.vision
        if not phase.learns:
            return
        torch.manual_seed(self.config.seed)
        frames, preprocessor = self.frames, self.start.preprocessor
        regressor = StateRegressor(self.model, frames.states)
        batches = StateBatches(
            frames, self.training, preprocessor, phase.shift_px, *self.phases.rank_and_world
        )
        held = StateBatches(frames, self.validation, preprocessor)
        self.phases.train_part(
            "vision", phase, regressor, list(regressor.parameters()),
            lambda rng: batches.draw(rng, phase.batch_frames),
            lambda: held.draw(np.random.default_rng(0), 256),
        )

    def _train_language(self) -> nn.ModuleList | None:
        phase = self.config.language
        if phase.steps == 0:
            return None
        torch.manual_seed(self.config.seed)
        sentences = Sentences(
            self.sentences, self.start.prompts.encode, self.model.config.prompt.padding_token,
            self.config.holdout, self.config.seed,
        )
        classifier = MeaningClassifier(self.model, sentences.meanings)
        self.phases.train_part(
            "language", phase, classifier, classifier.learned(),
            lambda rng: sentences.draw(rng, phase.batch_sentences, *self.phases.rank_and_world),
            sentences.all_held, phase.precision,
        )
        return classifier.read_outs

    def _train_policy(self, training: MultiExitTraining) -> None:
        phase, look = self.config.policy, self._look()
        for name, steps, groups in (
            ("policy", phase.steps, training.groups(self.config.trained_parts)),
            ("heads", phase.head_steps, [training.head_group()]),
        ):
            self.phases.train(
                name, training, groups, *self._windows(look, phase.batch_windows),
                Schedule(steps, phase.warmup_steps, phase.cosine),
                phase.gradient_clip, phase.precision,
            )

    def _train_gate(self) -> None:
        phase = self.config.gate
        self.phases.train_part(
            "gate", phase, GateTraining(self.model), list(self.model.head.gate.parameters()),
            *self._windows(self._look(), phase.batch_windows),
            decayed=self.model.head.gate.decayed,
        )

    def _practise(self, gate: SuccessGate) -> None:
        phase, config, model = self.config.practice, self.config, self.folder / "practised"
        if phase.steps == 0:
            return
        with self.accelerator.main_process_first():
            if self.accelerator.is_main_process:
                self._save(model)
            outcomes = self.practise(
                model, self.folder / "practice",
                lambda done, all: self.report("practice episodes", done, all, {}),
            )
        learned, held = split(outcomes, config.holdout, config.seed)
        batches = OutcomeBatches(learned, *self.phases.rank_and_world)
        held_out = OutcomeBatches(held).draw(np.random.default_rng(0), len(held))
        self.phases.train_part(
            "practice", phase, PracticeTraining(gate), list(gate.parameters()),
            lambda rng: batches.draw(rng, phase.batch_answers),
            lambda: held_out, decayed=gate.decayed,
        )

    def _look(self) -> Look:
        """How batches see frames: as latents computed once, or as pictures if those may change."""
        frames, config = self.frames, self.config
        sees = {"tower", "resampler"} & set(config.trained_parts)
        if not any(config.policy.shift_px) and not sees:
            latents = self._latents()
            return lambda numbers, moves: latents[numbers]
        return lambda numbers, moves: self._pictures(shifted(frames.pictures[numbers], moves))

    def _latents(self) -> Tensor:
        """The frozen vision part's answer to every frame, computed once."""
        file = self.folder / "latents.npy"
        with self.accelerator.main_process_first():
            if not file.exists():
                latents = cache_latents(self.model.eval(), self.frames, self.start.preprocessor)
                np.save(file.with_suffix(".unfinished.npy"), latents.numpy())
                file.with_suffix(".unfinished.npy").rename(file)
                self.report("latents", 1, 1, {})
        with reading(file):
            return torch.from_numpy(np.load(file))

    def _windows(self, look: Look, count: int) -> tuple[Draw, Held]:
        """Batches of `count` windows to learn from; and one, always the same, to validate on."""
        batches = self._batches(look, self.training)
        held = self._batches(look, self.validation, whole=True)
        return (
            lambda rng: (batches.draw(rng, count),),
            lambda: (held.draw(np.random.default_rng(0), count),),
        )

    def _batches(
        self, look: Look, episodes: np.ndarray, whole: bool = False
    ) -> WindowBatches:
        """Batches of windows of `episodes`; whole: not this process's share, but all of them."""
        frames, phase, config = self.frames, self.config.policy, self.model.config
        sensed = config.proprioception
        return WindowBatches(
            frames,
            look,
            self._instructions(phase.paraphrases and not whole),
            episodes,
            phase.window,
            phase.episodes_alike,
            len(config.exit_layers),
            None if sensed is None else scaled(sensed, frames.proprioception),
            (0, 0) if whole else phase.shift_px,
            *((0, 1) if whole else self.phases.rank_and_world),
        )

    def _instructions(self, paraphrases: bool) -> Instructions:
        texts = self.frames.instructions
        return Instructions(
            texts,
            self.start.prompts.encode,
            self.model.config.prompt.padding_token,
            paraphrases_of(set(texts), self.sentences) if paraphrases else {},
            meanings_of(self.sentences),
        )

    def _save(self, folder: Path) -> None:
        save_model(folder, self.model, self.start.preprocessor, self.start.prompts)

    def _pictures(self, pictures: np.ndarray) -> Tensor:
        normalised = self.start.preprocessor.normalise(pictures)
        return torch.from_numpy(normalised).to(self.accelerator.device)


def _layout(config: DeerConfig) -> tuple[str, ...]:
    return () if config.proprioception is None else config.proprioception.layout

"""A whole training run in a folder: frames, vision phase, policy phases, model directory.

Every part leaves a file behind and is skipped or resumed where the file is there. With several
processes all do the same on their share of every batch; the first of them writes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs
from torch import Tensor, nn

from deer_ros.checkpoint import save_model
from deer_ros.data.episode import Episode
from deer_ros.data.outcomes import Outcomes
from deer_ros.model.action_head import SuccessGate
from deer_ros.model.config import DeerConfig
from deer_ros.model.proprioception import scaled
from deer_ros.training.config import TrainingConfig
from deer_ros.training.dataset import Needs, OnBad, load_frames, split_episodes
from deer_ros.training.evaluation import Evaluate, Evaluations
from deer_ros.training.gate_phase import GateTraining
from deer_ros.training.policy_phase import MultiExitTraining
from deer_ros.training.practice_phase import OutcomeBatches, PracticeTraining, split
from deer_ros.training.shift import cuts_of, shifted
from deer_ros.training.start import model_from, new_model
from deer_ros.training.trainer import Phase, Schedule
from deer_ros.training.vision_phase import StateRegressor, cache_latents
from deer_ros.training.windows import Look, WindowBatches

# The others wait while the first process reads bags, encodes pictures or evaluates.
LONGEST_WAIT = timedelta(hours=12)

Practise = Callable[[Path, Path, Callable[[int, int], None]], Outcomes]
"""Model directory, and a folder to keep and find blocks in -> what came of its exits in closed
loop; hears of every block's end."""
Report = Callable[[str, int, int, dict[str, float]], None]


class TrainingRun:
    """One run in `folder`, from what `episodes` yields; `report` hears of every logged step.

    on_bad: hears of episodes that cannot be trained on, which are left out then; None: they are
    refused. evaluate: what `config.evaluation` asks for now and then. practise: what
    `config.practice` asks for, needed where the model's gate guesses success.
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
        practise: Practise | None = None,
    ) -> None:
        self.config, self.folder, self.report = config, folder, report
        self.practise = practise
        self.accelerator = Accelerator(
            kwargs_handlers=[InitProcessGroupKwargs(timeout=LONGEST_WAIT)]
        )
        self._check_processes()
        folder.mkdir(parents=True, exist_ok=True)
        start = None if config.start_from is None else model_from(config.start_from)
        model_config = config.model if start is None else start.model.config
        self.evaluations = Evaluations(
            config.evaluation, model_config.exit_layers, folder, evaluate
        )
        layout = _layout(model_config)
        size = model_config.vision.image_size
        needs = Needs(1 if config.policy.pad_short_episodes else config.policy.window, layout)
        with self.accelerator.main_process_first():
            self.frames = load_frames(episodes, size, folder / "frames", needs, on_bad)
        count = len(self.frames.lengths)
        if count < 2:
            raise ValueError(f"there are {count} episodes; training and validation need two.")
        if practise is None and model_config.head.guesses_success and config.practice.steps:
            raise ValueError(
                "the model's gate guesses success (head.gate_guesses), which it learns in a "
                "simulator, and there is none here; set practice.steps to 0, or use a gate that "
                "guesses distance."
            )
        self.training, self.validation = split_episodes(count, config.holdout, config.seed)
        if start is None:
            learned = self.frames.windows(self.training, 1)
            start = new_model(model_config, self.frames, learned, config.seed)
        self.start = start
        self.model = start.model.to(self.accelerator.device)

    def __call__(self) -> Path:
        """Train what is not trained yet; the model directory."""
        if not self.start.pretrained:
            self._train_vision()
        torch.manual_seed(self.config.seed)
        training = MultiExitTraining(self.model, self.config.policy, self.start.pretrained)
        self._train_policy(training)
        gate = self.model.head.gate
        if gate is not None and len(self.model.config.exit_layers) > 1:
            self._practise(gate) if isinstance(gate, SuccessGate) else self._train_gate()
        folder = self.folder / "model"
        if self.accelerator.is_main_process:
            self._save(folder)
        self.accelerator.wait_for_everyone()
        return folder

    def _train_vision(self) -> None:
        phase, frames = self.config.vision, self.frames
        if phase.steps == 0:
            return
        torch.manual_seed(self.config.seed)
        regressor = StateRegressor(self.model, frames.states)
        states = torch.from_numpy(frames.states)
        chosen = frames.windows(self.training, 1)
        held = frames.windows(self.validation, 1)
        batch = min(phase.batch_frames, len(chosen))
        shift_px = (phase.shift_px, phase.shift_px)
        rank, world = self.accelerator.process_index, self.accelerator.num_processes

        def draw(rng: np.random.Generator) -> tuple[Tensor, Tensor, float]:
            index = np.sort(rng.choice(chosen, size=batch, replace=False))
            cuts = cuts_of(rng, (batch,), shift_px)[rank::world]
            mine = index[rank::world]
            pictures = self._pictures(shifted(frames.pictures[mine], cuts, shift_px))
            return pictures, self._here(states[mine]), len(mine) * world / batch

        def validate() -> dict[str, Tensor]:
            rng = np.random.default_rng(0)
            index = np.sort(rng.choice(held, size=min(256, len(held)), replace=False))
            return regressor(self._pictures(frames.pictures[index]), self._here(states[index]))

        groups = [
            {
                "params": list(regressor.parameters()),
                "lr": phase.learning_rate,
                "weight_decay": phase.weight_decay,
            }
        ]
        schedule = Schedule(phase.steps, phase.warmup_steps, cosine=True)
        self._train("vision", regressor, groups, draw, schedule, validate, 1.0)

    def _train_policy(self, training: MultiExitTraining) -> None:
        phase, look = self.config.policy, self._look()
        joint = training.groups(self.config.trained_parts)
        frames = phase.batch_windows * phase.window
        for name, steps, window, count, groups in (
            ("frames", phase.frame_steps, 1, frames, joint),
            ("policy", phase.steps, phase.window, phase.batch_windows, joint),
            ("heads", phase.head_steps, phase.window, phase.batch_windows,
             [training.head_group()]),
        ):
            batches = self._batches(look, self.training, window)
            held = self._batches(look, self.validation, window, whole=True)

            def draw(rng: np.random.Generator) -> tuple[Any]:
                return (self._here(batches.draw(rng, count)),)

            def validate() -> dict[str, Tensor]:
                return training(self._here(held.draw(np.random.default_rng(0), count)))

            schedule = Schedule(steps, phase.warmup_steps, phase.cosine)
            self._train(
                name, training, groups, draw, schedule, validate, phase.gradient_clip,
                getattr(torch, phase.precision),
            )

    def _train_gate(self) -> None:
        phase, look, window = self.config.gate, self._look(), self.config.policy.window
        batches = self._batches(look, self.training, window)
        held = self._batches(look, self.validation, window, whole=True)
        training = GateTraining(self.model)

        def draw(rng: np.random.Generator) -> tuple[Any]:
            return (self._here(batches.draw(rng, phase.batch_windows)),)

        def validate() -> dict[str, Tensor]:
            return training(self._here(held.draw(np.random.default_rng(0), phase.batch_windows)))

        groups = [training.group(phase.learning_rate, phase.weight_decay)]
        schedule = Schedule(phase.steps, phase.warmup_steps, cosine=True)
        self._train("gate", training, groups, draw, schedule, validate, 1.0)

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
        rank, world = self.accelerator.process_index, self.accelerator.num_processes
        batches, all_held = OutcomeBatches(learned, rank, world), OutcomeBatches(held).all()
        training = PracticeTraining(gate)

        def draw(rng: np.random.Generator) -> tuple[Any, ...]:
            return self._all_here(batches.draw(rng, phase.batch_answers))

        def validate() -> dict[str, Tensor]:
            return training(*self._all_here(all_held))

        groups = [training.group(phase.learning_rate, phase.weight_decay)]
        schedule = Schedule(phase.steps, phase.warmup_steps, cosine=True)
        self._train("practice", training, groups, draw, schedule, validate, 1.0)

    def _look(self) -> Look:
        """How batches see frames: as latents computed once, or as pictures if those may change."""
        frames, shift_px = self.frames, self.config.policy.shift_px
        if not any(shift_px) and not {"tower", "resampler"} & set(self.config.trained_parts):
            latents = self._latents()
            return lambda numbers, cuts: latents[numbers]
        return lambda numbers, cuts: self._pictures(
            shifted(frames.pictures[numbers], cuts, shift_px)
        )

    def _latents(self) -> Tensor:
        """The frozen vision part's answer to every frame, computed once."""
        file = self.folder / "latents.npy"
        with self.accelerator.main_process_first():
            if not file.exists():
                latents = cache_latents(self.model.eval(), self.frames, self.start.preprocessor)
                np.save(file.with_suffix(".unfinished.npy"), latents.numpy())
                file.with_suffix(".unfinished.npy").rename(file)
                self.report("latents", 1, 1, {})
        return torch.from_numpy(np.load(file))

    def _batches(
        self, look: Look, episodes: np.ndarray, window: int, whole: bool = False
    ) -> WindowBatches:
        """Batches of windows of `episodes`; whole: not this process's share, but all of them."""
        frames, phase, config = self.frames, self.config.policy, self.model.config
        encode = self.start.prompts.encode
        sensed = config.proprioception
        return WindowBatches(
            frames,
            look,
            {text: encode(text) for text in set(frames.instructions)},
            episodes,
            window,
            config.prompt.padding_token,
            phase.episodes_alike,
            len(config.exit_layers),
            None if sensed is None else scaled(sensed, frames.proprioception),
            (0, 0) if whole else phase.shift_px,
            0 if whole else self.accelerator.process_index,
            1 if whole else self.accelerator.num_processes,
        )

    def _train(
        self,
        name: str,
        module: nn.Module,
        groups: list[dict],
        draw: Callable[[np.random.Generator], tuple[Any, ...]],
        schedule: Schedule,
        validate: Callable[[], dict[str, Tensor]],
        gradient_clip: float,
        precision: torch.dtype = torch.float32,
    ) -> None:
        config = self.config
        phase = Phase(
            module, groups, draw, schedule, self.folder / f"{name}.pt", config.seed,
            self.accelerator, gradient_clip, config.checkpoint_every_steps, precision,
        )
        for step, figures in phase:
            if not self.accelerator.is_main_process:
                continue
            if step % config.log_every_steps == 0 or step == schedule.steps:
                with torch.no_grad():
                    module.eval()
                    held = {f"validation_{k}": float(v) for k, v in validate().items()}
                    module.train()
                held["validation_total"] = sum(held.values())
                self.report(name, step, schedule.steps, {**figures, **held})
            if name != "vision" and self.evaluations.due(step, schedule.steps):
                found = self.evaluations.run(name, step, self._save)
                named = {f"evaluation_{key}": value for key, value in found.items()}
                self.report(name, step, schedule.steps, named)

    def _save(self, folder: Path) -> None:
        save_model(folder, self.model, self.start.preprocessor, self.start.prompts)

    def _pictures(self, pictures: np.ndarray) -> Tensor:
        return self._here(torch.from_numpy(self.start.preprocessor.normalise(pictures)))

    def _here(self, values: Any) -> Any:
        return values.to(self.accelerator.device)

    def _all_here(self, values: Sequence[Any]) -> tuple[Any, ...]:
        return tuple(self._here(v) if isinstance(v, Tensor) else v for v in values)

    def _check_processes(self) -> None:
        config, world = self.config, self.accelerator.num_processes
        least = min(
            config.policy.batch_windows, config.gate.batch_windows, config.vision.batch_frames
        )
        if least < world:
            raise ValueError(
                f"a batch of {least} cannot be shared by {world} processes; raise "
                "policy.batch_windows and vision.batch_frames, or start fewer."
            )


def _layout(config: DeerConfig) -> tuple[str, ...]:
    return () if config.proprioception is None else config.proprioception.layout

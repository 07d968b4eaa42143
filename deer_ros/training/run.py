"""A whole training run in a folder: frames, vision phase, policy phases, model directory.

Every part leaves a file behind and is skipped or resumed where the file is there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from deer_ros.checkpoint import save_model
from deer_ros.data.episode import Episode
from deer_ros.model.deer import DeerModel
from deer_ros.model.preprocessing import Preprocessor
from deer_ros.model.prompt import PromptEncoder, word_tokenizer
from deer_ros.training.config import PolicyPhase, TrainingConfig
from deer_ros.training.dataset import load_frames, split_episodes
from deer_ros.training.policy_phase import MultiExitTraining, WindowBatches
from deer_ros.training.sampling import both_samplings
from deer_ros.training.trainer import Phase, Schedule
from deer_ros.training.vision_phase import StateRegressor, cache_latents, shifted

# Small towers learn to see wherever the two means lie; these centre the pictures.
MEAN = (0.5, 0.5, 0.5)
STD = (0.25, 0.25, 0.25)

Report = Callable[[str, int, int, dict[str, float]], None]


class TrainingRun:
    """One run in `folder`, from what `episodes` yields; `report` hears of every step."""

    def __init__(
        self, config: TrainingConfig, episodes: Iterable[Episode], folder: Path, report: Report
    ) -> None:
        self.folder, self.report = folder, report
        folder.mkdir(parents=True, exist_ok=True)
        size = config.model.vision.image_size
        self.frames = load_frames(episodes, size, folder / "frames")
        tokenizer, prompt = word_tokenizer(sorted(set(self.frames.instructions)))
        language = config.model.language
        if len(tokenizer) > language.vocabulary:
            raise ValueError(
                f"model.language.vocabulary is {language.vocabulary}; the instructions make "
                f"{len(tokenizer)} tokens."
            )
        self.config = config
        self.model_config = config.model.replace(prompt=prompt)
        self.preprocessor = Preprocessor(size, MEAN, STD)
        self.prompts = PromptEncoder(tokenizer, prompt)
        count = len(self.frames.lengths)
        if count < 2:
            raise ValueError(f"there are {count} episodes; training and validation need two.")
        self.training, self.validation = split_episodes(count, config.holdout, config.seed)
        torch.manual_seed(config.seed)
        self.model = DeerModel(self.model_config)
        _open_gates(self.model)

    def __call__(self) -> Path:
        """Train what is not trained yet; the model directory."""
        self._train_vision()
        latents = self._latents()
        torch.manual_seed(self.config.seed)
        training = MultiExitTraining(self.model, self.config.policy)
        self._train_policy(training, latents)
        folder = self.folder / "model"
        save_model(folder, self.model, self.preprocessor, self.prompts)
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

        def loss(rng: np.random.Generator) -> dict[str, Tensor]:
            index = np.sort(rng.choice(chosen, size=batch, replace=False))
            pictures = shifted(frames.pictures[index], rng, phase.shift_px)
            return {"state": regressor(self._tensor(pictures), states[index])}

        def validate() -> dict[str, float]:
            rng = np.random.default_rng(0)
            index = np.sort(rng.choice(held, size=min(256, len(held)), replace=False))
            pictures = self._tensor(frames.pictures[index])
            return {"state": float(regressor(pictures, states[index]))}

        groups = [
            {
                "params": list(regressor.parameters()),
                "lr": phase.learning_rate,
                "weight_decay": phase.weight_decay,
            }
        ]
        schedule = Schedule(phase.steps, phase.warmup_steps, cosine=True)
        self._train("vision", regressor, groups, loss, schedule, validate, 1.0)

    def _tensor(self, pictures: np.ndarray) -> Tensor:
        return torch.from_numpy(self.preprocessor.normalise(pictures))

    def _latents(self) -> Tensor:
        """The frozen vision part's answer to every frame, computed once."""
        file = self.folder / "latents.npy"
        if not file.exists():
            latents = cache_latents(self.model.eval(), self.frames, self.preprocessor)
            np.save(file.with_suffix(".unfinished.npy"), latents.numpy())
            file.with_suffix(".unfinished.npy").rename(file)
            self.report("latents", 1, 1, {})
        return torch.from_numpy(np.load(file))

    def _train_policy(self, training: MultiExitTraining, latents: Tensor) -> None:
        phase = self.config.policy
        for part in (self.model.tower, self.model.resampler):
            part.requires_grad_(False)
        batches = self._batches(latents, self.training, phase)
        held = self._batches(latents, self.validation, phase)

        def loss_over(
            source: WindowBatches, rng: np.random.Generator, backbone: bool
        ) -> dict[str, Tensor]:
            batch = source.draw(rng, phase.batch_windows)
            with torch.set_grad_enabled(backbone and torch.is_grad_enabled()):
                prompt = self.model.read(batch.ids, batch.masks)
                windows = phase.batch_windows
                features = training.features(prompt, batch.latents, batch.masks, windows)
            exits, _, steps = features.shape[:3]
            samplings = both_samplings(rng, windows, steps, exits)
            return training.losses(features, batch.actions, samplings, batch.valid)

        def validate() -> dict[str, float]:
            losses = loss_over(held, np.random.default_rng(0), True)
            return {name: float(value) for name, value in losses.items()}

        for name, steps, backbone in (
            ("policy", phase.steps, True), ("heads", phase.head_steps, False)
        ):
            schedule = Schedule(steps, phase.warmup_steps, phase.cosine)
            groups = training.groups() if backbone else training.groups()[2:]
            self._train(
                name, training, groups, lambda rng, b=backbone: loss_over(batches, rng, b),
                schedule, validate, phase.gradient_clip,
            )

    def _batches(self, latents: Tensor, episodes: np.ndarray, phase: PolicyPhase) -> WindowBatches:
        frames = self.frames
        prompts = {text: self.prompts.encode(text) for text in set(frames.instructions)}
        padding = self.model_config.prompt.padding_token
        return WindowBatches(
            frames, latents, prompts, episodes, phase.window, padding, phase.episodes_alike
        )

    def _train(
        self,
        name: str,
        module: nn.Module,
        groups: list[dict],
        loss: Callable[[np.random.Generator], dict[str, Tensor]],
        schedule: Schedule,
        validate: Callable[[], dict[str, float]],
        gradient_clip: float,
    ) -> None:
        config = self.config
        phase = Phase(
            module, groups, loss, schedule, self.folder / f"{name}.pt", config.seed, gradient_clip,
            config.checkpoint_every_steps,
        )
        for step, losses in phase:
            if step % config.log_every_steps == 0 or step == schedule.steps:
                with torch.no_grad():
                    module.eval()
                    held = {f"validation_{k}": v for k, v in validate().items()}
                    module.train()
                self.report(name, step, schedule.steps, {**losses, **held})


def _open_gates(model: DeerModel) -> None:
    """Let a model trained from nothing see the pictures from its first step.

    Closed gates protect a language model that knows something already.
    """
    for layer in model.layers:
        if layer.cross_attention is not None:
            nn.init.ones_(layer.cross_attention.attention_gate)
            nn.init.ones_(layer.cross_attention.feed_forward_gate)

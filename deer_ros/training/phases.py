"""Runs one phase of a training run after another: reported, validated, evaluated in between."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from deer_ros.training.config import (
    GatePhase,
    LanguagePhase,
    PracticePhase,
    TrainingConfig,
    VisionPhase,
)
from deer_ros.training.evaluation import Evaluations, Save
from deer_ros.training.trainer import Phase, Schedule
from deer_ros.training.windows import Batch

Report = Callable[[str, int, int, dict[str, float]], None]
"""Hears of a phase's step, of so many, and its figures."""
Draw = Callable[[np.random.Generator], Sequence[Any]]
"""This process's share of a batch: arguments of the module that learns."""
Held = Callable[[], Sequence[Any]]
"""The same of what is not learned from, for all processes."""

UNEVALUATED = {"vision", "language"}
"""Phases after which there is no policy yet."""


class PhaseRunner:
    """Phases of the run in `folder`; the first of several processes reports and evaluates."""

    def __init__(
        self,
        config: TrainingConfig,
        folder: Path,
        accelerator: Accelerator,
        report: Report,
        evaluations: Evaluations,
        save: Save,
    ) -> None:
        self.config, self.folder, self.accelerator = config, folder, accelerator
        self.report, self.evaluations, self.save = report, evaluations, save

    @property
    def rank_and_world(self) -> tuple[int, int]:
        """Number of this process, and how many there are."""
        return self.accelerator.process_index, self.accelerator.num_processes

    def train_part(
        self,
        name: str,
        phase: VisionPhase | LanguagePhase | GatePhase | PracticePhase,
        module: nn.Module,
        learned: list[nn.Parameter],
        draw: Draw,
        held: Held,
        precision: str = "float32",
        decayed: list[nn.Parameter] | None = None,
    ) -> None:
        """Train one part of the model by itself, all else frozen.

        decayed: of the learned ones, those that weight decay is for; None: all.
        """
        chosen = {id(parameter) for parameter in (learned if decayed is None else decayed)}
        groups = [
            {
                "params": [p for p in learned if (id(p) in chosen) == decays],
                "lr": phase.learning_rate,
                "weight_decay": phase.weight_decay if decays else 0.0,
            }
            for decays in ((True,) if decayed is None else (True, False))
        ]
        schedule = Schedule(phase.steps, phase.warmup_steps, cosine=True)
        self.train(name, module, groups, draw, held, schedule, precision=precision)

    def train(
        self,
        name: str,
        module: nn.Module,
        groups: list[dict],
        draw: Draw,
        held: Held,
        schedule: Schedule,
        gradient_clip: float = 1.0,
        precision: str = "float32",
    ) -> None:
        """Train the parameters in `groups`, or go on from the checkpoint that is named `name`."""
        config = self.config
        phase = Phase(
            module, groups, lambda rng: self._here(draw(rng)), schedule,
            self.folder / f"{name}.pt", (config.seed, zlib.crc32(name.encode())),
            self.accelerator, gradient_clip,
            config.checkpoint_every_steps, getattr(torch, precision),
        )
        for step, figures in phase:
            if not self.accelerator.is_main_process:
                continue
            if step % config.log_every_steps == 0 or step == schedule.steps:
                losses = self._validate(module, held)
                self.report(name, step, schedule.steps, {**figures, **losses})
            if name not in UNEVALUATED and self.evaluations.due(step, schedule.steps):
                found = self.evaluations.run(name, step, self.save)
                named = {f"evaluation_{key}": value for key, value in found.items()}
                self.report(name, step, schedule.steps, named)

    @torch.no_grad()
    def _validate(self, module: nn.Module, held: Held) -> dict[str, float]:
        module.eval()
        losses = {f"validation_{k}": float(v) for k, v in module(*self._here(held())).items()}
        module.train()
        return {**losses, "validation_total": sum(losses.values())}

    def _here(self, values: Sequence[Any]) -> tuple[Any, ...]:
        device = self.accelerator.device
        return tuple(v.to(device) if isinstance(v, Tensor | Batch) else v for v in values)

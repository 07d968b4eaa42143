"""One phase of training: steps, schedule, checkpoints. Knows nothing of what is learned.

Everything random in a step is drawn from (seed, step), so a run that was killed and resumed is the
run that was not.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

Losses = dict[str, Tensor]


@dataclass(frozen=True)
class Schedule:
    """Linear warm-up, then constant or falling along a cosine to a twentieth."""

    steps: int
    warmup_steps: int
    cosine: bool

    def factor(self, step: int) -> float:
        """Learning rate at `step`, as a share of the full one."""
        if step < self.warmup_steps:
            return (step + 1) / self.warmup_steps
        if not self.cosine:
            return 1.0
        done = (step - self.warmup_steps) / max(1, self.steps - self.warmup_steps)
        return 0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


class Phase:
    """Trains `module` with `loss_of(rng) -> losses`, whose sum is minimised.

    Iterating yields (step, losses as floats) after every step and saves a checkpoint every
    `checkpoint_every_steps`; an existing checkpoint is resumed.
    """

    def __init__(
        self,
        module: nn.Module,
        groups: list[dict],
        loss_of: Callable[[np.random.Generator], Losses],
        schedule: Schedule,
        checkpoint: Path,
        seed: int,
        gradient_clip: float = 1.0,
        checkpoint_every_steps: int = 100,
    ) -> None:
        self.module = module
        self.loss_of = loss_of
        self.schedule = schedule
        self.checkpoint = checkpoint
        self.seed = seed
        self.gradient_clip = gradient_clip
        self.every = checkpoint_every_steps
        self.parameters = [p for group in groups for p in group["params"]]
        self.optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.99))
        self.rates = [group["lr"] for group in self.optimizer.param_groups]
        self.step = 0
        if checkpoint.exists():
            self._resume()

    def __iter__(self) -> Iterator[tuple[int, dict[str, float]]]:
        self.module.train()
        while self.step < self.schedule.steps:
            losses = self._train_step()
            self.step += 1
            if self.step % self.every == 0 or self.step == self.schedule.steps:
                self.save()
            yield self.step, losses
        self.module.eval()

    def save(self) -> None:
        """Write the checkpoint; the earlier one stays until the new one is whole."""
        unfinished = self.checkpoint.with_suffix(".unfinished")
        state = {
            "step": self.step,
            "module": self.module.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }
        torch.save(state, unfinished)
        os.replace(unfinished, self.checkpoint)

    def _resume(self) -> None:
        state = torch.load(self.checkpoint, weights_only=True)
        self.module.load_state_dict(state["module"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step = state["step"]

    def _train_step(self) -> dict[str, float]:
        torch.manual_seed(hash((self.seed, self.step)) & 0xFFFFFFFF)
        factor = self.schedule.factor(self.step)
        for group, rate in zip(self.optimizer.param_groups, self.rates):
            group["lr"] = rate * factor
        losses = self.loss_of(np.random.default_rng((self.seed, self.step)))
        total = torch.stack(list(losses.values())).sum()
        self.optimizer.zero_grad(set_to_none=True)
        total.backward()
        norm = nn.utils.clip_grad_norm_(self.parameters, self.gradient_clip)
        if not math.isfinite(float(norm)):
            raise ArithmeticError(
                f"the gradient at step {self.step} is not finite; lower the learning rate. The "
                f"last checkpoint is {self.checkpoint}."
            )
        self.optimizer.step()
        values = {name: float(value.detach()) for name, value in losses.items()}
        return {**values, "total": float(total.detach()), "gradient_norm": float(norm)}

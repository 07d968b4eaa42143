"""One phase of training: steps, schedule, checkpoints. Knows nothing of what is learned.

Everything random in a step is drawn from (seed, phase, step), so a run that was killed and resumed
is the run that was not. Several processes draw the same batch and take their share of it, so that
their number changes how fast a model learns, not what.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn

BETAS = 0.9, 0.99
"""Of AdamW, where a group of parameters has none of its own."""


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
    """Trains the parameters in `groups`, and no others of `module`.

    draw(rng) gives the arguments of `module`, whose answer is a dictionary of losses; their sum is
    minimised. With several processes, the mean of their losses must be the whole batch's.
    Iterating yields (step, figures of the step) after every step. A checkpoint follows every
    `checkpoint_every_steps`; one that is there is resumed. precision: of what is computed from the
    parameters, which stay float32. place: numbers that no other phase of the run has, nor a run
    with another seed.
    """

    def __init__(
        self,
        module: nn.Module,
        groups: list[dict],
        draw: Callable[[np.random.Generator], tuple[Any, ...]],
        schedule: Schedule,
        checkpoint: Path,
        place: tuple[int, ...],
        accelerator: Accelerator,
        gradient_clip: float = 1.0,
        checkpoint_every_steps: int = 100,
        precision: torch.dtype = torch.float32,
    ) -> None:
        self.module = module.to(accelerator.device)
        self.draw = draw
        self.schedule = schedule
        self.checkpoint = checkpoint
        self.place = place
        self.accelerator = accelerator
        self.gradient_clip = gradient_clip
        self.every = checkpoint_every_steps
        self.precision = precision
        self.parameters = [p for group in groups for p in group["params"]]
        module.requires_grad_(False)
        for parameter in self.parameters:
            parameter.requires_grad_(True)
        self.trained = {name for name, p in module.named_parameters() if p.requires_grad}
        # Fused: a small model has hundreds of small tensors, and each would be some ten calls.
        optimizer = torch.optim.AdamW(groups, betas=BETAS, fused=True)
        self.rates = [group["lr"] for group in optimizer.param_groups]
        self.step = 0
        if checkpoint.exists():
            self._resume(optimizer)
        self._check_together()
        self._wrapped, self.optimizer = accelerator.prepare(module, optimizer)

    def __iter__(self) -> Iterator[tuple[int, dict[str, float]]]:
        self.module.train()
        while self.step < self.schedule.steps:
            figures = self._train_step()
            self.step += 1
            yield self.step, figures
            # After whoever hears of the step: what a kill cuts short there is done again.
            if self.step % self.every == 0 or self.step == self.schedule.steps:
                self.save()
        self.module.eval()
        self.accelerator.unwrap_model(self._wrapped, keep_fp32_wrapper=False)
        self.accelerator.free_memory()

    def save(self) -> None:
        """Write the checkpoint; the earlier one stays until the new one is whole."""
        if not self.accelerator.is_main_process:
            return
        state = {
            "step": self.step,
            "module": {n: t for n, t in self.module.state_dict().items() if n in self.trained},
            "optimizer": self.optimizer.state_dict(),
        }
        if self.accelerator.scaler is not None:
            state["scaler"] = self.accelerator.scaler.state_dict()
        unfinished = self.checkpoint.with_suffix(".unfinished")
        torch.save(state, unfinished)
        os.replace(unfinished, self.checkpoint)

    def _check_together(self) -> None:
        here = torch.tensor([self.step], device=self.accelerator.device)
        steps = sorted(set(self.accelerator.gather(here).tolist()))
        if len(steps) > 1:
            raise ValueError(
                f"some processes find the checkpoint of step {steps[-1]}, others that of step "
                f"{steps[0]} or none: {self.checkpoint.parent} must be on a file system that all "
                "machines share."
            )

    def _resume(self, optimizer: torch.optim.Optimizer) -> None:
        state = _read(self.checkpoint)
        _check_fits(state["module"], self.module, self.trained, self.checkpoint)
        self.module.load_state_dict(state["module"], strict=False)
        optimizer.load_state_dict(state["optimizer"])
        if self.accelerator.scaler is not None and "scaler" in state:
            self.accelerator.scaler.load_state_dict(state["scaler"])
        self.step = state["step"]

    def _train_step(self) -> dict[str, float]:
        accelerator, place = self.accelerator, (*self.place, self.step)
        rank = accelerator.process_index
        # Dropout differs between processes, as between the parts of one batch.
        torch.manual_seed(hash((*place, rank) if rank else place) & 0xFFFFFFFF)
        rate = self.schedule.factor(self.step)
        for group, full_rate in zip(self.optimizer.param_groups, self.rates):
            group["lr"] = full_rate * rate
        drawn = self.draw(np.random.default_rng(place))
        lower = self.precision != torch.float32
        # Where accelerate was told of a precision, that one holds.
        with torch.autocast(accelerator.device.type, self.precision) if lower else nullcontext():
            losses = self._wrapped(*drawn)
        total = torch.stack(list(losses.values())).sum()
        self.optimizer.zero_grad(set_to_none=True)
        accelerator.backward(total)
        norm = accelerator.clip_grad_norm_(self.parameters, self.gradient_clip)
        # In half precision the scaler leaves out such a step by itself.
        if accelerator.scaler is None and not math.isfinite(float(norm)):
            last = f" The last checkpoint is {self.checkpoint}." if self.checkpoint.exists() else ""
            raise ArithmeticError(
                f"the gradient at step {self.step} is not finite; begin anew with a lower learning "
                f"rate and another --out.{last}"
            )
        self.optimizer.step()
        values = torch.stack([*losses.values(), total]).detach()
        *each, whole = accelerator.reduce(values, "mean").tolist()
        return {
            **dict(zip(losses, each)),
            "total": whole,
            "gradient_norm": float(norm),
            "learning_rate": rate * self.rates[0],
        }


def _read(file: Path) -> dict[str, Any]:
    """A checkpoint. ValueError with what to do where it is damaged."""
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
        if state.keys() >= {"step", "module", "optimizer"}:
            return state
        problem = "something is missing"
    except Exception as error:  # broken files raise errors of many kinds
        problem = type(error).__name__
    raise ValueError(
        f"{file} cannot be read as a checkpoint of training ({problem}); it is damaged or of "
        "something else. Remove it, and its phase begins anew."
    )


def _check_fits(
    tensors: dict[str, Tensor], module: nn.Module, needed: set[str], file: Path
) -> None:
    """ValueError where a checkpoint's tensors are not those of `module`."""
    own = module.state_dict()
    strange = {n for n, t in tensors.items() if n not in own or own[n].shape != t.shape}
    strange |= needed - tensors.keys()
    if strange:
        raise ValueError(
            f"{file} is of another model: {len(strange)} tensors differ, as {min(strange)}. Go on "
            "with the configuration that it was begun with, or use another run folder."
        )

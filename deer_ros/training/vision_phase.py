"""The tower and the resampler learn what the simulator knows: where everything is.

Small towers have no pretraining to start from. Regressing the simulator's state from pictures gives
them one; the state itself never reaches the policy.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from deer_ros.model.deer import DeerModel
from deer_ros.model.preprocessing import Preprocessor
from deer_ros.training.dataset import Frames
from deer_ros.training.shift import moves_of, shifted


class StateRegressor(nn.Module):
    """Tower, resampler and a small read-out of the normalised state."""

    def __init__(self, model: DeerModel, states: np.ndarray) -> None:
        super().__init__()
        self.tower, self.resampler = model.tower, model.resampler
        self.resample = model.resample
        mean, std = states.mean(axis=0), states.std(axis=0)
        self.varies = varying(states)
        self.register_buffer("mean", torch.from_numpy(mean[self.varies]))
        self.register_buffer("std", torch.from_numpy(std[self.varies]))
        resampler = model.config.resampler
        features = 2 * resampler.latents * model.config.vision.width
        self.read_out = nn.Sequential(
            nn.Linear(features, 256), nn.SiLU(), nn.Linear(256, len(self.varies))
        )

    def forward(self, pictures: Tensor, states: Tensor, share: float = 1.0) -> dict[str, Tensor]:
        """Smooth absolute error of the normalised values, a scalar, times `share`."""
        predicted = self.read_out(self.resample(self.tower(pictures)).flatten(1))
        wanted = (states[:, self.varies] - self.mean) / self.std
        # The clip keeps a rare far-off object from ruling the batch.
        return {"state": share * nn.functional.smooth_l1_loss(predicted, wanted.clamp(-4, 4))}


def varying(states: np.ndarray) -> np.ndarray:
    """Which of the states' values vary, int64. ValueError where none do."""
    found = np.flatnonzero(states.std(axis=0) > 1e-3)
    if not len(found):
        raise ValueError(
            "the demonstrations carry no simulator state that varies, from which the vision phase "
            "learns; `deer collect` records it. Set vision.steps to 0: tower and resampler learn "
            "with the policy then, as in config/train/dataset.yaml."
        )
    return found


class StateBatches:
    """Pictures of single frames and the state they show; `rank` of `world` gets its share."""

    def __init__(
        self,
        frames: Frames,
        episodes: np.ndarray,
        preprocessor: Preprocessor,
        shift_px: int = 0,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.frames, self.preprocessor = frames, preprocessor
        self.chosen = frames.windows(episodes, 1)
        self.shift_px = (shift_px, shift_px)
        self.rank, self.world = rank, world

    def draw(self, rng: np.random.Generator, count: int) -> tuple[Tensor, Tensor, float]:
        """Arguments of `StateRegressor`: `count` frames of all processes together, if so many."""
        count = min(count, len(self.chosen))
        index = np.sort(rng.choice(self.chosen, size=count, replace=False))
        moves = moves_of(rng, (count,), self.shift_px)[self.rank :: self.world]
        mine = index[self.rank :: self.world]
        pictures = self.preprocessor.normalise(shifted(self.frames.pictures[mine], moves))
        states = torch.from_numpy(self.frames.states[mine])
        return torch.from_numpy(pictures), states, len(mine) * self.world / count


@torch.no_grad()
def cache_latents(
    model: DeerModel, frames: Frames, preprocessor: Preprocessor, batch: int = 128
) -> Tensor:
    """Latents of all frames, (N, 2 n, W) float32, from the frozen tower and resampler."""
    parts = []
    device = next(model.parameters()).device
    for start in range(0, len(frames.actions), batch):
        pictures = preprocessor.normalise(frames.pictures[start : start + batch])
        parts.append(model.see(torch.from_numpy(pictures).to(device)).cpu())
    return torch.cat(parts)

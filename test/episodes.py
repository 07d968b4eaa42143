"""Small episodes with known content, for tests that write or read bags."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from deer_ros.data.episode import Episode


@dataclass(frozen=True)
class Units:
    rate_hz: float = 20.0
    frame: str = "world"
    linear_scale: float = 0.04
    angular_scale: float = 0.05


def make_episode(
    frames: int = 4, seed: int = 0, instruction: str = "open the drawer", **changes
) -> Episode:
    """Smooth pictures (JPEG keeps them), random actions within -1..1, two joints, five states."""
    rng = np.random.default_rng(seed)
    parts = {
        "instruction": instruction,
        "static": smooth_pictures(rng, frames, 32, 48),
        "gripper": smooth_pictures(rng, frames, 24, 24),
        "stamps_ns": np.arange(frames, dtype=np.int64) * 50_000_000,
        "actions": np.column_stack(
            [rng.uniform(-1, 1, (frames, 6)), rng.choice([-1.0, 1.0], frames)]
        ).astype(np.float32),
        "proprioception": rng.normal(size=(frames, 9)).astype(np.float32),
        "state": rng.normal(size=(frames, 5)).astype(np.float32),
    }
    return Episode(**{**parts, **changes})


def smooth_pictures(rng: np.random.Generator, frames: int, height: int, width: int) -> np.ndarray:
    down, right = np.linspace(0, 1, height)[:, None, None], np.linspace(0, 1, width)[:, None]
    corner = rng.uniform(0, 100, (frames, 1, 1, 3))
    slopes = rng.uniform(0, 75, (2, frames, 1, 1, 3))
    return (corner + slopes[0] * down + slopes[1] * right).astype(np.uint8)

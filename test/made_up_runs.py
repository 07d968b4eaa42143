"""Made-up episodes that a tiny model learns in seconds, and what hears of a run on them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from tiny_model import tiny_config

from deer_ros.data.episode import Episode
from deer_ros.training.config import PolicyPhase, TrainingConfig, VisionPhase

STEPS = 8


def made_up_episodes(
    count: int = 6,
    steps: int = STEPS,
    instructions: Sequence[str] = ("open the drawer", "close the drawer"),
) -> list[Episode]:
    """A bright square moves over the picture; the action says which way it will go."""
    episodes = []
    for number in range(count):
        rng = np.random.default_rng(number)
        pictures = np.zeros((steps, 32, 32, 3), np.uint8)
        actions = np.zeros((steps, 7), np.float32)
        positions = np.zeros((steps, 2), np.float32)
        position = rng.integers(4, 20, size=2)
        for step in range(steps):
            y, x = positions[step] = position
            pictures[step, int(y) : int(y) + 8, int(x) : int(x) + 8] = 255
            move = np.where(position > 12, -1, 1)
            actions[step, :2] = 0.5 * move
            actions[step, 6] = 1 if x > 12 else -1
            position = position + move
        episodes.append(
            Episode(
                instruction=instructions[number % 2],
                static=pictures,
                gripper=pictures[:, ::-1].copy(),
                stamps_ns=np.arange(steps, dtype=np.int64) * 50_000_000,
                actions=actions,
                state=positions,
            )
        )
    return episodes


def config(
    vision_steps: int = 4,
    policy_steps: int = 6,
    head_steps: int = 2,
    log_every_steps: int = 1,
    **policy,
) -> TrainingConfig:
    return TrainingConfig(
        model=tiny_config(),
        vision=VisionPhase(steps=vision_steps, batch_frames=24, warmup_steps=2, shift_px=1),
        policy=PolicyPhase(
            **{"steps": policy_steps, "head_steps": head_steps, "batch_windows": 2, "window": 4,
               "warmup_steps": 2, "constant_exit_weight": 0.5, **policy}
        ),
        holdout=0.2,
        checkpoint_every_steps=2 * log_every_steps,
        log_every_steps=log_every_steps,
    )


class Recorder:
    """Hears of every step; stops the run, as a kill would, at one of them."""

    def __init__(self, stop_at: tuple[str, int] | None = None) -> None:
        self.lines: dict[tuple[str, int], dict[str, float]] = {}
        self.stop_at = stop_at

    def __call__(self, phase, step, steps, losses) -> None:
        self.lines[phase, step] = losses
        if (phase, step) == self.stop_at:
            raise KeyboardInterrupt

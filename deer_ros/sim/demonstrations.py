"""One demonstration: the scripted expert drives the simulated robot, disturbed on purpose.

A policy that has only seen the expert's own path does not know the way back to it. Either the
executed action is disturbed while the expert's own stays the label, or the hand starts elsewhere.
"""

from __future__ import annotations

from enum import Enum

import numpy as np

from deer_ros.data.episode import Episode
from deer_ros.sim.robot import CONTROL_RATE_HZ, LINEAR_SCALE_M, SimulatedRobot
from deer_ros.sim.tasks import find_task

NOISE_CORRELATION = 0.8
"""Of the noise in one control step with that in the next."""
DISPLACEMENT_LOW_M = np.array([-0.15, -0.10, -0.06])
DISPLACEMENT_HIGH_M = np.array([0.15, 0.10, 0.12])

_SETTLING_STEPS = 3
_PERIOD_NS = 1_000_000_000 // CONTROL_RATE_HZ


class Disturbance(Enum):
    """How a demonstration leaves the expert's own path."""

    NOISE = "noise"
    DISPLACED_START = "displaced start"


def record_demonstration(
    robot: SimulatedRobot, task: str, seed: int, disturbance: Disturbance, noise: float
) -> Episode | None:
    """Lays out `task` by `seed` and lets the expert do it; None if it does not succeed.

    A pure function of its arguments but for the size of the robot's pictures.

    Args:
        noise: standard deviation of the noise, in units of action, before the task's own factor.

    Returns:
        An episode with one frame for each control step until success. Its actions are the
        expert's, without noise; its first stamp is zero.
    """
    rng = np.random.default_rng(seed)
    robot.reset(task, seed)
    if disturbance is Disturbance.DISPLACED_START:
        _displace(robot, rng)
        noise = 0.0
    frames = _frames(robot, _SmoothNoise(noise * find_task(task).noise_factor, rng))
    if not frames or not robot.success:
        return None
    static, gripper, proprioception, state, actions = map(np.stack, zip(*frames))
    return Episode(
        instruction=robot.instruction,
        static=static,
        gripper=gripper,
        stamps_ns=np.arange(len(frames), dtype=np.int64) * _PERIOD_NS,
        actions=actions,
        proprioception=proprioception,
        proprioception_names=robot.proprioception_names,
        state=state,
        source=f"{task}, seed {seed}",
    )


def _frames(robot: SimulatedRobot, noise: _SmoothNoise) -> list[tuple[np.ndarray, ...]]:
    frames = []
    while not robot.success and len(frames) < robot.max_episode_steps:
        action, gripper = robot.expert_action()
        label = np.append(action, np.float32(gripper))
        frames.append((*robot.pictures(), robot.proprioception(), robot.state(), label))
        robot.step(action[:3] + noise.next(), gripper)
    return frames


def _displace(robot: SimulatedRobot, rng: np.random.Generator) -> None:
    """Moves the open hand away by a random offset and lets it come to rest."""
    steps = rng.uniform(DISPLACEMENT_LOW_M, DISPLACEMENT_HIGH_M) / LINEAR_SCALE_M
    count = int(np.ceil(np.abs(steps).max()))
    for _ in range(count):
        robot.step(steps / count, gripper=1.0)
    for _ in range(_SETTLING_STEPS):
        robot.step(np.zeros(3), gripper=1.0)


class _SmoothNoise:
    """First-order autoregressive noise on three axes with the standard deviation `std`."""

    def __init__(self, std: float, rng: np.random.Generator) -> None:
        self._innovation_std = std * np.sqrt(1.0 - NOISE_CORRELATION**2)
        self._rng = rng
        self._value = rng.normal(0.0, std, size=3)

    def next(self) -> np.ndarray:
        value = self._value
        self._value = NOISE_CORRELATION * value + self._rng.normal(0, self._innovation_std, size=3)
        return value

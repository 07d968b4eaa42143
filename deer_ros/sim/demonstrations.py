"""One demonstration: the scripted expert drives the simulated robot, disturbed on purpose.

A policy that has only seen the expert's own path does not know the way back to it. So the executed
action is disturbed while the expert's own stays the label, or the hand starts elsewhere, or a
policy drives at first, and the expert says all along what it would do instead: dataset
aggregation (Ross et al. 2011).
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Protocol

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
    """How a demonstration that nobody leads leaves the expert's own path."""

    NOISE = "noise"
    DISPLACED_START = "displaced start"


class Leader(Protocol):
    """What drives the robot at first, where a demonstration is led."""

    def begin(self, robot: SimulatedRobot, rng: np.random.Generator) -> int:
        """An episode begins, just laid out; for how many control steps, 1 or more, it leads."""

    def action(
        self, robot: SimulatedRobot, pictures: tuple[np.ndarray, np.ndarray]
    ) -> tuple[np.ndarray, float]:
        """As `SimulatedRobot.step` takes it. pictures: as its cameras see it now."""


_Drive = Callable[[tuple[np.ndarray, np.ndarray], np.ndarray, float], tuple[np.ndarray, float]]
"""Pictures, and the expert's action and gripper -> what is carried out."""


def record_demonstration(
    robot: SimulatedRobot,
    task: str,
    seed: int,
    disturbance: Disturbance | Leader,
    noise: float,
) -> Episode | None:
    """Lays out `task` by `seed` and lets the expert do it; None if it does not succeed.

    A pure function of its arguments but for the size of the robot's pictures. What a leader brings
    to its end by itself is no demonstration either: there was nothing to be put right.

    Args:
        disturbance: or who leads.
        noise: standard deviation of the noise, in units of action, before the task's own factor.
            There is none from a displaced start, or where somebody leads.

    Returns:
        An episode with one frame for each control step until success. Its actions are the
        expert's, whatever was carried out; its first stamp is zero.
    """
    rng = np.random.default_rng(seed)
    robot.reset(task, seed)
    led_steps = 0
    if disturbance is Disturbance.NOISE:
        drive = _SmoothNoise(noise * find_task(task).noise_factor, rng)
    elif disturbance is Disturbance.DISPLACED_START:
        _displace(robot, rng)
        drive = _undisturbed
    else:
        led_steps = disturbance.begin(robot, rng)
        drive = _Led(robot, disturbance, led_steps)
    frames = _frames(robot, drive)
    if len(frames) <= led_steps or not robot.success:
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


def _frames(robot: SimulatedRobot, drive: _Drive) -> list[tuple[np.ndarray, ...]]:
    frames = []
    while not robot.success and len(frames) < robot.max_episode_steps:
        action, gripper = robot.expert_action()
        label, pictures = np.append(action, np.float32(gripper)), robot.pictures()
        frames.append((*pictures, robot.proprioception(), robot.state(), label))
        robot.step(*drive(pictures, action, gripper))
    return frames


def _undisturbed(
    pictures: tuple[np.ndarray, np.ndarray], action: np.ndarray, gripper: float
) -> tuple[np.ndarray, float]:
    return action, gripper


class _Led:
    """The leader's actions for its `steps`, the expert's after them."""

    def __init__(self, robot: SimulatedRobot, leader: Leader, steps: int) -> None:
        self._robot, self._leader, self._left = robot, leader, steps

    def __call__(
        self, pictures: tuple[np.ndarray, np.ndarray], action: np.ndarray, gripper: float
    ) -> tuple[np.ndarray, float]:
        if self._left == 0:
            return action, gripper
        self._left -= 1
        return self._leader.action(self._robot, pictures)


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

    def __call__(
        self, pictures: tuple[np.ndarray, np.ndarray], action: np.ndarray, gripper: float
    ) -> tuple[np.ndarray, float]:
        """The action with noise."""
        return action[:3] + self.next(), gripper

    def next(self) -> np.ndarray:
        value = self._value
        self._value = NOISE_CORRELATION * value + self._rng.normal(0, self._innovation_std, size=3)
        return value

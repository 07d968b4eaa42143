"""Episodes on the simulated robot of this package: tasks of Meta-World."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from deer_ros.evaluation.episode import Episode, Setting, run_episode
from deer_ros.observation import Observation
from deer_ros.policy import DeerPolicy
from deer_ros.sim.robot import SimulatedRobot


@dataclass(frozen=True)
class Rollout(Episode):
    """An episode and what was run."""

    setting: str
    task: str
    seed: int


class MetaWorld:
    """The simulated robot as an `Environment`."""

    def __init__(self) -> None:
        self._robot = SimulatedRobot()

    def reset(self, task: str, seed: int) -> None:
        """Begin an episode."""
        self._robot.reset(task, seed)

    @property
    def instruction(self) -> str:
        """The task in words."""
        return self._robot.instruction

    @property
    def success(self) -> bool:
        """Whether the task was done at any time since the reset."""
        return self._robot.success

    def observation(self) -> Observation:
        """Both pictures."""
        return Observation(*self._robot.pictures())

    def step(self, action: np.ndarray, gripper: float) -> None:
        """One control period."""
        self._robot.step(action, gripper)


def start(model: str | None) -> Callable[[tuple[Setting, str, int]], Rollout]:
    """Load a policy and the simulator; what runs a setting on a task with a seed."""
    # Small models are fastest on one thread.
    torch.set_num_threads(1)
    policy = DeerPolicy.from_pretrained(model, device="cpu")
    environment = MetaWorld()

    def run(job: tuple[Setting, str, int]) -> Rollout:
        setting, task, seed = job
        exit_layer = setting.apply(policy)
        environment.reset(task, seed)
        episode = run_episode(policy, environment, exit_layer, policy.config.max_episode_steps)
        return Rollout(**vars(episode), setting=setting.name, task=task, seed=seed)

    return run

"""Episodes on the simulated robot of this package: tasks of Meta-World."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from deer_ros.checkpoint.directory import CONFIG
from deer_ros.data.episode import columns_of
from deer_ros.evaluation.episode import Setting
from deer_ros.evaluation.facts import versions
from deer_ros.evaluation.processes import run_jobs
from deer_ros.evaluation.rollouts import Job, World, start
from deer_ros.model.config import DeerConfig
from deer_ros.observation import Observation
from deer_ros.sim.robot import SimulatedRobot
from deer_ros.sim.tasks import DEMONSTRATION_TASKS, EVALUATION_SEED_START, TASKS, find_task


class MetaWorld:
    """The simulated robot as a `TaskEnvironment`."""

    def __init__(self, config: DeerConfig) -> None:
        """config: of the policy; ValueError where it reads what this robot does not know."""
        self._robot = SimulatedRobot()
        sensed, names = config.proprioception, self._robot.proprioception_names
        self._columns = None if sensed is None else columns_of(sensed.layout, names)

    def reset(self, task: str, seed: int, said: str | None = None) -> None:
        """Begin an episode in the scene of `task`, with the words of `said` if not its own."""
        self._robot.reset(task, seed, said)

    @property
    def instruction(self) -> str:
        """The task in words."""
        return self._robot.instruction

    @property
    def success(self) -> bool:
        """Whether the task was done at any time since the reset."""
        return self._robot.success

    def observation(self) -> Observation:
        """Both pictures, and what the robot knows of itself if it was asked for."""
        columns = self._columns
        sensed = None if columns is None else self._robot.proprioception()[columns]
        return Observation(*self._robot.pictures(), sensed)

    def step(self, action: np.ndarray, gripper: float) -> None:
        """One control period."""
        self._robot.step(action, gripper)


def world(tasks: Sequence[str] = (), max_steps: int | None = None) -> World:
    """These tasks, or those of the benchmark. ValueError for one that there is not."""
    named = tuple(find_task(task).name for task in tasks or DEMONSTRATION_TASKS)
    others = {name: TASKS[name].other for name in named if TASKS[name].other}
    words = {name: tuple(r.instruction for r in task.requests) for name, task in TASKS.items()}
    return World(
        "metaworld", MetaWorld, named, EVALUATION_SEED_START, others, max_steps, words,
        # Models of this robot are small, and those are fastest on one thread.
        device="cpu", threads=1, simulator=versions("metaworld", "mujoco"),
    )  # fmt: skip


def success_by_exit(
    model: Path, tasks: Sequence[str], seeds: Sequence[int], exits: Sequence[int], processes: int
) -> dict[str, float]:
    """Share of successes: `success` over all, `success_exit_L` and `success_TASK`.

    exits: layers to stay at; none: the deepest. Leaves torch's number of threads as it was.
    """
    layers = exits or DeerConfig.load(model / CONFIG).exit_layers[-1:]
    settings = [Setting(f"exit_{layer}", exit_layer=layer) for layer in layers]
    jobs = [Job(s, task, seed, task) for task in tasks for s in settings for seed in seeds]
    threads = torch.get_num_threads()
    try:
        rollouts = list(run_jobs(start, (str(model), MetaWorld), jobs, processes))
    finally:
        torch.set_num_threads(threads)
    groups = {
        **{s.name: [r for r in rollouts if r.setting == s.name] for s in settings},
        **{task: [r for r in rollouts if r.task == task] for task in tasks},
    }
    shares = {f"success_{k}": float(np.mean([r.success for r in v])) for k, v in groups.items()}
    return {"success": float(np.mean([r.success for r in rollouts])), **shares}

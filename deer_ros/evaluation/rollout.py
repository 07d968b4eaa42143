"""Episodes of a policy on the simulated robot, in this process or spread over several."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from deer_ros.observation import Observation
from deer_ros.policy import DeerPolicy
from deer_ros.sim.robot import SimulatedRobot


@dataclass(frozen=True)
class Setting:
    """How deep a policy runs: one fixed exit, thresholds, or neither (full depth)."""

    name: str
    exit_layer: int | None = None
    thresholds: tuple[float, ...] | None = None


@dataclass(frozen=True)
class Rollout:
    """One episode: what was run and what came of it. Means are over the episode's steps."""

    setting: str
    task: str
    seed: int
    success: bool
    steps: int
    mean_exit_layer: float
    mean_llm_gflops: float
    mean_step_gflops: float
    mean_step_ms: float


def run_episode(
    policy: DeerPolicy, robot: SimulatedRobot, setting: Setting, task: str, seed: int
) -> Rollout:
    """One episode in lockstep, until success or the model's `max_episode_steps`."""
    if setting.thresholds is not None:
        policy.set_thresholds(setting.thresholds, policy.config.metric)
    exit_layer = setting.exit_layer
    if setting.thresholds is None and exit_layer is None:
        exit_layer = policy.config.exit_layers[-1]
    policy.reset()
    robot.reset(task, seed)
    exits, costs = [], []
    while not robot.success and len(exits) < policy.config.max_episode_steps:
        step = policy.step(Observation(*robot.pictures()), robot.instruction, exit_layer)
        robot.step(step.action, step.gripper)
        exits.append(step.exit_layer)
        costs.append((step.cost.llm_gflops, step.cost.step_gflops, step.cost.step_ms))
    llm, whole, ms = np.mean(costs, axis=0).tolist()
    return Rollout(
        setting.name, task, seed, robot.success, len(exits), float(np.mean(exits)), llm, whole, ms
    )


def run_all(
    model: str | None,
    settings: Sequence[Setting],
    tasks: Sequence[str],
    seeds: Sequence[int],
    processes: int = 1,
) -> Iterator[Rollout]:
    """Every setting on every task and seed, in no particular order, over `processes` processes.

    Each result depends on its own setting, task and seed alone.
    """
    jobs = [(s, task, seed) for task in tasks for s in settings for seed in seeds]
    if processes == 1:
        _start(model)
        yield from map(_run, jobs)
        return
    context = multiprocessing.get_context("spawn")
    with context.Pool(processes, _start, (model,)) as pool:
        yield from pool.imap_unordered(_run, jobs, chunksize=5)


_worker: dict = {}


def _start(model: str | None) -> None:
    # One thread per process: more would wait for each other.
    torch.set_num_threads(1)
    _worker["policy"] = DeerPolicy.from_pretrained(model, device="cpu")
    _worker["robot"] = SimulatedRobot()


def _run(job: tuple[Setting, str, int]) -> Rollout:
    setting, task, seed = job
    return run_episode(_worker["policy"], _worker["robot"], setting, task, seed)

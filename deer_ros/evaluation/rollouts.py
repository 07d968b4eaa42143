"""Episodes of single tasks in a simulator: jobs, what runs them, and what is kept of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Protocol

import torch

from deer_ros.evaluation.episode import Environment, Episode, Setting, run_episode
from deer_ros.model.config import DeerConfig
from deer_ros.policy import DeerPolicy


class TaskEnvironment(Environment, Protocol):
    """A simulator that lays out tasks by seeds."""

    def reset(self, task: str, seed: int, said: str) -> None:
        """Begin an episode in the scene of `task`; `said` is the task that is asked for there."""


Open = Callable[[DeerConfig], TaskEnvironment]
"""Start a simulator for a policy of that configuration: its units, and what it reads."""


def any_scene(task: str, seed: int) -> None:
    """Of a simulator that lays out a scene for every seed."""


@dataclass(frozen=True)
class World:
    """Tasks of a simulator that are to be run.

    open: starts the simulator, in whatever process. first_seed: of evaluation, so that no scene of
    training is among them. others: by task, the one whose words may be said in its scene instead.
    max_steps: control periods of an episode; None: as many as the model's configuration says.
    words: by task, all that may be said for it. device, threads: where policies run for this world
    unless somebody says otherwise; threads None: as many as torch takes. check_scene: raises
    ValueError where a task has no scene of a seed. simulator: versions of what it is made of.
    """

    name: str
    open: Open
    tasks: tuple[str, ...]
    first_seed: int = 0
    others: dict[str, str] = field(default_factory=dict)
    max_steps: int | None = None
    words: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    device: str = "auto"
    threads: int | None = None
    check_scene: Callable[[str, int], None] = any_scene
    simulator: Mapping[str, str | None] = field(default_factory=dict)


@dataclass(frozen=True)
class Job:
    """An episode to be run. said: the task whose words are said; `task` itself unless exchanged."""

    setting: Setting
    task: str
    seed: int
    said: str

    @property
    def key(self) -> tuple[str, str, str, int]:
        """What an episode of an evaluation is known by."""
        return self.setting.name, self.task, self.said, self.seed


@dataclass(frozen=True, kw_only=True)
class Rollout(Episode):
    """An episode and what was run."""

    setting: str
    task: str
    seed: int
    said: str

    @property
    def key(self) -> tuple[str, str, str, int]:
        """As `Job.key`."""
        return self.setting, self.task, self.said, self.seed

    @property
    def label(self) -> str:
        """The task, and whose words were said if another's."""
        return self.task if self.said == self.task else f"{self.task}, told {self.said}"


def start(
    model: str | None, open_environment: Open, max_steps: int | None = None, device: str = "cpu",
    dtype: str = "auto", threads: int | None = 1,
) -> Callable[[Job], Rollout]:
    """Load a policy and a simulator; what runs a job.

    max_steps: None takes the model's own. device, dtype: as `DeerPolicy.from_pretrained`. threads:
    torch's, in this process; None leaves them as they are.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    policy = DeerPolicy.from_pretrained(model, device, dtype)
    environment = open_environment(policy.config)
    longest = policy.config.max_episode_steps if max_steps is None else max_steps

    def run(job: Job) -> Rollout:
        environment.reset(job.task, job.seed, job.said)
        # A budget is solved for what is said now, not for what was said last.
        policy.expect(environment.instruction)
        exit_layer = job.setting.apply(policy)
        episode = run_episode(policy, environment, exit_layer, longest)
        return Rollout(
            **asdict(episode), setting=job.setting.name, task=job.task, seed=job.seed,
            said=job.said,
        )

    return run

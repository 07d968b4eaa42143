"""A simulator of this package as a scorer."""

from __future__ import annotations

from pathlib import Path

import torch

from deer_ros.evaluation.episode import Episode, mean_per_step, run_episode
from deer_ros.evaluation.rollouts import TaskEnvironment, World
from deer_ros.policy import DeerPolicy


class SimulatorScorer:
    """A `Scorer`: every task from every seed's layout, success 0 or 1, cost in GFLOPs."""

    def __init__(self, world: World, scope: str) -> None:
        """scope: what the cost counts, `llm` or `step`."""
        self._world = world
        self._cost = f"mean_{scope}_gflops"
        self._loaded: tuple[Path, DeerPolicy, TaskEnvironment] | None = None

    def __call__(
        self,
        model: Path,
        thresholds: tuple[float, ...],
        metric: str,
        max_layer: int,
        seeds: tuple[int, ...],
    ) -> tuple[list[float], float]:
        """As `Scorer`; episodes are in order of tasks, then of seeds."""
        policy, environment = self._load(model)
        policy.set_thresholds(
            thresholds, metric, max_layer, steps_per_decision=None, max_layer_between=None
        )
        longest = self._world.max_steps or policy.config.max_episode_steps
        episodes: list[Episode] = []
        for task in self._world.tasks:
            for seed in seeds:
                environment.reset(task, seed, task)
                episodes.append(run_episode(policy, environment, None, longest))
        return [float(e.success) for e in episodes], mean_per_step(episodes, self._cost)

    def close(self) -> None:
        """Let go of the simulator, which frees its OpenGL context: at exit it would be too late."""
        self._loaded = None

    def _load(self, model: Path) -> tuple[DeerPolicy, TaskEnvironment]:
        if self._loaded is None or self._loaded[0] != model:
            # Small models are fastest on one thread.
            torch.set_num_threads(1)
            policy = DeerPolicy.from_pretrained(model, device="cpu")
            self._loaded = (model, policy, self._world.open(policy.config))
        return self._loaded[1:]

"""The simulated robot as a scorer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from deer_ros.evaluation.episode import Episode, mean_per_step, run_episode
from deer_ros.evaluation.metaworld import MetaWorld
from deer_ros.policy import DeerPolicy


class SimulatorScorer:
    """A `Scorer`: every task from every seed's layout, success 0 or 1, cost in GFLOPs."""

    def __init__(self, tasks: Sequence[str], scope: str) -> None:
        """scope: what the cost counts, `llm` or `step`."""
        self._tasks = tuple(tasks)
        self._cost = f"mean_{scope}_gflops"
        self._loaded: tuple[Path, DeerPolicy, MetaWorld] | None = None

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
        policy.set_thresholds(thresholds, metric, max_layer)
        episodes: list[Episode] = []
        for task in self._tasks:
            for seed in seeds:
                environment.reset(task, seed, task)
                episodes.append(
                    run_episode(policy, environment, None, policy.config.max_episode_steps)
                )
        return [float(e.success) for e in episodes], mean_per_step(episodes, self._cost)

    def _load(self, model: Path) -> tuple[DeerPolicy, MetaWorld]:
        if self._loaded is None or self._loaded[0] != model:
            # Small models are fastest on one thread.
            torch.set_num_threads(1)
            policy = DeerPolicy.from_pretrained(model, device="cpu")
            sensed = policy.config.proprioception
            environment = MetaWorld(None if sensed is None else sensed.layout)
            self._loaded = (model, policy, environment)
        return self._loaded[1:]

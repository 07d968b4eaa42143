"""What closed-loop episodes did, and their summary per task."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

import numpy as np

ALL_TASKS = "all"


@dataclass(frozen=True)
class StepRecord:
    """One policy decision. latency_ms: picture to action, None where it was not measured."""

    exit_layer: int
    llm_gflops: float
    step_gflops: float
    model_ms: float
    latency_ms: float | None = None


@dataclass(frozen=True)
class EpisodeRecord:
    """One closed-loop episode and every decision in it."""

    task: str
    seed: int
    instruction: str
    success: bool
    steps: tuple[StepRecord, ...]

    @property
    def mean_exit_layer(self) -> float:
        """NaN without steps."""
        return _mean([step.exit_layer for step in self.steps])

    @property
    def outcome(self) -> str:
        """In a word."""
        return "success" if self.success else "failure"

    def describe(self) -> str:
        """In a line."""
        return (f"{self.task}, seed {self.seed}: {self.outcome} after {len(self.steps)} steps, "
                f"mean exit layer {self.mean_exit_layer:.2f}")

    def to_json(self) -> dict:
        """JSON-ready; one list per quantity, one value per step."""
        names = StepRecord.__dataclass_fields__
        return {
            "task": self.task,
            "seed": self.seed,
            "instruction": self.instruction,
            "success": self.success,
            "steps": len(self.steps),
            "per_step": {name: [getattr(step, name) for step in self.steps] for name in names},
        }


@dataclass(frozen=True)
class StepPicture:
    """What the static camera saw when a step was decided: uint8 (H, W, 3) RGB. step: from 1."""

    step: int
    exit_layer: int
    rgb: np.ndarray


@dataclass(frozen=True)
class PicturedEpisode:
    """An episode's record and its pictures, in order of time. Some steps may lack theirs."""

    record: EpisodeRecord
    pictures: tuple[StepPicture, ...]


@dataclass(frozen=True)
class TaskSummary:
    """Averages are over steps, not over episodes: a long episode weighs more, as it cost more."""

    task: str
    episodes: int
    successes: int
    mean_steps: float
    mean_exit_layer: float
    llm_gflops: float
    step_gflops: float
    model_ms_p50: float
    model_ms_p95: float
    latency_ms_p50: float | None
    latency_ms_p95: float | None

    @property
    def success_rate(self) -> float:
        """0..1; NaN without episodes."""
        return self.successes / self.episodes if self.episodes else float("nan")

    def to_json(self) -> dict:
        """JSON-ready, with the success rate; what could not be measured is null."""
        return {name: _json_number(value) for name, value in asdict(self).items()} | {
            "success_rate": _json_number(self.success_rate)
        }


def summarise(episodes: Sequence[EpisodeRecord]) -> list[TaskSummary]:
    """One summary per task, in order of first appearance, and last the one over all of them."""
    by_task: dict[str, list[EpisodeRecord]] = {}
    for episode in episodes:
        by_task.setdefault(episode.task, []).append(episode)
    return [_summary(task, members) for task, members in by_task.items()] + [
        _summary(ALL_TASKS, episodes)
    ]


def _summary(task: str, episodes: Sequence[EpisodeRecord]) -> TaskSummary:
    steps = [step for episode in episodes for step in episode.steps]
    model_ms = [step.model_ms for step in steps]
    latency_ms = [step.latency_ms for step in steps if step.latency_ms is not None]
    return TaskSummary(
        task=task,
        episodes=len(episodes),
        successes=sum(episode.success for episode in episodes),
        mean_steps=_mean([len(episode.steps) for episode in episodes]),
        mean_exit_layer=_mean([step.exit_layer for step in steps]),
        llm_gflops=_mean([step.llm_gflops for step in steps]),
        step_gflops=_mean([step.step_gflops for step in steps]),
        model_ms_p50=percentile(model_ms, 50),
        model_ms_p95=percentile(model_ms, 95),
        latency_ms_p50=percentile(latency_ms, 50) if latency_ms else None,
        latency_ms_p95=percentile(latency_ms, 95) if latency_ms else None,
    )


def percentile(values: Sequence[float], percent: float) -> float:
    """Of the values; NaN where there are none."""
    return float(np.percentile(values, percent)) if len(values) else float("nan")


def _mean(values: Iterable[float]) -> float:
    values = list(values)
    return float(np.mean(values)) if values else float("nan")


def _json_number(value):
    is_missing = isinstance(value, float) and not np.isfinite(value)
    return None if is_missing else value

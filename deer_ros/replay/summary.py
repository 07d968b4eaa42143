"""A run in numbers."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from deer_ros.control.command import ActionSemantics
from deer_ros.replay.records import StepRecord
from deer_ros.replay.results import BagResult, RunResult
from deer_ros.stepping.plan import Plan

PERCENTILES = (50, 95, 99)


def summary(bags: Sequence[BagResult], run: int) -> dict[str, Any]:
    """JSON-ready figures of one run over all bags; null where there is nothing to tell of."""
    results = [bag.runs[run] for bag in bags]
    steps = [step for result in results for step in result.steps]
    plan = results[0].plan
    rate_hz = plan.control_rate_hz
    grippers = [
        step.gripper == step.recorded_action[6] for step in steps
        if step.recorded_action is not None and np.isfinite(step.recorded_action[6])
    ]
    return {
        "run": results[0].label,
        "steps": len(steps),
        "episodes": sum(result.episodes for result in results),
        "exits": {str(layer): count for layer, count in _exits(steps, plan)},
        "mean_exit_layer": _mean(step.exit_layer for step in steps),
        "llm_gflops": _mean(step.llm_gflops for step in steps),
        "step_gflops": _mean(step.step_gflops for step in steps),
        "step_ms": _percentiles(step.step_ms for step in steps),
        "budgets": budgets(plan, steps),
        "to_full_depth": _percentiles(step.to_full_depth for step in steps),
        "to_recorded": _percentiles(step.to_recorded for step in steps),
        "full_depth_to_recorded": _percentiles(_full_to_recorded(step) for step in steps),
        "gripper_as_recorded": _mean(grippers),
        "jerk_m_s3": {
            name: jerk(results, pose, plan.semantics, rate_hz) for name, pose in POSES.items()
        },
        "images": dict(sum((Counter(result.images) for result in results), Counter())),
        "stops": dict(sum((result.stops for result in results), Counter())),
        "failed": dict(sum((result.failed for result in results), Counter())),
        "resets": dict(sum((result.resets for result in results), Counter())),
    }


def _recorded_pose(step: StepRecord) -> np.ndarray | None:
    return None if step.recorded_action is None else step.recorded_action[:6]


POSES: dict[str, Callable[[StepRecord], np.ndarray | None]] = {
    "policy": lambda step: step.action,
    "full depth": lambda step: step.full_action,
    "recorded": _recorded_pose,
}


def jerk(
    results: Iterable[RunResult],
    pose: Callable[[StepRecord], np.ndarray | None],
    semantics: ActionSemantics,
    rate_hz: float,
) -> float | None:
    """Root mean square of the commanded linear jerk, m/s^3; None where there are no three steps.

    An action is a velocity that holds for a step, so that jerk is its second difference, times the
    squared rate; steps that a gap or a new episode divides are no neighbours.
    """
    longest_ns = 1.5e9 / rate_hz
    metres_per_s = semantics.linear_scale * semantics.rate_hz
    squares = []
    for result in results:
        for three in zip(result.steps, result.steps[1:], result.steps[2:]):
            times_ns = [max(step.stamps_ns) for step in three]
            poses = [pose(step) for step in three]
            same = len({step.episode for step in three}) == 1
            if not same or max(np.diff(times_ns)) > longest_ns or any(p is None for p in poses):
                continue
            a, b, c = (np.asarray(p[:3], np.float64) * metres_per_s for p in poses)
            squares.append(np.sum(((a - 2 * b + c) * rate_hz**2) ** 2))
    return float(np.sqrt(np.mean(squares))) if squares else None


def budgets(plan: Plan, steps: Sequence[StepRecord]) -> list[dict[str, Any]]:
    """What was asked of the run and what it spent, budget by budget."""
    if plan.budget is None:
        return []
    gflops = f"{plan.budget.scope}_gflops"
    spent: dict[str, Callable[[], float | None]] = {
        "average_gflops": lambda: _mean(getattr(step, gflops) for step in steps),
        "peak_gflops": lambda: _largest(getattr(step, gflops) for step in steps),
        "average_ms": lambda: _mean(step.step_ms for step in steps),
        "latency_ms": lambda: _largest(step.step_ms for step in steps),
        "max_action_error": lambda: _mean(step.to_full_depth for step in steps),
    }
    return [
        {"budget": name, "asked": asked, "spent": spent[name]() if name in spent else None}
        for name, asked in plan.budget.limits.items()
    ]


def _exits(steps: Sequence[StepRecord], plan: Plan) -> list[tuple[int, int]]:
    counted = Counter(step.exit_layer for step in steps)
    return [(layer, counted[layer]) for layer in plan.rule.exits]


def _full_to_recorded(step: StepRecord) -> float:
    known = _recorded_pose(step)
    if known is None or step.full_action is None:
        return float("nan")
    return float(np.sqrt(np.mean((step.full_action.astype(np.float64) - known) ** 2)))


def _percentiles(values: Iterable[float]) -> dict[str, float] | None:
    """Mean, percentiles and the largest of the finite values; None without any."""
    known = _finite(values)
    if not len(known):
        return None
    found = {f"p{percent}": float(np.percentile(known, percent)) for percent in PERCENTILES}
    return {"mean": float(known.mean())} | found | {"max": float(known.max())}


def _mean(values: Iterable[float]) -> float | None:
    known = _finite(values)
    return float(known.mean()) if len(known) else None


def _largest(values: Iterable[float]) -> float | None:
    known = _finite(values)
    return float(known.max()) if len(known) else None


def _finite(values: Iterable[float]) -> np.ndarray:
    known = np.fromiter(itertools.chain(values), np.float64)
    return known[np.isfinite(known)]

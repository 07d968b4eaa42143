"""What an evaluation says: each setting's success and cost, and settings compared in pairs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from deer_ros.evaluation.episode import mean_per_step
from deer_ros.evaluation.rollouts import Rollout
from deer_ros.evaluation.statistics import (
    Interval,
    above_line,
    costs_per_step,
    discordant,
    mcnemar,
    mean_success,
    paired_difference,
    wilson,
)

SCOPES = ("llm", "step")


@dataclass(frozen=True)
class TaskSuccess:
    """Of a task in one setting."""

    task: str
    successes: int
    episodes: int
    rate: Interval


@dataclass(frozen=True)
class Summary:
    """Of a setting. success: mean over tasks. Other means are over all steps, failed episodes' too.

    exit_shares: share of the steps by exit layer. fixed_exit: its layer where it is a fixed exit.
    """

    setting: str
    tasks: tuple[TaskSuccess, ...]
    success: Interval
    episodes: int
    steps: int
    mean_exit_layer: float
    mean_llm_gflops: float
    mean_step_gflops: float
    mean_step_ms: float
    exit_shares: dict[int, float]
    fixed_exit: int | None = None


@dataclass(frozen=True)
class Line:
    """How far a setting lies above the line through two fixed exits whose costs embrace its own."""

    scope: str
    cheaper: str
    dearer: str
    above: Interval


@dataclass(frozen=True)
class Comparison:
    """A setting against another on the same scenes. difference: of success, mean over tasks.

    only_ours, only_theirs: pairs that one side alone succeeded in. p: McNemar's exact test.
    llm_cost_factor, step_cost_factor: how many times as much the other one costs a step, None where
    this one costs nothing. lines: one per scope, none where no two fixed exits embrace the
    setting's cost.
    """

    setting: str
    against: str
    pairs: int
    difference: Interval
    only_ours: int
    only_theirs: int
    p: float
    llm_cost_factor: float | None
    step_cost_factor: float | None
    lines: tuple[Line, ...] = ()


Outcomes = dict[str, dict[tuple[str, str, int], Rollout]]
"""Episodes by setting, each by task, words and seed."""


def by_setting(rollouts: Sequence[Rollout]) -> Outcomes:
    """Episodes by setting, in order of first appearance."""
    found: Outcomes = {}
    for rollout in rollouts:
        found.setdefault(rollout.setting, {})[rollout.key[1:]] = rollout
    return found


def summarise(setting: str, rollouts: Sequence[Rollout], fixed_exit: int | None = None) -> Summary:
    """The summary of a setting's episodes, at least one."""
    tasks: dict[str, list[Rollout]] = {}
    for rollout in rollouts:
        tasks.setdefault(rollout.label, []).append(rollout)
    successes = {task: sum(r.success for r in members) for task, members in tasks.items()}
    steps = sum(r.steps for r in rollouts)
    layers = sorted({layer for r in rollouts for layer in r.exits})
    return Summary(
        setting=setting,
        tasks=tuple(
            TaskSuccess(task, successes[task], len(members), wilson(successes[task], len(members)))
            for task, members in tasks.items()
        ),
        success=mean_success([np.array([r.success for r in m]) for m in tasks.values()]),
        episodes=len(rollouts),
        steps=steps,
        mean_exit_layer=mean_per_step(rollouts, "mean_exit_layer"),
        mean_llm_gflops=mean_per_step(rollouts, "mean_llm_gflops"),
        mean_step_gflops=mean_per_step(rollouts, "mean_step_gflops"),
        mean_step_ms=mean_per_step(rollouts, "mean_step_ms"),
        exit_shares={
            layer: sum(r.exits.get(layer, 0) for r in rollouts) / steps for layer in layers
        },
        fixed_exit=fixed_exit,
    )


def compare(
    setting: str,
    ours: dict[tuple[str, str, int], Rollout],
    against: str,
    theirs: dict[tuple[str, str, int], Rollout],
    fixed: dict[str, dict[tuple[str, str, int], Rollout]] | None = None,
) -> Comparison:
    """`setting` against another, over the scenes that both were run in.

    fixed: episodes of fixed exits by setting, for the lines; each line takes the scenes that all
    three have. ValueError where no scene is common.
    """
    keys = _common(ours, theirs)
    if not keys:
        raise ValueError(f"{setting!r} and {against!r} have no task and seed in common.")
    outcomes = [
        [np.array([side[key].success for key in group]) for group in keys]
        for side in (ours, theirs)
    ]
    only_ours, only_theirs = discordant(*outcomes)
    pairs = [key for group in keys for key in group]
    paired = [[side[key] for key in pairs] for side in (ours, theirs)]
    costs = [[mean_per_step(side, _cost(scope)) for side in paired] for scope in SCOPES]
    lines = [line_of(ours, fixed or {}, scope) for scope in SCOPES]
    return Comparison(
        setting, against, len(pairs), paired_difference(*outcomes), only_ours, only_theirs,
        mcnemar(*outcomes),
        *(theirs / ours if ours else None for ours, theirs in costs),
        tuple(line for line in lines if line is not None),
    )  # fmt: skip


def line_of(
    ours: dict[tuple[str, str, int], Rollout],
    fixed: dict[str, dict[tuple[str, str, int], Rollout]],
    scope: str,
) -> Line | None:
    """The two neighbouring fixed exits whose mean costs embrace that of `ours`, and what is above.

    Costs are those of the scenes that all three have: an evaluation that was stopped has others of
    every setting. None where there are no such two.
    """
    order = sorted(
        (mean_per_step(list(side.values()), _cost(scope)), name) for name, side in fixed.items()
    )
    for (_, cheaper), (_, dearer) in zip(order, order[1:]):
        sides = (ours, fixed[cheaper], fixed[dearer])
        strata = [
            np.array([[x for side in sides for x in _row(side[k], scope)] for k in group])
            for group in _common(*sides)
        ]
        if not strata:
            continue
        cost, low, high = costs_per_step(strata)
        if low <= cost <= high and low < high:
            return Line(scope, cheaper, dearer, above_line(strata))
    return None


def _common(*sides: dict[tuple[str, str, int], Rollout]) -> list[list[tuple[str, str, int]]]:
    """Scenes that all sides have, a list per task and words."""
    shared = set(sides[0]).intersection(*sides[1:])
    groups: dict[tuple[str, str], list[tuple[str, str, int]]] = {}
    for key in sorted(shared):
        groups.setdefault(key[:2], []).append(key)
    return list(groups.values())


def _row(rollout: Rollout, scope: str) -> tuple[float, float, float]:
    cost = getattr(rollout, _cost(scope))
    return float(rollout.success), cost * rollout.steps, float(rollout.steps)


def _cost(scope: str) -> str:
    return f"mean_{scope}_gflops"

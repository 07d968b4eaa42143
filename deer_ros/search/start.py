"""The thresholds that a search starts from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from deer_ros.budget.budget import Budget, BudgetError
from deer_ros.budget.cadence import Cadence
from deer_ros.budget.calibration import Calibration
from deer_ros.budget.cost import CostModel
from deer_ros.budget.solution import solve
from deer_ros.budget.solver import finite
from deer_ros.exit_rule import ExitRule
from deer_ros.model.config import COMPARING, DeerConfig

# Of a prompt: three are the model's own, and an instruction has a word.
LEAST_TOKENS = 4


@dataclass(frozen=True)
class Start:
    """thresholds: one per exit of the model, all finite, 1e8 from the deepest permitted exit on.
    metric: of the criterion. solved: whether they were solved for the budget."""

    thresholds: tuple[float, ...]
    metric: str
    solved: bool


def find_start(
    config: DeerConfig,
    budget: Budget,
    prompt_tokens: int,
    max_layer: int,
    calibration: Calibration | None = None,
    given: Sequence[float] | None = None,
) -> Start:
    """What is given, else solved from the calibration if there is a budget, else the model's own.

    Solved for the model's own cadence, as all of a search's steps go by that. max_layer: the
    deepest permitted layer. given: one per exit of the model, or per permitted one.
    Raises ValueError where they do not fit; BudgetError for a budget that cannot be met.
    """
    solved = given is None and calibration is not None and bool(budget.limits)
    metric = calibration.metric if solved else config.metric
    cost = CostModel(config, prompt_tokens, metric)
    _check_reachable(budget, cost)
    thresholds = config.thresholds if given is None else given
    if solved:
        thresholds = solve(
            budget, config, cost, None, calibration, max_layer, cadence=Cadence.of(config),
            one_row=True,
        ).thresholds
    return _start(config, max_layer, thresholds, metric, solved)


def dearest(config: DeerConfig, scope: str, prompt_tokens: int, max_layer: int) -> float:
    """GFLOPs of a step on average, by the model's own cadence, if it always decides for the deepest
    permitted exit: a higher budget limits nothing."""
    costs = _costs(scope, CostModel(config, prompt_tokens))
    return float(costs[len(config.permitted_exits(max_layer)) - 1])


def possible(config: DeerConfig, scope: str, max_layer: int) -> tuple[float, float]:
    """The least and the most GFLOPs that a step can cost on average, by any prompt and rule."""
    least = CostModel(config, LEAST_TOKENS).exit_gflops(scope, asked=False)[0]
    # Where answers are compared, the head gives one more.
    longest = CostModel(config, config.prompt.max_tokens, COMPARING[0]).exit_gflops(scope)
    return float(least), float(longest[len(config.permitted_exits(max_layer)) - 1])


def _costs(scope: str, cost: CostModel) -> np.ndarray:
    """Mean per step of deciding for every exit, by the model's own cadence: (exits,)."""
    return Cadence.of(cost.config).per_step(cost.exit_gflops(scope), cost.config.exit_layers)


def _check_reachable(budget: Budget, cost: CostModel) -> None:
    """BudgetError for an average below what a step costs that leaves as early as it can."""
    least = float(_costs(budget.scope, cost)[cost.first_exit])
    asked = budget.average_gflops
    if asked is not None and asked < least:
        raise BudgetError(
            f"average_gflops is {asked:g}; a step of this model costs at least {least:.6g} GFLOPs "
            f"(scope {budget.scope}), as those are spent before the first exit can be taken. "
            "Raise it."
        )


def _start(
    config: DeerConfig,
    max_layer: int,
    thresholds: Sequence[float],
    metric: str,
    solved: bool,
) -> Start:
    rule = ExitRule.of(config, config.exit_layers[-1], thresholds, metric, max_layer)
    return Start(finite(rule.thresholds), metric, solved)

"""From a budget to an exit rule: how deep, by which thresholds, and what to expect of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from deer_ros.budget.budget import Budget, BudgetError
from deer_ros.budget.calibration import Calibration
from deer_ros.budget.frontier import Frontier
from deer_ros.model.config import DeerConfig

if TYPE_CHECKING:
    from deer_ros.budget.cost import CostModel
    from deer_ros.budget.timing import CostTable

__all__ = ["Budget", "BudgetError", "Solution", "solve"]


@dataclass(frozen=True)
class Solution:
    """An exit rule that keeps a budget, and what the calibration lets expect of it.

    thresholds: one per permitted exit, the last infinite; where `knob` lies between two rows of the
    ladder, the cheaper one's. max_layer: the deepest permitted layer. exit_shares: expected share
    of the steps per permitted exit. expected_*: means per step; None where there is no calibration
    (or no table of milliseconds). binding: the budget that decides, or `none`. ladder, knob: the
    rows that tracking moves along and where on them the budget lies; None where no average and no
    error was asked for: then the thresholds are the model's own. cost_name: which average
    `ladder.cost` counts: `llm_gflops`, `step_gflops` or `ms`. reachable: the lowest and highest
    average in that unit.
    """

    thresholds: tuple[float, ...]
    max_layer: int
    metric: str
    binding: str
    exit_shares: tuple[float, ...] | None = None
    expected_llm_gflops: float | None = None
    expected_step_gflops: float | None = None
    expected_ms: float | None = None
    expected_action_error: float | None = None
    ladder: Frontier | None = None
    knob: float | None = None
    cost_name: str | None = None
    reachable: tuple[float, float] | None = None


def solve(
    budget: Budget,
    config: DeerConfig,
    cost: CostModel,
    table: CostTable | None = None,
    calibration: Calibration | None = None,
    max_layer: int | None = None,
    dtype: str = "float32",
) -> Solution:
    """The exit rule for `budget`. Raises BudgetError, with the reachable interval, for what cannot
    be met or lacks its table or calibration.

    max_layer: the deepest layer that is loaded or permitted otherwise; None: all of the model's.
    dtype: of the weights, for `memory_mib` (see `deer_ros.budget.memory`).
    """
    raise NotImplementedError

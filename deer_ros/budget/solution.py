"""From a budget to an exit rule: how deep, by which thresholds, and what to expect of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from deer_ros.budget.budget import Budget, BudgetError
from deer_ros.budget.calibration import Calibration
from deer_ros.budget.cost import CostModel
from deer_ros.budget.criterion import check_metric
from deer_ros.budget.depth import Depth, permitted_depth, rounded_up
from deer_ros.budget.families import family_ladder, with_families
from deer_ros.budget.frontier import Frontier, Samples
from deer_ros.budget.risk import cheapest_row, least_limit
from deer_ros.budget.solver import FAMILIES, NEVER, exits_taken
from deer_ros.budget.timing import CostTable
from deer_ros.model.config import DeerConfig

__all__ = ["Budget", "BudgetError", "Solution", "solve"]

UNITS = {"average_gflops": "GFLOPs", "average_ms": "ms"}


@dataclass(frozen=True)
class Solution:
    """An exit rule that keeps a budget, and what the calibration lets expect of it.

    thresholds: one per permitted exit, the last infinite; where `knob` lies between two rows of the
    ladder, the cheaper one's. max_layer: the deepest permitted layer. metric: of the thresholds.
    binding: the budget that decides, or `none`. exit_shares: expected share of the steps per
    permitted exit. expected_*: means per step; None where there is no calibration (or no table of
    milliseconds). expected_success_loss: what a gate guesses, if it guesses that.
    ladder, knob: the rows that tracking moves along and where on them the budget lies; None where
    no average and no error was asked for (then the thresholds are the model's own), or where
    nothing but full depth can follow. cost_name: what `ladder.cost` counts: `llm_gflops`,
    `step_gflops` or `ms`. reachable: the lowest and the highest average in that unit.
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
    expected_success_loss: float | None = None
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
    metric: str | None = None,
) -> Solution:
    """The exit rule for `budget`.

    max_layer: the deepest layer that is loaded or permitted otherwise; None: all of the model's.
    dtype: of the weights, for `memory_mib`. metric: of the criterion; None: the calibration's, or
    else the model's own; `cost` is taken under it. Raises BudgetError, with the reachable interval,
    for a budget that cannot be met, or that lacks its table or calibration; ValueError for a metric
    that the model does not have.
    """
    if calibration is not None and calibration.exit_layers != config.exit_layers:
        raise BudgetError(
            f"the calibration has exits after layers {list(calibration.exit_layers)}, the model "
            f"after {list(config.exit_layers)}; run `deer calibrate` for this model."
        )
    metric = metric_in_force(config, calibration, metric)
    check_metric(metric)
    config.check_metric(metric)
    cost = replace(cost, metric=metric)
    depth = permitted_depth(budget, config, cost, table, max_layer, dtype)
    return _Solver(budget, config, cost, table, calibration, metric, depth).solution()


def metric_in_force(
    config: DeerConfig, calibration: Calibration | None, asked: str | None
) -> str:
    """The metric that is asked for, or else the calibration's, or else the model's own."""
    if asked is not None:
        return asked
    return config.metric if calibration is None else calibration.metric


@dataclass(frozen=True)
class _Candidate:
    """A place on a ladder: the budget that put it there, and in which costs."""

    binding: str
    cost_name: str
    costs: np.ndarray
    ladder: Frontier
    knob: float

    @property
    def shares(self) -> np.ndarray:
        return self.ladder.at(self.ladder.shares, self.knob)


@dataclass(frozen=True)
class _Solver:
    """All that a solution depends on. Arrays below have one entry per permitted exit."""

    budget: Budget
    config: DeerConfig
    cost: CostModel
    table: CostTable | None
    calibration: Calibration | None
    metric: str
    depth: Depth

    def solution(self) -> Solution:
        budget = self.budget
        averages = [name for name in UNITS if getattr(budget, name) is not None]
        if not averages and budget.max_action_error is None:
            return self._own_thresholds()
        if budget.max_action_error is None and self.calibration is None:
            return self._without_calibration(averages)
        if self.calibration is None:
            raise BudgetError(
                "max_action_error needs a calibration of this model; run `deer calibrate`, or do "
                "not ask for it."
            )
        if budget.max_action_error is None:
            return self._described(self._for_averages(averages))
        return self._described(self._for_error(averages))

    def _for_averages(self, names: list[str]) -> _Candidate:
        """The place of least error that keeps all averages.

        That is where one of them lies and the others hold too; or, where each breaks another, the
        dearest row below one of these places at which all hold. The cheapest row always does.
        """
        candidates = [self._for_average(name) for name in names]
        keeping = [c for c in candidates if all(self._keeps(c, name) for name in names)]
        found = keeping or [self._lowered(c, names) for c in candidates]
        return min(found, key=lambda c: float(c.ladder.at(c.ladder.error, c.knob)))

    def _lowered(self, candidate: _Candidate, names: list[str]) -> _Candidate:
        for row in range(int(candidate.knob), -1, -1):
            lower = replace(candidate, knob=float(row))
            if all(self._keeps(lower, name) for name in names):
                break
        return lower

    def _for_average(self, name: str) -> _Candidate:
        asked, costs = getattr(self.budget, name), self._costs(name)
        ladder = self._ladder(costs, asked)
        self._check_reachable(name, asked, ladder.cost[0], costs[-1])
        knob = len(ladder) - 1.0 if asked >= costs[-1] else ladder.knob_for(asked)
        binding = self.depth.binding if asked >= costs[-1] else name
        return _Candidate(binding, self._cost_name(name), costs, ladder, knob)

    def _for_error(self, averages: list[str]) -> _Candidate:
        """The cheapest row that is certified, if it keeps the averages."""
        budget, name = self.budget, (averages or ["average_gflops"])[0]
        costs = self._costs(name)
        if budget.solver != "optimal":
            raise BudgetError(
                f"max_action_error is certified for solver optimal alone; it is {budget.solver}."
            )
        ladder = self._frontier().under(costs)
        if ladder.losses is None or not ladder.losses.shape[1]:
            raise BudgetError(
                "max_action_error needs held-out episodes, and this calibration has none; run "
                "`deer calibrate` with --holdout above 0."
            )
        whole = len(costs) == len(self.config.exit_layers)
        row = cheapest_row(
            ladder.thresholds, ladder.losses, budget.max_action_error, budget.confidence, whole
        )
        if row is None:
            least = least_limit(ladder.losses[-1], budget.confidence)
            raise BudgetError(
                f"max_action_error is {budget.max_action_error:g}; with layers up to "
                f"{self.depth.max_layer} and confidence {budget.confidence:g} it must be at least "
                f"{least:.3g}. Raise it, or permit more layers."
            )
        found = _Candidate("max_action_error", self._cost_name(name), costs, ladder, float(row))
        for name in averages:
            if not self._keeps(found, name):
                needed = float(found.shares @ self._costs(name))
                raise BudgetError(
                    f"max_action_error {budget.max_action_error:g} needs {needed:.6g} "
                    f"{UNITS[name]} a step on average, and {name} is "
                    f"{getattr(budget, name):g}; raise one of them."
                )
        return found

    def _keeps(self, candidate: _Candidate, name: str) -> bool:
        mean = float(candidate.shares @ self._costs(name))
        return mean <= getattr(self.budget, name) * (1 + 1e-9)

    def _ladder(self, costs: np.ndarray, asked: float) -> Frontier:
        if self.budget.solver != "optimal":
            return family_ladder(self._samples(costs), self.budget.solver, asked)
        # Stored are some rows of the optimum, and for other relations of the costs good ones:
        # between them a family may do better.
        return with_families(self._frontier().under(costs), self._samples(costs), asked)

    def _frontier(self) -> Frontier:
        frontier = self.calibration.frontiers.get(self.depth.exits)
        if frontier is None:
            raise BudgetError(
                f"the calibration has no frontier for {self.depth.exits} exits; run `deer "
                f"calibrate` again, or choose one of the solvers {', '.join(FAMILIES)}."
            )
        if self.metric != self.calibration.metric:
            raise BudgetError(
                f"the calibration's frontier is for the metric {self.calibration.metric}, and "
                f"{self.metric} is asked for; run `deer calibrate --metric {self.metric}`, or "
                f"choose one of the solvers {', '.join(FAMILIES)}."
            )
        return frontier

    def _samples(self, costs: np.ndarray) -> Samples:
        exits = self.depth.exits
        deltas = self.calibration.deltas(self.metric)[:exits]
        return Samples(deltas, self.calibration.losses(self.metric)[:exits], costs)

    def _costs(self, name: str) -> np.ndarray:
        """Cost of leaving at each permitted exit."""
        if name == "average_ms":
            if self.table is None:
                raise BudgetError(
                    "average_ms needs a table of milliseconds measured on this machine; `deer "
                    "bench` makes one."
                )
            costs = self.table.exits_ms()
        else:
            costs = self.cost.exit_gflops(self.budget.scope)
        return np.asarray(costs, np.float64)[: self.depth.exits]

    def _cost_name(self, name: str) -> str:
        return "ms" if name == "average_ms" else f"{self.budget.scope}_gflops"

    def _check_reachable(self, name: str, asked: float, lowest: float, highest: float) -> None:
        if asked >= lowest * (1 - 1e-9):
            return
        of = f" (scope {self.budget.scope})" if name == "average_gflops" else ""
        raise BudgetError(
            f"{name} is {asked:g}; a step of this model costs {lowest:.6g} to {highest:.6g} "
            f"{UNITS[name]}{of}, as {lowest:.6g} are spent before the first exit can be taken. "
            f"Raise {name} to at least {rounded_up(lowest)}."
        )

    def _described(self, candidate: _Candidate) -> Solution:
        """The candidate with all that it lets expect."""
        ladder, knob = candidate.ladder, candidate.knob
        thresholds = ladder.thresholds[min(int(knob), len(ladder) - 1)].tolist()
        return replace(
            self._expecting(candidate.shares),
            **self._losing(ladder, knob),
            thresholds=(*thresholds[:-1], math.inf),
            binding=candidate.binding,
            ladder=ladder,
            knob=knob,
            cost_name=candidate.cost_name,
            reachable=(float(ladder.cost[0]), float(candidate.costs[-1])),
        )

    def _losing(self, ladder: Frontier, knob: float) -> dict[str, float]:
        """What is lost against full depth on average, by the names that `Solution` has for it."""
        loss = float(ladder.at(ladder.error, knob))
        if self.calibration is None or not self.calibration.success_counts(self.metric):
            return {"expected_action_error": loss}
        low = min(int(knob), len(ladder) - 1)
        rows = ladder.thresholds[low : low + 2]
        errors = [self._mean(self.calibration.errors(), row, self.metric) for row in rows]
        upper = knob - low if len(errors) > 1 else 0.0
        error = errors[0] + upper * (errors[-1] - errors[0])
        return {"expected_action_error": error, "expected_success_loss": loss}

    def _mean(self, losses: np.ndarray, thresholds: Sequence[float], metric: str) -> float:
        """Of losses (E, n), where steps leave by `thresholds` of the permitted exits."""
        deltas = self.calibration.deltas(metric)[: self.depth.exits]
        taken = exits_taken(deltas, np.array(thresholds, np.float32))
        return float(losses[taken, np.arange(len(taken))].mean(dtype=np.float64))

    def _expecting(self, shares: np.ndarray | None) -> Solution:
        """A solution by the model's own thresholds, with what `shares` cost."""
        exits = self.depth.exits
        solution = Solution(
            thresholds=(*self.config.thresholds[: exits - 1], math.inf),
            max_layer=self.depth.max_layer,
            metric=self.metric,
            binding=self.depth.binding,
        )
        if shares is None:
            return solution
        table = self.table
        return replace(
            solution,
            exit_shares=tuple(shares.tolist()),
            expected_llm_gflops=float(shares @ self.cost.exit_gflops("llm")[:exits]),
            expected_step_gflops=float(shares @ self.cost.exit_gflops("step")[:exits]),
            expected_ms=None if table is None else float(shares @ table.exits_ms()[:exits]),
        )

    def _own_thresholds(self) -> Solution:
        """No average and no error was asked for: the model's own thresholds, and their metric."""
        metric, calibration = self.config.metric, self.calibration
        if calibration is None:
            return replace(self._expecting(None), metric=metric)
        exits = self.depth.exits
        thresholds = (*self.config.thresholds[: exits - 1], math.inf)
        taken = exits_taken(
            calibration.deltas(metric)[:exits], np.array(thresholds, np.float32)
        )
        lost = None
        if calibration.success_counts(metric):
            lost = self._mean(calibration.losses(metric), thresholds, metric)
        return replace(
            self._expecting(np.bincount(taken, minlength=exits) / len(taken)),
            metric=metric,
            expected_action_error=self._mean(calibration.errors(), thresholds, metric),
            expected_success_loss=lost,
        )

    def _without_calibration(self, averages: list[str]) -> Solution:
        """Full depth, if the averages permit it; nothing else can be told."""
        for name in averages:
            asked, costs = getattr(self.budget, name), self._costs(name)
            first = min(self.cost.first_exit, len(costs) - 1)
            self._check_reachable(name, asked, costs[first], costs[-1])
            if asked < costs[-1]:
                raise BudgetError(
                    f"{name} is {asked:g}, below the {costs[-1]:.6g} {UNITS[name]} of full depth; "
                    "that needs a calibration of this model. Run `deer calibrate`."
                )
        exits = self.depth.exits
        whole = np.eye(exits)[-1]
        error = 0.0 if exits == len(self.config.exit_layers) else None
        never = (float(NEVER),) * (exits - 1)
        return replace(
            self._expecting(whole), thresholds=(*never, math.inf), expected_action_error=error
        )

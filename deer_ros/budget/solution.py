"""From a budget to an exit rule: how deep, by which thresholds, and what to expect of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from deer_ros.budget.budget import Budget, BudgetError
from deer_ros.budget.cadence import Cadence
from deer_ros.budget.calibration import Calibration
from deer_ros.budget.cost import CostModel
from deer_ros.budget.criterion import check_metric
from deer_ros.budget.depth import permitted_depth
from deer_ros.budget.frontier import Frontier
from deer_ros.budget.placing import UNITS, Place, Placing
from deer_ros.budget.solver import NEVER, exits_taken
from deer_ros.budget.timing import CostTable
from deer_ros.model.config import DeerConfig

__all__ = ["Budget", "BudgetError", "Solution", "solve"]


@dataclass(frozen=True)
class Solution:
    """An exit rule that keeps a budget, and what the calibration lets expect of it.

    thresholds: one per permitted exit, the last infinite; where `knob` lies between two rows of the
    ladder, the cheaper one's. max_layer: the deepest permitted layer. metric: of the thresholds.
    binding: the budget that decides, or `none`. exit_shares: expected share of the steps per
    permitted exit, those between decisions too. expected_*: means per step; None where there is no
    calibration (or no table of milliseconds). expected_success_loss: what a gate guesses, if it
    guesses that. cadence: which steps decide.
    ladder, knob: the rows that tracking moves along and where on them the budget lies; None where
    every step goes as deep as is permitted: no average and no error was asked for, or nothing but
    full depth can follow. cost_name: what `ladder.cost` counts: `llm_gflops`,
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
    cadence: Cadence = field(default_factory=Cadence)
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
    cadence: Cadence | None = None,
    one_row: bool = False,
) -> Solution:
    """The exit rule for `budget`.

    max_layer: the deepest layer that is loaded or permitted otherwise; None: all of the model's.
    dtype: of the weights in memory. metric: of the criterion; None: the calibration's, or
    else the model's own; `cost` is taken under it. cadence: which steps decide; None: as the model
    does, but every step where that cannot give what is asked for, or nothing is to be saved.
    one_row: whether the solution's thresholds must do for all steps, as where they are kept; then
    it lies on a row, the one of least loss within the budget. Raises BudgetError, with the
    reachable interval, for a budget that cannot be met, or that lacks its table or calibration;
    ValueError for a metric that the model does not have.
    """
    if calibration is not None and calibration.exit_layers != config.exit_layers:
        raise BudgetError(
            f"the calibration has exits after layers {list(calibration.exit_layers)}, the model "
            f"after {list(config.exit_layers)}; run `deer calibrate` for this model."
        )
    if budget.max_action_error is not None and calibration is not None:
        _check_dtype(calibration.dtype, dtype)
    metric = metric_in_force(config, calibration, metric)
    check_metric(metric)
    config.check_metric(metric)
    cost = replace(cost, metric=metric)
    depth = permitted_depth(budget, config, cost, table, max_layer, dtype)
    own = _Solver(
        budget, config, cost, table, calibration, metric, depth, Cadence.of(config), one_row
    )
    solver = replace(own, cadence=cadence or (Cadence() if own.wants_more else own.cadence))
    return solver.solution()


def _check_dtype(calibrated: str | None, loaded: str) -> None:
    """BudgetError where what the exits answer was certified for weights of another type."""
    if calibrated not in (None, loaded):
        raise BudgetError(
            f"max_action_error is certified for weights of type {calibrated}, and these are loaded "
            f"as {loaded}; load them as {calibrated}, run `deer calibrate --dtype {loaded}`, or do "
            "not ask for it."
        )


def metric_in_force(
    config: DeerConfig, calibration: Calibration | None, asked: str | None
) -> str:
    """The metric that is asked for, or else the calibration's, or else the model's own."""
    if asked is not None:
        return asked
    return config.metric if calibration is None else calibration.metric


class _Solver(Placing):
    """Tells what the place of a budget lets expect, or full depth without one."""

    @property
    def wants_more(self) -> bool:
        """Whether more than this cadence can give is asked for: a certificate, which is for steps
        that all decide, or no averages below what it spends when it decides for the deepest exit.
        """
        return self.budget.max_action_error is not None or all(
            getattr(self.budget, name) > self.costs(name)[-1] for name in self._averages()
        )

    def _averages(self) -> list[str]:
        return [name for name in UNITS if getattr(self.budget, name) is not None]

    def solution(self) -> Solution:
        budget = self.budget
        averages = self._averages()
        if not averages and budget.max_action_error is None:
            return self._deepest()
        if budget.max_action_error is None and self.calibration is None:
            return self._without_calibration(averages)
        if self.calibration is None:
            raise BudgetError(
                "max_action_error needs a calibration of this model; run `deer calibrate`, or do "
                "not ask for it."
            )
        if budget.max_action_error is not None and self.cadence.steps_per_decision != 1:
            raise BudgetError(
                "max_action_error is certified for exits that are decided on at every step, and "
                f"steps_per_decision is {self.cadence.steps_per_decision}; set that to 1, or do "
                "not ask for an action error."
            )
        if budget.max_action_error is None:
            return self._described(self.for_averages(averages))
        return self._described(self.for_error(averages))

    def _described(self, place: Place) -> Solution:
        """The place with all that it lets expect."""
        ladder, knob = place.ladder, place.knob
        thresholds = ladder.thresholds[min(int(knob), len(ladder) - 1)].tolist()
        return replace(
            self._expecting(place.shares),
            **self._losing(ladder, knob),
            thresholds=(*thresholds[:-1], math.inf),
            binding=place.binding,
            ladder=ladder,
            knob=knob,
            cost_name=place.cost_name,
            reachable=(float(ladder.cost[0]), float(place.costs[-1])),
        )

    def _losing(self, ladder: Frontier, knob: float) -> dict[str, float]:
        """What is lost against full depth on average, by the names that `Solution` has for it."""
        loss = float(ladder.at(ladder.error, knob))
        guessed = self.calibration.success_counts(self.metric)
        if not guessed and self.cadence.layer_between is None:
            return {"expected_action_error": loss}
        low = min(int(knob), len(ladder) - 1)
        rows = ladder.thresholds[low : low + 2]
        errors = [self._mean(self._errors(), row) for row in rows]
        upper = knob - low if len(errors) > 1 else 0.0
        error = errors[0] + upper * (errors[-1] - errors[0])
        return {"expected_action_error": error, "expected_success_loss": loss if guessed else None}

    def _errors(self) -> np.ndarray:
        """Action errors per step of deciding for every exit: (E, n)."""
        return self.cadence.per_step(self.calibration.errors(), self.config.exit_layers)

    def _mean(self, losses: np.ndarray, thresholds: Sequence[float]) -> float:
        """Of losses (E, n), where steps leave by `thresholds` of the permitted exits."""
        deltas = self.calibration.deltas(self.metric)[: self.depth.exits]
        taken = exits_taken(deltas, np.array(thresholds, np.float32))
        return float(losses[taken, np.arange(len(taken))].mean(dtype=np.float64))

    def _expecting(self, shares: np.ndarray, asked: bool = True) -> Solution:
        """A solution that takes the deepest exit, with what `shares` of decisions cost.

        asked: whether the exits before the one that is taken are asked.
        """
        exits, table = self.depth.exits, self.table
        shares = self.cadence.shares_of_steps(shares, self.config.exit_layers)
        return Solution(
            thresholds=(*[float(NEVER)] * (exits - 1), math.inf),
            max_layer=self.depth.max_layer,
            metric=self.metric,
            binding=self.depth.binding,
            cadence=self.cadence,
            exit_shares=tuple(shares.tolist()),
            expected_llm_gflops=float(shares @ self.cost.exit_gflops("llm")[:exits]),
            expected_step_gflops=float(shares @ self.cost.exit_gflops("step", asked)[:exits]),
            expected_ms=None if table is None else float(shares @ table.exits_ms()[:exits]),
        )

    @property
    def _in_time(self) -> bool:
        """Whether there is a deadline, for which every exit on the way answers."""
        return self.budget.latency_ms is not None

    def _deepest(self) -> Solution:
        """Nothing is to be saved: every step that decides goes as deep as is permitted."""
        solution = self._expecting(np.eye(self.depth.exits)[-1], self._in_time)
        if self.calibration is None:
            whole = self.depth.exits == len(self.config.exit_layers)
            exact = whole and self.cadence.layer_between is None
            return replace(solution, expected_action_error=0.0 if exact else None)
        error = self._mean(self._errors(), solution.thresholds)
        lost = None
        if self.calibration.success_counts(self.metric):
            lost = self._mean(self.calibration.losses(self.metric), solution.thresholds)
        return replace(solution, expected_action_error=error, expected_success_loss=lost)

    def _without_calibration(self, averages: list[str]) -> Solution:
        """Full depth, if the averages permit it; nothing else can be told."""
        for name in averages:
            asked, costs = getattr(self.budget, name), self.costs(name)
            first = min(self.cost.first_exit, len(costs) - 1)
            whole = self.costs(name, self._in_time)[-1]
            self.check_reachable(name, asked, min(costs[first], whole), whole)
            if asked < whole:
                raise BudgetError(
                    f"{name} is {asked:g}, below the {whole:.6g} {UNITS[name]} of full depth; "
                    "that needs a calibration of this model. Run `deer calibrate`."
                )
        return self._deepest()

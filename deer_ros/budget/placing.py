"""Where a budget lies: on which ladder of thresholds, and how far up.

An average lies where the ladder costs as much; an action error at the cheapest row that is
certified to keep it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from deer_ros.budget.budget import Budget, BudgetError
from deer_ros.budget.cadence import Cadence
from deer_ros.budget.calibration import Calibration
from deer_ros.budget.cost import CostModel
from deer_ros.budget.depth import Depth, rounded_up
from deer_ros.budget.families import beside_families, family_ladder, with_families
from deer_ros.budget.frontier import Frontier, Samples
from deer_ros.budget.risk import cheapest_row, least_limit
from deer_ros.budget.solver import FAMILIES
from deer_ros.budget.timing import CostTable
from deer_ros.model.config import DeerConfig

UNITS = {"average_gflops": "GFLOPs", "average_ms": "ms"}
"""The averages that a budget may ask for."""


@dataclass(frozen=True)
class Place:
    """A place on a ladder of thresholds.

    binding: the budget that put it there. cost_name, costs: what the ladder counts, and what
    deciding for every permitted exit costs in that, per step, (K,). knob: which row, or between
    which two.
    """

    binding: str
    cost_name: str
    costs: np.ndarray
    ladder: Frontier
    knob: float

    @property
    def shares(self) -> np.ndarray:
        """Share of the decisions that is for every permitted exit: (K,)."""
        return self.ladder.at(self.ladder.shares, self.knob)


@dataclass(frozen=True)
class Placing:
    """Finds the place of a budget; all methods raise BudgetError where it has none.

    Arrays have one entry per permitted exit, K of them. calibration: None is enough for `costs` and
    `check_reachable` alone. one_row: whether one row of thresholds must do for all steps; else they
    may take turns between two.
    """

    budget: Budget
    config: DeerConfig
    cost: CostModel
    table: CostTable | None
    calibration: Calibration | None
    metric: str
    depth: Depth
    cadence: Cadence
    one_row: bool = False

    def for_averages(self, names: list[str]) -> Place:
        """The place of least error that keeps all averages.

        That is where one of them lies and the others hold too; or, where each breaks another, the
        dearest row below one of these places at which all hold. The cheapest row always does.
        """
        candidates = [self._for_average(name) for name in names]
        keeping = [c for c in candidates if all(self._keeps(c, name) for name in names)]
        found = keeping or [self._lowered(c, names) for c in candidates]
        return min(found, key=lambda c: float(c.ladder.at(c.ladder.error, c.knob)))

    def _lowered(self, place: Place, names: list[str]) -> Place:
        for row in range(int(place.knob), -1, -1):
            lower = replace(place, knob=float(row))
            if all(self._keeps(lower, name) for name in names):
                break
        return lower

    def _for_average(self, name: str) -> Place:
        asked, costs = getattr(self.budget, name), self.costs(name)
        ladder = self._ladder(costs, asked)
        self.check_reachable(name, asked, ladder.cost[0], costs[-1])
        place = ladder.row_for if self.one_row else ladder.knob_for
        knob = len(ladder) - 1.0 if asked >= costs[-1] else float(place(asked))
        binding = self.depth.binding if asked >= costs[-1] else name
        return Place(binding, self._cost_name(name), costs, ladder, knob)

    def for_error(self, averages: list[str]) -> Place:
        """The cheapest row that is certified, if it keeps the averages."""
        budget, name = self.budget, (averages or ["average_gflops"])[0]
        costs = self.costs(name)
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
        found = Place("max_action_error", self._cost_name(name), costs, ladder, float(row))
        for name in averages:
            if not self._keeps(found, name):
                needed = float(found.shares @ self.costs(name))
                raise BudgetError(
                    f"max_action_error {budget.max_action_error:g} needs {needed:.6g} "
                    f"{UNITS[name]} a step on average, and {name} is "
                    f"{getattr(budget, name):g}; raise one of them."
                )
        return found

    def _keeps(self, place: Place, name: str) -> bool:
        mean = float(place.shares @ self.costs(name))
        return mean <= getattr(self.budget, name) * (1 + 1e-9)

    def _ladder(self, costs: np.ndarray, asked: float) -> Frontier:
        if self.budget.solver != "optimal":
            return family_ladder(self._samples(costs), self.budget.solver, asked)
        # Stored are some rows of the optimum, and for other relations of the costs good ones:
        # between them a family may do better.
        join = beside_families if self.one_row else with_families
        return join(self._frontier().under(costs), self._samples(costs), asked)

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

    def costs(self, name: str, asked: bool = True) -> np.ndarray:
        """Mean per step of deciding for each permitted exit; asked: whether those before are asked,
        of which only GFLOPs tell."""
        if name == "average_ms":
            if self.table is None:
                raise BudgetError(
                    "average_ms needs a table of milliseconds measured on this machine; `deer "
                    "bench` makes one."
                )
            costs = self.table.exits_ms()
        else:
            costs = self.cost.exit_gflops(self.budget.scope, asked)
        costs = np.asarray(costs, np.float64)[: self.depth.exits]
        return self.cadence.per_step(costs, self.config.exit_layers)

    def _cost_name(self, name: str) -> str:
        return "ms" if name == "average_ms" else f"{self.budget.scope}_gflops"

    def check_reachable(self, name: str, asked: float, lowest: float, highest: float) -> None:
        """BudgetError where `asked` is below the lowest cost; it names the whole interval."""
        if asked >= lowest * (1 - 1e-9):
            return
        of = f" (scope {self.budget.scope})" if name == "average_gflops" else ""
        raise BudgetError(
            f"{name} is {asked:g}; a step of this model costs {lowest:.6g} to {highest:.6g} "
            f"{UNITS[name]}{of}, as {lowest:.6g} are spent before the first exit can be taken. "
            f"Raise {name} to at least {rounded_up(lowest)}."
        )

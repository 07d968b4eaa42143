"""What a budget makes of the steps: the exit rule of every one of them, learnt from what they cost.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import numpy as np

from deer_ros.budget.budget import Budget, BudgetError
from deer_ros.budget.cadence import Cadence
from deer_ros.budget.calibration import Calibration
from deer_ros.budget.cost import CostModel
from deer_ros.budget.deadline import Deadline, SegmentTimes
from deer_ros.budget.depth import permitted_depth
from deer_ros.budget.frontier import Frontier
from deer_ros.budget.placing import UNITS
from deer_ros.budget.solution import Solution, metric_in_force, solve
from deer_ros.budget.timing import CostTable
from deer_ros.budget.tracking import GAIN, Tracker
from deer_ros.decision import StepCost
from deer_ros.exit_rule import ExitRule
from deer_ros.model.config import DeerConfig

AVERAGES = tuple(UNITS)
FOREVER_MS = 1e300


@dataclass(frozen=True)
class Facts:
    """What a budget is solved from, besides the budget.

    dtype: of the weights. built: layers that are loaded. limit: deepest layer that may run, None:
    all that are loaded. metric: of the criterion, None: as calibrated. tokens: length of the prompt
    in force, None before the first. table, calibration: None where there is none.
    cadence: which steps decide; None: as `solve` chooses.
    """

    config: DeerConfig
    dtype: str
    built: int
    limit: int | None = None
    metric: str | None = None
    tokens: int | None = None
    table: CostTable | None = None
    calibration: Calibration | None = None
    cadence: Cadence | None = None

    @property
    def max_layer(self) -> int:
        """Deepest layer that may run."""
        return self.built if self.limit is None else min(self.limit, self.built)

    @property
    def cost(self) -> CostModel:
        """Costs of the prompt in force; before there is one, of a usual one."""
        metric = metric_in_force(self.config, self.calibration, self.metric)
        return CostModel(self.config, self.tokens or self.config.prompt.usual_tokens, metric)

    def solve(self, budget: Budget) -> Solution:
        """The solution for `budget`. Raises BudgetError."""
        solution = solve(
            budget, self.config, self.cost, self.table, self.calibration, self.max_layer,
            self.dtype, self.metric, self.cadence,
        )  # fmt: skip
        if solution.binding == "none" and self._is_held_by_memory(budget):
            solution = dataclasses.replace(solution, binding="memory_mib")
        return solution

    def _is_held_by_memory(self, budget: Budget) -> bool:
        """Whether there are no more layers because they would not fit."""
        if budget.memory_mib is None:
            return False
        memory = Budget(memory_mib=budget.memory_mib)
        held = permitted_depth(
            memory, self.config, self.cost, None, self.limit, self.dtype)
        return held.binding == "memory_mib" and held.max_layer == self.built

    def exit_costs(self, average: str, scope: str, cadence: Cadence) -> np.ndarray:
        """Mean per step of deciding for every exit, in the unit of an average: float64 (exits,)."""
        in_ms = average == "average_ms"
        costs = self.table.exits_ms() if in_ms else self.cost.exit_gflops(scope)
        return cadence.per_step(costs, self.config.exit_layers)


@dataclass(frozen=True)
class Spent:
    """Means per step over `steps` steps; NaN before the first."""

    steps: int = 0
    llm_gflops: float = math.nan
    step_gflops: float = math.nan
    step_ms: float = math.nan

    def plus(self, cost: StepCost) -> Spent:
        """With one more step."""
        steps = self.steps + 1

        def mean(name: str) -> float:
            before = getattr(self, name) if self.steps else 0.0
            return before + (getattr(cost, name) - before) / steps

        return Spent(steps, mean("llm_gflops"), mean("step_gflops"), mean("step_ms"))


class Steady:
    """No budget: every step goes by the same rule."""

    budget = solution = unmet = deadline = None

    def __init__(self, rule: ExitRule) -> None:
        self.rule = rule
        self.spent = Spent()

    def learn(self, cost: StepCost, decides: bool = True, cut: bool = False) -> None:
        """Take in what a step cost."""
        self.spent = self.spent.plus(cost)


class Pacing:
    """A budget in force.

    Where an average is asked for, steps go by rows of the solution's ladder: at a knob that stays,
    or that a tracker per average moves; of two, the one that asks for less holds. Where an action
    error is asked for, all go by the one row that was certified. A deadline limits no other rule:
    it is kept while a step runs, which may go as deep as it then has time for.
    """

    def __init__(
        self, budget: Budget, facts: Facts, times: SegmentTimes | None = None
    ) -> None:
        """times: what an earlier deadline was kept by. Where the budget cannot be met, `unmet` says
        so from the start."""
        self.budget = budget
        self.spent = Spent()
        self._cut = 0
        self._refusal: str | None = None
        self._trackers: dict[str, Tracker] = {}
        self._times = times
        self.facts = facts
        self.adapt()

    @property
    def asked(self) -> tuple:
        """All that a user asked for; as long as it is the same, means go on."""
        facts = self.facts
        return self.budget, facts.limit, facts.metric, facts.cadence

    @property
    def unmet(self) -> str | None:
        """Why the budget cannot be met, with this instruction mostly, where that is so; then as
        little is spent as can be, or as an action error permits."""
        return self._refusal or self._overspent or self._cut_short

    @property
    def rule(self) -> ExitRule:
        """What the next step goes by."""
        if self._ladder is None:
            return self._rule_of(0)
        knob = self._knob
        if self._trackers:
            rows = np.arange(len(self._ladder))
            knob = min(
                float(np.interp(tracker.aim, self._row_costs[average], rows))
                for average, tracker in self._trackers.items()
            )
        return self._rule_of(self._ladder.row(knob, self.spent.steps))

    def learn(self, cost: StepCost, decides: bool = True, cut: bool = False) -> None:
        """Take in what a step cost. decides: False where it asked nothing. cut: by the deadline."""
        self.spent = self.spent.plus(cost)
        self._cut += cut
        for average, tracker in self._trackers.items():
            tracker.update(self._counted(average, cost), decides)

    @property
    def deadline(self) -> Deadline | None:
        """What ends a step in time, where that is asked for and times were measured."""
        table = self.facts.table
        if self.budget.latency_ms is None or table is None:
            return None
        if self._times is None or self._times.table != table:
            self._times = SegmentTimes(table)
        return Deadline(self.budget.latency_ms, self._times)

    def adapt(self, **changes: object) -> None:
        """Solve again where some of the facts are others now: the prompt, the depth, the table.

        What was added up so far stays. Where the budget cannot be met any more, `unmet` says so.
        """
        facts = dataclasses.replace(self.facts, **changes)
        try:
            self._solve(facts, self.budget)
            self._refusal = None
        except BudgetError as error:
            self._refusal = str(error)
            first = facts.config.exit_layers[facts.cost.first_exit]
            self._solve(dataclasses.replace(facts, limit=first), Budget())
            self.facts = facts

    def _solve(self, facts: Facts, budget: Budget) -> None:
        self.solution = run = facts.solve(budget)
        # Cheaper rows than the certified one are not certified, and dearer ones would only be spent
        # because they may be; nor is a row that goes deeper where there is time.
        certified = budget.max_action_error is not None
        if budget.latency_ms is not None and not certified:
            run = facts.solve(budget.replace(latency_ms=FOREVER_MS))
        self.facts, self._run, self._knob = facts, run, run.knob
        self._ladder = None if certified else run.ladder
        self._rules: dict[int, ExitRule] = {}
        if self._ladder is not None:
            self._aim(self._ladder, facts)
        self._rule_of(0)  # what is no rule is told of now, not at every step

    def _aim(self, ladder: Frontier, facts: Facts) -> None:
        """Trackers for the averages, or new ends for those there are."""
        exits = ladder.shares.shape[1]
        self._row_costs = {
            average: np.maximum.accumulate(
                ladder.shares
                @ facts.exit_costs(average, self.budget.scope, self._run.cadence)[:exits]
            )
            for average in AVERAGES
            if self.budget.tracking and average in self.budget.limits
        }
        for average, costs in self._row_costs.items():
            ends = (float(costs[0]), float(costs[-1]), float(ladder.at(costs, self._knob)))
            if average in self._trackers:
                self._trackers[average].aim_from(*ends)
            else:
                self._trackers[average] = Tracker(self.budget.limits[average], *ends)

    def _counted(self, average: str, spent: StepCost | Spent) -> float:
        """What was spent, in the unit of an average."""
        in_ms = average == "average_ms"
        return getattr(spent, "step_ms" if in_ms else f"{self.budget.scope}_gflops")

    @property
    def _overspent(self) -> str | None:
        """Which average is missed beside an action error: its rule stays, whatever it costs."""
        error = self.budget.max_action_error
        if error is None or not self.spent.steps:
            return None
        for average in filter(self.budget.limits.get, AVERAGES):
            asked, mean = self.budget.limits[average], self._counted(average, self.spent)
            if mean > asked + self._slack(average):
                return (
                    f"max_action_error {error:g} takes {mean:.4g} {UNITS[average]} a step on "
                    f"average here, and {average} is {asked:g}; raise one of them."
                )
        return None

    @property
    def _cut_short(self) -> str | None:
        """How many steps a deadline ended before the certified rule would have."""
        if self.budget.max_action_error is None or not self._cut:
            return None
        return (
            f"latency_ms {self.budget.latency_ms:g} ended {self._cut} of {self.spent.steps} steps "
            "before the exit that max_action_error is certified for; raise one of them."
        )

    def _slack(self, average: str) -> float:
        """By how much tracking would let a mean be off after as many steps."""
        costs = self.facts.exit_costs(average, self.budget.scope, self._run.cadence)
        return (costs[-1] - costs[0]) * (1 / GAIN + 1) / self.spent.steps

    def _rule_of(self, row: int) -> ExitRule:
        """The rule of one row, made once."""
        if row not in self._rules:
            run = self._run
            thresholds = run.thresholds if self._ladder is None else self._ladder.thresholds[row]
            self._rules[row] = ExitRule.of(
                self.facts.config, run.max_layer, thresholds, run.metric,
                cadence=run.cadence,
            )
        return self._rules[row]

"""What is searched for, and what was tried."""

from __future__ import annotations

from dataclasses import dataclass

from deer_ros.budget.cadence import Cadence
from deer_ros.search.scoring import Score

# Rounding of a mean must not decide.
TOLERANCE = 1e-9
SCORERS_OWN = "scorer"
"""The scope of a budget that is in the unit of a scorer's costs, whatever that is."""


@dataclass(frozen=True)
class Problem:
    """What is searched for: the same for all workers of a study, and whenever it is resumed.

    fingerprint: of the model's weights. scorer: its name. budget: upper limit of the average cost
    of a step; None: what the start costs. scope: what the cost counts, `llm` or `step` in GFLOPs,
    or `SCORERS_OWN` in a unit of the scorer's. max_layer: the deepest permitted layer. seeds: of
    the trials' episodes, the same for all of them. held_out: of the episodes on which what was
    found is compared with the start. span: of the box around the start. given: thresholds that the
    user said to start from, or None. cadence: which steps of an episode decide, in words.
    """

    fingerprint: str
    scorer: str
    budget: float | None
    scope: str
    max_layer: int
    seeds: tuple[int, ...]
    held_out: tuple[int, ...]
    span: float
    given: tuple[float, ...] | None = None
    cadence: str = str(Cadence())

    def __post_init__(self) -> None:
        if not self.seeds or not self.held_out or set(self.seeds) & set(self.held_out):
            raise ValueError("there must be seeds, and others that are held out.")

    def keeps(self, cost: float, start_cost: float) -> bool:
        """Whether an average cost is within the budget, or within the start's if there is none."""
        limit = start_cost if self.budget is None else self.budget
        return cost <= limit * (1 + TOLERANCE)


@dataclass(frozen=True)
class Trial:
    """number: in the study. score: on the search's seeds."""

    number: int
    thresholds: tuple[float, ...]
    score: Score
    is_start: bool

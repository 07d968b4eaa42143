"""What a step may cost, or how good it must be, as a user says it."""

from __future__ import annotations

import dataclasses
import math
import numbers
from dataclasses import dataclass

SCOPES = ("llm", "step")
SOLVERS = ("optimal", "exponential", "gaussian", "gamma")

_POSITIVE = (
    "average_gflops", "average_ms", "peak_gflops", "memory_mib", "latency_ms", "max_action_error",
)
_ASKING = ("average_gflops", "average_ms", "latency_ms", "max_action_error")


class BudgetError(ValueError):
    """A budget that cannot be met. Its sentence says what can, and what to change."""


@dataclass(frozen=True)
class Budget:
    """Upper limits, each of them None where there is none. All that are given hold at once.

    average_gflops: 1e9 multiply-adds a step, on average, counted in `scope`. average_ms: measured
    milliseconds of a whole step, on average. peak_gflops: what no step may exceed, in `scope`.
    memory_mib: weights that are resident. latency_ms: deadline of every step, from its start.
    max_action_error: expected difference to the full-depth action (root mean square over the six
    pose values), held with probability `confidence`. scope: `llm`, the decoder layers alone, as
    the DeeR paper counts, or `step`, all of a step. solver: how thresholds are found for an
    average. tracking: whether a closed loop holds the average while the policy runs.
    Raises ValueError with a sentence for values that are no budget.
    """

    average_gflops: float | None = None
    average_ms: float | None = None
    peak_gflops: float | None = None
    memory_mib: float | None = None
    latency_ms: float | None = None
    max_action_error: float | None = None
    confidence: float = 0.9
    scope: str = "llm"
    solver: str = "optimal"
    tracking: bool = True

    def __post_init__(self) -> None:
        for name in _POSITIVE:
            value = getattr(self, name)
            if value is None:
                continue
            if not (_is_real(value) and _is_positive(value)):
                raise ValueError(
                    f"{name} is {value!r}; it must be a finite number above 0, or None for no "
                    "such budget."
                )
            object.__setattr__(self, name, float(value))
        if not (_is_real(self.confidence) and 0 < self.confidence < 1):
            raise ValueError(
                f"confidence is {self.confidence!r}; it must be a number between 0 and 1."
            )
        object.__setattr__(self, "confidence", float(self.confidence))
        for name, allowed in (("scope", SCOPES), ("solver", SOLVERS)):
            if getattr(self, name) not in allowed:
                raise ValueError(
                    f"{name} is {getattr(self, name)!r}; allowed are {', '.join(allowed)}."
                )
        if not isinstance(self.tracking, bool):
            raise ValueError(f"tracking is {self.tracking!r}; it must be True or False.")

    @property
    def limits(self) -> dict[str, float]:
        """The budgets that are given, by name."""
        values = {name: getattr(self, name) for name in _POSITIVE}
        return {name: value for name, value in values.items() if value is not None}

    @property
    def asks(self) -> bool:
        """Whether it takes exits before the deepest to answer: to leave there, or to be in time."""
        return not self.limits.keys().isdisjoint(_ASKING)

    def replace(self, **changes: object) -> Budget:
        """A copy with some values exchanged, checked again."""
        return dataclasses.replace(self, **changes)


def _is_real(value: object) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def _is_positive(value: numbers.Real) -> bool:
    try:
        return 0 < float(value) < math.inf
    except OverflowError:  # a whole number beyond what a float can hold
        return False

"""What a search asks of a scorer, which runs episodes by given thresholds and tells how they went.

The simulator of this package is one scorer (`deer_ros.search.simulator`). A user's own is a
callable with the signature of `Scorer`, named as `package.module:function`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Protocol

import numpy as np


class Scorer(Protocol):
    """Runs the episodes that `seeds` stand for; the same seeds must mean the same episodes."""

    def __call__(
        self,
        model: Path,
        thresholds: tuple[float, ...],
        metric: str,
        max_layer: int,
        seeds: tuple[int, ...],
    ) -> tuple[float | Sequence[float], float]:
        """Success and cost.

        Args:
            model: the model directory.
            thresholds: one per exit of the model, 1e8 from the deepest permitted exit on.
            metric: of the criterion.
            max_layer: the deepest permitted layer.
            seeds: of the episodes.

        Returns:
            Success, more of it being better: one number per episode (1 and 0, a chain's length, a
            reward), always as many for as many seeds and in the same order, or their mean alone.
            And the average cost of a step over all steps, failed episodes' too, in the unit of the
            budget.
        """


@dataclass(frozen=True)
class Score:
    """successes: one per episode, or their mean alone. cost: average per step."""

    successes: tuple[float, ...]
    cost: float

    @property
    def success(self) -> float:
        """Mean over the episodes."""
        return float(np.mean(self.successes))

    def to_json(self) -> dict[str, float]:
        """Both means."""
        return {"success": self.success, "cost": self.cost}


def checked(answer: object, scorer: str) -> Score:
    """A scorer's answer as a `Score`. ValueError where it is none."""
    try:
        successes, cost = answer
        successes = np.atleast_1d(np.asarray(successes, np.float64))
        cost = float(cost)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"the scorer {scorer} answered {answer!r}; it must be a pair: success (a number, or "
            "one per episode) and the average cost of a step."
        ) from error
    if successes.ndim != 1 or not successes.size or not np.isfinite(successes).all():
        raise ValueError(
            f"the scorer {scorer} answered with the success {answer[0]!r}; it must be a finite "
            "number, or one per episode."
        )
    if not (math.isfinite(cost) and cost >= 0):
        raise ValueError(
            f"the scorer {scorer} answered with the cost {cost}; it must be finite and at least 0."
        )
    return Score(tuple(successes.tolist()), cost)


def load_scorer(name: str) -> Scorer:
    """The callable that `package.module:function` names. ValueError with a sentence."""
    module, colon, attribute = name.partition(":")
    if not (module and colon and attribute):
        raise ValueError(f"the scorer is {name!r}; name it as package.module:function.")
    try:
        found = import_module(module)
    except ImportError as error:
        raise ValueError(f"the scorer's module {module} cannot be imported: {error}.") from error
    for part in attribute.split("."):
        found = getattr(found, part, None)
    if not callable(found):
        raise ValueError(f"the module {module} has no function {attribute} to score with.")
    return found

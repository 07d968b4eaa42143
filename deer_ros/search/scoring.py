"""What a search asks of a scorer, which runs episodes by given thresholds and tells how they went.

The simulator of this package is one scorer (`deer_ros.search.simulator`). A user's own is a
callable with the signature of `Scorer`, named as `package.module:function`.
"""

from __future__ import annotations

import inspect
import math
import reprlib
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Protocol

import numpy as np

# A scorer may tell its costs to some digits only.
ROUNDING = 0.01


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
            And the average cost of a step over all steps, failed episodes' too, in GFLOPs of the
            budget's scope; in any unit where no budget is in GFLOPs.
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


class ScorerError(ValueError):
    """A scorer that cannot be had, fails, or answers with what is no score."""


def told(error: BaseException) -> str:
    """What was raised, on one line, whatever its text is."""
    try:
        text = " ".join(str(error).split())
    except Exception:  # its own class says how it is told
        text = ""
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def scored(
    scorer: Scorer,
    name: str,
    model: Path,
    thresholds: tuple[float, ...],
    metric: str,
    max_layer: int,
    seeds: tuple[int, ...],
) -> Score:
    """What a scorer of that name answers. ScorerError where it fails or its answer is no score."""
    try:
        answer = scorer(model, thresholds, metric, max_layer, seeds)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a user's own code raises what it likes, SystemExit too
        where = traceback.extract_tb(error.__traceback__)[-1]
        raise ScorerError(
            f"the scorer {name} failed in {where.filename}, line {where.lineno}: {told(error)}"
        ) from error
    return checked(answer, name)


def checked(answer: object, scorer: str) -> Score:
    """A scorer's answer as a `Score`. ScorerError where it is none."""
    try:
        given, cost = answer
        successes = np.atleast_1d(np.asarray(given, np.float64))
        cost = float(cost)
    except Exception as error:  # objects of other libraries refuse as they like
        raise ScorerError(
            f"the scorer {scorer} answered {reprlib.repr(answer)}; it must be a pair: success (a "
            "number, or one per episode) and the average cost of a step."
        ) from error
    if successes.ndim != 1 or not successes.size or not np.isfinite(successes).all():
        raise ScorerError(
            f"the scorer {scorer} answered with the success {reprlib.repr(given)}; it must be a "
            "finite number, or one per episode."
        )
    if not (math.isfinite(cost) and cost >= 0):
        raise ScorerError(
            f"the scorer {scorer} answered with the cost {cost}; it must be finite and at least 0."
        )
    return Score(tuple(successes.tolist()), cost)


def check_gflops(cost: float, scorer: str, scope: str, possible: tuple[float, float]) -> None:
    """ScorerError for a cost that cannot be GFLOPs of a step, of which `possible` are the least and
    the most: a budget in GFLOPs would be compared with another unit."""
    least, most = possible
    if not least * (1 - ROUNDING) <= cost <= most * (1 + ROUNDING):
        raise ScorerError(
            f"the scorer {scorer} answered with the cost {cost:g}, and --average-gflops is in "
            f"GFLOPs, of which a step of this model costs {least:.4g} to {most:.4g} (scope "
            f"{scope}). Let it answer in these, or give the limit in its own unit: --average-cost."
        )


def load_scorer(name: str) -> Scorer:
    """The callable that `package.module:function` names. ScorerError with a sentence."""
    module, _, attribute = name.partition(":")
    if not (module and attribute) or module.startswith("."):
        raise ScorerError(f"the scorer is {name!r}; name it as package.module:function.")
    try:
        found = import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part, None)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # as above: importing runs the module
        raise ScorerError(
            f"the scorer's module {module} cannot be imported: {told(error)}."
        ) from error
    if not callable(found):
        raise ScorerError(f"the module {module} has no function {attribute} to score with.")
    if inspect.iscoroutinefunction(found):
        raise ScorerError(
            f"the scorer {name} is an async function; name one that answers when it is called."
        )
    return found

"""The authors' one-parameter families of thresholds, solved for a budget instead of for a ratio."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np

from deer_ros.budget.frontier import Frontier, Samples, in_order
from deer_ros.budget.solver import ALWAYS, FAMILIES, NEVER, family_shares, solve_shares

COARSE_ROWS = 8
BISECTIONS = 8

Row = tuple[np.ndarray, np.ndarray, float]
"""Thresholds (K,), share of the steps per exit (K,), mean error."""


def family_ladder(samples: Samples, family: str, cost: float | None = None) -> Frontier:
    """Rows of a family's thresholds, from the first exit always to the last always.

    cost: where to have rows closest together, in the unit of `samples.costs`: the family's
    parameter is bisected for it. Raises ValueError for another family.
    """
    exits, steps = samples.deltas.shape
    parameter_of = _parametrisation(family, exits)
    rows: list[Row] = []

    def mean_cost(x: float) -> float:
        shares = family_shares(family, parameter_of(x), exits, first_exit=samples.first_exit)
        thresholds, taken = solve_shares(samples.deltas, shares)
        error = sum(samples.errors[k].take(t).sum(dtype=np.float64) for k, t in enumerate(taken))
        share = np.array([len(indices) for indices in taken]) / steps
        rows.append((thresholds, share, error / steps))
        return float(share @ samples.costs)

    if exits > 1:
        coarse = np.linspace(0, 1, COARSE_ROWS)
        found = [mean_cost(x) for x in coarse]
        if cost is not None and found[0] <= cost < found[-1]:
            above = int(np.argmax(np.array(found) > cost))
            _bisect(mean_cost, coarse[above - 1], coarse[above], cost)
    ends = samples.ladder(np.array([always(samples, 0), always(samples, -1)]))
    thresholds, shares, error = (np.array(column) for column in zip(*rows, *_rows(ends)))
    return in_order(thresholds, shares, error, samples.costs)


def with_families(ladder: Frontier, samples: Samples, cost: float) -> Frontier:
    """The best of a ladder's rows and of the families', these solved for `cost`.

    At that cost no family errs less. `ladder` is judged by the same samples and costs.
    """
    return beside_families(ladder, samples, cost).hull()


def beside_families(ladder: Frontier, samples: Samples, cost: float) -> Frontier:
    """As `with_families`, with the rows too that a mix of others beats: no mix is a row."""
    ladders = [ladder, *(family_ladder(samples, family, cost) for family in FAMILIES)]
    names = ("thresholds", "shares", "error")
    parts = [np.concatenate([getattr(each, name) for each in ladders]) for name in names]
    return in_order(*parts, samples.costs)


def _rows(ladder: Frontier) -> Iterator[Row]:
    return zip(ladder.thresholds, ladder.shares, ladder.error)


def always(samples: Samples, exit_number: int) -> np.ndarray:
    """Thresholds (K,) float32 that leave at one exit always; -1 is the last.

    A first exit that nothing comes before cannot be taken: then it is the second.
    """
    thresholds = np.full(len(samples.costs), NEVER, np.float32)
    thresholds[exit_number] = ALWAYS
    if not samples.first_exit and len(thresholds) > 1 and exit_number == 0:
        thresholds[1] = ALWAYS
    thresholds[-1] = ALWAYS
    return thresholds


def _bisect(mean_cost: Callable[[float], float], low: float, high: float, cost: float) -> None:
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        found = mean_cost(middle)
        if found == cost:
            return
        low, high = (middle, high) if found < cost else (low, middle)


def _parametrisation(family: str, exits: int) -> Callable[[float], float]:
    """The family's parameter for x in 0 .. 1: from nearly all early to nearly all late.

    As wide as float32 can count the shares.
    """
    if family == "gaussian":
        return lambda x: -6.0 + (exits + 11.0) * x
    low, high = (1e-3, 10 ** min(3.0, 37.0 / exits)) if family == "exponential" else (1e-3, 25.0)
    return lambda x: math.exp(math.log(low) + x * (math.log(high) - math.log(low)))

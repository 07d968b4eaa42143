"""Rows of thresholds from the cheapest to the dearest: what one knob moves along."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from deer_ros.budget.solver import exits_taken

# Fractional parts of multiples of the golden ratio fill 0..1 as evenly as any sequence can.
_GOLDEN = (5**0.5 - 1) / 2


@dataclass(frozen=True)
class Frontier:
    """R rows, their cost growing; each is one exit rule for K permitted exits.

    thresholds: float32 (R, K), the last column `ALWAYS`. shares: float64 (R, K), the share of the
    calibration's steps that leaves at each exit. cost: float64 (R,), mean cost of a step, in the
    unit of the costs that were asked for. error: float64 (R,), mean of what is lost against full
    depth (`Calibration.losses`). losses: float32 (R, M), every held-out episode's mean difference
    of action to the full-depth rollout, where it was measured, or None.

    A knob u in 0 .. R - 1 stands for a mix of its two neighbours: row floor(u) + 1 in a share
    u - floor(u) of the steps, row floor(u) in the others. Cost and error of a mix are linear in u.
    """

    thresholds: np.ndarray
    shares: np.ndarray
    cost: np.ndarray
    error: np.ndarray
    losses: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.cost)

    def knob_for(self, cost: float) -> float:
        """The knob of least error whose mean cost is at most `cost`; 0 below the cheapest row."""
        knob = float(np.interp(cost, self.cost, np.arange(len(self))))
        low = int(knob)
        # The last row is there for tracking, even where it errs more than the one before.
        return float(low) if self.at(self.error, knob) > self.error[low] else knob

    def row_for(self, cost: float) -> int:
        """The row of least error whose mean cost is at most `cost`; 0 below the cheapest row."""
        within = np.flatnonzero(self.cost <= cost * (1 + 1e-9))
        return int(within[np.argmin(self.error[within])]) if len(within) else 0

    def at(self, values: np.ndarray, knob: float) -> np.ndarray:
        """Per-row `values` (R, ...) for the mix that `knob` stands for."""
        low = min(int(knob), len(self) - 1)
        high = min(low + 1, len(self) - 1)
        return values[low] + (knob - low) * (values[high] - values[low])

    def row(self, knob: float, step: int) -> int:
        """Which row step number `step` (from 0) runs by: the mix, without chance.

        Over any stretch of T steps the upper row's share is off by O(log(T) / T) at most.
        """
        low = min(int(knob), len(self) - 1)
        upper = ((step + 1) * _GOLDEN) % 1.0 < knob - low
        return min(low + upper, len(self) - 1)

    def under(self, costs: np.ndarray) -> Frontier:
        """The same rows where exits cost `costs` (K,): those that no mix of others beats.

        The last row stays in any case, if it is the dearest.
        """
        cost = self.shares @ np.asarray(costs, np.float64)
        return dataclasses.replace(self, cost=cost).hull()

    def hull(self) -> Frontier:
        """The corners of the lower convex hull of (cost, error), and the dearest row."""
        corners = lower_hull(self.cost, self.error)
        dearest = int(np.lexsort((self.error, -self.cost))[0])
        if self.cost[dearest] > self.cost[corners[-1]]:
            corners = np.append(corners, dearest)
        return self.rows(corners)

    def rows(self, rows: np.ndarray) -> Frontier:
        """Some of the rows."""
        chosen = {
            field.name: None if value is None else value[rows]
            for field in dataclasses.fields(self)
            for value in (getattr(self, field.name),)
        }
        return Frontier(**chosen)


@dataclass(frozen=True)
class Samples:
    """Steps of demonstrations, as thresholds of K permitted exits are judged by.

    deltas: float32 (K, n), the criterion's values. errors: float32 (K, n), what every exit
    loses against full depth (`Calibration.losses`). costs: float64 (K,), of a step that leaves
    there.
    """

    deltas: np.ndarray
    errors: np.ndarray
    costs: np.ndarray

    def __post_init__(self) -> None:
        if self.deltas.shape != self.errors.shape or self.costs.shape != self.deltas.shape[:1]:
            raise ValueError(
                f"deltas have shape {self.deltas.shape}, errors {self.errors.shape} and costs "
                f"{self.costs.shape}; they must be (exits, samples), the same, and (exits,)."
            )

    @cached_property
    def first_exit(self) -> bool:
        """Whether the criterion can take the first exit: it has something to compare with."""
        return len(self.costs) == 1 or bool(np.isfinite(self.deltas[0]).all())

    def ladder(self, thresholds: np.ndarray) -> Frontier:
        """Rows (R, K) judged, in order of cost; of equally dear ones the one with least error."""
        exits = np.stack([exits_taken(self.deltas, row) for row in thresholds])
        steps = np.arange(self.deltas.shape[1])
        error = np.array([self.errors[row, steps].mean(dtype=np.float64) for row in exits])
        count = len(self.costs)
        shares = np.stack([np.bincount(row, minlength=count) for row in exits]) / len(steps)
        return in_order(thresholds, shares, error, self.costs)


def in_order(
    thresholds: np.ndarray, shares: np.ndarray, error: np.ndarray, costs: np.ndarray
) -> Frontier:
    """Rows sorted by mean cost; of equally dear ones only the one with least error is kept."""
    cost = shares @ costs
    order = np.lexsort((error, cost))
    order = order[np.diff(cost[order], prepend=-np.inf) > 0]
    return Frontier(thresholds[order], shares[order], cost[order], error[order])


def lower_hull(cost: np.ndarray, error: np.ndarray) -> np.ndarray:
    """Indices of the points (cost, error) that no mix of others beats, in order of cost.

    Cost grows and error falls strictly along them: what costs more for no less error is left out.
    """
    order = np.lexsort((error, cost))
    hull: list[int] = []
    for point in order:
        if hull and error[point] >= error[hull[-1]]:
            continue
        while len(hull) > 1 and _not_below(hull[-2], hull[-1], point, cost, error):
            hull.pop()
        if hull and cost[point] <= cost[hull[-1]]:
            continue
        hull.append(int(point))
    return np.array(hull, np.int64)


def _not_below(a: int, b: int, c: int, cost: np.ndarray, error: np.ndarray) -> bool:
    """Whether b lies on or above the line from a to c."""
    return (error[b] - error[a]) * (cost[c] - cost[a]) >= (error[c] - error[a]) * (
        cost[b] - cost[a]
    )

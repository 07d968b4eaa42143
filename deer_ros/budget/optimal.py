"""Thresholds of least expected loss against full depth at every average cost.

Minimising the mean error under a bound on the mean cost is, along the lower convex hull of what
thresholds can reach, minimising error + weight * cost for some weight (Lagrange). For one weight,
one threshold has an exact answer while the others stand: of the samples that get to its exit,
sorted by the criterion's value, that prefix leaves for which leaving there costs least against what
the later exits would do. Thresholds are improved in turn until none moves. The weights that matter
are the slopes between neighbouring points found so far, so the hull is refined where it bends (the
non-inferior set estimation of Cohon, Church and Sheer 1979).
"""

from __future__ import annotations

import numpy as np

from deer_ros.budget.families import always, family_ladder
from deer_ros.budget.frontier import Frontier, Samples
from deer_ros.budget.solver import ALWAYS, FAMILIES, NEVER, exits_taken

ROWS = 64
MAX_SWEEPS = 20


def optimal_frontier(samples: Samples, rows: int = ROWS) -> Frontier:
    """The lower convex hull of (mean cost, mean error), at most `rows` of its corners.

    From the cheapest exit always to the deepest always. The authors' families are among the
    starting points.
    """
    search = _Search(samples)
    known = [always(samples, k) for k in range(len(samples.costs))]
    for family in FAMILIES:
        known += list(family_ladder(samples, family).thresholds)
    ladder = _hull(samples, np.array(known))
    refined: set[tuple[bytes, bytes]] = set()
    while len(ladder) < 2 * rows:
        edges = [
            (a, a + 1)
            for a in range(len(ladder) - 1)
            if (ladder.thresholds[a].tobytes(), ladder.thresholds[a + 1].tobytes()) not in refined
        ]
        if not edges:
            break
        found = []
        for a, b in edges:
            refined.add((ladder.thresholds[a].tobytes(), ladder.thresholds[b].tobytes()))
            weight = (ladder.error[a] - ladder.error[b]) / (ladder.cost[b] - ladder.cost[a])
            found += [search.improve(ladder.thresholds[row], weight) for row in (a, b)]
        ladder = _hull(samples, np.array([*ladder.thresholds, *found]))
    return _thinned(ladder, rows)


class _Search:
    """Improves thresholds one by one for error + weight * cost."""

    def __init__(self, samples: Samples) -> None:
        self._samples = samples
        self._order = np.argsort(samples.deltas, axis=1, kind="stable")
        self._sorted = np.take_along_axis(samples.deltas, self._order, axis=1)
        # A threshold can stand only where the next value differs; never at a NaN, which sorts last.
        following = np.concatenate(
            [self._sorted[:, 1:], np.full_like(self._sorted[:, :1], np.nan)], axis=1
        )
        self._closed = (self._sorted != following) & ~np.isnan(self._sorted)

    def improve(self, thresholds: np.ndarray, weight: float) -> np.ndarray:
        """Thresholds (K,) float32 that no change of one of them makes better."""
        thresholds = thresholds.copy()
        losses = self._samples.errors + np.float64(weight) * self._samples.costs[:, None]
        best = self._value(thresholds, losses)
        for _ in range(MAX_SWEEPS):
            for number in reversed(range(len(thresholds) - 1)):
                thresholds[number] = self._best(thresholds, number, losses)
            value = self._value(thresholds, losses)
            if value >= best * (1 - 1e-12):
                break
            best = value
        return thresholds

    def _value(self, thresholds: np.ndarray, losses: np.ndarray) -> float:
        taken = exits_taken(self._samples.deltas, thresholds)
        return float(losses[taken, np.arange(losses.shape[1])].sum())

    def _best(self, thresholds: np.ndarray, number: int, losses: np.ndarray) -> np.float32:
        """The best threshold of one exit while the others stand."""
        deltas = self._samples.deltas
        later = exits_taken(deltas[number + 1 :], thresholds[number + 1 :]) + number + 1
        gain = losses[number] - losses[later, np.arange(losses.shape[1])]
        if number:
            gain[(deltas[:number] <= thresholds[:number, None]).any(axis=0)] = 0
        total = np.cumsum(gain[self._order[number]])
        total[~self._closed[number]] = np.inf
        place = int(total.argmin())
        if not total[place] < 0:
            return np.float32(NEVER)
        everything = place == len(total) - 1
        return np.float32(ALWAYS) if everything else self._sorted[number, place]


def _hull(samples: Samples, thresholds: np.ndarray) -> Frontier:
    return samples.ladder(np.unique(thresholds, axis=0)).hull()


def _thinned(ladder: Frontier, rows: int) -> Frontier:
    """At most `rows` rows: again and again the one goes that its neighbours replace best.

    What that loses counts against the row's own error. Near full depth errors are a thousandth of
    the others, and there a single threshold, as of a family, is the optimum: counted alike, those
    rows would go first and the family would win.
    """
    kept = list(range(len(ladder)))
    cost, error = ladder.cost, ladder.error
    while len(kept) > max(rows, 2):
        a, b, c = np.array(kept[:-2]), np.array(kept[1:-1]), np.array(kept[2:])
        along = (cost[b] - cost[a]) / (cost[c] - cost[a])
        lost = (error[a] + along * (error[c] - error[a])) / error[b]
        del kept[1 + int(lost.argmin())]
    return ladder.rows(np.array(kept))

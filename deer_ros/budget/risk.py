"""The cheapest thresholds whose expected action difference is bounded, at a stated confidence.

Learn then Test (Angelopoulos, Bates, Candes, Jordan, Lei 2021, "Learn then Test: Calibrating
predictive algorithms to achieve risk control", arXiv 2110.01052) with fixed-sequence testing: the
rows of a frontier are tested from the dearest to the cheapest, each for "its risk is above the
limit", at the full level; the first that is not rejected ends the sequence. So the probability that
any accepted row breaks the limit is at most 1 - confidence, whatever the distribution.

Each test bets against its hypothesis (Waudby-Smith and Ramdas 2024, "Estimating means of bounded
random variables by betting", JRSS B 86(1); the predictable plug-in of Bates et al. 2021, JACM
68(6)). Units are whole episodes, as steps of one depend on each other. An episode's loss is the
mean over its steps of the root mean square difference of two poses; the head's pose ends in a tanh,
so the loss lies in 0 .. 2.
"""

from __future__ import annotations

import math

import numpy as np

from deer_ros.budget.solver import NEVER

LOSS_BOUND = 2.0


def p_values(losses: np.ndarray, limit: float, level: float) -> np.ndarray:
    """How badly each row's losses agree with a mean above `limit`: float64 (R,), valid p-values.

    losses: (R, M) in 0 .. LOSS_BOUND, episodes independent and in an order that does not depend on
    them. level: at which the result will be compared; it only tunes how the test bets.
    """
    losses = np.asarray(losses, np.float64) / LOSS_BOUND
    if losses.ndim != 2 or not losses.shape[1]:
        raise ValueError(f"losses have shape {losses.shape}; they must be (rows, episodes).")
    if not (np.isfinite(losses).all() and losses.min() >= 0 and losses.max() <= 1):
        raise ValueError(f"losses must lie in 0 .. {LOSS_BOUND}.")
    episodes = losses.shape[1]
    seen = np.arange(1, episodes + 1)
    mean = (0.5 + np.cumsum(losses, axis=1)) / (seen + 1)
    variance = (0.25 + np.cumsum((losses - mean) ** 2, axis=1)) / (seen + 1)
    # Every bet is placed with what was known before its episode.
    known = np.concatenate([np.full((len(losses), 1), 0.25), variance[:, :-1]], axis=1)
    bets = np.minimum(1, np.sqrt(2 * math.log(1 / level) / (episodes * known)))
    wealth = np.cumsum(np.log1p(-bets * (losses - limit / LOSS_BOUND)), axis=1).max(axis=1)
    return np.exp(-np.maximum(wealth, 0))


def cheapest_row(
    thresholds: np.ndarray, losses: np.ndarray, limit: float, confidence: float, full_depth: bool
) -> int | None:
    """The cheapest row, of rows from cheap to dear, whose expected loss is at most `limit`.

    thresholds: (R, K). losses: (R, M). full_depth: whether the last of the K exits is the one that
    actions are compared with: then the row that never leaves before it has no loss, and needs no
    test. None where not even the dearest row is accepted.
    """
    level = 1 - confidence
    accepted = p_values(losses, limit, level) <= level
    if full_depth:
        accepted |= (thresholds[:, :-1] <= NEVER).all(axis=1)
    refused = np.flatnonzero(~accepted)
    first = int(refused[-1]) + 1 if len(refused) else 0
    return first if first < len(thresholds) else None


def least_limit(losses: np.ndarray, confidence: float) -> float:
    """The smallest limit that one row's losses (M,) are accepted for, to a thousandth."""
    low, high = 0.0, LOSS_BOUND
    while high - low > 1e-3:
        middle = (low + high) / 2
        accepted = p_values(losses[None], middle, 1 - confidence)[0] <= 1 - confidence
        low, high = (low, middle) if accepted else (middle, high)
    return high

"""Bounds on the expected action error that hold as often as they say."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deer_ros.budget.risk import LOSS_BOUND, cheapest_row, least_limit, p_values
from deer_ros.budget.solver import ALWAYS, NEVER

ROWS = 24
MEANS = np.linspace(0.5, 0.02, ROWS)
"""True expected loss of every row, from the cheapest to the dearest."""
THRESHOLDS = np.column_stack([np.linspace(1, 0.1, ROWS), np.full(ROWS, ALWAYS)])

# Bounded losses of a given mean: light tails, heavy ones, and all or nothing.
DISTRIBUTIONS = {
    "gamma": lambda rng, mean, size: np.minimum(rng.gamma(4, mean / 4, size), LOSS_BOUND),
    "beta": lambda rng, mean, size: LOSS_BOUND * rng.beta(
        0.2, 0.2 * (LOSS_BOUND - mean) / mean, size
    ),
    "all or nothing": lambda rng, mean, size: LOSS_BOUND * (
        rng.random(size) < mean / LOSS_BOUND
    ).astype(float),
}


def losses_of(rng: np.random.Generator, distribution: str, episodes: int) -> np.ndarray:
    draw = DISTRIBUTIONS[distribution]
    return np.stack([draw(rng, mean, episodes) for mean in MEANS])


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
@pytest.mark.parametrize("confidence", [0.8, 0.95])
@pytest.mark.parametrize("episodes", [60, 400])
def test_the_chosen_row_breaks_its_limit_no_more_often_than_stated(
    distribution, confidence, episodes
):
    rng = np.random.default_rng(0)
    draws, limit, broken, chosen = 300, 0.2, 0, 0
    for _ in range(draws):
        losses = losses_of(rng, distribution, episodes)
        row = cheapest_row(THRESHOLDS, losses, limit, confidence, full_depth=False)
        if row is not None:
            chosen += 1
            broken += MEANS[row] > limit
    # Three standard errors above the stated rate would be a broken promise, not bad luck.
    stated = 1 - confidence
    assert broken / draws <= stated + 3 * np.sqrt(stated * confidence / draws)
    assert chosen > 0 or episodes == 60


def test_more_episodes_allow_a_cheaper_row():
    rng = np.random.default_rng(1)
    rows = [
        cheapest_row(THRESHOLDS, losses_of(rng, "gamma", n), 0.2, 0.9, full_depth=False)
        for n in (50, 200, 2000)
    ]
    assert rows == sorted(rows, reverse=True) and rows[0] > rows[-1]
    assert MEANS[rows[-1]] > 0.17  # not far below what would just do


def test_full_depth_needs_no_proof_and_nothing_else_goes_without():
    thresholds = np.array([[1.0, ALWAYS], [0.1, ALWAYS], [NEVER, ALWAYS]])
    losses = np.vstack([np.full((2, 10), 1e-3), np.zeros(10)])
    assert cheapest_row(thresholds, losses, 1e-2, 0.9, full_depth=True) == 2
    assert cheapest_row(thresholds, losses, 1e-2, 0.9, full_depth=False) is None
    assert cheapest_row(thresholds, losses, 1.0, 0.9, full_depth=True) == 0


def test_a_row_behind_one_that_is_refused_is_not_chosen():
    # From dear to cheap: good, bad, good. The sequence of tests ends at the bad one.
    losses = np.stack([np.full(200, m) for m in (0.01, 1.0, 0.01)])
    thresholds = np.array([[0.3, ALWAYS], [0.2, ALWAYS], [0.1, ALWAYS]])
    assert cheapest_row(thresholds, losses, 0.2, 0.9, full_depth=False) == 2


@given(st.integers(0, 2**32 - 1), st.floats(0.01, 1.9), st.floats(0.5, 0.99))
def test_a_larger_limit_is_never_harder_to_prove(seed, limit, confidence):
    losses = np.random.default_rng(seed).uniform(0, 0.5, (3, 80))
    level = 1 - confidence
    smaller, larger = (p_values(losses, x, level) for x in (limit, min(2.0, 1.2 * limit)))
    assert np.all(larger <= smaller + 1e-12)
    assert np.all((smaller > 0) & (smaller <= 1))


def test_the_least_limit_is_one_that_is_accepted_and_hardly_more():
    losses = np.random.default_rng(2).uniform(0, 0.1, 150)
    least = least_limit(losses, 0.9)
    assert losses.mean() < least < losses.mean() + 0.06
    assert p_values(losses[None], least, 0.1)[0] <= 0.1
    assert p_values(losses[None], least - 0.002, 0.1)[0] > 0.1


@pytest.mark.parametrize("losses", [
    np.full((2, 5), np.nan), np.full((2, 5), 2.1), np.full((2, 5), -0.1), np.zeros((2, 0)),
    np.zeros(5),
])
def test_losses_that_are_none_are_refused(losses):
    with pytest.raises(ValueError, match="losses"):
        p_values(losses, 0.1, 0.1)

"""Thresholds from wished shares. That they are the authors' is tested with the golden data."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deer_ros.budget.solver import ALWAYS, FAMILIES, NEVER, family_shares, leaving, thresholds_for

matrices = st.tuples(st.integers(0, 2**32 - 1), st.integers(1, 8), st.integers(1, 200))
parameters = st.floats(0.2, 4.0)


def distinct(seed: int, exits: int, samples: int) -> np.ndarray:
    """Deltas of which no two are equal."""
    rng = np.random.default_rng(seed)
    return rng.permutation(exits * samples).reshape(exits, samples).astype(np.float32)


@given(st.sampled_from(FAMILIES), parameters, st.integers(1, 16))
def test_shares_are_a_distribution(family, parameter, exits):
    shares = family_shares(family, parameter, exits)
    assert shares.shape == (exits,) and shares.dtype == np.float32
    assert np.all(shares >= 0)
    np.testing.assert_allclose(shares.sum(), 1, rtol=1e-5)


@given(matrices, parameters)
def test_each_exit_gets_the_samples_that_it_was_to_get(matrix, parameter):
    deltas = distinct(*matrix)
    shares = family_shares("exponential", parameter, len(deltas))
    taken = leaving(deltas, thresholds_for(deltas, shares))
    wanted = np.floor(np.float32(deltas.shape[1]) * shares).astype(int)
    assert taken.sum() == deltas.shape[1]
    assert np.array_equal(taken[:-1], wanted[:-1])


@given(matrices)
def test_the_last_exit_is_always_taken_and_an_unwanted_one_never(matrix):
    deltas = distinct(*matrix)
    shares = np.zeros(len(deltas), np.float32)
    shares[-1] = 1
    thresholds = thresholds_for(deltas, shares)
    assert thresholds[-1] == np.float32(ALWAYS)
    assert np.all(thresholds[:-1] == np.float32(NEVER))


def test_the_first_exit_can_be_left_out():
    assert family_shares("exponential", 1.0, 4, first_exit=False).tolist() == pytest.approx(
        [0, 1 / 3, 1 / 3, 1 / 3]
    )


@pytest.mark.parametrize("family, parameter", [
    ("poisson", 1.0), ("exponential", 0.0), ("gamma", -1.0), ("gaussian", float("nan")),
    ("exponential", 1e30), ("gaussian", 1e6),
])
def test_a_family_that_gives_no_shares_is_refused(family, parameter):
    with pytest.raises(ValueError, match="family"):
        family_shares(family, parameter, 6)


def test_deltas_and_shares_must_have_the_same_exits():
    with pytest.raises(ValueError, match=r"\(2, 3\).*\(4,\)"):
        thresholds_for(np.zeros((2, 3), np.float32), np.ones(4, np.float32))

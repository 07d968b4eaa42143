"""Rows of thresholds: the authors' families, the optimum, and mixes between two rows."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from synthetic_samples import make_calibration, make_samples

from deer_ros.budget.families import family_ladder, with_families
from deer_ros.budget.frontier import Samples
from deer_ros.budget.optimal import optimal_frontier
from deer_ros.budget.solver import ALWAYS, FAMILIES, NEVER, exits_taken, thresholds_for

seeds = st.integers(0, 2**32 - 1)
sizes = st.tuples(seeds, st.integers(1, 120), st.integers(1, 6))


def judged(samples: Samples, thresholds: np.ndarray) -> tuple[float, float]:
    """Mean cost and mean error, sample by sample."""
    taken = [
        next(
            (k for k in range(len(thresholds) - 1) if column[k] <= thresholds[k]),
            len(thresholds) - 1,
        )
        for column in samples.deltas.T
    ]
    cost = np.mean([samples.costs[k] for k in taken])
    error = np.mean([samples.errors[k, i] for i, k in enumerate(taken)], dtype=np.float64)
    return float(cost), float(error)


def expected(ladder, cost: float) -> tuple[float, float]:
    knob = ladder.knob_for(cost)
    return float(ladder.at(ladder.cost, knob)), float(ladder.at(ladder.error, knob))


@given(sizes, st.sampled_from([*FAMILIES, "optimal"]))
@settings(max_examples=40)
def test_every_row_costs_and_errs_as_it_says(size, solver):
    samples = make_samples(*size)
    ladder = (
        optimal_frontier(samples) if solver == "optimal" else family_ladder(samples, solver, 2.0)
    )
    assert np.all(np.diff(ladder.cost) > 0)
    assert np.all(ladder.thresholds[:, -1] == np.float32(ALWAYS))
    for thresholds, cost, error, shares in zip(
        ladder.thresholds, ladder.cost, ladder.error, ladder.shares
    ):
        assert judged(samples, thresholds) == pytest.approx((cost, error), rel=1e-5, abs=1e-9)
        assert shares.sum() == pytest.approx(1)
    assert ladder.cost[0] == pytest.approx(samples.costs[0])
    assert ladder.cost[-1] == pytest.approx(samples.costs[-1])


@given(seeds, st.integers(30, 4000), st.integers(2, 6), st.floats(0, 1), st.sampled_from(FAMILIES))
@example(2**32 - 2, 395, 3, 0.99999, "exponential")
@example(3837026178, 366, 4, 0.999, "gaussian")
@example(1169520205, 1880, 5, 0.001, "gaussian")
@settings(max_examples=60)
def test_the_optimum_is_never_worse_than_a_family_at_the_same_cost(
    seed, steps, exits, place, family
):
    samples = make_samples(seed, steps, exits)
    cost = 1 + place * (exits - 1)
    optimum = with_families(optimal_frontier(samples), samples, cost)
    spent, error = expected(family_ladder(samples, family, cost), cost)
    assert spent <= cost + 1e-9
    assert expected(optimum, cost)[0] <= cost + 1e-9
    assert expected(optimum, cost)[1] <= error * (1 + 1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_the_optimum_is_within_two_percent_of_an_exhaustive_search(seed):
    samples = make_samples(seed, steps=300, exits=4, costs=np.array([1.0, 2.0, 3.5, 4.0]))
    grid = [
        [NEVER, *np.quantile(row, np.linspace(0.05, 0.95, 12)), ALWAYS]
        for row in samples.deltas[:-1]
    ]
    every = np.array([[*t, ALWAYS] for t in itertools.product(*grid)], np.float32)
    best = samples.ladder(every)
    frontier = optimal_frontier(samples)
    for cost in np.linspace(1.05, 3.9, 12):
        affordable = best.error[best.cost <= cost].min()
        assert expected(frontier, cost)[1] <= 1.02 * affordable


@given(sizes)
@settings(max_examples=30)
def test_along_the_frontier_more_cost_is_less_error_and_no_mix_beats_a_row(size):
    frontier = optimal_frontier(make_samples(*size))
    cost, error = frontier.cost[:-1], frontier.error[:-1]
    assert np.all(np.diff(error) < 0)
    slopes = np.diff(error) / np.diff(cost)
    assert np.all(np.diff(slopes) >= -1e-12)


def test_a_frontier_keeps_to_its_number_of_rows_and_its_ends():
    samples = make_samples(steps=2000, exits=6)
    whole, short = optimal_frontier(samples), optimal_frontier(samples, rows=5)
    assert len(short) <= 5 < len(whole)
    for end in (0, -1):
        assert short.cost[end] == whole.cost[end] and short.error[end] == whole.error[end]


@given(seeds, st.floats(0.01, 0.99), st.sampled_from(FAMILIES))
@settings(max_examples=30)
def test_a_family_spends_the_budget_by_a_mix_of_two_of_its_rows(seed, place, family):
    samples = make_samples(seed, steps=1500, exits=6)
    cost = 1 + 5 * place
    ladder = family_ladder(samples, family, cost)
    spent, error = expected(ladder, cost)
    below = ladder.cost <= cost
    # All of it is spent, but where a little more would err more.
    assert spent == pytest.approx(cost) or (
        spent == ladder.cost[below][-1] and error < ladder.error[~below][0]
    )
    for shares, thresholds in zip(ladder.shares[1:-1], ladder.thresholds[1:-1]):
        # What the family's thresholds give is what its solver gives for these very shares.
        again = thresholds_for(samples.deltas, (shares + 1e-6).astype(np.float32))
        counts = np.bincount(exits_taken(samples.deltas, again), minlength=6)
        assert np.abs(counts / samples.deltas.shape[1] - shares).max() < 0.01
        assert thresholds.shape == (6,)


def test_an_exit_after_the_first_layer_is_never_taken_by_the_criterion():
    calibration = make_calibration(layers=(1, 2, 3))
    samples = Samples(calibration.deltas(), calibration.errors(), np.array([1.0, 2.0, 3.0]))
    for ladder in (optimal_frontier(samples), family_ladder(samples, "exponential", 2.5)):
        assert np.all(ladder.shares[:, 0] == 0)
        assert ladder.cost[0] == 2.0


@given(seeds, st.floats(0, 1))
@settings(max_examples=20)
def test_a_knob_between_two_rows_mixes_them_in_its_proportion(seed, place):
    frontier = optimal_frontier(make_samples(seed, steps=200))
    knob = place * (len(frontier) - 1)
    rows = np.array([frontier.row(knob, step) for step in range(2000)])
    assert set(rows) <= {int(knob), min(int(knob) + 1, len(frontier) - 1)}
    assert rows.mean() == pytest.approx(knob, abs=5e-3)
    # Nor does any stretch of it stray far.
    windows = np.convolve(rows, np.ones(100) / 100, "valid")
    assert np.abs(windows - knob).max() < 0.05


def test_costs_in_another_unit_keep_the_rows_and_other_costs_choose_among_them():
    frontier = optimal_frontier(make_samples(steps=300))
    scaled = frontier.under(np.array([13.0, 16.0, 19.0, 22.0]))
    assert np.array_equal(scaled.thresholds, frontier.thresholds)
    assert scaled.cost == pytest.approx(10 + 3 * frontier.cost)
    other = frontier.under(np.array([1.0, 1.1, 9.0, 9.1]))
    assert 2 <= len(other) <= len(frontier)
    assert np.all(np.diff(other.cost) > 0) and np.all(np.diff(other.error) < 0)


@pytest.mark.parametrize("family", ["optimal", "poisson"])
def test_a_family_that_is_none_is_refused(family):
    with pytest.raises(ValueError, match="family"):
        family_ladder(make_samples(), family, 2.0)

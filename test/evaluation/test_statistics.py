"""Intervals and paired tests: known values, properties, coverage on data of known truth."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deer_ros.evaluation.statistics import (
    above_line,
    bootstrap,
    discordant,
    mcnemar,
    mean_success,
    paired_difference,
    wilson,
)

FEW = 400  # resamples, where the interval's exact place does not matter


@st.composite
def pairs(draw):
    """Outcomes of two settings on the same episodes of some tasks."""
    sizes = draw(st.lists(st.integers(1, 12), min_size=1, max_size=4))
    sides = [
        [np.array(draw(st.lists(st.booleans(), min_size=n, max_size=n))) for n in sizes]
        for _ in range(2)
    ]
    return sides[0], sides[1]


@pytest.mark.parametrize(
    ("successes", "count", "low", "high"),
    # From the closed form: with no failure in n, n / (n + z^2) is the lower end.
    [(0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (1, 1, 0.2065, 1.0), (50, 100, 0.4038, 0.5962)],
)
def test_wilsons_interval_has_its_known_values(successes, count, low, high):
    found = wilson(successes, count)
    assert found.estimate == successes / count
    assert (found.low, found.high) == pytest.approx((low, high), abs=1e-4)


@given(st.integers(1, 500), st.data())
def test_wilsons_interval_holds_its_estimate_and_mirrors(count, data):
    successes = data.draw(st.integers(0, count))
    found, mirrored = wilson(successes, count), wilson(count - successes, count)
    assert 0 <= found.low <= found.estimate <= found.high <= 1
    assert found.high > found.low
    assert (1 - mirrored.high, 1 - mirrored.low) == pytest.approx((found.low, found.high))
    assert wilson(successes, count, 0.5).high <= found.high


@pytest.mark.parametrize("rate", [0.05, 0.5, 0.9, 0.99])
def test_wilsons_interval_covers_the_truth_as_often_as_it_says(rate):
    drawn = np.random.default_rng(0).binomial(100, rate, size=4000)
    inside = [wilson(int(k), 100).low <= rate <= wilson(int(k), 100).high for k in drawn]
    assert 0.92 <= np.mean(inside) <= 0.99


@pytest.mark.parametrize("arguments", [(0, 0), (2, 1), (-1, 3), (math.nan, 3)])
def test_what_is_no_success_rate_is_refused(arguments):
    with pytest.raises(ValueError, match="no success rate"):
        wilson(*arguments)


def test_tasks_count_alike_whatever_their_episodes():
    found = mean_success([np.ones(10), np.zeros(40)])
    assert found.estimate == 0.5
    # The variance of the mean: of 4 / (1/10 + 1/40) = 32 episodes.
    assert found == wilson(16, 32)


def test_one_task_has_wilsons_interval():
    assert mean_success([np.array([1, 1, 0])]) == wilson(2, 3)


@settings(max_examples=30, deadline=None)
@given(pairs())
def test_exchanging_the_sides_turns_the_difference_round(sides):
    ours, theirs = sides
    found = paired_difference(ours, theirs, resamples=FEW)
    turned = paired_difference(theirs, ours, resamples=FEW)
    assert -1 <= found.low <= found.estimate <= found.high <= 1
    assert turned.estimate == pytest.approx(-found.estimate)
    assert (turned.low, turned.high) == pytest.approx((-found.high, -found.low))
    assert mcnemar(ours, theirs) == mcnemar(theirs, ours)
    assert discordant(ours, theirs) == discordant(theirs, ours)[::-1]


@settings(max_examples=30, deadline=None)
@given(pairs())
def test_a_setting_does_not_differ_from_itself_yet_the_interval_is_no_point(sides):
    ours = sides[0]
    found = paired_difference(ours, ours, resamples=FEW)
    assert found.estimate == 0 and found.low < 0 < found.high
    assert mcnemar(ours, ours) == 1.0


def test_equal_success_in_many_episodes_says_more_than_in_one():
    many, one = ([np.ones(n)] for n in (3000, 1))
    assert paired_difference(many, many, resamples=FEW).low > -0.002
    assert paired_difference(one, one, resamples=FEW).low < -0.9


def test_one_pair_that_differs_proves_nothing():
    found = paired_difference([np.ones(1)], [np.zeros(1)])
    assert found.estimate == 1 and found.low < 0 and found.high == 1
    assert mcnemar([np.ones(1)], [np.zeros(1)]) == 1.0


@pytest.mark.parametrize("both", [0.2, 0.7])
def test_the_paired_interval_covers_the_truth_as_often_as_it_says(both):
    """Three tasks; either side alone succeeds in 15 and 8 % of the pairs."""
    rng = np.random.default_rng(1)
    inside = []
    for seed in range(300):
        cells = rng.choice(4, size=(3, 60), p=[both, 0.15, 0.08, 1 - both - 0.23])
        ours, theirs = cells < 2, (cells == 0) | (cells == 2)
        found = paired_difference(list(ours), list(theirs), resamples=500, seed=seed)
        inside.append(found.low <= 0.07 <= found.high)
    assert 0.91 <= np.mean(inside) <= 0.985


@pytest.mark.parametrize("count", [2, 3, 20])
def test_the_paired_interval_is_as_wide_as_the_means_vary_however_few_a_task_has(count):
    """Of 60 tasks: 1.96 standard errors to each side."""
    rng = np.random.default_rng(6)
    ours, theirs = (list(rng.random((60, count)) < chance) for chance in (0.7, 0.5))
    differences = np.subtract(ours, theirs, dtype=float)
    error = math.sqrt(np.mean(differences.var(axis=1, ddof=1)) / count / 60)
    found = paired_difference(ours, theirs)
    assert found.high - found.low == pytest.approx(2 * 1.96 * error, rel=0.05)


def test_pairs_tell_more_than_two_unpaired_samples():
    rng = np.random.default_rng(2)
    base = rng.random(400) < 0.7
    better = base | (rng.random(400) < 0.05)
    found = paired_difference([better], [base])
    columns = [np.column_stack([better, base[rng.permutation(400)]]).astype(float)]
    unpaired = bootstrap(columns, lambda means: means[..., 0] - means[..., 1])
    assert found.high - found.low < 0.5 * (unpaired.high - unpaired.low)
    assert found.low > 0


@pytest.mark.parametrize(
    ("first", "second", "p"),
    [(0, 0, 1.0), (1, 0, 1.0), (5, 0, 2 / 32), (10, 2, 2 * 79 / 4096), (3, 3, 1.0)],
)
def test_mcnemars_test_has_its_known_values(first, second, p):
    ours = np.array([1] * first + [0] * second + [1, 0])
    theirs = np.array([0] * first + [1] * second + [1, 0])
    assert discordant([ours], [theirs]) == (first, second)
    assert mcnemar([ours], [theirs]) == pytest.approx(p)


def test_mcnemars_test_bears_thousands_of_pairs():
    p = mcnemar([np.ones(3000)], [np.zeros(3000)])
    assert 0 <= p < 1e-300


@pytest.mark.parametrize("sides", [([], []), ([np.ones(2)], [np.ones(3)]), ([np.ones(0)],) * 2])
def test_what_are_no_pairs_is_refused(sides):
    with pytest.raises(ValueError, match="no pairs"):
        paired_difference(*sides)
    with pytest.raises(ValueError, match="no pairs"):
        mcnemar(*sides)


def line_rows(rng, success, shares, count=80, steps=10):
    """Columns of `above_line`: exits cost 1 and 3, the setting takes the dearer one so often."""
    cost = np.full(count, 1.0) + 2 * shares
    columns = []
    for chance, per_step in zip(success, (cost, np.ones(count), np.full(count, 3.0))):
        columns += [rng.random(count) < chance, per_step * steps, np.full(count, steps)]
    return np.column_stack(columns).astype(float)


def test_random_choice_between_two_exits_lies_on_their_line():
    """A quarter of the way from 50 to 90 % is 60 %."""
    rng = np.random.default_rng(3)
    inside = []
    for seed in range(150):
        strata = [line_rows(rng, (0.6, 0.5, 0.9), np.full(80, 0.25)) for _ in range(3)]
        found = above_line(strata, resamples=400, seed=seed)
        inside.append(found.low <= 0 <= found.high)
    assert 0.90 <= np.mean(inside) <= 0.99


def test_a_setting_that_is_better_for_its_cost_lies_above_the_line():
    rng = np.random.default_rng(4)
    strata = [line_rows(rng, (0.85, 0.5, 0.9), rng.random(80) * 0.5) for _ in range(5)]
    found = above_line(strata, resamples=FEW)
    assert found.low > 0 and found.estimate == pytest.approx(0.25, abs=0.07)
    assert above_line(strata, resamples=FEW) == found  # the same seed draws the same


def test_a_fixed_exit_lies_on_its_own_line_exactly():
    rows = line_rows(np.random.default_rng(5), (0.0, 0.4, 0.8), np.zeros(50), count=50)
    rows[:, 0] = rows[:, 3]
    found = above_line([rows])
    assert found.estimate == 0 and -0.1 < found.low < 0 < found.high < 0.1


def test_long_episodes_weigh_as_many_steps_as_they_have():
    """Cost per step is over all steps: 10 dear ones and 90 cheap ones cost 1.2 a step."""
    rows = np.array([[1, 30, 10, 0, 10, 10, 1, 30, 10], [1, 90, 90, 0, 90, 90, 1, 270, 90]], float)
    assert above_line([rows]).estimate == pytest.approx(1 - 0.1)


def test_a_choice_for_whole_episodes_is_measured_by_its_own_success_though_they_differ_in_length():
    """Half of the episodes along either exit; those of the worse one are four times as long."""
    cheap, dear = [0.5, 40.0, 40.0], [0.9, 30.0, 10.0]
    rows = np.array([[*mine, *cheap, *dear] for mine in (cheap, dear)])
    assert above_line([rows]).estimate == pytest.approx(0.0, abs=1e-12)


def test_a_line_needs_two_costs():
    rows = np.ones((4, 9))
    with pytest.raises(ValueError, match="second costs more"):
        above_line([rows])
    with pytest.raises(ValueError, match="not finite"):
        above_line([np.full((4, 9), np.nan)])
    with pytest.raises(ValueError, match="no episodes"):
        above_line([])

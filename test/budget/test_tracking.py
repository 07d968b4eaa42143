"""The tracker's bound, for costs that an adversary chooses."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from deer_ros.budget.tracking import GAIN, Tracker

shares = st.floats(0, 1)


class Adversary:
    """Chooses every step's cost, knowing the aim; only the ends bind it to `asked`."""

    def __init__(self, tracker: Tracker) -> None:
        self.tracker = tracker

    def cost(self, share: float) -> float:
        tracker = self.tracker
        lowest, highest = tracker.lowest, tracker.highest
        if tracker.aim >= tracker.highest:
            lowest = tracker.asked
        if tracker.aim <= tracker.lowest:
            highest = tracker.asked
        return lowest + share * (highest - lowest)


def bound(tracker: Tracker) -> float:
    return (tracker.highest - tracker.lowest) * (1 / tracker.gain + 1) / tracker.steps


@given(
    lowest=st.floats(0, 10), width=st.floats(0.01, 10), asked=shares, start=shares,
    gain=st.floats(0.01, 1), costs=st.lists(shares | st.sampled_from([0.0, 1.0]), min_size=1,
                                            max_size=60),
)  # fmt: skip
def test_the_mean_stays_within_its_bound_for_any_sequence_of_costs(
    lowest, width, asked, start, gain, costs
):
    highest = lowest + width
    tracker = Tracker(lowest + asked * width, lowest, highest, lowest + start * width, gain)
    adversary, spent = Adversary(tracker), []
    for share in costs * 5:
        spent.append(adversary.cost(share))
        tracker.update(spent[-1])
        assert tracker.steps == len(spent)
        assert tracker.mean == pytest.approx(sum(spent) / len(spent))
        assert abs(tracker.mean - tracker.asked) <= bound(tracker) * (1 + 1e-9) + 1e-12
        assert lowest <= tracker.aim <= highest


@given(asked=shares, start=shares, gain=st.floats(0.01, 1), held=st.integers(1, 10),
       costs=st.lists(shares | st.sampled_from([0.0, 1.0]), min_size=1, max_size=60))
@example(asked=0.1, start=0.1, gain=0.1, held=10, costs=[1.0])
def test_exits_that_are_kept_for_some_steps_count_and_widen_the_bound_by_as_many(
    asked, start, gain, held, costs
):
    """They do not obey the aim of their own step; unless counted, what they spend is lost."""
    tracker = Tracker(asked, 0.0, 1.0, start, gain)
    adversary = Adversary(tracker)
    for number, share in enumerate(costs * 10):
        decides = number % held == 0
        if decides:
            cost = adversary.cost(share)
        tracker.update(cost, decides)
        assert abs(tracker.mean - asked) <= (1 / gain + held) / tracker.steps + 1e-12


@given(asked=shares, start=shares, gain=st.floats(0.01, 1), held=st.integers(2, 10),
       costs=st.lists(st.tuples(shares | st.sampled_from([0.0, 1.0]), shares), min_size=1,
                      max_size=60))
@example(asked=0.9, start=0.5, gain=0.1, held=2, costs=[(1.0, 1.0)])
@example(asked=0.1, start=0.5, gain=0.1, held=10, costs=[(0.0, 1.0), (1.0, 1.0)])
def test_steps_between_decisions_may_be_cheaper_as_long_as_their_mean_is_what_the_ends_say(
    asked, start, gain, held, costs
):
    """At the dearest end too: what steps in between save is no windup."""
    tracker = Tracker(asked, 0.0, 1.0, start, gain)
    adversary = Adversary(tracker)
    for share, unlike in costs * 10:
        mean = adversary.cost(share)
        first = mean * (1 + unlike * (held - 1))
        between = (held * mean - first) / (held - 1)
        for number in range(held):
            tracker.update(between if number else first, number == 0)
            assert abs(tracker.mean - asked) <= (1 / gain + held) / tracker.steps + 1e-12


@given(starts=st.lists(shares, min_size=50, max_size=50), asked=shares,
       costs=st.lists(shares, min_size=50, max_size=50))
@example(starts=[0.0] * 25 + [1.0] * 25, asked=0.5, costs=[0.0] * 25 + [1.0] * 25)
def test_the_bound_outlives_any_moves_of_the_start(starts, asked, costs):
    tracker = Tracker(asked, 0.0, 1.0, 0.5)
    adversary = Adversary(tracker)
    for start, share in zip(starts * 4, costs * 4):
        tracker.aim_from(0.0, 1.0, start)
        tracker.update(adversary.cost(share))
        assert abs(tracker.mean - asked) <= bound(tracker) + 1e-12


@given(asked=st.floats(0.05, 0.95), costs=st.lists(shares, min_size=1, max_size=40),
       window=st.integers(10, 100))
def test_any_stretch_of_steps_keeps_twice_the_bound(asked, costs, window):
    tracker = Tracker(asked, 0.0, 1.0, asked)
    adversary, spent = Adversary(tracker), []
    for share in (costs * 300)[:300]:
        spent.append(adversary.cost(share))
        tracker.update(spent[-1])
    for first in range(0, 300 - window, 7):
        mean = sum(spent[first:first + window]) / window
        assert abs(mean - asked) <= 2 * (1 / GAIN + 1) / window + 1e-12


@given(asked=shares, gain=st.floats(0.02, 1), threshold=shares)
@settings(max_examples=50)
def test_a_rule_that_answers_to_its_aim_is_brought_to_what_was_asked(asked, gain, threshold):
    """Steps that cost all or nothing, by where the aim lies: the harshest plant there is."""
    tracker = Tracker(asked, 0.0, 1.0, 0.5, gain)
    for _ in range(2000):
        dear = tracker.aim >= 1.0 or (tracker.aim > threshold and tracker.aim > 0.0)
        tracker.update(float(dear))
    assert tracker.mean == pytest.approx(asked, abs=(1 / gain + 1) / 2000)


@pytest.mark.parametrize(("asked", "end"), [(0.8, 1.0), (0.2, 0.0)])
def test_what_an_end_cannot_give_is_not_added_up_and_the_loop_is_free_again_at_once(asked, end):
    """Full depth is cut short by a deadline, say: the dearest rule costs less than is asked."""
    tracker = Tracker(asked, 0.0, 1.0, asked)
    for _ in range(1000):
        tracker.update(0.5)
    assert tracker.aim == end
    tracker.update(end)
    tracker.update(end)
    assert tracker.aim != end


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("asked", [7.8, 8.0, 8.5, 9.0, 12.0])
def test_milliseconds_that_scatter_are_kept_near_the_cheapest_rules_mean_too(asked, seed):
    """Rules are known by medians, 6.5 to 18 ms; one step of twenty is 20 ms late, so that the
    cheapest rule takes 7.5 ms in the mean."""
    random = np.random.default_rng(seed)
    tracker = Tracker(asked, 6.5, 18.0, asked)
    for _ in range(8000):
        tracker.update(tracker.aim + 20.0 * (random.random() < 0.05))
    assert abs(tracker.mean - asked) <= bound(tracker)


@given(sign=st.sampled_from([1, -1]), share=st.floats(0.01, 0.1), size=st.floats(0, 1),
       room=st.floats(0.05, 0.4), seed=st.integers(0, 100))
@settings(max_examples=30)
def test_costs_that_scatter_around_their_rules_do_not_bias_the_mean(sign, share, size, room, seed):
    """Single steps at an end lie on the wrong side of what was asked; their mean does not."""
    random = np.random.default_rng(seed)
    end = 0.0 if sign > 0 else 1.0
    asked = end + sign * (share * size + room)
    tracker = Tracker(asked, 0.0, 1.0, asked)
    for _ in range(4000):
        tracker.update(tracker.aim + sign * size * (random.random() < share))
    assert abs(tracker.mean - asked) <= bound(tracker)


def test_where_the_cheapest_rules_mean_is_above_what_was_asked_nearly_all_steps_go_by_it():
    random = np.random.default_rng(0)
    tracker = Tracker(7.0, 6.5, 18.0, 7.0)
    aims = []
    for _ in range(8000):
        aims.append(tracker.aim)
        tracker.update(tracker.aim + 20.0 * (random.random() < 0.05))
    assert np.mean(aims) == pytest.approx(6.5, abs=0.1)


def test_an_end_that_kept_its_word_for_long_is_not_believed_for_as_long_once_it_does_not():
    tracker = Tracker(0.5, 0.0, 1.0, 0.5)
    for _ in range(10_000):
        tracker.update(0.0 if tracker.aim <= 0.0 else 1.0)
    for _ in range(10_000):
        tracker.update(0.9)
    steps = 0
    while tracker.aim <= 0.0:
        tracker.update(0.0)
        steps += 1
    # What is kept for the end takes the knob's whole way, and the start lies half-way.
    assert steps * 0.5 <= (2 + 0.5) / GAIN + 1


def test_before_the_first_step_there_is_no_mean_and_the_aim_is_the_start():
    tracker = Tracker(0.5, 0.0, 1.0, 0.25)
    assert tracker.mean is None and tracker.aim == 0.25


@pytest.mark.parametrize("spent", [math.nan, math.inf, -math.inf])
def test_a_cost_that_is_no_number_changes_nothing(spent):
    tracker = Tracker(0.5, 0.0, 1.0, 0.5)
    tracker.update(0.2)
    before = vars(tracker).copy()
    with pytest.raises(ValueError, match="a step cannot have cost"):
        tracker.update(spent)
    assert vars(tracker) == before


@pytest.mark.parametrize(
    "values", [(math.nan, 0, 1, 0.5), (0.5, math.nan, 1, 0.5), (0.5, 0, math.inf, 0.5),
               (0.5, 0, 1, math.nan), (0.5, 1, 0, 0.5)],
)  # fmt: skip
def test_numbers_that_are_none_are_refused(values):
    with pytest.raises(ValueError, match="they must be finite"):
        Tracker(*values)


@pytest.mark.parametrize("gain", [0, -1, 1.5, math.nan])
def test_a_gain_out_of_range_is_refused(gain):
    with pytest.raises(ValueError, match="gain is .*; it must be above 0 and at most 1"):
        Tracker(0.5, 0, 1, 0.5, gain)

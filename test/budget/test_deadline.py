from __future__ import annotations

import pytest
from cost_tables import HIGH, cost_table
from hypothesis import given
from hypothesis import strategies as st

from deer_ros.budget.deadline import WINDOW, Deadline, SegmentTimes
from deer_ros.budget.timing import CostTable

durations = st.floats(0, 50)


def deadline_of(latency_ms: float, table: CostTable) -> Deadline:
    return Deadline(latency_ms, SegmentTimes(table))


def run_step(deadline: Deadline, segments_ms: list[float]) -> tuple[float, int]:
    """A step whose segments take these times: what it took, and which segment was the last."""
    elapsed, ran = segments_ms[0], [segments_ms[0]]
    for index in range(1, len(segments_ms)):
        if not deadline.permits(index, elapsed):
            break
        elapsed += segments_ms[index]
        ran.append(segments_ms[index])
    deadline.times.learn(ran)
    return elapsed, len(ran) - 1


@given(
    latency=st.floats(1, 100),
    steps=st.lists(st.lists(durations, min_size=4, max_size=4), min_size=1, max_size=30),
    expected=st.lists(st.floats(0.01, 30), min_size=4, max_size=4),
)
def test_a_step_overshoots_by_less_than_the_segment_that_ran_when_the_deadline_passed(
    latency, steps, expected
):
    deadline = deadline_of(latency, cost_table(expected))
    for segments_ms in steps * 3:
        elapsed, last = run_step(deadline, segments_ms)
        assert elapsed - latency <= segments_ms[last]


@given(latency=st.floats(1, 100), segments=st.lists(st.floats(0.1, 30), min_size=1, max_size=6))
def test_what_takes_as_long_as_the_table_says_never_overshoots_past_the_fixed_part(
    latency, segments
):
    deadline = deadline_of(latency, cost_table(segments))
    for _ in range(3):
        elapsed, last = run_step(deadline, [HIGH * ms for ms in segments])
        assert elapsed <= max(latency, HIGH * segments[0]) + 1e-9
        deepest = [k for k in range(len(segments)) if HIGH * sum(segments[:k + 1]) <= latency]
        assert last >= max(deepest, default=0) - 1  # rounding may cost the last


def test_a_slow_machine_is_learnt_in_two_steps_and_tried_again_after_a_hundred():
    deadline = deadline_of(10.0, cost_table([2.0, 2.0, 2.0]))
    quick, slow = [2.0, 2.0, 2.0], [2.0, 2.0, 20.0]
    assert run_step(deadline, quick)[1] == 2
    late = [run_step(deadline, slow)[0] > 10.0 for _ in range(10 * WINDOW)]
    assert late[:3] == [True, True, False]
    assert sum(late) <= 0.02 * len(late) + 2
    assert [run_step(deadline, quick)[1] for _ in range(WINDOW)][-1] == 2


def test_predictions_follow_a_machine_that_turned_out_quicker():
    deadline = deadline_of(10.0, cost_table([2.0, 20.0]))
    assert not deadline.permits(1, 2.0)
    for _ in range(WINDOW):
        deadline.times.learn([2.0, 1.0])  # ran under another rule
    assert deadline.times.predicted_ms(1) == 1.0 and deadline.permits(1, 2.0)


def test_one_stall_in_a_hundred_steps_does_not_close_a_segment():
    deadline = deadline_of(10.0, cost_table([2.0, 2.0]))
    for _ in range(2 * WINDOW):
        assert run_step(deadline, [2.0, 2.0])[1] == 1
    assert run_step(deadline, [2.0, 100.0])[0] == 102.0
    assert run_step(deadline, [2.0, 2.0])[1] == 1


@pytest.mark.parametrize("elapsed", [10.1, 1e9, float("nan"), float("inf")])
def test_nothing_begins_after_the_deadline_or_at_no_time_at_all(elapsed):
    assert not deadline_of(10.0, cost_table([1.0, 0.0])).permits(1, elapsed)

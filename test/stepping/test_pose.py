"""Where a motion starts: never from a pose that is no longer true."""

from __future__ import annotations

import pytest
from step_bench import PERIOD_MS, Bench

from deer_ros.control.safety import PAUSED, Reason

ADVANCE_M = 0.5 * 0.04  # of the bench's action and the tiny model's linear scale
BOX = {"safety.workspace_min": [-1, -1, -1], "safety.workspace_max": [0.1, 1, 1]}


def x_of(outcome) -> float:
    return outcome.command.target.position[0]


@pytest.mark.parametrize("event", [
    lambda stepper: stepper.reset(),
    lambda stepper: stepper.set_instruction("another"),
    lambda stepper: stepper.stop(PAUSED),
])
@pytest.mark.parametrize("late_ms", [1000, -1000])
def test_no_target_starts_from_a_pose_that_is_old_or_of_the_future(event, late_ms):
    bench = Bench()
    bench.now_ms += PERIOD_MS
    bench.tell_pose(0.3)
    assert x_of(bench.step()) == pytest.approx(0.3 + ADVANCE_M)
    bench.tell_pose(0.7, late_ms)
    event(bench.stepper)
    assert bench.step().command.target is None
    bench.tell_pose(0.4)
    event(bench.stepper)
    assert x_of(bench.step()) == pytest.approx(0.4 + ADVANCE_M)


def test_a_target_goes_on_where_the_pose_falls_silent_as_nothing_starts_from_it():
    bench = Bench()
    bench.tell_pose(0.3)
    for number in range(1, 20):
        assert x_of(bench.step()) == pytest.approx(0.3 + number * ADVANCE_M)


def test_a_robot_that_is_led_from_its_measured_pose_stops_where_that_falls_silent():
    bench = Bench(semantics={"reference": "measured"})
    assert bench.step().command.target is None, "it need not tell its pose"
    bench.tell_pose(0.3)
    made = [bench.step() for _ in range(12)]
    assert all(x_of(outcome) == pytest.approx(0.3 + ADVANCE_M) for outcome in made[:10])
    assert made[10:] == [None, None]
    assert bench.watch().reason is Reason.INPUT_STALE
    bench.tell_pose(0.5)
    assert x_of(bench.step()) == pytest.approx(0.5 + ADVANCE_M)


def test_an_action_that_is_carried_out_again_ends_where_the_pose_it_needs_has_become_old():
    bench = Bench(semantics={"executions_per_step": 5}, **BOX)
    bench.tell_pose(-0.5)
    bench.now_ms += 300
    further = bench.step().further
    assert [command.linear[0] > 0 for command in further] == [True] * 3, "at 400, 450 and 500 ms"
    assert bench.reason is Reason.NONE


def test_the_box_holds_where_the_robot_is_when_it_is_commanded_not_where_the_step_began():
    bench = Bench(**BOX)
    bench.tell_pose(0.07)
    outcome = bench.step(meanwhile=lambda: bench.tell_pose(0.09), lasts_ms=40)
    assert outcome.account.clamped == ("workspace",)
    assert outcome.command.linear[0] == 0.0 and x_of(outcome) == pytest.approx(0.1)


def test_where_the_pose_no_longer_counts_neither_does_a_step_that_was_begun_on_it():
    bench = Bench()
    bench.tell_pose(0.3)
    bench.step()
    assert bench.step(meanwhile=bench.stepper.forget_pose).command is None
    after = bench.step()
    assert after.command.target is None and after.account.number == 2, "no new episode"

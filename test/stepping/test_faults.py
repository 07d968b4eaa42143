"""What stops a stepper, in virtual time: the same for the node and for replay."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from step_bench import MS, PERIOD_MS, Bench, Message

from deer_ros.budget.budget import Budget
from deer_ros.control.safety import PAUSED, Reason, State, Stop


def test_stamps_that_stand_still_are_told_from_silence():
    frozen, silent = Bench(), Bench()
    for bench in (frozen, silent):
        assert bench.step().command is not None
    for index in range(1, 12):
        frozen.now_ms += PERIOD_MS
        silent.now_ms += PERIOD_MS
        frozen.show(late_ms=index * PERIOD_MS)
        stops = frozen.watch(), silent.watch()
        assert (stops == (None, None)) == (index <= 10)
    assert (frozen.reason, silent.reason) == (Reason.STAMPS_FROZEN, Reason.INPUT_STALE)


def test_a_frozen_picture_stops_the_robot_until_another_comes():
    bench, moved = Bench(), 0
    while bench.step(same=b"same") is not None:
        moved += 1
    assert moved == 40, "2 s of steps"
    assert bench.watch().reason is Reason.IMAGE_FROZEN
    for _ in range(60):
        assert bench.step(same=b"same") is None
        assert bench.watch().reason is Reason.IMAGE_FROZEN
    outcome = bench.step()
    assert outcome.command is not None and bench.stepper.safety.state is State.RUNNING


@pytest.mark.parametrize("changes", [{"dry_run": True}, {"safety.frozen_image_timeout": 0}])
def test_a_scene_that_the_policy_does_not_move_may_stand_still(changes):
    bench = Bench(**changes)
    assert all(bench.step(same=b"same") is not None for _ in range(100))


def test_a_new_instruction_or_a_reset_sets_a_simulated_robot_in_motion_again():
    bench = Bench()
    for begin in (lambda: bench.stepper.set_instruction("close it"), bench.stepper.reset):
        while bench.step(same=b"same") is not None:
            pass
        assert bench.watch().reason is Reason.IMAGE_FROZEN
        begin()
        assert bench.step(same=b"same").command is not None


def test_a_step_that_lasts_too_long_is_noticed_while_it_runs_and_dropped():
    bench = Bench(**{"safety.step_timeout": 0.3, "safety.input_timeout": 1.0})
    assert bench.step(lasts_ms=300).command is not None
    outcome = bench.step(lasts_ms=301)
    assert outcome.command is None and outcome.stop.reason is Reason.DEADLINE_OVERRUN
    assert not outcome.account.commanded
    assert bench.reason is Reason.DEADLINE_OVERRUN
    bench.step(lasts_ms=0)
    assert bench.reason is Reason.NONE
    bench.now_ms += PERIOD_MS
    bench.show()
    bench.stepper.take(bench.now_ms * MS)
    bench.now_ms += 301
    assert bench.watch(busy=True).reason is Reason.DEADLINE_OVERRUN


@pytest.mark.parametrize("latency_ms, allowed_ms", [(10.0, 60), (200.0, 400), (1900.0, 2000)])
def test_a_deadline_may_be_missed_by_itself_or_a_period_but_not_by_more(latency_ms, allowed_ms):
    bench = Bench(Budget(latency_ms=latency_ms), **{"safety.input_timeout": 10.0})
    assert bench.step(lasts_ms=allowed_ms).command is not None
    assert bench.step(lasts_ms=allowed_ms + 1).stop.reason is Reason.DEADLINE_OVERRUN


def test_an_action_that_no_limit_makes_a_motion_has_a_reason_of_its_own():
    bench = Bench()
    assert bench.step(action=(2e6, 0, 0, 0, 0, 0)).stop.reason is Reason.OVER_LIMIT
    assert bench.step(action=(np.nan, 0, 0, 0, 0, 0)).stop.reason is Reason.NOT_FINITE
    assert bench.reason is Reason.OVER_LIMIT, "the first reason is kept"
    assert bench.stepper.episode.step == 0


def test_jumps_are_shortened_and_told():
    bench = Bench(**{"safety.max_jump": 0.2})
    speeds = [(outcome.command.linear[0], outcome.account.clamped)
              for outcome in (bench.step() for _ in range(4))]
    np.testing.assert_allclose([speed for speed, _ in speeds], np.array([2, 4, 5, 5]) * 0.08)
    assert [clamped for _, clamped in speeds] == [("jump",), ("jump",), (), ()]
    bench.stepper.stop(Stop(Reason.MODEL_ERROR, "failed"))
    np.testing.assert_allclose(bench.step().command.linear[0], 0.16, err_msg="from 0 again")


def test_pictures_that_can_never_be_read_stop_the_robot_in_the_end():
    bench = Bench()
    assert bench.step().command is not None
    for index in range(12):
        assert bench.step(readable=False).command is None
        stop = bench.watch()
        assert (stop is None) == (index <= 10), index
    assert stop.reason is Reason.INPUT_STALE and "read" in stop.detail
    assert bench.step().command is not None
    assert bench.watch() is None and bench.reason is Reason.NONE


def test_pictures_that_can_never_be_read_are_told_of_once_however_busy_the_model_is():
    bench, told = Bench(), []
    assert bench.step().command is not None
    for _ in range(40):
        bench.step(readable=False, meanwhile=lambda: bench.watch(busy=True))
        stop = bench.stepper.watch(bench.now_ms * MS)
        told += [stop] if stop is not None and bench.stepper.stop(stop) else []
    assert [stop.reason for stop in told] == [Reason.INPUT_STALE]
    assert bench.step().command is not None and bench.watch() is None


def test_cameras_that_are_apart_have_a_reason_of_their_own():
    bench = Bench()
    assert bench.step().command is not None
    for _ in range(12):
        bench.now_ms += PERIOD_MS
        bench.stepper.offer("static", bench.now_ms * MS, Message(b"a"))
        bench.stepper.offer("gripper", (bench.now_ms - 300) * MS, Message(b"b"))
        bench.watch()
    assert bench.reason is Reason.CAMERAS_APART


def test_what_is_latched_stands_until_a_reset():
    bench = Bench(**{"safety.recovery": "latched"})
    assert bench.step().command is not None
    assert bench.step(action=(np.inf,) * 6).stop is not None
    for _ in range(5):
        assert bench.step() is None
        assert bench.watch().reason is Reason.NOT_FINITE
    bench.stepper.set_instruction("another")
    assert bench.step() is None
    bench.stepper.reset()
    assert bench.step().command is not None
    assert bench.stepper.episode.reset_reason == "~/reset was called"


@pytest.mark.parametrize("event", [
    lambda stepper: stepper.reset(),
    lambda stepper: stepper.set_instruction("another"),
    lambda stepper: stepper.clock_jumped(),
    lambda stepper: stepper.stop(PAUSED),
    lambda stepper: stepper.stop(Stop(Reason.DRY_RUN, "for a moment")),
    lambda stepper: stepper.stop(Stop(Reason.CLOCK_JUMPED, "stamps fell back.")),
    lambda stepper: (stepper.stop(PAUSED), stepper.stop(PAUSED)),
])
def test_what_was_begun_before_a_reset_another_instruction_or_a_stop_does_not_count(event):
    def meanwhile():
        event(bench.stepper)
        # What stopped the robot is over before the answer comes.
        bench.stepper.safety.clear()

    bench = Bench()
    bench.step()
    outcome = bench.step(meanwhile=meanwhile)
    assert outcome.command is None and not outcome.account.commanded
    assert bench.step().command is not None, "the next one is of afterwards"


def test_a_stop_begins_no_new_episode():
    bench = Bench()
    bench.step()
    bench.stepper.stop(PAUSED)
    assert bench.step().account.number == 2


@pytest.mark.parametrize("dry_run", [True, False])
def test_a_step_is_commanded_only_where_no_dry_run_was_on_from_its_beginning_to_its_end(dry_run):
    bench = Bench(dry_run=dry_run)
    live = dataclasses.replace(bench.stepper.plan, dry=None if dry_run else "switched on")
    outcome = bench.step(meanwhile=lambda: bench.stepper.adopt(live))
    assert outcome.command is not None and not outcome.account.commanded
    assert bench.reason is Reason.DRY_RUN


def test_the_cadence_is_that_of_steps_that_follow_each_other():
    bench = Bench()
    for _ in range(21):
        bench.step()
    bench.now_ms += 10_000
    assert bench.watch().reason is Reason.INPUT_STALE
    for _ in range(21):
        bench.step()
    cadence = bench.stepper.record.take_cadence()
    assert "20.00 steps per second of 20 asked" in cadence.sentence(20.0)
    assert "headroom 80 % of a period on average" in cadence.sentence(20.0)
    assert "too few" in bench.stepper.record.take_cadence().sentence(20.0)

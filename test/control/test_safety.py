from __future__ import annotations

import pytest

from deer_ros.control.episode import Episode
from deer_ros.control.safety import (
    DEACTIVATED,
    NO_INSTRUCTION,
    PAUSED,
    Input,
    Reason,
    Safety,
    State,
    Stop,
    stale,
)

STALE = Stop(Reason.INPUT_STALE, "old")
OVER = Stop(Reason.EPISODE_OVER, "over")
FAILED = Stop(Reason.MODEL_ERROR, "failed")


def ready() -> Safety:
    safety = Safety()
    safety.activate()
    safety.has_instruction = True
    return safety


def test_the_gravest_standing_cause_is_named():
    safety = Safety()
    assert safety.hindrance(OVER, STALE) is DEACTIVATED
    safety.activate()
    assert safety.hindrance(OVER, STALE) is NO_INSTRUCTION
    safety.has_instruction = True
    assert safety.hindrance(OVER, STALE) is OVER
    assert safety.hindrance(None, STALE) is STALE
    assert safety.hindrance() is None
    safety.paused = True
    assert safety.hindrance(OVER, STALE) is PAUSED
    safety.shutdown = Stop(Reason.SHUTDOWN, "SIGTERM was received.")
    assert safety.hindrance(OVER, STALE) is safety.shutdown


def test_the_first_reason_stays_until_the_robot_moves():
    safety = ready()
    safety.moved()
    safety.stop(STALE)
    safety.stop(PAUSED)
    assert safety.reason is Reason.INPUT_STALE
    assert (safety.state, safety.detail) == (State.PAUSED, PAUSED.detail)
    safety.clear()
    assert (safety.state, safety.reason) == (State.WAITING, Reason.INPUT_STALE)
    safety.moved()
    assert (safety.state, safety.reason, safety.detail) == (State.RUNNING, Reason.NONE, "")


def test_a_stop_is_new_only_once():
    safety = ready()
    assert safety.stop(STALE)
    assert not safety.stop(STALE)
    assert safety.stop(PAUSED)
    safety.moved()
    assert safety.stop(PAUSED)


def test_a_failure_stays_until_the_next_good_step():
    safety = ready()
    safety.moved()
    safety.stop(FAILED)
    safety.clear()
    assert (safety.state, safety.reason) == (State.STOPPED, Reason.MODEL_ERROR)
    safety.moved()
    assert safety.state is State.RUNNING


def test_before_the_first_step_missing_input_is_waiting_and_afterwards_a_stop():
    safety = ready()
    safety.stop(STALE)
    assert safety.state is State.WAITING
    safety.moved()
    safety.stop(STALE)
    assert safety.state is State.STOPPED


def test_a_dry_step_runs_and_says_why_nothing_moves():
    safety = ready()
    safety.moved("because")
    assert (safety.state, safety.reason, safety.detail) == (
        State.RUNNING, Reason.DRY_RUN, "because")
    safety.stop(STALE)
    assert safety.reason is Reason.INPUT_STALE


def test_activation_starts_with_a_clean_slate():
    safety = ready()
    safety.stop(FAILED)
    safety.activate()
    assert (safety.state, safety.reason) == (State.WAITING, Reason.NONE)
    assert safety.stop(FAILED)


@pytest.mark.parametrize("age_s, repeats, reason, words", [
    (None, 0, Reason.INPUT_STALE, "nothing has come on camera"),
    (0.6, 0, Reason.INPUT_STALE, "0.60 s old"),
    (0.6, 2, Reason.INPUT_STALE, "0.60 s old"),
    (0.6, 3, Reason.STAMPS_FROZEN, "messages come on camera, but their stamps"),
    (-0.6, 0, Reason.STAMPS_AHEAD, "in the future"),
])
def test_an_input_that_is_missing_old_frozen_or_from_the_future_is_told_apart(
    age_s, repeats, reason, words
):
    stop = stale([Input("pose", 0.1, 9), Input("camera", age_s, repeats)], timeout_s=0.5)
    assert stop.reason is reason and words in stop.detail


@pytest.mark.parametrize("fault", [FAILED, STALE, Stop(Reason.CLOCK_JUMPED, "set"),
                                   Stop(Reason.IMAGE_FROZEN, "same")])
def test_a_latched_fault_forbids_every_step_until_it_is_released(fault):
    safety = ready()
    safety.latches = True
    safety.moved()
    assert safety.stop(fault)
    assert safety.latched.reason is fault.reason and "~/reset" in safety.detail
    assert safety.hindrance(OVER, None) is safety.latched
    safety.latches = False
    safety.activate()
    safety.has_instruction = True
    assert safety.hindrance() is safety.latched, "neither a parameter nor an activation helps"
    safety.stop(safety.hindrance())
    # What has come after an activation is still waited for.
    state = State.STOPPED if fault is FAILED else State.WAITING
    assert (safety.reason, safety.state) == (fault.reason, state)
    safety.release()
    assert safety.hindrance() is None


@pytest.mark.parametrize("request_", [
    PAUSED, DEACTIVATED, OVER, NO_INSTRUCTION, Stop(Reason.DRY_RUN, "dry"),
    Stop(Reason.CANCELLED, "cancelled"), Stop(Reason.PREEMPTED, "another"),
])
def test_what_somebody_asked_for_is_not_latched(request_):
    safety = ready()
    safety.latches = True
    safety.moved()
    safety.stop(request_)
    assert safety.latched is None


def test_inputs_that_are_still_missing_before_the_first_step_are_not_latched():
    safety = ready()
    safety.latches = True
    safety.stop(STALE)
    assert safety.latched is None and safety.state is State.WAITING
    safety.stop(FAILED)
    assert safety.latched is not None, "a model that fails is a fault at once"


def test_of_several_faults_the_first_one_is_latched():
    safety = ready()
    safety.latches = True
    safety.moved()
    safety.stop(STALE)
    safety.stop(FAILED)
    assert safety.latched.reason is safety.reason is Reason.INPUT_STALE


def test_fresh_inputs_are_not_stale():
    assert stale([Input("pose", 0.5), Input("camera", -0.5)], timeout_s=0.5) is None


def test_an_episode_ends_after_its_time_and_stays_so_until_a_restart():
    episode = Episode()
    assert not episode.ends(10**18, 3.0)
    episode.count_step(10**9)
    assert not episode.ends(4 * 10**9 - 1, 3.0) and episode.over is None
    assert episode.ends(4 * 10**9, 3.0)
    assert episode.over.reason is Reason.EPISODE_OVER
    assert episode.ends(10**9, 3.0), "it stays so"
    episode.restart("again")
    assert episode.over is None and not episode.ends(10 * 10**9, 3.0)


def test_an_episode_of_n_steps_has_room_for_n_and_no_more():
    episode, period_ns, steps = Episode(), 50_000_000, 60
    for index in range(steps):
        assert not episode.ends(index * period_ns, steps * 0.05)
        episode.count_step(index * period_ns)
    assert episode.ends(steps * period_ns, steps * 0.05)


def test_episodes_are_numbered_by_resets_that_had_steps_in_between():
    episode = Episode()
    episode.restart("activated")
    episode.restart("new instruction")
    assert (episode.number, episode.step, episode.reset_reason) == (1, 0, "new instruction")
    generation = episode.generation
    episode.count_step(0)
    episode.restart("gap")
    assert (episode.number, episode.step) == (2, 0)
    assert episode.generation != generation

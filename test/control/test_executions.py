"""An action that is carried out several times in a row: sampler, commands and stream together."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deer_ros.control import rotation
from deer_ros.control.command import (
    WORKSPACE,
    ActionSemantics,
    Command,
    CommandMaker,
    Limits,
    Pose,
)
from deer_ros.control.sampler import CAMERAS, DRIFT, JITTER, Sampler
from deer_ros.control.stream import CommandStream

MS = 1_000_000
CALVIN = ActionSemantics(30.0, "world", "euler_xyz_increment", "target", 0.02, 0.05)
FREE = Limits(1000.0, 1000.0, (-1000.0,) * 3, (1000.0,) * 3)


def commands(count: int) -> list[Command]:
    return [Command(np.full(3, float(n)), np.zeros(3), None, ()) for n in range(1, count + 1)]


def sent(stream: CommandStream, until_ms: float) -> list[tuple[float, float]]:
    """(time in ms, velocity) of everything sent, polled exactly when the stream asks."""
    messages = []
    while stream.next_ns is not None and stream.next_ns <= until_ms * MS:
        now_ns = stream.next_ns
        command = stream.poll(now_ns).command
        messages.append((now_ns / MS, 0.0 if command is None else command.linear[0]))
    return messages


def both(period_ms: float, count: int):
    return [(camera, period_ms * k) for k in range(count) for camera in CAMERAS]


def taken_ms(subject: Sampler, offers) -> list[float]:
    times = []
    for camera, stamp_ms in offers:
        subject.offer(camera, round(stamp_ms * MS), None)
        if (pair := subject.take()) is not None:
            times.append(pair.stamp_ns / MS)
    return times


@pytest.mark.parametrize("executions", [1, 2, 3, 5, 12])
def test_the_next_step_starts_as_many_periods_later_as_the_action_is_carried_out(executions):
    subject = Sampler(0.05, 0.02, 10.0, executions)
    times = taken_ms(subject, both(50, 40))
    assert times == [50.0 * k for k in range(0, 40, executions)]


def test_trembling_stamps_make_no_long_step_a_picture_shorter():
    tremble = [0, 4, -4, 3, -3, 4, -4, 0, 4, -4] * 10
    offers = [(camera, 50 * k + t) for k, t in enumerate(tremble) for camera in CAMERAS]
    times = taken_ms(Sampler(0.05, 0.02, 10.0, 5), offers)
    assert [round(time / 50) for time in times] == list(range(0, 100, 5))


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(1, 90), min_size=2, max_size=150), st.integers(1, 60),
       st.integers(1, 6))
def test_whatever_the_cameras_do_steps_are_not_shorter_than_their_periods(
    moves, period_ms, executions
):
    stamps = 1000 + np.cumsum(moves)
    offers = [(camera, float(stamp)) for stamp in stamps for camera in CAMERAS]
    times = taken_ms(Sampler(period_ms / 1e3, 0.0, 10.0, executions), offers)
    for i, first in enumerate(times):
        for n, last in enumerate(times[i + 1:], start=1):
            periods = (last - first) / period_ms
            assert periods >= n * executions * (1 - DRIFT) - JITTER - 1e-5


@pytest.mark.parametrize("reference", ["target", "measured"])
def test_the_target_advances_by_the_action_in_every_period(reference):
    semantics = replace(CALVIN, reference=reference, executions_per_step=3)
    maker, robot = CommandMaker(), Pose(np.array([0.5, 0.0, 0.2]), rotation.IDENTITY)
    action = np.array([1.0, 0, -0.5, 0, 0, 1.0])
    targets = []
    for period in range(semantics.executions_per_step):
        # The robot lags: it has come half of the way by now.
        measured = Pose(robot.position + 0.01 * period * action[:3], rotation.IDENTITY)
        targets.append(maker.command(action, semantics, FREE, measured).target)
        expected = measured if reference == "measured" else robot
        count = 1 if reference == "measured" else period + 1
        np.testing.assert_allclose(
            targets[-1].position, expected.position + count * 0.02 * action[:3])
        np.testing.assert_allclose(
            rotation.to_euler(targets[-1].orientation), [0, 0, count * 0.05], atol=1e-9)


def test_the_workspace_holds_in_every_execution_not_in_the_first_alone():
    box = replace(FREE, workspace_min=(0.0, -1.0, 0.0), workspace_max=(0.55, 1.0, 1.0))
    maker, x, clamped = CommandMaker(), 0.5, []
    for _ in range(4):
        made = maker.command(
            np.array([1.0, 0, 0, 0, 0, 0]), CALVIN, box, Pose(np.array([x, 0, 0.5]),
                                                              rotation.IDENTITY))
        x += made.linear[0] * CALVIN.period_s
        clamped.append(WORKSPACE in made.clamped)
        assert x <= 0.55 + 1e-9 and made.target.position[0] <= 0.55
    assert clamped == [False, False, True, True]


def test_a_models_step_rate_is_its_control_rate_shared_by_the_executions():
    assert (CALVIN.step_rate_hz, CALVIN.period_s) == (30.0, pytest.approx(1 / 30))
    thrice = replace(CALVIN, executions_per_step=3)
    assert (thrice.step_rate_hz, thrice.period_s) == (10.0, pytest.approx(1 / 30))


def test_commands_follow_one_another_without_a_zero_between_and_zero_comes_on_the_dot():
    stream, (first, *others) = CommandStream(rate_hz=50), commands(3)
    stream.hold(first, 0, 0.05, others)
    assert sent(stream, 160) == [
        (0, 1), (20, 1), (40, 1), (50, 2), (70, 2), (90, 2), (100, 3), (120, 3), (140, 3), (150, 0),
    ]


def test_what_follows_is_made_when_its_time_has_come():
    made = []

    def following():
        for command in commands(3)[1:]:
            made.append(command.linear[0])
            yield command

    stream = CommandStream(rate_hz=100)
    stream.hold(commands(1)[0], 0, 0.05, following())
    sent(stream, 49)
    assert made == []
    sent(stream, 60)
    assert made == [2.0]


@pytest.mark.parametrize("end", ["stop", "silence"])
def test_nothing_follows_after_a_stop(end):
    stream, (first, *others) = CommandStream(rate_hz=30), commands(5)
    stream.hold(first, 0, 0.05, others)
    sent(stream, 20)
    stream.stop(20 * MS) if end == "stop" else stream.silence()
    assert all(velocity == 0 for _, velocity in sent(stream, 10_000))


def test_a_new_action_replaces_what_would_have_followed():
    stream, (first, *others) = CommandStream(rate_hz=50), commands(4)
    stream.hold(first, 0, 0.05, others)
    sent(stream, 60)
    stream.hold(first, 70 * MS, 0.05)
    assert {velocity for _, velocity in sent(stream, 119)} == {1}
    assert sent(stream, 121) == [(120, 0)]


def test_polled_late_all_executions_that_are_past_were_made_and_the_last_word_is_zero():
    made, (first, *others) = [], commands(4)
    stream = CommandStream(rate_hz=30)
    stream.hold(first, 0, 0.05, (made.append(c) or c for c in others))
    stream.poll(0)
    assert stream.poll(120 * MS).command is others[1], "the third period"
    assert stream.poll(900 * MS).command is None
    assert made == others


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 8), st.integers(5, 80), st.floats(5, 500), st.integers(0, 700),
       st.booleans())
def test_each_execution_lasts_a_period_and_nothing_moves_after_the_last(
    count, period_ms, rate_hz, stop_ms, is_stopped
):
    stream, (first, *others) = CommandStream(rate_hz), commands(count)
    stream.hold(first, 0, period_ms / 1e3, others)
    messages = sent(stream, stop_ms)
    if is_stopped:
        stream.stop(stop_ms * MS)
    later = sent(stream, 10_000)
    for time, velocity in messages + later:
        if velocity:
            assert velocity == time // period_ms + 1, "one period each, in their order"
            assert velocity <= count
    assert not (is_stopped and any(velocity for _, velocity in later))
    assert (messages + later)[-1][1] == 0 and stream.next_ns is None

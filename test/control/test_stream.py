from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from deer_ros.control.command import Command
from deer_ros.control.stream import ZEROS_S, CommandStream

MS = 1_000_000
MOVE = Command(np.ones(3), np.zeros(3), None, ())


def sent(stream: CommandStream, until_ms: float) -> list[tuple[float, bool]]:
    """(time in ms, whether it moves) of everything sent, polled exactly when the stream asks."""
    messages = []
    while stream.next_ns is not None and stream.next_ns <= until_ms * MS:
        now_ns = stream.next_ns
        emission = stream.poll(now_ns)
        messages.append((now_ns / MS, emission.command is not None))
    return messages


def test_a_command_is_repeated_then_zero_comes_on_the_dot():
    stream = CommandStream(rate_hz=50)
    stream.hold(MOVE, 0, 0.05)
    assert sent(stream, 75) == [(0, True), (20, True), (40, True), (50, False), (70, False)]


def test_zeros_go_on_for_half_a_second_then_silence():
    stream = CommandStream(rate_hz=100)
    stream.hold(MOVE, 0, 0.05)
    messages = sent(stream, 10_000)
    zeros = [time for time, moves in messages if not moves]
    assert zeros[0] == 50 and zeros[-1] == 50 + 1e3 * ZEROS_S
    assert stream.next_ns is None


def test_a_new_command_replaces_the_old_and_starts_at_once():
    stream = CommandStream(rate_hz=30)
    stream.hold(MOVE, 0, 0.05)
    stream.poll(0)
    stream.hold(MOVE, 45 * MS, 0.05)
    assert sent(stream, 94)[0] == (45, True)
    assert all(moves for _, moves in sent(stream, 94))
    assert sent(stream, 96) == [(95, False)]


def test_a_stop_sends_zero_at_once():
    stream = CommandStream(rate_hz=30)
    stream.hold(MOVE, 0, 10.0)
    stream.poll(0)
    stream.stop(7 * MS)
    assert sent(stream, 10) == [(7, False)]


def test_a_stop_without_any_command_sends_zero_too():
    stream = CommandStream(rate_hz=30)
    stream.stop(0)
    assert sent(stream, 1) == [(0, False)]


def test_silence_sends_nothing():
    stream = CommandStream(rate_hz=30)
    stream.hold(MOVE, 0, 1.0)
    stream.silence()
    assert stream.poll(0) is None and stream.next_ns is None


def test_polled_late_a_command_that_has_ended_becomes_zero():
    stream = CommandStream(rate_hz=30)
    stream.hold(MOVE, 0, 0.05)
    stream.poll(0)
    assert stream.poll(500 * MS).command is None


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["hold", "stop"]), st.integers(0, 300)), max_size=20),
       st.floats(1, 500))
def test_nothing_moves_after_a_commands_time_and_the_last_word_is_zero(events, rate_hz):
    stream, now_ms, held_until = CommandStream(rate_hz), 0, -1.0
    messages = []
    for kind, after in events:
        messages += [(t, m, held_until) for t, m in sent(stream, now_ms + after - 1e-6)]
        now_ms += after
        if kind == "hold":
            stream.hold(MOVE, now_ms * MS, 0.05)
            held_until = now_ms + 50
        else:
            stream.stop(now_ms * MS)
            held_until = -1.0
    messages += [(t, m, held_until) for t, m in sent(stream, now_ms + 10_000)]
    assert all(time < until for time, moves, until in messages if moves)
    if events:
        assert messages[-1][1] is False
        assert stream.next_ns is None

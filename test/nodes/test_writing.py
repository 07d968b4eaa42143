"""The recorder's memory when the disk is slower than the robot."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

import pytest
from rosbags.rosbag2 import Reader

from deer_ros.data.rolling_bag import Channel, RollingBag
from deer_ros.nodes.recorder.writing import OVERHEAD_BYTES, Writing

CHANNEL = Channel("/words", "std_msgs/msg/String", "string data\n", "")
SIZE = 1000


@pytest.fixture
def disk(monkeypatch):
    """A disk that writes nothing until the event is set."""
    goes_on, write = threading.Event(), RollingBag.write

    def slow_write(*arguments):
        assert goes_on.wait(60)
        write(*arguments)

    monkeypatch.setattr(RollingBag, "write", slow_write)
    return goes_on


@pytest.mark.parametrize("room", [1, 3, 10])
def test_what_finds_no_room_is_dropped_and_counted_and_the_rest_is_written(tmp_path, disk, room):
    writing = Writing(tmp_path / "bag", 30.0, limit_bytes=room * (SIZE + OVERHEAD_BYTES))
    taken = [writing.put(CHANNEL, 10**18 + number, bytes(SIZE)) for number in range(20)]
    assert taken == [True] * room + [False] * (20 - room)
    assert writing.dropped == {"/words": 20 - room}
    disk.set()
    writing.close()
    assert writing.failure is None and writing.written == room
    with Reader(tmp_path / "bag") as reader:
        assert [time_ns - 10**18 for _, time_ns, _ in reader.messages()] == list(range(room))


def test_a_message_larger_than_the_memory_is_taken_where_nothing_waits(tmp_path):
    writing = Writing(tmp_path / "bag", 30.0, limit_bytes=10)
    assert writing.put(CHANNEL, 10**18, bytes(SIZE))
    writing.close()
    assert writing.written == 1 and not writing.dropped


@pytest.mark.parametrize("written", [0, 3])
def test_a_disk_that_turns_read_only_is_a_failure_that_is_told(tmp_path, monkeypatch, written):
    write = RollingBag.write

    def refuse(*_arguments, **_options):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    def write_some(bag, *arguments):
        (write if bag.span.count < written else refuse)(bag, *arguments)

    monkeypatch.setattr(RollingBag, "write", write_some)
    monkeypatch.setattr(Path, "unlink", refuse)
    writing = Writing(tmp_path / "bag", 30.0)
    for number in range(written + 1):
        writing.put(CHANNEL, 10**18 + number, bytes(SIZE))
    writing.close()
    assert writing.failure == f"Read-only file system ({tmp_path / 'bag'})"
    assert writing.written == written
    assert not writing.put(CHANNEL, 10**18 + 9, bytes(SIZE)), "nothing more is taken"

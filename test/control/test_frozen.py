from __future__ import annotations

from array import array

import numpy as np
import pytest

from deer_ros.control.frozen import FrozenImages
from deer_ros.control.safety import Reason

PERIOD_NS = 50_000_000
TIMEOUT_S = 2.0
SAME = {"array": array("B", [7] * 300), "bytes": bytes([7] * 300),
        "numpy": np.full(300, 7, np.uint8)}


def show(subject: FrozenImages, first: int, last: int, data) -> None:
    """Pictures of one camera from one period to another, in steps that move the robot."""
    for index in range(first, last):
        subject.offer("static", index * PERIOD_NS, data)
        subject.moved(index * PERIOD_NS)


@pytest.mark.parametrize("kind", SAME)
def test_the_same_bytes_for_two_seconds_of_motion_are_a_frozen_camera(kind):
    subject = FrozenImages()
    show(subject, 0, 40, SAME[kind])
    assert subject.stop(TIMEOUT_S) is None
    show(subject, 40, 41, SAME[kind])
    stop = subject.stop(TIMEOUT_S)
    assert stop.reason is Reason.IMAGE_FROZEN and "camera/static/image" in stop.detail
    subject.rested()
    assert subject.stop(TIMEOUT_S) is not None, "it stays frozen, though the robot stands now"
    assert subject.stop(0.0) is None, "0 is never"
    other = bytearray(SAME[kind])
    other[-1] ^= 1
    subject.offer("static", 42 * PERIOD_NS, array("B", other))
    assert subject.stop(TIMEOUT_S) is None


def test_equal_bytes_in_another_buffer_are_the_same_and_one_other_bit_is_not():
    subject = FrozenImages()
    for index in range(100):
        data = array("B", [7] * 300)
        data[299] = index // 30
        subject.offer("static", index * PERIOD_NS, data)
        subject.moved(index * PERIOD_NS)
        assert subject.stop(TIMEOUT_S) is None
    show(subject, 100, 200, array("B", [7] * 300))
    assert subject.stop(TIMEOUT_S) is not None


def test_a_scene_in_which_nothing_moves_is_not_frozen():
    subject = FrozenImages()
    for index in range(200):
        subject.offer("gripper", index * PERIOD_NS, b"same")
        assert subject.stop(TIMEOUT_S) is None
    show(subject, 200, 240, b"other")
    assert subject.stop(TIMEOUT_S) is None
    subject.restart()
    assert subject.stop(TIMEOUT_S) is None
    show(subject, 240, 280, b"other")
    assert subject.stop(TIMEOUT_S) is None, "what was before a new episode does not count"


def test_one_of_two_cameras_is_enough():
    subject = FrozenImages()
    for index in range(50):
        subject.offer("static", index * PERIOD_NS, bytes([index]))
        subject.offer("gripper", index * PERIOD_NS, b"same")
        subject.moved(index * PERIOD_NS)
    assert "camera/gripper" in subject.stop(TIMEOUT_S).detail

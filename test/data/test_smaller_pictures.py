"""Pictures that are made small as they are read, so that a long recording fits into memory."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from datasets import write_calvin, write_lerobot
from episodes import Units
from robot_bags import GRIPPER, SECOND, START_NS, STATIC, RobotBag, header, write_bag

from deer_ros.data.bag_format import BagError
from deer_ros.data.readers import read_all_episodes
from deer_ros.model.preprocessing import Preprocessor

SMALL = Preprocessor(16).resize
PERIOD_NS = SECOND // 20


def raw_bag(path: Path, sizes: list[tuple[int, int]]) -> Path:
    """One frame of raw pictures for each of the sizes (height, width)."""
    with RobotBag(path) as bag:
        bag.instruction(START_NS - SECOND, "open the drawer")
        bag.opening(START_NS - SECOND, 1.0)
        for number, (height, width) in enumerate(sizes):
            stamp_ns = START_NS + number * PERIOD_NS
            bag.twist(stamp_ns, [0.1] * 6)
            for topic in ("/camera/static/image", "/camera/gripper/image"):
                shades = np.full(height * width * 3, number % 256, np.uint8)
                bag.put(topic, "sensor_msgs/msg/Image", stamp_ns + 1_000_000, header(stamp_ns),
                        height, width, "rgb8", 0, width * 3, shades)
    return path


def calvin(path: Path) -> Path:
    write_calvin(path, [("open the drawer", 2, 6)])
    return path


def lerobot(path: Path, videos: bool) -> Path:
    for module in ("pyarrow", "av"):
        pytest.importorskip(module)
    write_lerobot(path, (4, 3), videos=videos)
    return path


@pytest.mark.parametrize("write", [
    write_bag,
    lambda path: raw_bag(path, [(30, 40)] * 5),
    calvin,
    lambda path: lerobot(path, videos=True),
    lambda path: lerobot(path, videos=False),
], ids=["compressed bag", "raw bag", "calvin", "lerobot videos", "lerobot pictures"])
def test_nothing_but_the_size_of_pictures_is_another(tmp_path, write: Callable[[Path], Path]):
    units = Units(rate_hz=10.0)
    path = write(tmp_path / "demos")
    whole = list(read_all_episodes([path], units))
    small = list(read_all_episodes([path], units, resize=SMALL))
    assert len(whole) == len(small) > 0
    for one, other in zip(whole, small):
        assert one.instruction == other.instruction
        np.testing.assert_array_equal(one.stamps_ns, other.stamps_ns)
        np.testing.assert_array_equal(one.actions, other.actions)
        for camera in ("static", "gripper"):
            expected = np.stack([SMALL(picture) for picture in getattr(one, camera)])
            np.testing.assert_array_equal(getattr(other, camera), expected)


def test_a_long_recording_is_never_in_memory_with_its_large_pictures(tmp_path):
    frames = 60
    path = raw_bag(tmp_path / "bag", [(480, 640)] * frames)
    tracemalloc.start()
    (episode,) = read_all_episodes([path], Units(), resize=SMALL)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(episode) == frames
    as_recorded = frames * 2 * 480 * 640 * 3
    assert peak < as_recorded / 4


@pytest.mark.parametrize("resize", [None, SMALL])
def test_pictures_that_change_their_size_are_refused_though_they_are_made_alike(tmp_path, resize):
    path = raw_bag(tmp_path / "bag", [(30, 40), (30, 40), (60, 80)])
    with pytest.raises(BagError, match=r"several sizes: \(30, 40, 3\) and \(60, 80, 3\)"):
        list(read_all_episodes([path], Units(), resize=resize))


def test_what_cannot_be_read_is_said_alike(tmp_path):
    path = tmp_path / "bag"
    with RobotBag(path) as bag:
        bag.instruction(START_NS - SECOND, "open the drawer")
        bag.opening(START_NS - SECOND, 1.0)
        for number in range(4):
            stamp_ns = START_NS + number * PERIOD_NS
            bag.twist(stamp_ns, [0.1] * 6)
            bag.picture(STATIC, stamp_ns, number, data=b"no picture" if number == 2 else None)
            bag.picture(GRIPPER, stamp_ns, number)
    told, lengths = [], []
    for resize in (None, SMALL):
        said: list[str] = []
        lengths.append([
            len(episode) for episode in read_all_episodes(
                [path], Units(), lambda error, said=said: said.append(str(error)), resize=resize)
        ])
        told.append(said)
        with pytest.raises(BagError, match="cannot be read as an image"):
            list(read_all_episodes([path], Units(), resize=resize))
    assert lengths == [[3], [3]]
    assert len(told[0]) == 1
    assert all(one == other for one, other in pairwise(told))

"""The files that a recorder writes as it goes."""

from __future__ import annotations

import errno
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from rosbags.interfaces import (
    Qos,
    QosDurability,
    QosHistory,
    QosLiveliness,
    QosReliability,
    QosTime,
)
from rosbags.rosbag2 import Reader

from deer_ros.data import own_messages
from deer_ros.data.recording import Recording
from deer_ros.data.rolling_bag import CHUNK_BYTES, FLUSH_S, Channel, RollingBag

SECOND_NS = 10**9
START_NS = 1_700_000_000 * SECOND_NS
LATCHED = Qos(
    QosHistory.KEEP_LAST, 3, QosReliability.RELIABLE, QosDurability.TRANSIENT_LOCAL,
    QosTime(0, 0), QosTime(0, 0), QosLiveliness.AUTOMATIC, QosTime(0, 0), False)
TYPES = own_messages.typestore()


def channel(topic: str = "/words", kind: str = "std_msgs/msg/String", qos=(LATCHED,)) -> Channel:
    return Channel(topic, kind, *own_messages.definition(TYPES, kind), qos)


def words(text: str) -> bytes:
    message = TYPES.types["std_msgs/msg/String"](text)
    return bytes(TYPES.serialize_cdr(message, "std_msgs/msg/String"))


def read(folder: Path) -> tuple[list[str], list[str]]:
    """All words in order, and the losses."""
    with Recording(folder) as recording:
        found = [recording.decode(topic, data).data for topic, _, data in recording.messages()]
        return found, recording.losses


def test_files_are_rolled_and_every_reader_finds_all_of_it(tmp_path):
    folder = tmp_path / "deep" / "bag"
    bag = RollingBag(folder, file_s=30)
    for second in range(100):
        bag.write(channel(), START_NS + second * SECOND_NS, words(f"{second}"), float(second))
        if second == 50:
            bag.write(channel("/action", own_messages.ACTION), START_NS + second * SECOND_NS,
                      b"\0\1\0\0", float(second))
    bag.close()
    names = sorted(path.name for path in folder.iterdir())
    assert names == ["bag_0.mcap", "bag_1.mcap", "bag_2.mcap", "bag_3.mcap", "metadata.yaml"]
    with Reader(folder) as reader:
        assert reader.message_count == 101 and reader.duration == 99 * SECOND_NS + 1
        found = [TYPES.deserialize_cdr(data, connection.msgtype).data
                 for connection, _, data in reader.messages() if connection.topic == "/words"]
        connection = next(c for c in reader.connections if c.topic == "/words")
        assert found == [str(second) for second in range(100)]
        assert connection.ext.offered_qos_profiles == [LATCHED]
        assert connection.digest == TYPES.hash_rihs01("std_msgs/msg/String")
        assert connection.msgcount == 100
    # Each file says by itself how its messages are defined.
    with Recording(folder / "bag_1.mcap") as recording:
        assert recording.topics["/words"].qos == (LATCHED,)
        definition = recording.topics["/action"].definition
        assert "float32[6] action" in definition and "MSG: std_msgs/Header" in definition


def test_the_metadata_is_what_older_rosbag2_reads_too(tmp_path):
    bag = RollingBag(tmp_path / "bag")
    bag.write(channel(), START_NS, words("a"), 0.0)
    bag.close()
    content = yaml.safe_load((tmp_path / "bag" / "metadata.yaml").read_text())
    information = content["rosbag2_bagfile_information"]
    assert information["version"] <= 8 and information["storage_identifier"] == "mcap"
    topic = information["topics_with_message_count"][0]["topic_metadata"]
    assert isinstance(topic["offered_qos_profiles"], str)
    assert yaml.safe_load(topic["offered_qos_profiles"])[0]["durability"] == 1


def test_an_empty_recording_is_an_empty_bag(tmp_path):
    RollingBag(tmp_path / "bag").close()
    with Reader(tmp_path / "bag") as reader:
        assert reader.message_count == 0


KILLED = """
import sys, os, signal
sys.path.insert(0, {tests!r})
from test_rolling_bag import *
bag = RollingBag(Path({folder!r}), file_s={file_s})
for second in range({seconds}):
    bag.write(channel(), START_NS + second * SECOND_NS, words(str(second)), float(second))
bag.tick({seconds} + {waits})
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("seconds, waits, kept", [(20, 2.0, 20), (20, -1.0, 19), (75, 2.0, 75)])
def test_a_killed_recorder_loses_the_last_chunk_at_most(tmp_path, seconds, waits, kept):
    folder = tmp_path / "bag"
    program = KILLED.format(tests=str(Path(__file__).parent), folder=str(folder), seconds=seconds,
                            waits=waits, file_s=30)
    killed = subprocess.run([sys.executable, "-c", program], timeout=120)
    assert killed.returncode == -signal.SIGKILL
    found, losses = read(folder)
    assert found == [str(second) for second in range(kept)]
    assert losses, "what was lost is said"
    if seconds > 30:
        # Whoever reads only what metadata.yaml names finds the finished files.
        with Reader(folder) as reader:
            assert reader.message_count == 60


@pytest.fixture
def little_room():
    """Files may not grow beyond this, as on a full disk: writing fails."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3 * CHUNK_BYTES, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    signal.signal(signal.SIGXFSZ, handler)


def test_a_full_disk_is_an_error_and_what_was_written_can_be_read(tmp_path, little_room):
    bag = RollingBag(tmp_path / "bag")
    long = "x" * 100_000
    with pytest.raises(OSError) as raised:
        for number in range(100):
            bag.write(channel(), START_NS + number, words(f"{number} {long}"), 0.0)
    assert raised.value.errno in (errno.EFBIG, errno.ENOSPC)
    bag.abandon()
    found, losses = read(tmp_path / "bag")
    assert len(found) * len(long) > 1.5 * CHUNK_BYTES and losses
    assert [text.split()[0] for text in found] == [str(number) for number in range(len(found))]


def test_what_waits_is_written_after_a_while_without_new_messages(tmp_path):
    bag = RollingBag(tmp_path / "bag")
    bag.write(channel(), START_NS, words("only"), 0.0)
    file = tmp_path / "bag" / "bag_0.mcap"
    before = os.stat(file).st_size
    bag.tick(FLUSH_S)
    assert os.stat(file).st_size > before
    assert read(tmp_path / "bag")[0] == ["only"]


def test_nothing_that_is_there_is_overwritten(tmp_path):
    wanted = tmp_path / "bag"
    wanted.mkdir()
    RollingBag.in_free_folder(wanted).close()
    assert list(wanted.iterdir()), "an empty folder is free"
    (tmp_path / "bag_2").touch()
    assert RollingBag.in_free_folder(wanted).folder == tmp_path / "bag_3"


def test_two_bags_at_once_get_two_folders_before_anything_is_in_them(tmp_path):
    bags = [RollingBag.in_free_folder(tmp_path / "bag") for _ in range(3)]
    assert [bag.folder.name for bag in bags] == ["bag", "bag_2", "bag_3"]
    for bag in bags:
        bag.close()

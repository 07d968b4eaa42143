from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from episodes import Units
from mcap.writer import CompressionType
from mcap.writer import Writer as McapWriter
from robot_bags import GRIPPER, START_NS, STATIC, TYPES, RobotBag, write_bag
from rosbags.rosbag2 import CompressionMode, StoragePlugin

from deer_ros.data.bag_format import BagError, find_recordings
from deer_ros.data.own_messages import ACTION, STATUS, definition, typestore
from deer_ros.data.readers import read_all_episodes
from deer_ros.data.recording import Recording
from deer_ros.resources import share

MCAP, SQLITE = StoragePlugin.MCAP, StoragePlugin.SQLITE3


def everything(path: Path) -> tuple[list, list[str]]:
    with Recording(path) as recording:
        messages = [(topic, time, bytes(data)) for topic, time, data in recording.messages()]
        return messages, recording.losses


@pytest.mark.parametrize("storage, compression", [
    (MCAP, CompressionMode.STORAGE), (MCAP, CompressionMode.FILE), (MCAP, CompressionMode.MESSAGE),
    (SQLITE, CompressionMode.NONE), (SQLITE, CompressionMode.FILE),
    (SQLITE, CompressionMode.MESSAGE),
])
def test_storage_and_compression_make_no_difference(tmp_path, storage, compression):
    plain, _ = everything(write_bag(tmp_path / "plain"))
    other = write_bag(tmp_path / "other", storage=storage, compression=compression)
    assert everything(other) == (plain, [])
    assert len(plain) == 1 + 12 * 4


def whole_and_cut(tmp_path: Path, keep: float) -> tuple[list, Path]:
    """A bag of many small chunks would be as a recorder writes it; rosbags' chunks are of 1 MiB."""
    with RobotBag(tmp_path / "whole") as bag:
        for number in range(40):
            bag.put("/noise", "std_msgs/msg/String", START_NS + number, chr(97 + number) * 100_000)
    file = tmp_path / "cut" / "cut_0.mcap"
    file.parent.mkdir()
    data = (tmp_path / "whole" / "whole.mcap").read_bytes()
    file.write_bytes(data[:int(keep * len(data))])
    return everything(tmp_path / "whole")[0], file.parent


@pytest.mark.parametrize("keep", [0.3, 0.6, 0.9, 0.999])
def test_what_comes_before_the_cut_is_read_and_the_rest_is_said_to_be_lost(tmp_path, keep):
    whole, cut = whole_and_cut(tmp_path, keep)
    messages, losses = everything(cut)
    assert messages == whole[:len(messages)]
    # Chunks are of 1 MiB: not more than one of them is lost.
    assert len(messages) * 100_000 > keep * 4_000_000 - 1.2 * 2**20
    assert any("no metadata.yaml" in loss for loss in losses)
    assert any(f"cut_0.mcap was not finished or is damaged ({''}" in loss for loss in losses)
    assert any(f"{len(messages)} messages" in loss for loss in losses)


@pytest.mark.parametrize("keep", [0.0, 0.0001])
def test_a_file_without_any_whole_message_is_an_error_that_names_it(tmp_path, keep):
    _, cut = whole_and_cut(tmp_path, keep)
    with pytest.raises(BagError, match="cut: nothing of it can be read: .*cut_0.mcap"):
        everything(cut)


def test_rolled_files_of_a_killed_recorder_are_one_recording_in_their_order(tmp_path):
    folder = tmp_path / "killed"
    folder.mkdir()
    expected = []
    for number in (2, 10):
        part = write_bag(tmp_path / f"part{number}", start_ns=START_NS * number)
        expected += everything(part)[0]
        shutil.copy(part / f"part{number}.mcap", folder / f"killed_{number}.mcap")
    (folder / "killed_11.mcap").write_bytes(b"\x89MCAP0\r\n")
    assert find_recordings(folder) == [folder]
    messages, losses = everything(folder)
    assert messages == expected
    assert [loss.split()[0] for loss in losses] == ["it", "killed_11.mcap"]


def test_files_of_other_names_are_bags_of_their_own(tmp_path):
    loose = tmp_path / "loose"
    loose.mkdir()
    for name in ("a", "b"):
        shutil.copy(write_bag(tmp_path / "bags" / name) / f"{name}.mcap", loose / f"{name}.mcap")
    (loose / "notes.txt").write_text("mine")
    assert [bag.name for bag in find_recordings(loose)] == ["a.mcap", "b.mcap"]
    assert len(everything(loose / "a.mcap")[0]) == 49


@pytest.mark.parametrize("beside", [True, False])
def test_bags_that_lie_deeper_than_others_are_named_and_not_passed_over(tmp_path, beside):
    if beside:
        write_bag(tmp_path / "one")
    write_bag(tmp_path / "monday" / "two")
    said = f"two: it lies too deep to be read with {tmp_path}, .*name {tmp_path / 'monday'} as well"
    with pytest.raises(BagError, match=said):
        find_recordings(tmp_path)
    with pytest.raises(BagError, match=said):
        read_all_episodes([tmp_path], Units())
    assert [bag.name for bag in find_recordings(tmp_path / "monday")] == ["two"]


def test_a_file_that_the_metadata_speaks_of_and_is_gone_is_said(tmp_path):
    bag = write_bag(tmp_path / "bag")
    (bag / "bag.mcap").rename(bag / "other.mcap")
    messages, losses = everything(bag)
    assert len(messages) == 49
    assert losses == ["files of it are missing: bag.mcap"]


def written(file: Path, channels: dict[str, tuple[str, str]], times: dict[int, str],
            metadata: dict[str, str] | None = None, **options) -> Path:
    """An MCAP file. channels: encodings of message and definition by topic. times: with topics."""
    with file.open("wb") as stream:
        writer = McapWriter(stream, compression=CompressionType.NONE, **options)
        writer.start(profile="ros2")
        numbers = {
            topic: writer.register_channel(
                topic, encoding, writer.register_schema("std_msgs/msg/Bool", said, b"bool data"),
                metadata or {})
            for topic, (encoding, said) in channels.items()}
        for time_ns, topic in times.items():
            writer.add_message(numbers[topic], time_ns, b"\0\1\0\0\1", time_ns)
        writer.finish()
    return file


def test_messages_a_little_out_of_order_in_a_file_without_an_index_are_put_in_order(tmp_path):
    times = dict.fromkeys((1, 3, 2, 5, 4), "/bool")
    file = written(tmp_path / "a.mcap", {"/bool": ("cdr", "ros2msg")}, times, use_chunking=False)
    messages, losses = everything(file)
    assert [time for _, time, _ in messages] == [1, 2, 3, 4, 5] and not losses


def test_a_channel_that_is_none_of_ros_is_left_out_and_named(tmp_path):
    channels = {"/bool": ("cdr", "ros2msg"), "/json": ("json", "jsonschema")}
    file = written(tmp_path / "a.mcap", channels, {1: "/bool", 2: "/json", 3: "/bool"})
    messages, losses = everything(file)
    assert [(topic, time) for topic, time, _ in messages] == [("/bool", 1), ("/bool", 3)]
    assert losses == ["/json (jsonschema) in a.mcap is left out: 1 messages that are none of ROS 2"]


def test_a_quality_of_service_that_cannot_be_read_costs_no_messages(tmp_path):
    file = written(tmp_path / "a.mcap", {"/bool": ("cdr", "ros2msg")}, {1: "/bool", 2: "/bool"},
                   {"offered_qos_profiles": "- ]"})
    messages, losses = everything(file)
    assert len(messages) == 2 and len(losses) == 1


def test_damaged_metadata_is_said_and_the_messages_are_read(tmp_path):
    bag = write_bag(tmp_path / "bag")
    (bag / "metadata.yaml").write_text("a: [")
    assert (len(everything(bag)[0]), everything(bag)[1]) == (49, ["its metadata.yaml is damaged"])


def test_damage_in_the_middle_is_counted(tmp_path):
    _, cut = whole_and_cut(tmp_path, 1.0)
    file = cut / "cut_0.mcap"
    data = bytearray(file.read_bytes())
    middle = len(data) // 2
    data[middle:middle + 40_000] = bytes(40_000)
    file.write_bytes(data)
    try:
        messages, losses = everything(cut)
    except BagError:
        return
    # Bytes of a message may be wrong without a checksum; a broken record may not go unsaid.
    assert len(messages) == 40 or len(losses) == 2


def test_a_type_that_only_the_bag_knows_is_read_by_its_definition(tmp_path):
    text = "float64 grip_force\nuint8[] pads\n"
    with RobotBag(tmp_path / "bag") as bag:
        bag.raw("/pads", "my_robot/msg/Pads", START_NS,
                b"\x00\x01\x00\x00" + b"\x00" * 6 + b"\xf8\x3f" + b"\x02\x00\x00\x00\x07\x09",
                definition=text)
    with Recording(tmp_path / "bag") as recording:
        (message,) = [recording.decode(topic, data) for topic, _, data in recording.messages()]
    assert message.grip_force == 1.5 and list(message.pads) == [7, 9]


def test_bytes_that_are_no_message_are_refused_with_a_sentence(tmp_path):
    with Recording(write_bag(tmp_path / "bag")) as recording:
        with pytest.raises(ValueError, match="3 bytes are no sensor_msgs/msg/CompressedImage"):
            recording.decode(STATIC, b"abc")


def test_topics_tell_type_and_number(tmp_path):
    with Recording(write_bag(tmp_path / "bag")) as recording:
        topic = recording.topics[GRIPPER]
    assert (topic.kind, topic.count) == ("sensor_msgs/msg/CompressedImage", 12)
    assert "string format" in topic.definition


@pytest.mark.parametrize("kind", [ACTION, STATUS])
def test_this_packages_definitions_are_those_of_its_files(kind):
    text, digest = definition(typestore(), kind)
    file = share("msg", kind.split("/")[-1] + ".msg").read_text()
    assert text.startswith(file)
    assert "MSG: std_msgs/Header" in text and digest.startswith("RIHS01_")
    built = share().joinpath("install/deer_ros/share/deer_ros/msg", kind.split("/")[-1] + ".json")
    if built.exists():
        assert digest in built.read_text()


def test_nothing_is_left_of_copies(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    _, cut = whole_and_cut(tmp_path, 0.9)
    everything(cut)
    everything(write_bag(tmp_path / "packed", compression=CompressionMode.FILE))
    assert list((tmp_path / "temporary").iterdir()) == []


def test_types_of_a_bag_do_not_leak_into_others(tmp_path):
    with RobotBag(tmp_path / "bag") as bag:
        bag.raw("/x", "my_robot/msg/Odd", START_NS, b"\x00\x01\x00\x00\x01", definition="uint8 a\n")
    everything(tmp_path / "bag")
    assert "my_robot/msg/Odd" not in TYPES.fielddefs and "my_robot/msg/Odd" not in (
        typestore().fielddefs)

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from episodes import Units, make_episode
from rosbags.rosbag2 import StoragePlugin, Writer

from deer_ros.data import bag_format as topics
from deer_ros.data.bag_format import TYPES
from deer_ros.data.bags import (
    BagError,
    BagInputs,
    EpisodeBagWriter,
    bag_notes,
    find_recordings,
    read_all_episodes,
    read_episodes,
)
from deer_ros.data.episode import POSE_NAMES
from deer_ros.data.jpeg import encode_jpeg

UNITS = Units()
SECOND = 1_000_000_000


def write_bag(path: Path, episodes, **options) -> Path:
    with EpisodeBagWriter(path, UNITS, joint_names=("a", "b"), **options) as writer:
        for episode in episodes:
            writer.write(episode)
    return path


class Recorder:
    """A bag written message by message, as a recorder beside a robot would."""

    def __init__(self, path: Path):
        self.path = path
        self._writer = Writer(path, version=9, storage_plugin=StoragePlugin.MCAP)
        self._connections = {}

    def __enter__(self):
        self._writer.open()
        return self

    def __exit__(self, *_):
        self._writer.close()

    def put(self, topic: str, recorded_ns: int, message, kind: str | None = None) -> None:
        kind = kind or topics.MESSAGE_TYPES[topic]
        if topic not in self._connections:
            self._connections[topic] = self._writer.add_connection(topic, kind, typestore=TYPES)
        data = TYPES.serialize_cdr(message, kind)
        self._writer.write(self._connections[topic], recorded_ns, data)

    def instruction(self, recorded_ns: int, text: str) -> None:
        self.put(topics.INSTRUCTION_TOPIC, recorded_ns, TYPES.types["std_msgs/msg/String"](text))

    def opening(self, recorded_ns: int, value: float) -> None:
        self.put(topics.OPENING_TOPIC, recorded_ns, TYPES.types["std_msgs/msg/Float64"](value))

    def picture(self, topic: str, stamp_ns: int, grey: int, late_ns: int = 0, data=None) -> None:
        pixels = encode_jpeg(np.full((8, 8, 3), grey, np.uint8)) if data is None else data
        message = TYPES.types["sensor_msgs/msg/CompressedImage"](
            header(stamp_ns), "jpeg", np.frombuffer(pixels, np.uint8)
        )
        self.put(topic, stamp_ns + late_ns, message)

    def pictures(self, stamp_ns: int, grey: int) -> None:
        self.picture(topics.STATIC_TOPIC, stamp_ns, grey)
        self.picture(topics.GRIPPER_TOPIC, stamp_ns, grey)

    def twist(self, stamp_ns: int, x: float) -> None:
        vector = TYPES.types["geometry_msgs/msg/Vector3"]
        twist = TYPES.types["geometry_msgs/msg/Twist"](vector(x, 0.0, 0.0), vector(0.0, 0.0, 0.0))
        message = TYPES.types["geometry_msgs/msg/TwistStamped"](header(stamp_ns), twist)
        self.put(topics.TWIST_TOPIC, stamp_ns, message)


def header(stamp_ns: int):
    time = TYPES.types["builtin_interfaces/msg/Time"](*divmod(stamp_ns, SECOND))
    return TYPES.types["std_msgs/msg/Header"](time, "")


def greys(pictures: np.ndarray) -> list[int]:
    return [int(round(picture.mean())) for picture in pictures]


def test_episodes_come_back_as_they_were_written(tmp_path):
    written = [
        make_episode(frames=3, seed=1),
        make_episode(frames=1, seed=2),
        make_episode(frames=5, seed=3, instruction="öffne die Schublade"),
    ]
    bag = write_bag(tmp_path / "bag", written)
    read = list(read_episodes(bag, UNITS))
    assert [episode.source for episode in read] == [f"{bag}#{i}" for i in range(3)]
    for before, after in zip(written, read):
        assert after.instruction == before.instruction
        np.testing.assert_array_equal(np.diff(after.stamps_ns), np.diff(before.stamps_ns))
        np.testing.assert_allclose(after.actions, before.actions, atol=1e-6)
        np.testing.assert_array_equal(after.proprioception, before.proprioception)
        assert after.proprioception_names == (*POSE_NAMES, "joint.a", "joint.b")
        np.testing.assert_array_equal(after.state, before.state)
        for name in ("static", "gripper"):
            difference = getattr(after, name).astype(int) - getattr(before, name)
            assert np.abs(difference).mean() < 3


def test_colours_are_right_and_each_camera_keeps_its_pictures(tmp_path):
    static = np.zeros((2, 16, 16, 3), np.uint8)
    static[..., 0] = 200
    gripper = np.zeros((2, 16, 16, 3), np.uint8)
    gripper[..., 2] = 200
    bag = write_bag(
        tmp_path / "bag", [make_episode(frames=2, static=static, gripper=gripper)]
    )
    (episode,) = read_episodes(bag, UNITS)
    np.testing.assert_allclose(episode.static[0, 8, 8], [200, 0, 0], atol=6)
    np.testing.assert_allclose(episode.gripper[1, 8, 8], [0, 0, 200], atol=6)


def test_the_recorded_twist_is_in_metres_per_second(tmp_path):
    actions = np.array([[0.5, 0, 0, 0, 0, 0, 1], [0, -1, 0, 0, 0, 0, -1]], np.float32)
    bag = write_bag(tmp_path / "bag", [make_episode(frames=2, actions=actions)])
    with topics.open_bag(bag) as reader:
        messages = [
            (c.topic, time, TYPES.deserialize_cdr(data, c.msgtype))
            for c, time, data in reader.messages()
        ]
    twists = [(t, m.twist.linear) for topic, t, m in messages if topic == "/recorded/twist"]
    openings = [m.data for topic, _, m in messages if topic == "/recorded/gripper"]
    assert [(v.x, v.y) for _, v in twists] == [(0.4, 0.0), (0.0, -0.8)]
    assert openings == [1.0, 0.0]
    assert twists[1][0] - twists[0][0] == 50_000_000
    joints = next(m for topic, _, m in messages if topic == "/joint_states")
    assert list(joints.name) == ["a", "b"]


def test_a_reader_with_other_units_gets_actions_in_its_own(tmp_path):
    written = make_episode()
    bag = write_bag(tmp_path / "bag", [written])
    (episode,) = read_episodes(bag, Units(rate_hz=10.0, linear_scale=0.16))
    np.testing.assert_allclose(episode.actions[:, :3], written.actions[:, :3] / 2, atol=1e-6)
    np.testing.assert_allclose(episode.actions[:, 3:6], written.actions[:, 3:6] * 2, atol=1e-6)


def test_episodes_lie_two_seconds_apart(tmp_path):
    bag = write_bag(tmp_path / "bag", [make_episode(frames=3, seed=seed) for seed in range(3)])
    stamps = [episode.stamps_ns for episode in read_episodes(bag, UNITS)]
    for before, after in zip(stamps, stamps[1:]):
        assert after[0] - before[-1] == 2 * SECOND


def test_optional_parts_may_be_absent(tmp_path):
    bag = write_bag(
        tmp_path / "bag", [make_episode(actions=None, proprioception=None, state=None)]
    )
    (episode,) = read_episodes(bag, UNITS)
    assert episode.actions is None and episode.proprioception is None and episode.state is None


def test_proprioception_must_fit_the_joint_names(tmp_path):
    wrong = make_episode(proprioception=np.zeros((4, 8), np.float32))
    with pytest.raises(ValueError, match=r"has 8 values; 9 are needed"):
        write_bag(tmp_path / "bag", [wrong])


def test_an_error_while_writing_leaves_nothing_behind(tmp_path):
    with pytest.raises(RuntimeError, match="unplugged"):
        with EpisodeBagWriter(tmp_path / "bag", UNITS, joint_names=("a", "b")) as writer:
            writer.write(make_episode())
            assert not (tmp_path / "bag").exists()
            raise RuntimeError("unplugged")
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_writer_left_is_no_bag_and_goes(tmp_path):
    left = tmp_path / ".bag.unfinished-1"
    (left / "bag").mkdir(parents=True)
    (left / "bag" / "bag.mcap").write_bytes(b"half")
    os.utime(left, (0, 0))
    with pytest.raises(ValueError, match="no bag"):
        find_recordings(tmp_path)
    write_bag(tmp_path / "bag", [make_episode()])
    assert [path.name for path in tmp_path.iterdir()] == ["bag"]


def test_two_writers_of_a_bag_do_not_write_into_each_others(tmp_path):
    """Whoever is done first has the name."""
    with pytest.raises(FileExistsError, match="exists already"):
        with EpisodeBagWriter(tmp_path / "bag", UNITS, joint_names=("a", "b")) as slow:
            slow.write(make_episode())
            write_bag(tmp_path / "bag", [make_episode(), make_episode()])
    assert [path.name for path in tmp_path.iterdir()] == ["bag"]
    assert len(list(read_episodes(tmp_path / "bag", UNITS))) == 2


def test_a_bag_stays_where_the_one_that_replaces_it_cannot_have_its_name(tmp_path, monkeypatch):
    write_bag(tmp_path / "bag", [make_episode()])
    rename = Path.rename

    def fails(path, target):
        if path.name == "bag" and target == tmp_path / "bag" and "unfinished" in str(path):
            raise OSError("the disk is broken")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", fails)
    with pytest.raises(OSError, match="the disk is broken"):
        with EpisodeBagWriter(tmp_path / "bag", UNITS, replaces=True):
            pass
    assert [path.name for path in tmp_path.iterdir()] == ["bag"]
    assert len(list(read_episodes(tmp_path / "bag", UNITS))) == 1


def test_a_link_is_no_place_for_a_bag(tmp_path):
    write_bag(tmp_path / "bag", [make_episode()])
    (tmp_path / "link").symlink_to("bag")
    with pytest.raises(FileExistsError, match="link is a symbolic link"):
        with EpisodeBagWriter(tmp_path / "link", UNITS, replaces=True):
            pass
    assert (tmp_path / "link").is_symlink()
    assert len(list(read_episodes(tmp_path / "bag", UNITS))) == 1


def test_a_bag_is_never_overwritten(tmp_path):
    write_bag(tmp_path / "bag", [make_episode()])
    with pytest.raises(FileExistsError, match="exists already"):
        write_bag(tmp_path / "bag", [])
    assert len(list(read_episodes(tmp_path / "bag", UNITS))) == 1


def test_notes_are_kept_in_the_metadata(tmp_path):
    with EpisodeBagWriter(tmp_path / "bag", UNITS, notes={"who": "me"}) as writer:
        writer.write(make_episode(proprioception=None))
        writer.notes["what"] = '{"a": [1, "ü: -"]}'
    assert bag_notes(tmp_path / "bag") == {"who": "me", "what": '{"a": [1, "ü: -"]}'}


def test_a_folder_of_bags_is_read_in_the_order_of_names(tmp_path):
    for name in ("b", "a"):
        write_bag(tmp_path / name, [make_episode(instruction=name)])
    (tmp_path / "manifest.json").write_text("{}")
    assert [e.instruction for e in read_episodes(tmp_path, UNITS)] == ["a", "b"]
    several = read_all_episodes([tmp_path / "b", tmp_path / "a" / "a.mcap"], UNITS)
    assert [e.instruction for e in several] == ["b", "a"]


def test_a_path_without_a_bag_is_an_error_at_once(tmp_path):
    with pytest.raises(FileNotFoundError, match="no bag or folder of bags at"):
        read_episodes(tmp_path / "nothing", UNITS)
    with pytest.raises(ValueError, match="is no bag and holds none"):
        read_episodes(tmp_path, UNITS)
    with pytest.raises(ValueError, match="frame is 'tool'"):
        read_episodes(write_bag(tmp_path / "bag", [make_episode()]), Units(frame="tool"))


def test_an_episode_is_handed_out_before_the_next_is_decoded(tmp_path):
    with Recorder(tmp_path / "bag") as recorder:
        recorder.instruction(SECOND, "go")
        recorder.pictures(SECOND, 10)
        recorder.instruction(5 * SECOND, "go on")
        recorder.picture(topics.STATIC_TOPIC, 5 * SECOND, 0, data=b"rubbish")
        recorder.picture(topics.GRIPPER_TOPIC, 5 * SECOND, 0)
    episodes = read_episodes(tmp_path / "bag", UNITS)
    assert next(episodes).instruction == "go"
    with pytest.raises(BagError, match="episode 1"):
        next(episodes)


@pytest.mark.parametrize("keep", [0.0, 0.01, 0.5, 0.95, 0.999])
def test_a_truncated_file_is_named(tmp_path, keep):
    bag = write_bag(tmp_path / "the_bag", [make_episode(frames=10)])
    file = bag / "the_bag.mcap"
    file.write_bytes(file.read_bytes()[: int(file.stat().st_size * keep)])
    with pytest.raises(BagError, match="the_bag: (nothing of it|it is damaged or was not)"):
        list(read_episodes(bag, UNITS))


def test_damaged_metadata_and_a_missing_file_are_named(tmp_path):
    bag = write_bag(tmp_path / "bag", [make_episode()])
    broken = tmp_path / "broken"
    shutil.copytree(bag, broken)
    (broken / "metadata.yaml").write_text("a: [")
    with pytest.raises(BagError, match="broken: it is damaged"):
        list(read_episodes(broken, UNITS))
    (bag / "bag.mcap").unlink()
    with pytest.raises(BagError, match="nothing of it .*: files of it are missing: bag.mcap"):
        list(read_episodes(bag, UNITS))


def test_overwritten_bytes_never_get_past_the_reader_as_another_exception(tmp_path):
    bag = write_bag(tmp_path / "bag", [make_episode(frames=3)])
    file = bag / "bag.mcap"
    whole = file.read_bytes()
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(60):
        start = int(rng.integers(0, len(whole) - 40))
        file.write_bytes(whole[:start] + rng.bytes(40) + whole[start + 40 :])
        try:
            list(read_episodes(bag, UNITS))
        except BagError as error:
            assert str(bag) in str(error)
            refused += 1
    assert refused > 30


def test_a_missing_topic_is_named_with_those_that_are_there(tmp_path):
    with Recorder(tmp_path / "bag") as recorder:
        recorder.instruction(SECOND, "go")
        recorder.picture(topics.STATIC_TOPIC, SECOND, 10)
    with pytest.raises(
        BagError,
        match="lacks /camera/gripper/image/compressed; "
        r"its topics are: /camera/static/image/compressed \(sensor_msgs/msg/CompressedImage\), "
        r"/instruction \(std_msgs/msg/String\)",
    ):
        list(read_episodes(tmp_path / "bag", UNITS))


def test_a_topic_of_another_type_is_refused(tmp_path):
    with Recorder(tmp_path / "bag") as recorder:
        recorder.instruction(SECOND, "go")
        recorder.pictures(SECOND, 10)
        kind = "std_msgs/msg/Bool"
        recorder.put(topics.OPENING_TOPIC, SECOND, TYPES.types[kind](True), kind)
    with pytest.raises(BagError, match="/recorded/gripper holds std_msgs/msg/Bool; it must hold"):
        list(read_episodes(tmp_path / "bag", UNITS))


def test_every_static_picture_takes_the_newest_of_the_other_camera(tmp_path):
    with Recorder(tmp_path / "bag") as recorder:
        recorder.instruction(SECOND, "go")
        recorder.picture(topics.STATIC_TOPIC, SECOND, 1)
        for i in range(1, 5):
            now = SECOND + i * 100_000_000
            recorder.picture(topics.GRIPPER_TOPIC, now - 20_000_000, 100 + i, late_ns=30_000_000)
            recorder.picture(topics.STATIC_TOPIC, now, i)
            recorder.picture(topics.GRIPPER_TOPIC, now + 40_000_000, 200 + i)
    (episode,) = read_episodes(tmp_path / "bag", UNITS)
    # The first static picture has no partner yet; the others have the one stamped 20 ms before.
    assert greys(episode.static) == [1, 2, 3, 4]
    assert greys(episode.gripper) == [101, 102, 103, 104]
    assert episode.actions is None


def test_a_command_without_a_stamp_belongs_to_the_picture_just_before_it(tmp_path):
    with Recorder(tmp_path / "bag") as recorder:
        recorder.instruction(SECOND, "go")
        for i, (x, opening) in enumerate([(0.8, 1.0), (-0.8, 0.0), (0.4, 0.7)]):
            now = SECOND + i * 100_000_000
            recorder.pictures(now, i)
            recorder.twist(now, x)
            recorder.opening(now + 2, opening)
    (episode,) = read_episodes(tmp_path / "bag", UNITS)
    np.testing.assert_allclose(episode.actions[:, 0], [1.0, -1.0, 0.5])
    np.testing.assert_array_equal(episode.actions[:, 6], [1.0, -1.0, 1.0])


def test_a_gripper_command_on_change_holds_until_the_next(tmp_path):
    with Recorder(tmp_path / "bag") as recorder:
        recorder.instruction(SECOND, "go")
        for i in range(10):
            now = SECOND + i * 200_000_000
            recorder.pictures(now, i)
            recorder.twist(now, 0.0)
            if i in (0, 7):
                recorder.opening(now, float(i == 0))
    (episode,) = read_episodes(tmp_path / "bag", UNITS)
    np.testing.assert_array_equal(episode.actions[:, 6], [1.0] * 7 + [-1.0] * 3)


def test_a_command_that_is_too_old_is_not_used(tmp_path):
    with Recorder(tmp_path / "bag") as recorder:
        recorder.instruction(SECOND, "go")
        recorder.twist(SECOND, 0.1)
        recorder.opening(SECOND, 1.0)
        for i in range(10):
            recorder.pictures(SECOND + i * 100_000_000, i)
    (episode,) = read_episodes(tmp_path / "bag", UNITS)
    assert greys(episode.static) == [0, 1, 2, 3, 4, 5]


def test_pictures_that_are_too_far_apart_are_no_frame(tmp_path):
    with Recorder(tmp_path / "bag") as recorder:
        recorder.instruction(SECOND, "go")
        for i, apart_ns in enumerate((0, 40_000_000, 60_000_000, 20_000_000)):
            recorder.picture(topics.STATIC_TOPIC, SECOND + i * 200_000_000, i)
            recorder.picture(topics.GRIPPER_TOPIC, SECOND + i * 200_000_000 + apart_ns, 50 + i)
    (episode,) = read_episodes(tmp_path / "bag", UNITS)
    assert (greys(episode.static), greys(episode.gripper)) == ([0, 1, 3], [50, 51, 53])
    (near,) = read_episodes(tmp_path / "bag", UNITS, BagInputs(max_skew_s=0.03))
    assert greys(near.static) == [0, 3]


def test_a_pause_and_a_new_instruction_each_begin_an_episode(tmp_path):
    with Recorder(tmp_path / "bag") as recorder:
        recorder.pictures(SECOND // 2, 99)
        recorder.instruction(SECOND, "go")
        for stamp in (1.0, 1.4, 1.9, 2.6, 2.7):
            recorder.pictures(int(stamp * SECOND), 10)
        recorder.instruction(int(2.75 * SECOND), "come")
        recorder.pictures(int(2.8 * SECOND), 10)
    episodes = list(read_episodes(tmp_path / "bag", UNITS))
    assert [(e.instruction, len(e)) for e in episodes] == [("go", 3), ("go", 2), ("come", 1)]


def test_a_clock_that_jumps_back_begins_an_episode_and_a_repeated_picture_does_not(tmp_path):
    with Recorder(tmp_path / "bag") as recorder:
        recorder.instruction(SECOND, "go")
        recorder.pictures(9 * SECOND, 1)
        recorder.pictures(9 * SECOND, 1)
        recorder.pictures(9 * SECOND + 50_000_000, 2)
        message_time = 10 * SECOND
        for topic in (topics.STATIC_TOPIC, topics.GRIPPER_TOPIC):
            recorder.picture(topic, 3 * SECOND, 3, late_ns=message_time - 3 * SECOND)
    assert [len(e) for e in read_episodes(tmp_path / "bag", UNITS)] == [2, 1]


@pytest.mark.parametrize("bad", [b"\xff\xd8 cut", b"rubbish"])
def test_a_picture_that_cannot_be_decoded_names_bag_and_episode(tmp_path, bad):
    with Recorder(tmp_path / "bag") as recorder:
        recorder.instruction(SECOND, "go")
        recorder.picture(topics.STATIC_TOPIC, SECOND, 0, data=bad)
        recorder.picture(topics.GRIPPER_TOPIC, SECOND, 0)
    with pytest.raises(BagError, match="bag: episode 0 cannot be .*(is cut off|cannot be read)"):
        list(read_episodes(tmp_path / "bag", UNITS))


@pytest.mark.parametrize(
    "x, opening", [(np.nan, 1.0), (0.1, np.nan), (np.inf, 0.0), (0.1, -np.inf), (1e300, 1.0)]
)
def test_a_command_that_is_not_finite_names_bag_and_episode(tmp_path, x, opening):
    with Recorder(tmp_path / "bag") as recorder:
        recorder.instruction(SECOND, "go")
        recorder.pictures(SECOND, 10)
        recorder.twist(SECOND, x)
        recorder.opening(SECOND, opening)
    with pytest.raises(BagError, match="bag: episode 0 cannot be used: .*NaN or infinity"):
        list(read_episodes(tmp_path / "bag", UNITS))


def test_pictures_without_any_instruction_are_no_episode(tmp_path):
    with Recorder(tmp_path / "bag") as recorder:
        recorder.pictures(SECOND, 10)
        recorder.instruction(2 * SECOND, "too late")
    with pytest.raises(BagError, match="no picture that follows an instruction"):
        list(read_episodes(tmp_path / "bag", UNITS))


@pytest.mark.skipif(
    not Path(os.environ.get("DEER_BRIDGE_BAG", "/nonexistent")).is_dir(),
    reason="DEER_BRIDGE_BAG does not name the folder of the bridge_widowx bag",
)
def test_a_recording_of_a_real_robot_is_read():
    units = Units(rate_hz=5.0, linear_scale=0.02)
    episodes = list(read_episodes(os.environ["DEER_BRIDGE_BAG"], units))
    assert [len(episode) for episode in episodes] == [10] * 25
    assert {episode.static.shape[1:] for episode in episodes} == {(64, 64, 3)}
    assert episodes[0].instruction == "put cup from counter or drying rack into sink"
    assert episodes[0].proprioception.shape == (10, 8)
    assert {value for e in episodes for value in e.actions[:, 6]} == {-1.0, 1.0}
    # The pose moves by what the twist says, times the step of 0.2 s.
    moved = np.diff(np.concatenate([e.proprioception[:2, :3] for e in episodes[:1]]), axis=0)
    said = episodes[0].actions[0, :3] * 0.02
    np.testing.assert_allclose(moved[0], said, atol=0.01)

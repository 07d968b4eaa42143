"""Episodes out of every recording that replay takes, and as replay makes steps of them."""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np
import pytest
from camera_bag import write_camera_bag
from episodes import Units
from lockstep import lockstep
from robot_bags import GRIPPER, SECOND, START_NS, STATIC, TYPES, RobotBag, add_frames, write_bag
from rosbags.highlevel import AnyReader
from rosbags.rosbag2 import CompressionMode, StoragePlugin
from tiny_model import write_tiny_model

from deer_ros.cli.bag_arguments import add_bag_arguments, as_said, bag_inputs, node_parameters
from deer_ros.data.bag_format import BagError
from deer_ros.data.bag_inputs import BagInputs
from deer_ros.data.bag_reader import read_all_episodes, read_episodes
from deer_ros.data.bag_topics import Names
from deer_ros.data.episode import Episode
from deer_ros.data.own_messages import ACTION
from deer_ros.stepping.settings import Settings

COLLECTED = Path(__file__).parent / "bags" / "simulated_robot"
ARRAYS = ("static", "gripper", "stamps_ns", "actions", "proprioception", "state")


def read(path: Path, on_bad=None, **inputs) -> list[Episode]:
    return list(read_all_episodes([path], Units(), on_bad, BagInputs(**inputs)))


def assert_same(before: list[Episode], after: list[Episode]) -> None:
    assert len(before) == len(after)
    for one, other in zip(before, after):
        assert one.instruction == other.instruction
        for name in ARRAYS:
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name), strict=True)


def frame_by_frame(bag: Path) -> list[dict[str, np.ndarray]]:
    """A bag of `deer collect` as it was written: one message of every topic for each frame."""
    columns, episodes = {}, []
    with AnyReader([bag], default_typestore=TYPES) as reader:
        for connection, _, data in reader.messages():
            if connection.topic == "/instruction":
                columns = {}
                episodes.append(columns)
            message = reader.deserialize(data, connection.msgtype)
            columns.setdefault(connection.topic, []).append(message)
    return [_arrays(columns) for columns in episodes]


def _arrays(columns: dict[str, list]) -> dict[str, np.ndarray]:
    def pictures(topic: str) -> np.ndarray:
        read = [cv2.imdecode(message.data, cv2.IMREAD_COLOR) for message in columns[topic]]
        return np.stack(read)[..., ::-1]

    def of(parts, names: str) -> list[float]:
        return [getattr(part, name) for part in parts for name in names]

    stamps = [message.header.stamp for message in columns[STATIC]]
    poses = [of([m.pose.position], "xyz") + of([m.pose.orientation], "xyzw")
             for m in columns["/end_effector/pose"]]
    joints = [message.position for message in columns["/joint_states"]]
    twists = [of([m.twist.linear, m.twist.angular], "xyz") for m in columns["/recorded/twist"]]
    openings = [2 * message.data - 1 for message in columns["/recorded/gripper"]]
    units = np.repeat([0.04, 0.05], 3) * 20
    return {
        "static": pictures(STATIC),
        "gripper": pictures(GRIPPER),
        "stamps_ns": np.array([s.sec * SECOND + s.nanosec for s in stamps]),
        "actions": np.column_stack([np.array(twists) / units, openings]).astype(np.float32),
        "proprioception": np.column_stack([poses, joints]).astype(np.float32),
        "state": np.array([m.data for m in columns["/simulator/state"]], np.float32),
    }


@pytest.mark.parametrize("bag", sorted(p.name for p in COLLECTED.iterdir() if p.is_dir()))
def test_a_collected_bag_gives_every_frame_as_it_was_written(bag):
    expected, episodes = frame_by_frame(COLLECTED / bag), read(COLLECTED / bag)
    assert len(episodes) == len(expected) == 2
    for episode, arrays in zip(episodes, expected):
        for name in ARRAYS:
            np.testing.assert_array_equal(getattr(episode, name), arrays[name], strict=True)


@pytest.mark.parametrize("options", [
    {"storage": StoragePlugin.SQLITE3},
    {"storage": StoragePlugin.SQLITE3, "compression": CompressionMode.FILE},
    {"compression": CompressionMode.MESSAGE},
    {"compression": CompressionMode.FILE},
], ids=str)
def test_storage_and_compression_make_no_difference(tmp_path, options):
    plain = read(write_bag(tmp_path / "plain"))
    # The first opening of the gripper is recorded after the first picture.
    assert [len(episode) for episode in plain] == [11] and plain[0].actions is not None
    assert_same(plain, read(write_bag(tmp_path / "other", **options)))


def test_raw_pictures_do_as_well_and_by_default_what_is_there_is_taken(tmp_path):
    with RobotBag(tmp_path / "bag") as bag:
        bag.instruction(START_NS - SECOND, "go")
        for frame in range(5):
            for camera in ("static", "gripper"):
                bag.raw_picture(f"/camera/{camera}/image", START_NS + frame * 50_000_000, frame)
    (episode,) = read(tmp_path / "bag")
    assert len(episode) == 5 and episode.static.shape == (5, 24, 32, 3)
    with pytest.raises(BagError, match="lacks /camera/static/image/compressed"):
        read(tmp_path / "bag", transport="compressed")


def test_topics_of_other_names_are_remapped(tmp_path):
    with RobotBag(tmp_path / "bag") as bag:
        bag.put("/task", "std_msgs/msg/String", START_NS - SECOND, "go")
        for frame in range(5):
            stamp_ns = START_NS + frame * 50_000_000
            bag.picture("/front/image_raw/compressed", stamp_ns, frame)
            bag.picture("/wrist/image_raw/compressed", stamp_ns, 50 + frame)
    with pytest.raises(BagError, match="--remap"):
        read(tmp_path / "bag")
    names = Names(["camera/static/image:=/front/image_raw", "instruction:=/task",
                   "camera/gripper/image:=/wrist/image_raw"])
    (episode,) = read(tmp_path / "bag", names=names)
    assert len(episode) == 5 and episode.instruction == "go"


def test_an_instruction_can_be_given_or_come_first(tmp_path):
    silent = write_bag(tmp_path / "silent", instruction=None)
    with pytest.raises(BagError, match="nothing was recorded on /instruction; give --instruction"):
        read(silent)
    assert [e.instruction for e in read(silent, instruction="push")] == ["push"]
    assert [e.instruction for e in read(silent, first_instruction="push")] == ["push"]
    told = write_bag(tmp_path / "told")
    assert [e.instruction for e in read(told, instruction="push")] == ["push"]
    assert [e.instruction for e in read(told, first_instruction="push")] == ["open the drawer"]


def test_the_same_instruction_again_is_no_new_episode(tmp_path):
    with RobotBag(tmp_path / "bag") as bag:
        bag.instruction(START_NS - SECOND, "go")
        add_frames(bag, 5, recorded=False)
        bag.instruction(START_NS + 260_000_000, "go")
        add_frames(bag, 5, recorded=False, start_ns=START_NS + 300_000_000)
        bag.instruction(START_NS + 580_000_000, "come")
        add_frames(bag, 5, recorded=False, start_ns=START_NS + 600_000_000)
    assert [(e.instruction, len(e)) for e in read(tmp_path / "bag")] == [("go", 10), ("come", 5)]


def cut(tmp_path: Path) -> Path:
    """What a killed recorder left of 40 frames: no metadata, and no end of the file."""
    whole = write_bag(tmp_path / "whole", frames=40, recorded=False)
    killed = tmp_path / "killed"
    killed.mkdir()
    (killed / "killed_0.mcap").write_bytes((whole / "whole.mcap").read_bytes()[:-200])
    return killed


def test_a_cut_bag_is_refused_by_name_or_used_as_far_as_it_goes(tmp_path):
    killed = cut(tmp_path)
    with pytest.raises(BagError, match="killed: it is damaged or was not finished: .*--skip-bad"):
        read(killed)
    heard = []
    (episode,) = read(killed, heard.append)
    assert len(episode) == 40
    (told,) = map(str, heard)
    assert "killed: it has no metadata.yaml" in told and "killed_0.mcap was not finished" in told


def test_a_broken_picture_costs_its_frame_and_a_broken_command_the_frames_it_held_for(tmp_path):
    with RobotBag(tmp_path / "bag") as bag:
        bag.instruction(START_NS - SECOND, "go")
        for frame in range(10):
            stamp_ns = START_NS + frame * 50_000_000
            if frame == 6:
                bag.raw("/recorded/twist", "geometry_msgs/msg/TwistStamped", stamp_ns, b"rubbish")
            else:
                bag.twist(stamp_ns, [0.01 * frame] * 6)
            bag.opening(stamp_ns, 1.0)
            bag.picture(STATIC, stamp_ns, frame, data=b"\xff\xd8 cut" if frame == 3 else None)
            bag.picture(GRIPPER, stamp_ns, frame)
    with pytest.raises(BagError, match="/recorded/twist: 7 bytes are no geometry_msgs"):
        read(tmp_path / "bag")
    heard = []
    (episode,) = read(tmp_path / "bag", heard.append)
    frames = (episode.stamps_ns - START_NS) // 50_000_000
    assert frames.tolist() == [0, 1, 2, 4, 5, 7, 8, 9]
    np.testing.assert_allclose(episode.actions[:, 0], 0.01 * frames / 0.8, rtol=1e-5)
    (told,) = map(str, heard)
    assert "camera/static: a JPEG picture is cut off" in told and "/recorded/twist: 7 bytes" in told


def add_action(bag: RobotBag, stamp_ns: int, value: float, commanded: bool) -> None:
    time = TYPES.types["builtin_interfaces/msg/Time"](*divmod(stamp_ns, SECOND))
    head = TYPES.types["std_msgs/msg/Header"](time, "base_link")
    bag.put("/deer/action", ACTION, stamp_ns + 20_000_000, head, time, time, "go", 1, 1,
            np.full(6, value, np.float32), 1.0, 0.9, commanded, 1, 6)


@pytest.mark.parametrize("has_demonstrator", [False, True])
def test_what_a_demonstrator_did_goes_before_what_the_policy_commanded(tmp_path, has_demonstrator):
    with RobotBag(tmp_path / "bag") as bag:
        bag.instruction(START_NS - SECOND, "go")
        for frame in range(6):
            stamp_ns = START_NS + frame * 50_000_000
            if has_demonstrator:
                bag.twist(stamp_ns, [0.08] * 6)
                bag.opening(stamp_ns, 0.0)
            bag.picture(STATIC, stamp_ns, frame)
            bag.picture(GRIPPER, stamp_ns, frame)
            add_action(bag, stamp_ns, 0.5, commanded=frame < 4)
    (episode,) = read(tmp_path / "bag")
    if has_demonstrator:
        np.testing.assert_allclose(episode.actions[:, [0, 6]], [[0.1, -1.0]] * 6, rtol=1e-5)
    else:
        # What was not commanded was not done.
        np.testing.assert_allclose(episode.actions[:, [0, 6]], [[0.5, 1.0]] * 4)


@pytest.mark.parametrize("there, missing", [
    ("recorded/twist", "recorded/gripper"), ("recorded/gripper", "recorded/twist"),
])
def test_half_of_what_a_demonstrator_did_is_refused_and_no_policy_stands_for_it(
    tmp_path, there, missing
):
    with RobotBag(tmp_path / "bag") as bag:
        bag.instruction(START_NS - SECOND, "go")
        for frame in range(6):
            stamp_ns = START_NS + frame * 50_000_000
            if there == "recorded/twist":
                bag.twist(stamp_ns, [0.08] * 6)
            else:
                bag.opening(stamp_ns, 0.0)
            bag.picture(STATIC, stamp_ns, frame)
            bag.picture(GRIPPER, stamp_ns, frame)
            add_action(bag, stamp_ns, 0.5, commanded=True)
    with pytest.raises(BagError, match=f"/{there} has .*/{missing} has none.*--remap {missing}:="):
        read(tmp_path / "bag")
    (episode,) = read(tmp_path / "bag", names=Names([f"{there}:=none"]))
    np.testing.assert_allclose(episode.actions[:, 0], [0.5] * 6)


@pytest.mark.parametrize("seed", range(3))
def test_frames_are_the_steps_of_a_replay(tmp_path, seed):
    bag = tmp_path / "bag"
    write_camera_bag(bag, 60, seed=seed, missing=0.05)
    model = write_tiny_model(tmp_path / "model")
    steps = lockstep(model, bag, tmp_path / "out").runs[0].steps
    episodes = list(read_episodes(bag, Units(), BagInputs(rate_hz=20.0)))
    assert [step.stamps_ns[0] for step in steps] == [t for e in episodes for t in e.stamps_ns]
    assert len({step.episode for step in steps}) == len(episodes) == 1
    slow = read(bag, rate_hz=5.0)[0]
    assert np.diff(slow.stamps_ns).mean() == pytest.approx(200_000_000, rel=0.05)


def test_the_rules_are_the_nodes_unless_something_else_is_said():
    settings, inputs = Settings(), BagInputs()
    assert inputs.max_skew_s == settings.image_max_skew
    assert inputs.gap_s == settings.safety_input_timeout
    assert inputs.frame_id == settings.action_frame_id


def test_the_fixed_frame_is_named_as_to_the_node_and_is_no_other_way_of_reading():
    parser = argparse.ArgumentParser()
    add_bag_arguments(parser)
    usual, named = (parser.parse_args(words) for words in (
        [], ["--param", "action.frame_id:=panda_link0"]))
    inputs = bag_inputs(named, node_parameters(named))
    assert inputs.frame_id == "panda_link0"
    assert as_said(named, inputs) == as_said(usual, bag_inputs(usual, {}))

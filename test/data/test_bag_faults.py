"""Bags in which something is meant otherwise, is missing for a while, or is nobody's business."""

from __future__ import annotations

import re
import shutil
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from episodes import Units
from robot_bags import GRIPPER, SECOND, START_NS, STATIC, TYPES, RobotBag, header, write_bag

from deer_ros.data.bag_format import BagError
from deer_ros.data.bag_inputs import BagInputs
from deer_ros.data.bag_reader import read_all_episodes
from deer_ros.data.episode import POSE_NAMES, Episode
from deer_ros.data.recording import Recording

PERIOD_NS = SECOND // 20
POSE, JOINTS, TWIST = "/end_effector/pose", "/joint_states", "/recorded/twist"


def read(path: Path, on_bad=None, **inputs) -> list[Episode]:
    return list(read_all_episodes([path], Units(), on_bad, BagInputs(**inputs)))


def new(kind: str, *fields) -> object:
    return TYPES.types[f"geometry_msgs/msg/{kind}"](*fields)


class Robot(RobotBag):
    """A robot at 20 Hz with the gripper open; what a test does not say is right."""

    def __enter__(self) -> Robot:
        super().__enter__()
        self.instruction(START_NS - SECOND, "open the drawer")
        self.opening(START_NS - SECOND, 1.0)
        return self

    def frame(self, number: int, twist: bool = True) -> int:
        """Both pictures, and by default a velocity; their stamp."""
        stamp_ns = START_NS + number * PERIOD_NS
        if twist:
            self.twist(stamp_ns, [0.1] * 6)
        self.picture(STATIC, stamp_ns, number)
        self.picture(GRIPPER, stamp_ns, number)
        return stamp_ns

    def joints(self, stamp_ns: int, **positions: float) -> None:
        self.joint_message(stamp_ns, list(positions), list(positions.values()))

    def joint_message(self, stamp_ns: int, names: list[str], positions: list[float]) -> None:
        self.put(JOINTS, "sensor_msgs/msg/JointState", stamp_ns, header(stamp_ns), names,
                 np.array(positions, float), np.zeros(0), np.zeros(0))


def with_frames(path: Path, kind: str, *frame_ids: str) -> Path:
    """Poses or velocities in these frames, one after the other."""
    with Robot(path) as bag:
        for number, frame_id in enumerate(frame_ids):
            stamp_ns = bag.frame(number, twist=kind != "twist")
            if kind == "pose":
                bag.pose(stamp_ns, frame_id)
            else:
                bag.twist(stamp_ns, [0.1] * 6, frame_id)
    return path


@pytest.mark.parametrize("kind, topic", [("twist", TWIST), ("pose", POSE)])
@pytest.mark.parametrize("frame_ids, told", [
    (("tool0",) * 3, "it is in the frame 'tool0' and must be in 'base_link' or 'world', .*"
                     r"--param action.frame_id:=tool0"),
    (("base_link", "base_link", "tool0"), "its frame_id changes from 'base_link' to 'tool0'"),
])
def test_what_is_in_another_frame_is_refused(tmp_path, kind, topic, frame_ids, told):
    bag = with_frames(tmp_path / "bag", kind, *frame_ids)
    with pytest.raises(BagError, match=f"bag: {topic}: {told}"):
        read(bag)
    heard = []
    assert read(bag, heard.append) == [] and len(heard) == 1


@pytest.mark.parametrize("kind", ["twist", "pose"])
@pytest.mark.parametrize("frame_id, inputs", [
    ("", {}), ("world", {}), ("base_link", {}), ("panda_link0", {"frame_id": "panda_link0"}),
    ("world", {"frame_id": "panda_link0"}),
])
def test_the_fixed_frame_may_be_called_as_the_robot_calls_it(tmp_path, kind, frame_id, inputs):
    bag = with_frames(tmp_path / "bag", kind, frame_id, "", frame_id)
    assert [len(episode) for episode in read(bag, **inputs)] == [3]


@pytest.mark.parametrize("silent", ["twist", "pose", "joints"])
def test_a_hole_in_what_was_said_ends_the_episode_as_one_in_the_pictures_does(tmp_path, silent):
    with Robot(tmp_path / "bag") as bag:
        for number in range(80):
            says = {kind: kind != silent or not 20 <= number < 60
                    for kind in ("twist", "pose", "joints")}
            stamp_ns = bag.frame(number, says["twist"])
            if says["pose"]:
                bag.pose(stamp_ns, "base_link")
            if says["joints"]:
                bag.joints(stamp_ns, a=number)
    before, after = read(tmp_path / "bag")
    # What was said holds for half a second.
    assert (len(before), len(after)) == (30, 20)
    assert [e.source.split("#")[1] for e in (before, after)] == ["0", "1"]
    for episode, first in ((before, 0), (after, 60)):
        assert (episode.stamps_ns[0] - START_NS) // PERIOD_NS == first
        assert np.diff(episode.stamps_ns).max() == PERIOD_NS
        assert len(episode.static) == len(episode.actions) == len(episode.proprioception)
    with Robot(tmp_path / "other") as bag:
        bag.frame(60)
    np.testing.assert_array_equal(after.static[0], read(tmp_path / "other")[0].static[0])


def test_after_an_instruction_that_cannot_be_read_nothing_is_learned_until_the_next(tmp_path):
    with Robot(tmp_path / "bag") as bag:
        for number in range(9):
            bag.frame(number)
            if number == 2:
                lost_ns = START_NS + 2 * PERIOD_NS + PERIOD_NS // 2
                bag.raw("/instruction", "std_msgs/msg/String", lost_ns, b"\0\1")
            elif number == 5:
                bag.instruction(START_NS + 5 * PERIOD_NS + PERIOD_NS // 2, "open the drawer")
    heard = []
    first, second = read(bag.path, on_bad=heard.append)
    assert (len(first), len(second)) == (3, 3)
    assert second.stamps_ns[0] == START_NS + 6 * PERIOD_NS
    assert "/instruction" in str(heard[-1])
    with pytest.raises(BagError, match="/instruction"):
        read(bag.path)
    (whole,) = read(bag.path, on_bad=heard.append, instruction="close it")
    assert len(whole) == 9


def test_frames_that_a_low_rate_leaves_out_are_no_hole(tmp_path):
    with Robot(tmp_path / "bag") as bag:
        for number in range(80):
            bag.frame(number)
    assert [len(episode) for episode in read(tmp_path / "bag", rate_hz=1.0)] == [5]


@pytest.mark.parametrize("values, told", [
    ((3.0, 255.0), "above 1"), ((0.0, 100.0), "above 1"), ((1.0, -1.0), "below 0"),
])
def test_openings_in_other_units_are_refused(tmp_path, values, told):
    with Robot(tmp_path / "bag") as bag:
        for number, value in enumerate(values):
            bag.opening(bag.frame(number), value)
    with pytest.raises(BagError, match=f"bag: /recorded/gripper: .* {told}; it must be from 0, cl"):
        read(tmp_path / "bag")


def test_a_measured_opening_may_go_a_little_beyond_its_ends(tmp_path):
    with Robot(tmp_path / "bag") as bag:
        for number, value in enumerate((1.003, -0.02)):
            bag.opening(bag.frame(number), value)
    assert read(tmp_path / "bag")[0].actions[:, 6].tolist() == [1.0, -1.0]


def recordings_in_one_folder(tmp_path: Path, apart_ns: int) -> Path:
    folder = tmp_path / "folder"
    folder.mkdir()
    for number in range(3):
        bag = write_bag(tmp_path / f"one{number}", start_ns=START_NS + number * apart_ns)
        shutil.copy(bag / f"one{number}.mcap", folder / f"episode_{number}.mcap")
    return folder


@pytest.mark.parametrize("apart_ns", [0, SECOND // 5, -SECOND])
def test_files_of_one_time_are_recordings_of_their_own(tmp_path, apart_ns):
    folder = recordings_in_one_folder(tmp_path, apart_ns)
    told = "its files episode_0.mcap and episode_1.mcap do not follow .*; name them one by one"
    with pytest.raises(BagError, match=told):
        read(folder)
    heard = []
    assert read(folder, heard.append) == [] and re.search(told, str(heard[0]))
    assert [len(read(file)[0]) for file in sorted(folder.iterdir())] == [11] * 3


def test_files_that_follow_one_another_may_be_recordings_of_their_own_too(tmp_path):
    with Recording(recordings_in_one_folder(tmp_path, 100 * SECOND)) as recording:
        (told,) = recording.losses
    assert "the recorder was killed" in told and "name them one by one" in told


def test_joints_of_several_publishers_are_joined_by_name(tmp_path):
    with Robot(tmp_path / "bag") as bag:
        for number in range(6):
            stamp_ns = START_NS + number * PERIOD_NS
            bag.joints(stamp_ns - 20_000_000, a=number, b=2.0)
            bag.frame(number)
            bag.joints(stamp_ns + 10_000_000, finger=0.1 * number)
    (episode,) = read(tmp_path / "bag")
    # The first picture was taken before the fingers were heard of.
    assert episode.proprioception_names == ("joint.a", "joint.b", "joint.finger")
    expected = [[number, 2.0, 0.1 * (number - 1)] for number in range(1, 6)]
    np.testing.assert_allclose(episode.proprioception, expected, rtol=1e-6)


@pytest.mark.parametrize("names, positions", [(["a", "b"], []), ([], [1.0, 2.0]), ([], [])])
def test_joints_without_names_or_positions_leave_the_pose_its_names(tmp_path, names, positions):
    with Robot(tmp_path / "bag") as bag:
        for number in range(4):
            stamp_ns = bag.frame(number)
            bag.pose(stamp_ns, "")
            bag.joint_message(stamp_ns, names, positions)
    (episode,) = read(tmp_path / "bag")
    assert episode.proprioception_names == POSE_NAMES
    np.testing.assert_array_equal(episode.proprioception_in(["end_effector.y"]), [[2.0]] * 4)


def test_a_joint_that_is_nan_stops_only_who_reads_it(tmp_path):
    with Robot(tmp_path / "bag") as bag:
        for number in range(4):
            bag.joints(bag.frame(number), a=1.0, wheel=np.nan if number == 2 else 0.0)
    (episode,) = read(tmp_path / "bag")
    np.testing.assert_array_equal(episode.proprioception_in(["joint.a"]), [[1.0]] * 4)
    with pytest.raises(ValueError, match="bag#0: joint.wheel of frame 2 holds NaN"):
        episode.proprioception_in(["joint.a", "joint.wheel"])


def no_stamps_on(topic: str):
    """Six frames in which these stamps are 0."""
    def write(path: Path) -> Path:
        with Robot(path) as bag:
            bag.pose(START_NS, "")
            for number in range(6):
                stamp_ns = START_NS + number * PERIOD_NS
                said_ns = 0 if topic == TWIST else stamp_ns
                bag.twist(said_ns, [0.1] * 6)
                for camera in (STATIC, GRIPPER):
                    said_ns = 0 if topic in (camera, "both") else stamp_ns
                    bag.picture(camera, said_ns, number, late_ns=stamp_ns - said_ns)
        return path

    return write


def on_the_wall_clock(path: Path) -> Path:
    """As a recorder without use_sim_time beside a simulator."""
    with RobotBag(path) as bag:
        wall_ns = 1_700_000_000 * SECOND
        bag.instruction(wall_ns, "go")
        for number in range(6):
            stamp_ns = START_NS + number * PERIOD_NS
            bag.opening(wall_ns + stamp_ns, 1.0)
            bag.twist(stamp_ns, [0.1] * 6)
            for camera in (STATIC, GRIPPER):
                bag.picture(camera, stamp_ns, number, late_ns=wall_ns)
    return path


def never_at_a_picture(path: Path) -> Path:
    """The velocity ends when the first picture comes."""
    with Robot(path) as bag:
        bag.twist(START_NS - SECOND, [0.1] * 6)
        for number in range(3):
            bag.pose(bag.frame(number, twist=False), "")
    return path


@pytest.mark.parametrize("write, told", [
    (no_stamps_on("both"), "cannot be used: the stamps of its static pictures are all 0$"),
    (no_stamps_on(STATIC), f"bag: the stamps of {STATIC} are all 0$"),
    (no_stamps_on(GRIPPER), f"bag: the stamps of {GRIPPER} are all 0$"),
    (no_stamps_on(TWIST), rf"no static picture has {TWIST} \(its stamps are all 0\) at its time$"),
    (on_the_wall_clock, "messages of /recorded/gripper have no stamp and were recorded on another "
                        "clock than the pictures', which are stamped 1700000000 s before"),
    (never_at_a_picture, f"no static picture has {TWIST} at its time$"),
], ids=["both cameras", "static", "gripper", "twist", "wall clock", "never"])
def test_only_what_lacks_is_named_and_why(tmp_path, write, told):
    with pytest.raises(BagError, match=told):
        read(write(tmp_path / "bag"))


def test_cameras_that_are_never_near_each_other_are_said_to_be_so(tmp_path):
    bag = write_bag(tmp_path / "bag", rate_hz=5.0, skew_ns=80_000_000)
    with pytest.raises(BagError, match=r"no two of its pictures are within 0.05 s \(image.max_ske"):
        read(bag)


def test_an_episode_is_held_in_memory_once(tmp_path, monkeypatch):
    # As if decoded: the pictures in the bag are small, so that next to nothing else is held.
    monkeypatch.setattr(
        "deer_ros.data.images.to_rgb", lambda message: np.zeros((480, 640, 3), np.uint8))
    with Robot(tmp_path / "bag") as bag:
        for number in range(40):
            bag.frame(number)
    tracemalloc.start()
    (episode,) = read(tmp_path / "bag")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1.2 * (episode.static.nbytes + episode.gripper.nbytes)

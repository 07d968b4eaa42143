"""A model that reads the robot's own state gets it from topics, by name, and fresh, or stands."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from tiny_model import tiny_config, write_tiny_model

from deer_ros.control.command import Pose
from deer_ros.control.safety import Reason, stale
from deer_ros.control.sampler import CAMERAS
from deer_ros.model.config import ProprioceptionConfig
from deer_ros.observation import Observation
from deer_ros.policy import DeerPolicy
from deer_ros.stepping.brain import Brain
from deer_ros.stepping.plan import Plan
from deer_ros.stepping.robot import RobotState
from deer_ros.stepping.settings import Settings
from deer_ros.stepping.stepper import Stepper

MS = 1_000_000
LAYOUT = ("joint.two", "end_effector.z", "end_effector.qw")
PICTURE = np.full((32, 32, 3), 90, np.uint8)


def config_of(layout=LAYOUT):
    size = len(layout)
    return tiny_config(proprioception=ProprioceptionConfig(layout, (0.0,) * size, (1.0,) * size))


def settings() -> Settings:
    return Settings().replaced({"allow_simulation_model": True}, tiny_config())


def joints(**positions: float) -> SimpleNamespace:
    return SimpleNamespace(name=list(positions), position=list(positions.values()))


def robot(now_ms: int = 0, **positions: float) -> RobotState:
    pose = Pose(np.array([1.0, 2.0, 3.0]), np.array([0.0, 0.0, 0.6, 0.8]))
    positions = positions or {"one": 5.0, "two": 6.0}
    return RobotState(pose, now_ms * MS).with_joints(joints(**positions), now_ms * MS)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_tiny_model(
        tmp_path_factory.mktemp("model") / "m", proprioception=config_of().proprioception
    )


def test_values_come_by_name_in_the_models_order():
    np.testing.assert_array_equal(
        robot().proprioception(LAYOUT), np.array([6, 3, 0.8], np.float32)
    )
    other = robot(two=-1.0, three=9.0, one=0.0)
    assert other.proprioception(["joint.three", "joint.two"]).tolist() == [9, -1]


@pytest.mark.parametrize(("state", "sentence"), [
    (RobotState(), r"lacks joint\.two, end_effector\.z, end_effector\.qw; it has no names"),
    (robot(one=1.0), r"lacks joint\.two; it has .*joint\.one; joint_states and end_effector/pose"),
    (robot(two=float("nan")), r"joint\.two of the robot is not finite"),
    (robot(two=float("inf")), r"joint\.two of the robot is not finite"),
])  # fmt: skip
def test_what_the_robot_has_not_said_stops_the_step(state, sentence, model):
    with pytest.raises(ValueError, match=sentence):
        state.proprioception(LAYOUT)
    policy = DeerPolicy.from_pretrained(model, device="cpu")
    complaints: list[str] = []
    brain = Brain(policy, lambda payload: payload, complaints.append)
    pair = SimpleNamespace(static=SimpleNamespace(payload=PICTURE),
                           gripper=SimpleNamespace(payload=PICTURE))  # fmt: skip
    plan = Plan.of(settings(), policy.config)
    answer = brain.answer(pair, plan, "open the drawer", 1, state)
    assert answer.step is None and answer.stop.reason is Reason.MODEL_ERROR
    assert "joint.two" in answer.stop.detail and "Traceback" not in answer.stop.detail
    # The next message is sound again.
    step = brain.answer(pair, plan, "open the drawer", 1, robot()).step
    policy.reset()
    felt = np.array([6, 3, 0.8], np.float32)
    expected = policy.step(Observation(PICTURE, PICTURE, felt), "open the drawer")
    np.testing.assert_array_equal(step.action, expected.action)


def ready(layout) -> Stepper:
    subject = Stepper(settings())
    subject.adopt(Plan.of(settings(), config_of(layout)))
    subject.activate()
    subject.set_instruction("open the drawer")
    return subject


def offer(subject: Stepper, now_ms: int):
    for camera in CAMERAS:
        subject.offer(camera, now_ms * MS, None)
    return subject.take(now_ms * MS)


@pytest.mark.parametrize(("layout", "needed"), [
    (("joint.two",), {"joint_states"}),
    (("end_effector.x",), {"end_effector/pose"}),
    (LAYOUT, {"joint_states", "end_effector/pose"}),
])  # fmt: skip
def test_no_step_is_made_on_what_is_missing_or_old(layout, needed):
    subject = ready(layout)
    whole = {"joint_states": {"joints": {}},
             "end_effector/pose": {"pose": None, "pose_stamp_ns": 0}}  # fmt: skip
    for number, (topic, nothing) in enumerate(whole.items(), start=1):
        now_ms = 1000 * number
        subject.robot = replace(robot(now_ms), **nothing)
        job = offer(subject, now_ms)
        assert (job is None) == (topic in needed)
        if topic in needed:
            stop = subject.watch(now_ms * MS)
            assert stop.reason is Reason.INPUT_STALE
            assert f"nothing has come on {topic}" in stop.detail
    subject.robot = robot(9000)
    assert offer(subject, 9000) is not None
    assert offer(subject, 9600) is None
    assert " s old" in subject.watch(9600 * MS).detail


def test_a_model_that_reads_what_no_topic_says_is_refused():
    with pytest.raises(ValueError, match=r"reads gripper_width, eef_pos of the robot itself"):
        Plan.of(settings(), config_of(("gripper_width", "joint.two", "eef_pos")))


def test_several_publishers_may_share_joint_states_and_none_hides_that_another_is_dead():
    layout = ("joint.arm", "joint.finger")
    subject = ready(layout)

    def said(now_ms: int, **positions: float) -> None:
        subject.robot = subject.robot.with_joints(joints(**positions), now_ms * MS)

    said(1000, finger=0.1)
    assert offer(subject, 1000) is None
    stop = subject.watch(1000 * MS)
    assert stop.reason is Reason.INPUT_STALE
    assert "nothing has come on joint_states with joint.arm (it has joint.finger)" in stop.detail
    said(1100, arm=2.0)
    assert offer(subject, 1100).robot.proprioception(layout).tolist() == pytest.approx([2, 0.1])
    said(1600, finger=0.2)
    assert offer(subject, 1600) is not None
    said(1700, finger=0.3)
    assert offer(subject, 1700) is None
    assert "message on joint_states with joint.arm is 0.60 s old" in subject.watch(1700 * MS).detail
    said(1800, arm=3.0)
    assert offer(subject, 1800).robot.proprioception(layout).tolist() == pytest.approx([3, 0.3])


def test_a_message_without_positions_says_nothing_of_joints():
    velocities = SimpleNamespace(name=["one", "two"], position=[])
    subject = robot(1000).with_joints(velocities, 1500 * MS)
    assert subject.proprioception(("joint.two",)) == [6.0]
    assert subject.joints_input(1500 * MS, ("joint.two",)).age_s == 0.5


def test_the_stamps_of_a_publisher_that_stand_still_are_told_from_silence():
    frozen, other = robot(1000), robot(1000)
    for now_ms in range(1100, 1700, 100):
        frozen = frozen.with_joints(joints(two=1.0), 1000 * MS).with_joints(
            joints(three=1.0), now_ms * MS)
        other = other.with_joints(joints(three=1.0), now_ms * MS)
    stops = [stale([each.joints_input(1700 * MS, ("joint.two",))], 0.5) for each in (frozen, other)]
    assert [stop.reason for stop in stops] == [Reason.STAMPS_FROZEN, Reason.INPUT_STALE]

"""Faults injected into a running node: it stops in time, says why, and goes on."""

from __future__ import annotations

import random
import time
from array import array

import numpy as np
import pytest
from counts import count
from geometry_msgs.msg import PoseStamped
from policy_client import PATIENT, PERIOD_S, compressed_image, image, moves, running_policy
from sensor_msgs.msg import JointState
from std_msgs.msg import String
from stillness import on_time
from tiny_model import write_tiny_model

from deer_ros.control.safety import Reason, State
from deer_ros.model.config import ProprioceptionConfig
from deer_ros.nodes.stamps import to_nanoseconds, to_time

pytestmark = [pytest.mark.robot, pytest.mark.clock]

OPEN = "open the drawer"
TIMEOUT_S = 0.5
# By which a busy machine may wake the thread that sends commands too late.
LATE_S = 0.05
TRIALS = count(20)
QUICK = {"safety__input_timeout": TIMEOUT_S, "safety__step_timeout": 2.0}
INPUTS = ("static", "gripper", "pose", "joints")


class Robot:
    """Sends all four inputs at the control rate, but for what a test does to one of them."""

    def __init__(self, client):
        self.client = client
        self.faults = {}
        self.last_sound_ns = {}
        self.joints = client.node.create_publisher(JointState, "joint_states", 10)
        client.node.create_timer(PERIOD_S, self._send)

    def _send(self) -> None:
        client, now_ns = self.client, self.client.now_ns()
        for name in INPUTS:
            message, stamp_ns = self._message(name), now_ns
            fault = self.faults.get(name)
            if fault is None:
                self.last_sound_ns[name] = now_ns
            else:
                stamp_ns = fault(now_ns, message)
            if stamp_ns is not None:
                message.header.stamp = to_time(stamp_ns)
                self._publisher(name).publish(message)
        assert client.process.poll() is None

    def _publisher(self, name):
        return self.joints if name == "joints" else getattr(self.client, name)

    def _message(self, name):
        if name == "joints":
            return JointState(name=["one"], position=[0.3])
        if name == "pose":
            message = PoseStamped()
            message.header.frame_id = "base_link"
            message.pose.orientation.w = 1.0
            return message
        return self.client.noisy_picture()


@pytest.fixture(scope="module")
def started(tmp_path_factory):
    folder = tmp_path_factory.mktemp("policy")
    reads_joints = ProprioceptionConfig(("joint.one",), (0.0,), (1.0,))
    model = write_tiny_model(folder / "model", proprioception=reads_joints)
    # A workspace asks for the pose.
    with running_policy(folder, model=str(model), allow_simulation_model=True,
                        safety__workspace_max=[100.0] * 3, safety__input_timeout=TIMEOUT_S,
                        safety__frozen_image_timeout=0.6,
                        episode__max_duration=3600.0, instruction=OPEN) as client:
        client.wait_until(lambda: client.state() == "active")
        client.robot = Robot(client)
        yield client


@pytest.fixture
def node(started):
    """Stops as soon as it promises to."""
    assert started.set_all(**QUICK).successful
    return started


@pytest.fixture
def patient(node):
    """The same, for faults that have nothing to do with time."""
    assert node.set_all(**PATIENT).successful
    return node


def run(node) -> None:
    """Everything is sound, and the robot moves."""
    node.robot.faults.clear()
    node.twists.clear()
    node.wait_for_status(lambda s: s.state == State.RUNNING and s.reason == Reason.NONE)
    count_ = len(node.twists)
    node.wait_until(lambda: len(node.twists) > count_ and moves(node.twists[-1]))


def silent(_now_ns, _message):
    return None


def frozen_stamps(node, name):
    last_ns = node.robot.last_sound_ns[name]
    return lambda _now_ns, _message: last_ns


def sent_ns(twist) -> int:
    return to_nanoseconds(twist.header.stamp)


def check_stop(node, since_ns: int, reasons, name: str, limit_s: float) -> None:
    """After `since_ns` the robot moves for `limit_s` at most; then zero has gone out."""
    status = node.wait_for_status(lambda s: s.reason in reasons, timeout_s=10.0)
    assert status.state == State.STOPPED and name in status.detail, status.detail
    node.drain()
    assert not moves(node.twists[-1])
    last_move = max(index for index, twist in enumerate(node.twists) if moves(twist))
    zero = node.twists[last_move + 1]
    assert sent_ns(node.twists[last_move]) - since_ns <= limit_s * 1e9
    assert sent_ns(zero) - since_ns <= (limit_s + LATE_S) * 1e9


WORDS = {"static": "camera/static/image", "gripper": "camera/gripper/image",
         "pose": "end_effector/pose", "joints": "joint_states"}


@pytest.mark.parametrize("name", INPUTS)
def test_an_input_that_falls_silent_stops_the_robot_within_the_promise(node, name):
    def fall_silent() -> None:
        run(node)
        node.robot.faults[name] = silent
        check_stop(node, node.robot.last_sound_ns[name], (Reason.INPUT_STALE,), WORDS[name],
                   TIMEOUT_S + PERIOD_S)

    for _ in range(TRIALS):
        on_time(fall_silent)


@pytest.mark.parametrize("name", INPUTS)
def test_stamps_that_stand_still_stop_the_robot_within_the_promise(node, name):
    def stand_still() -> None:
        run(node)
        node.robot.faults[name] = frozen_stamps(node, name)
        check_stop(node, node.robot.last_sound_ns[name], (Reason.STAMPS_FROZEN,), WORDS[name],
                   TIMEOUT_S + PERIOD_S)

    for _ in range(TRIALS):
        on_time(stand_still)


@pytest.mark.parametrize("name", INPUTS)
def test_stamps_from_the_future_stop_the_robot(node, name):
    def run_ahead() -> None:
        # A picture from the future of an earlier trial would be the newest one for two seconds.
        assert node.change_state("deactivate") and node.change_state("activate")
        run(node)
        node.robot.faults[name] = lambda now_ns, _message: now_ns + 2 * 10**9
        check_stop(node, node.robot.last_sound_ns[name], (Reason.STAMPS_AHEAD,), WORDS[name],
                   TIMEOUT_S + PERIOD_S)

    try:
        for _ in range(count(5, 1)):
            on_time(run_ahead)
    finally:
        assert node.change_state("deactivate") and node.change_state("activate")


def test_cameras_that_are_never_near_each_other_stop_the_robot(node):
    def part() -> None:
        run(node)
        node.robot.faults["gripper"] = lambda now_ns, _message: now_ns - 350_000_000
        check_stop(node, node.robot.last_sound_ns["gripper"], (Reason.CAMERAS_APART,),
                   "image.max_skew", TIMEOUT_S + PERIOD_S)

    for _ in range(count(5, 1)):
        on_time(part)


@pytest.mark.parametrize("name", ["static", "gripper"])
def test_a_camera_that_repeats_one_picture_stops_the_robot(node, name):
    same = image(77)

    def frozen(now_ns, message):
        message.data = same.data
        return now_ns

    def repeat() -> None:
        run(node)
        node.robot.faults[name] = frozen
        check_stop(node, node.robot.last_sound_ns[name], (Reason.IMAGE_FROZEN,), WORDS[name],
                   0.6 + 3 * PERIOD_S)

    for _ in range(count(20, 1)):
        on_time(repeat)


def test_a_latched_fault_keeps_the_robot_still_until_a_reset(node):
    for name in INPUTS:
        run(node)
        assert node.set(safety__recovery="latched").successful
        node.robot.faults[name] = silent
        status = node.wait_for_status(lambda s: s.reason == Reason.INPUT_STALE)
        assert "~/reset" in status.detail
        node.robot.faults.clear()
        node.instruction.publish(String(data=f"push {name}"))
        assert node.pause(True).success and node.pause(False).success
        assert node.set(safety__recovery="auto").successful
        stopped_ns, seen = node.now_ns(), node.diagnosed("images seen")
        node.wait_until(lambda seen=seen: node.diagnosed("images seen") > seen + 20)
        assert not node.answers_after(stopped_ns), "nothing but ~/reset sets it in motion"
        assert node.diagnosed("latched", str) == "INPUT_STALE"
        assert node.statuses[-1].reason == Reason.INPUT_STALE
        status = node.wait_for_status(lambda s: s.state == State.RUNNING, node.reset)
        assert status.reset_reason == "~/reset was called"
        assert node.set(instruction=OPEN).successful


def test_an_action_beyond_all_limits_is_dropped(patient):
    node = patient
    run(node)
    node.instruction.publish(String(data="answer 2e6"))
    status = node.wait_for_status(lambda s: s.reason == Reason.OVER_LIMIT)
    assert status.state == State.STOPPED and "none beyond 1e+06" in status.detail
    node.wait_until(lambda: node.actions[-1].instruction == "answer 2e6")
    refused = [a for a in node.actions if a.instruction == "answer 2e6"]
    assert not any(a.commanded for a in refused) and not any(refused[-1].action)
    assert node.set(instruction=OPEN).successful
    run(node)


def test_jumps_between_actions_are_shortened_and_told(patient):
    node = patient
    run(node)
    assert node.set(safety__max_jump=0.01).successful
    status = node.wait_for_status(lambda s: "jump" in s.clamped, node.reset)
    assert status.state == State.RUNNING
    assert node.set(safety__max_jump=0.0).successful
    node.wait_for_status(lambda s: s.state == State.RUNNING and not s.clamped)


def test_a_step_that_lasts_too_long_stops_the_robot_at_once_and_is_dropped(patient):
    node = patient
    run(node)
    assert node.set(safety__step_timeout=0.2).successful
    node.instruction.publish(String(data="think long"))
    status = node.wait_for_status(lambda s: s.reason == Reason.DEADLINE_OVERRUN)
    assert "safety.step_timeout" in status.detail and status.state == State.STOPPED
    node.wait_until(lambda: any(a.instruction == "think long" for a in node.actions))
    assert not any(a.commanded for a in node.actions if a.instruction == "think long")
    assert node.set(instruction=OPEN).successful
    assert node.set_all(**PATIENT).successful
    run(node)


# Pictures that no camera should send.

ENCODINGS = ["rgb8", "bgr8", "mono8", "mono16", "rgba8", "bgra8", "rgb16", "bayer_rggb8", "yuv422",
             "nv12", "8UC1", "8UC3", "32FC1", "", "rainbow", "rgb8\n", "16UC1", "yuyv"]


def fuzzed_image(rng: random.Random):
    """Fields that mostly do not fit together."""
    data = rng.randbytes(rng.choice([0, 1, 7, 3 * 24 * 32, 3 * 24 * 32 + 5, 20_000]))
    message = image(encoding=rng.choice(ENCODINGS))
    message.height = rng.choice([0, 1, 23, 24, 2**31, 2**32 - 1])
    message.width = rng.choice([0, 1, 31, 32, 2**16, 2**32 - 1])
    message.step = rng.choice([0, 1, 95, 96, 104, 128, 2**32 - 1])
    message.is_bigendian = rng.choice([0, 1, 255])
    if rng.random() < 0.7:
        message.data = array("B", data)
    return message


def fuzzed_jpeg(rng: random.Random):
    """A JPEG that is cut off, bent or none at all."""
    data = bytearray(compressed_image().data)
    kind = rng.randrange(4)
    if kind == 0:
        data = data[:rng.randrange(len(data))]
    elif kind == 1:
        for _ in range(rng.randrange(1, 8)):
            data[rng.randrange(len(data))] = rng.randrange(256)
    elif kind == 2:
        data = rng.randbytes(rng.randrange(2000))
    message = compressed_image()
    message.data = array("B", bytes(data))
    message.format = rng.choice(["jpeg", "png", "", "rgb8; jpeg compressed bgr8", "h264"])
    return message


@pytest.mark.parametrize(
    "transport", ["raw", pytest.param("compressed", marks=pytest.mark.long)]
)
def test_fuzzed_pictures_are_counted_and_the_node_lives_on(tmp_path, transport):
    model = write_tiny_model(tmp_path / "model")
    rng, fuzzed = random.Random(3), fuzzed_image if transport == "raw" else fuzzed_jpeg
    with running_policy(tmp_path, model=str(model), allow_simulation_model=True,
                        image__transport=transport, image__reliability="reliable",
                        episode__max_duration=3600.0) as node:
        node.tell(OPEN)
        node.wait_for_status(lambda s: s.state == State.RUNNING)
        node.feeding = False
        node.wait_for_status(lambda s: s.state == State.STOPPED)
        before = node.statuses[-1].images_refused

        def publish_fuzzed() -> None:
            for index in range(count(1000, 50)):
                publisher = (node.static, node.gripper)[index % 2]
                message = fuzzed(rng)
                message.header.stamp = to_time(rng.choice([node.now_ns()] * 9 + [0]))
                publisher.publish(message)
                node._executor.spin_once(timeout_sec=0.002)

        publish_fuzzed()
        # A busy node reads the newest pictures alone, and refuses only what it reads.
        node.wait_until(lambda: node.diagnosed("images refused") - before >= count(1000, 50) // 10
                        or publish_fuzzed())
        node.feeding = True
        node.wait_for_status(lambda s: s.state == State.RUNNING)
        assert node.process.poll() is None and node.state() == "active"
        assert all(np.isfinite(a.action).all() for a in node.actions)
        assert "a callback failed" not in node.said() and "Traceback" not in node.said()


def random_change(rng: random.Random) -> dict:
    """One parameter that may be set while the node runs; some of the values are refused."""
    return rng.choice([
        {"image__max_skew": rng.choice([0.05, 0.02, 0.1, -1.0])},
        {"safety__input_timeout": rng.choice([0.5, 2.0, 1.0, 0.0])},
        {"safety__max_jump": rng.choice([0.0, 0.5, 1.0, float("nan")])},
        {"safety__max_linear_velocity": rng.choice([0.0, 0.1, 1.0, float("inf")])},
        {"gripper__hysteresis": rng.choice([0.1, 0.2, 0.9])},
        {"command_rate": rng.choice([30.0, 100.0, 5])},
        {"exit__policy": rng.choice(["budget", "fixed"])},
        {"exit__thresholds": rng.choice([[0.1, 0.1, 1.0], [1000.0, 1.0, 1.0], [0.1]])},
        {"exit__max_layer": rng.choice([0, 2, 4, 1])},
        {"exit__metric": rng.choice(["l2", "mean", "max", "cosine", "none"])},
        {"dry_run": rng.choice([True, False])},
        {"episode__max_duration": rng.choice([3600.0, 1000.0])},
    ])


def test_parameters_change_at_50_hz_while_steps_go_on(tmp_path):
    model = write_tiny_model(tmp_path / "model")
    rng, waits_s, accepted = random.Random(5), [], 0
    with running_policy(tmp_path, model=str(model), allow_simulation_model=True,
                        episode__max_duration=3600.0) as node:
        node.tell(OPEN)
        first = node.wait_for_status(lambda s: s.state == State.RUNNING)
        snapshot = {"exit__policy": "budget", "exit__thresholds": [0.01, 0.01, 1e9],
                    "exit__max_layer": 0}
        snapshots = {first.settings_version: dict(snapshot)}
        for _ in range(count(1000, 100)):
            change = random_change(rng)
            started_s = time.monotonic()
            result = node.set(**change)
            waits_s.append(time.monotonic() - started_s)
            if result.successful:
                accepted += 1
                snapshot |= {name: value for name, value in change.items() if name in snapshot}
                snapshots[first.settings_version + accepted] = dict(snapshot)
            while time.monotonic() - started_s < 0.02:
                node._executor.spin_once(timeout_sec=0.002)
        assert node.set_all(dry_run=False, exit__max_layer=0, exit__policy="budget",
                            safety__input_timeout=0.5, image__max_skew=0.05).successful
        last = node.wait_for_status(
            lambda s: s.state == State.RUNNING
            and s.settings_version == first.settings_version + accepted + 1)
        assert last.max_layer in (0, 6) or node.wait_for_status(lambda s: s.max_layer == 6)
        checked = [s for s in node.statuses if s.settings_version in snapshots and s.exit_layer]
        for status in checked:
            check_snapshot(status, snapshots[status.settings_version])
        versions = {s.settings_version for s in checked}
        assert len(versions) > 10 and accepted < len(waits_s)
        max_layers = {s.max_layer for s in checked}
        assert len(max_layers) > 1
        assert "Traceback" not in node.said() and "a callback failed" not in node.said()
        # Of a hundred answers the slowest one says more about the machine than about the node.
        assert np.quantile(waits_s, count(0.99, 0.9)) < 0.05, sorted(waits_s)[-10:]


def check_snapshot(status, expected) -> None:
    """What a step obeyed is one accepted whole. Layers may still be on their way into memory."""
    permitted = expected["exit__max_layer"] or 6
    assert status.max_layer <= permitted
    assert status.exit_layer <= status.max_layer
    if expected["exit__policy"] == "fixed":
        exits = status.max_layer // 2
        np.testing.assert_allclose(
            status.thresholds[:exits - 1], expected["exit__thresholds"][:exits - 1], rtol=1e-5)
    else:
        assert status.exit_layer == status.max_layer


@pytest.mark.long
def test_cycles_through_all_states_leave_the_memory_flat(tmp_path):
    model = write_tiny_model(tmp_path / "model")
    with running_policy(tmp_path, model=str(model), allow_simulation_model=True,
                        episode__max_duration=3600.0) as node:
        node.tell(OPEN)
        sizes = []
        for _ in range(count(20, 4) + 1):
            node.wait_for_status(lambda s: s.state == State.RUNNING and s.step > 3)
            for transition in ("deactivate", "cleanup"):
                assert node.change_state(transition)
            sizes.append(resident_mib(node.process.pid))
            for transition in ("configure", "activate"):
                assert node.change_state(transition)
        # The first cycle loads what stays loaded.
        assert sizes[-1] - sizes[0] < 20, sizes
        assert "Traceback" not in node.said()


def resident_mib(pid: int) -> float:
    with open(f"/proc/{pid}/status", encoding="ascii") as stream:
        line = next(line for line in stream if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1024

"""The policy node in a process and a ROS domain of its own, and a client that plays the robot."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from array import array
from pathlib import Path

import cv2
import numpy as np
import pytest
import rclpy
from deer_ros.msg import EndEffectorAction, PolicyStatus
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import PoseStamped, TwistStamped
from lifecycle_msgs.srv import ChangeState, GetState
from rcl_interfaces.srv import (
    DescribeParameters,
    GetParameters,
    SetParameters,
    SetParametersAtomically,
)
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter, parameter_value_to_python
from rclpy.qos import DurabilityPolicy, QoSProfile, qos_profile_sensor_data
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Float64, String
from std_srvs.srv import SetBool, Trigger

from deer_ros.nodes.domain import isolate, reserved_domain
from deer_ros.nodes.stamps import to_nanoseconds, to_time

LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
MANY = QoSProfile(depth=1000)
TIMES_ASKED = 4
WAIT_S = 180.0
GRACE_S = 5.0
PERIOD_S = 0.05
DRAIN_S = 0.5
BACKLOG = 300
HEIGHT, WIDTH = 24, 32
# Parameters of tests that are about something else: a machine that stands still for a moment is
# neither a stop nor a new episode.
PATIENT = {"safety__input_timeout": 60.0, "safety__step_timeout": 60.0}


@contextlib.contextmanager
def running_policy(folder: Path, **parameters):
    """A client of a policy node with these parameters; `__` in a name stands for a dot."""
    with contextlib.ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        for name in ("ROS_DOMAIN_ID", "ROS_AUTOMATIC_DISCOVERY_RANGE", "ROS_LOCALHOST_ONLY"):
            patch.setenv(name, "")
        domain = stack.enter_context(reserved_domain())
        isolate(domain)
        client = PolicyClient(domain, folder, parameters)
        stack.callback(client.close)
        yield client


class PolicyClient:
    """Keeps all that the node says; sends pictures, if told to, whenever it waits."""

    def __init__(self, domain: int, folder: Path, parameters: dict):
        self.log = folder / "policy.log"
        self.process = _start(folder, parameters, self.log)
        self._context = rclpy.Context()
        rclpy.init(context=self._context, domain_id=domain)
        self.node = rclpy.create_node("client", context=self._context)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self.node)
        self.actions: list[EndEffectorAction] = []
        self.twists: list[TwistStamped] = []
        self.targets: list[PoseStamped] = []
        self.openings: list[Float64] = []
        self.statuses: list[PolicyStatus] = []
        self.diagnostics: list[DiagnosticArray] = []
        self.twist_times: list[float] = []
        for kind, topic, take in (
            (EndEffectorAction, "deer/action", self.actions.append),
            (TwistStamped, "deer/twist", self._take_twist),
            (PoseStamped, "deer/target_pose", self.targets.append),
            (PolicyStatus, "deer/status", self.statuses.append),
            (DiagnosticArray, "/diagnostics", self.diagnostics.append),
        ):
            self.node.create_subscription(kind, topic, take, MANY)
        self.node.create_subscription(Float64, "deer/gripper", self.openings.append, LATCHED)
        sensor = qos_profile_sensor_data
        compressed = parameters.get("image__transport") == "compressed"
        kind, suffix = (CompressedImage, "/compressed") if compressed else (Image, "")
        qos = 10 if parameters.get("image__reliability") == "reliable" else sensor
        self.static, self.gripper = (
            self.node.create_publisher(kind, f"camera/{camera}/image{suffix}", qos)
            for camera in ("static", "gripper"))
        self.picture = image if not compressed else compressed_image
        self.clock = self.node.create_publisher(Clock, "/clock", 10)
        self.pose = self.node.create_publisher(PoseStamped, "end_effector/pose", sensor)
        self.instruction = self.node.create_publisher(String, "instruction", 10)
        self._clients = {}
        self.feeding = False
        self.shown_ns = 0
        """The stamp of the newest pictures."""
        self._shown_s = 0.0
        self._shown = 0

    def close(self) -> None:
        # A peer that is killed leaves Fast DDS's shared memory as it was; this process has crashed
        # once when it then took its own part of it down.
        self.process.terminate()
        try:
            self.process.wait(GRACE_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._executor.shutdown()
        self.node.destroy_node()
        rclpy.shutdown(context=self._context)

    # Waiting.

    def wait_until(self, condition, timeout_s: float = WAIT_S) -> None:
        deadline_s = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < deadline_s, f"waited in vain; the node said:\n{self.said()}"
            self._feed()
            self._executor.spin_once(timeout_sec=0.005)

    def wait_for_status(self, condition, after=None, timeout_s: float = WAIT_S) -> PolicyStatus:
        """The first status from now on that meets the condition. after: what to do meanwhile."""
        first = len(self.statuses)
        if after is not None:
            answer = after()
            assert getattr(answer, "successful", True) and getattr(answer, "success", True), answer
        self.wait_until(lambda: any(map(condition, self.statuses[first:])), timeout_s)
        return next(s for s in self.statuses[first:] if condition(s))

    def drain(self) -> None:
        """Take what has come already, and what is under way."""
        end_s = time.monotonic() + DRAIN_S
        while time.monotonic() < end_s:
            self._executor.spin_once(timeout_sec=0.01)
        # Where this process stood still, more has come than there was time for.
        for _ in range(BACKLOG):
            self._executor.spin_once(timeout_sec=0.0)

    def answers_to(self, stamp_ns: int) -> list[EndEffectorAction]:
        """To the static picture of that time."""
        return [a for a in self.actions if to_nanoseconds(a.static_stamp) == stamp_ns]

    def answers_after(self, stamp_ns: int) -> list[EndEffectorAction]:
        """To static pictures that were shown later: not to one that was under way by then."""
        return [a for a in self.actions if to_nanoseconds(a.static_stamp) > stamp_ns]

    def diagnosed(self, key: str, kind=int):
        """One value of the newest diagnostics, or None where they do not have it (yet)."""
        values = {v.key: v.value for s in self.diagnostics[-1].status for v in s.values}
        return kind(values[key]) if key in values else None

    def said(self) -> str:
        return self.log.read_text()

    # Playing the robot.

    def _is_due(self) -> bool:
        return time.monotonic() - self._shown_s >= PERIOD_S

    def _feed(self) -> None:
        if self.feeding and self._is_due():
            self.show(self.noisy_picture(), self.noisy_picture())

    def noisy_picture(self) -> Image | CompressedImage:
        """No camera shows the same twice."""
        self._shown += 1
        return self.picture(100 + self._shown % 3)

    def show(self, static: Image, gripper: Image, now_ns: int | None = None) -> None:
        """Publish two pictures of now, at least a control period after the last ones."""
        while not self._is_due():
            self._executor.spin_once(timeout_sec=0.005)
        self._shown_s = time.monotonic()
        now_ns = self.shown_ns = self.now_ns() if now_ns is None else now_ns
        for publisher, message in ((self.static, static), (self.gripper, gripper)):
            message.header.stamp = to_time(now_ns)
            publisher.publish(message)

    def show_at(self, now_ns: int) -> None:
        """Set the simulated clock, and publish two pictures of that time."""
        self.clock.publish(Clock(clock=to_time(now_ns)))
        self.show(self.noisy_picture(), self.noisy_picture(), now_ns)

    def now_ns(self) -> int:
        return self.node.get_clock().now().nanoseconds

    def tell(self, text: str) -> None:
        """Publish an instruction, and wait until steps obey it."""
        self.feeding = True
        self.wait_until(lambda: self.instruction.get_subscription_count() >= 1)
        self.instruction.publish(String(data=text))
        self.wait_for_status(lambda status: status.instruction == text)

    # Services.

    def call(self, kind, name: str, request, timeout_s: float = WAIT_S):
        if name not in self._clients:
            self._clients[name] = self.node.create_client(kind, name)
        client = self._clients[name]
        self.wait_until(client.service_is_ready, timeout_s)
        future = client.call_async(request)
        self.wait_until(future.done, timeout_s)
        return future.result()

    def set(self, **values):
        """One after the other, as `ros2 param set` does; the last one's result."""
        request = SetParameters.Request(parameters=_messages(values))
        return self.call(SetParameters, "deer/set_parameters", request).results[-1]

    def set_all(self, **values):
        request = SetParametersAtomically.Request(parameters=_messages(values))
        return self.call(
            SetParametersAtomically, "deer/set_parameters_atomically", request).result

    def get(self, name: str):
        request = GetParameters.Request(names=[name])
        answer = self.call(GetParameters, "deer/get_parameters", request)
        return parameter_value_to_python(answer.values[0])

    def describe(self, name: str):
        request = DescribeParameters.Request(names=[name])
        return self.call(DescribeParameters, "deer/describe_parameters", request).descriptors[0]

    def state(self) -> str:
        """Asked again where no answer comes: a node drops one if it has not found the asker yet."""
        name, asked, each_s = "deer/get_state", GetState.Request(), WAIT_S / TIMES_ASKED
        for _ in range(TIMES_ASKED - 1):
            with contextlib.suppress(AssertionError):
                return self.call(GetState, name, asked, each_s).current_state.label
        return self.call(GetState, name, asked, each_s).current_state.label

    def change_state(self, transition: str | int) -> bool:
        """transition: its label, or its number as `ros2 lifecycle set` sends it."""
        request = ChangeState.Request()
        if isinstance(transition, str):
            request.transition.label = transition
        else:
            request.transition.id = transition
        return self.call(ChangeState, "deer/change_state", request).success

    def reset(self):
        return self.call(Trigger, "deer/reset", Trigger.Request())

    def pause(self, paused: bool):
        return self.call(SetBool, "deer/pause", SetBool.Request(data=paused))

    def end(self, wanted: signal.Signals, timeout_s: float) -> int:
        """Send a signal; the exit code. subprocess.TimeoutExpired where there is none in time."""
        self.process.send_signal(wanted)
        return self.process.wait(timeout_s)

    def _take_twist(self, message: TwistStamped) -> None:
        self.twist_times.append(time.monotonic())
        self.twists.append(message)


def image(value: int = 100, height: int = HEIGHT, width: int = WIDTH, **changes) -> Image:
    """A grey picture; `changes` are fields of the message."""
    rgb = np.full((height, width, 3), value, np.uint8)
    message = Image(height=height, width=width, encoding="rgb8", step=3 * width,
                    data=array("B", rgb.tobytes()))
    for name, field in changes.items():
        setattr(message, name, field)
    return message


def compressed_image(value: int = 100) -> CompressedImage:
    """A grey picture as a camera's JPEG."""
    _, data = cv2.imencode(".jpg", np.full((HEIGHT, WIDTH, 3), value, np.uint8))
    return CompressedImage(format="jpeg", data=array("B", data.tobytes()))


def moves(twist: TwistStamped) -> bool:
    parts = (twist.twist.linear, twist.twist.angular)
    return any(value != 0 for part in parts for value in (part.x, part.y, part.z))


def _messages(values: dict):
    return [Parameter(name.replace("__", "."), value=value).to_parameter_msg()
            for name, value in values.items()]


def _start(folder: Path, parameters: dict, log: Path) -> subprocess.Popen:
    content = {name.replace("__", "."): value for name, value in parameters.items()}
    path = folder / "policy.yaml"
    # JSON is YAML.
    path.write_text(json.dumps({"/**": {"ros__parameters": content}}))
    script = Path(__file__).with_name("obedient_policy_node.py")
    root = str(script.parents[1])
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])}
    with log.open("wb") as stream:
        return subprocess.Popen(
            [sys.executable, str(script), "--ros-args", "--params-file", str(path)],
            env=environment, stdin=subprocess.DEVNULL, stdout=stream, stderr=subprocess.STDOUT)

"""The simulated robot in a process and a ROS domain of its own, and a client that talks to it."""

from __future__ import annotations

import contextlib
import time

import numpy as np
import pytest
import rclpy
from deer_ros.msg import EndEffectorAction, SimulatorEpisode
from geometry_msgs.msg import PoseStamped, TwistStamped
from rcl_interfaces.srv import SetParameters
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from rclpy.qos import (
    DurabilityPolicy,
    QoSProfile,
    ReliabilityPolicy,
    qos_profile_sensor_data,
)
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import Float64, String
from std_srvs.srv import Trigger

from deer_ros.nodes.children import NodeProcess
from deer_ros.nodes.domain import isolate, reserved_domain
from deer_ros.nodes.stamps import to_nanoseconds, to_time

LATCHED = QoSProfile(depth=100, reliability=ReliabilityPolicy.RELIABLE,
                     durability=DurabilityPolicy.TRANSIENT_LOCAL)
WAIT_S = 180.0


@contextlib.contextmanager
def running_simulator(folder, sees=True, **parameters):
    """(client, process) of a simulator with these parameters. sees: the client takes pictures."""
    with contextlib.ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        for name in ("ROS_DOMAIN_ID", "ROS_AUTOMATIC_DISCOVERY_RANGE", "ROS_LOCALHOST_ONLY"):
            patch.setenv(name, "")
        domain = stack.enter_context(reserved_domain())
        isolate(domain)
        process = stack.enter_context(NodeProcess("sim_node", parameters, folder))
        client = SimClient(domain, process, sees)
        stack.callback(client.close)
        client.wait(lambda: client.episodes and client.joints)
        yield client, process


class SimClient:
    """Keeps every message by stamp; publishes what a policy or a person would."""

    def __init__(self, domain: int, process: NodeProcess, sees: bool = True):
        self._process = process
        self._context = rclpy.Context()
        rclpy.init(context=self._context, domain_id=domain)
        self.node = rclpy.create_node("client", context=self._context)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self.node)

        self.static: dict[int, Image] = {}
        self.gripper: dict[int, Image] = {}
        self.joints: dict[int, list[float]] = {}
        self.poses: dict[int, np.ndarray] = {}
        self.sent: list[int] = []
        self.clock: list[int] = []
        self.instructions: list[str] = []
        self.episodes: list[SimulatorEpisode] = []
        sensor = qos_profile_sensor_data
        for kind, topic, take, qos in (
            (JointState, "joint_states",
             self._by_stamp(self.joints, lambda m: list(m.position)), sensor),
            (PoseStamped, "end_effector/pose", self._by_stamp(self.poses, position), sensor),
            (Clock, "/clock", lambda m: self.clock.append(to_nanoseconds(m.clock)), sensor),
            (String, "instruction", lambda m: self.instructions.append(m.data), LATCHED),
            (SimulatorEpisode, "simulated_robot/episode", self.episodes.append, LATCHED),
        ):
            self.node.create_subscription(kind, topic, take, qos)
        if sees:
            self.node.create_subscription(Image, "camera/static/image", self._take_static, sensor)
            self.node.create_subscription(Image, "camera/gripper/image",
                                          self._by_stamp(self.gripper), sensor)
        self._action = self.node.create_publisher(EndEffectorAction, "deer/action", 10)
        self._twist = self.node.create_publisher(TwistStamped, "deer/twist", 10)
        self._opening = self.node.create_publisher(Float64, "deer/gripper", 10)
        self._set = self.node.create_client(SetParameters, "simulated_robot/set_parameters")
        self._reset = self.node.create_client(Trigger, "simulated_robot/reset")

    def close(self) -> None:
        self._executor.shutdown()
        self.node.destroy_node()
        rclpy.shutdown(context=self._context)

    def wait(self, condition, timeout_s: float = WAIT_S) -> None:
        assert self.holds_within(condition, timeout_s), "waited in vain"

    def holds_within(self, condition, timeout_s: float) -> bool:
        deadline_s = time.monotonic() + timeout_s
        while not condition():
            if time.monotonic() > deadline_s:
                return False
            self._process.check()
            self._executor.spin_once(timeout_sec=0.02)
        return True

    def call(self, client, request):
        self.wait(client.service_is_ready)
        future = client.call_async(request)
        self.wait(future.done)
        return future.result()

    def set(self, **parameters):
        """The result of setting the last one; they are set one after the other."""
        request = SetParameters.Request(parameters=[
            Parameter(name, value=value).to_parameter_msg() for name, value in parameters.items()])
        return self.call(self._set, request).results[-1]

    def reset(self, **parameters) -> SimulatorEpisode:
        """Sets the parameters and resets; returns the new episode's first account."""
        if parameters:
            result = self.set(**parameters)
            assert result.successful, result.reason
        before = self.episodes[-1].reset
        answer = self.call(self._reset, Trigger.Request())
        assert answer.success, answer.message
        self.wait(lambda: self.episodes[-1].reset > before)
        return next(e for e in self.episodes if e.reset > before)

    @property
    def stamp_ns(self) -> int:
        """Of the newest static picture."""
        return max(self.static)

    def wait_for_pictures(self, after_ns: int) -> int:
        """The stamp of the first complete set of messages after that time."""
        def complete():
            stamps = set(self.static) & set(self.gripper) & set(self.joints) & set(self.poses)
            return sorted(stamp for stamp in stamps if stamp > after_ns)
        self.wait(complete)
        return complete()[0]

    def answer(self, stamp_ns: int, action=(0.0,) * 6, gripper=1.0, commanded=True,
               instruction=None, executions=1) -> None:
        """An action for the pictures of that stamp, as the policy node publishes it."""
        self.wait(lambda: self._action.get_subscription_count() and self.instructions)
        message = EndEffectorAction(
            static_stamp=to_time(stamp_ns), gripper_stamp=to_time(stamp_ns),
            instruction=self.instructions[-1] if instruction is None else instruction,
            action=np.asarray(action, np.float32), gripper=gripper, commanded=commanded,
            executions=executions)
        self._action.publish(message)

    def command(self, velocity, stamp_ns=None, frame_id="base_link") -> int:
        """Publishes a twist of now; returns its stamp."""
        if stamp_ns is None:
            stamp_ns = self.node.get_clock().now().nanoseconds
        twist = TwistStamped()
        twist.header.stamp = to_time(stamp_ns)
        twist.header.frame_id = frame_id
        twist.twist.linear.x, twist.twist.linear.y, twist.twist.linear.z = map(float, velocity)
        self._twist.publish(twist)
        return stamp_ns

    def open_gripper(self, opening: float) -> None:
        self._opening.publish(Float64(data=opening))

    def _take_static(self, image: Image) -> None:
        self.sent.append(to_nanoseconds(image.header.stamp))
        self.static[self.sent[-1]] = image

    @staticmethod
    def _by_stamp(kept: dict, convert=lambda message: message):
        return lambda m: kept.__setitem__(to_nanoseconds(m.header.stamp), convert(m))


def position(pose: PoseStamped) -> np.ndarray:
    place = pose.pose.position
    return np.array([place.x, place.y, place.z])

"""What the node listens to: images, the robot's state, the instruction."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from geometry_msgs.msg import PoseStamped
from rclpy.node import Node
from rclpy.qos import (
    DurabilityPolicy,
    QoSProfile,
    ReliabilityPolicy,
    qos_profile_sensor_data,
)
from sensor_msgs.msg import CompressedImage, Image, JointState
from std_msgs.msg import String

from deer_ros.control.sampler import CAMERAS
from deer_ros.data import images
from deer_ros.nodes.qos import QUIET
from deer_ros.nodes.stamps import to_nanoseconds
from deer_ros.stepping.robot import RobotState, pose_of
from deer_ros.stepping.settings import Settings

WARN_EVERY_S = 5.0


class Listener(Protocol):
    """Whom the inputs are told to. All calls come from the executor's thread."""

    def take_image(self, camera: str, stamp_ns: int, message: Image | CompressedImage) -> None:
        """A picture whose header and size are sound; its pixels have not been looked at."""

    def refuse_image(self, camera: str, sentence: str) -> None:
        """A picture that cannot be read."""

    def set_instruction(self, text: str) -> None:
        """A text that was published."""


class Inputs:
    """The subscriptions. `state` may be read in any thread."""

    def __init__(
        self, node: Node, listener: Listener, frame_id: Callable[[], str]
    ) -> None:
        self.state = RobotState()
        self._node = node
        self._listener = listener
        self._frame_id = frame_id
        self._images: list = []
        node.create_subscription(
            JointState, "joint_states", self._on_joints, qos_profile_sensor_data)
        node.create_subscription(
            PoseStamped, "end_effector/pose", self._on_pose, qos_profile_sensor_data)
        # A volatile publisher does not match a transient-local subscription, and to a volatile one
        # nothing is sent that was published before.
        for durability in (DurabilityPolicy.VOLATILE, DurabilityPolicy.TRANSIENT_LOCAL):
            qos = QoSProfile(
                depth=1, reliability=ReliabilityPolicy.RELIABLE, durability=durability)
            node.create_subscription(
                String, "instruction", self._on_instruction, qos, event_callbacks=QUIET)

    def forget(self) -> None:
        """What the robot said of itself no longer counts."""
        self.state = RobotState()

    def forget_pose(self) -> None:
        """Where the end effector is no longer counts."""
        self.state = self.state.without_pose()

    def open_cameras(self, settings: Settings) -> None:
        """Subscribe to both cameras."""
        compressed = settings.image_transport == "compressed"
        kind, suffix = (CompressedImage, "/compressed") if compressed else (Image, "")
        reliable = settings.image_reliability == "reliable"
        qos = QoSProfile(
            depth=1,
            reliability=ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT,
        )
        for camera in CAMERAS:
            self._images.append(self._node.create_subscription(
                kind, f"camera/{camera}/image{suffix}", self._receiver(camera), qos))

    def close_cameras(self) -> None:
        """End the subscriptions to the cameras."""
        while self._images:
            self._node.destroy_subscription(self._images.pop())

    def _receiver(self, camera: str) -> Callable[[Image | CompressedImage], None]:
        def receive(message: Image | CompressedImage) -> None:
            try:
                images.check(message)
            except ValueError as error:
                self._listener.refuse_image(camera, str(error))
            else:
                stamp_ns = to_nanoseconds(message.header.stamp)
                self._listener.take_image(camera, stamp_ns, message)

        return receive

    def _on_joints(self, message: JointState) -> None:
        stamp_ns = to_nanoseconds(message.header.stamp)
        self.state = self.state.with_joints(message, stamp_ns)

    def _on_pose(self, message: PoseStamped) -> None:
        try:
            pose = pose_of(message, self._frame_id())
        except ValueError as error:
            self._node.get_logger().warning(
                f"a pose on end_effector/pose was refused: {error}",
                throttle_duration_sec=WARN_EVERY_S,
            )
            return
        stamp_ns = to_nanoseconds(message.header.stamp)
        self.state = self.state.with_pose(pose, stamp_ns)

    def _on_instruction(self, message: String) -> None:
        self._listener.set_instruction(message.data)

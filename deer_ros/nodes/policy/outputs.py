"""The node's publishers."""

from __future__ import annotations

from array import array

import cv2
import numpy as np
from geometry_msgs.msg import PoseStamped, TwistStamped
from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image
from std_msgs.msg import Float64

from deer_ros.control.command import Command, Pose
from deer_ros.msg import EndEffectorAction, PolicyStatus
from deer_ros.nodes.policy import messages
from deer_ros.stepping.stepper import Account

RELIABLE = QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE)
LATCHED = QoSProfile(
    depth=1,
    reliability=ReliabilityPolicy.RELIABLE,
    durability=DurabilityPolicy.TRANSIENT_LOCAL,
)
BEST_EFFORT = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
DEBUG_HEIGHT = 240


class Outputs:
    """Everything but diagnostics. Methods may be called from any thread."""

    def __init__(self, node: Node, frame_id: str) -> None:
        self.frame_id = frame_id
        self._clock = node.get_clock()
        self._action = node.create_publisher(EndEffectorAction, "~/action", RELIABLE)
        self._twist = node.create_publisher(TwistStamped, "~/twist", RELIABLE)
        self._target_pose = node.create_publisher(PoseStamped, "~/target_pose", RELIABLE)
        self._gripper = node.create_publisher(Float64, "~/gripper", LATCHED)
        self._status = node.create_publisher(PolicyStatus, "~/status", RELIABLE)
        self._debug_image = node.create_publisher(Image, "~/debug_image", BEST_EFFORT)

    def now_ns(self) -> int:
        """The time that goes into headers."""
        return self._clock.now().nanoseconds

    def action(self, account: Account) -> None:
        """What the model answered."""
        frame_id = account.plan.settings.action_frame_id
        self._action.publish(messages.action(account, self.now_ns(), frame_id))

    def twist(self, command: Command | None) -> None:
        """A velocity; None is zero."""
        self._twist.publish(messages.twist(command, self.now_ns(), self.frame_id))

    def target_pose(self, target: Pose) -> None:
        """Where the end effector shall be one step later."""
        self._target_pose.publish(messages.pose(target, self.now_ns(), self.frame_id))

    def gripper(self, opening: float) -> None:
        """0 closed .. 1 open."""
        self._gripper.publish(Float64(data=opening))

    def status(self, message: PolicyStatus) -> None:
        """The header is filled in here."""
        message.header = messages.header(self.now_ns(), self.frame_id)
        self._status.publish(message)

    def wants_debug_image(self) -> bool:
        """Whether anybody would see it."""
        return self._debug_image.get_subscription_count() > 0

    def debug_image(self, static: np.ndarray, gripper: np.ndarray, text: str) -> None:
        """Both pictures, uint8 RGB, side by side, with a line of text."""
        canvas = np.hstack([_with_height(static), _with_height(gripper)])
        cv2.putText(canvas, text, (6, DEBUG_HEIGHT - 8), cv2.FONT_HERSHEY_SIMPLEX, 0.45,
                    (255, 255, 0), 1, cv2.LINE_AA)
        height, width, _ = canvas.shape
        message = Image(height=height, width=width, encoding="rgb8", step=3 * width)
        message.header = messages.header(self.now_ns(), "")
        # Anything but an array is checked byte by byte.
        message.data = array("B", canvas.tobytes())
        self._debug_image.publish(message)

    def flush(self, timeout_s: float) -> None:
        """Wait until the last twist has reached its subscribers."""
        self._twist.wait_for_all_acked(Duration(seconds=timeout_s))


def _with_height(picture: np.ndarray) -> np.ndarray:
    height, width, _ = picture.shape
    return cv2.resize(picture, (max(1, round(width * DEBUG_HEIGHT / height)), DEBUG_HEIGHT))

"""What the simulated robot publishes, as messages."""

from __future__ import annotations

from array import array

import cv2
import numpy as np
from geometry_msgs.msg import PoseStamped
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy, qos_profile_sensor_data
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import String

from deer_ros.msg import SimulatorEpisode
from deer_ros.nodes.stamps import to_time
from deer_ros.sim.robot import SimulatedRobot

LATCHED = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE,
                     durability=DurabilityPolicy.TRANSIENT_LOCAL)


class SimOutputs:
    """Publishers of everything that a real robot would send, and of the episode's outcome."""

    def __init__(self, node: Node, robot: SimulatedRobot, frame_id: str, height: int, width: int):
        """height, width: of the published pictures, whatever the robot draws."""
        self._robot = robot
        self._frame_id = frame_id
        self._size = (width, height)
        sensor = qos_profile_sensor_data
        self._static = node.create_publisher(Image, "camera/static/image", sensor)
        self._gripper = node.create_publisher(Image, "camera/gripper/image", sensor)
        self._joints = node.create_publisher(JointState, "joint_states", sensor)
        self._pose = node.create_publisher(PoseStamped, "end_effector/pose", sensor)
        self._instruction = node.create_publisher(String, "instruction", LATCHED)
        self._episode = node.create_publisher(SimulatorEpisode, "~/episode", LATCHED)
        self._clock = None
        self._node = node

    def publish_clock(self, stamp_ns: int) -> None:
        """Only a simulator in lockstep owns the time; another must not announce the topic."""
        if self._clock is None:
            self._clock = self._node.create_publisher(Clock, "/clock", 10)
        self._clock.publish(Clock(clock=to_time(stamp_ns)))

    def publish_instruction(self) -> None:
        self._instruction.publish(String(data=self._robot.instruction))

    def publish_state(self, stamp_ns: int) -> None:
        """Joint states and the end effector's pose."""
        joints = JointState(name=list(self._robot.joint_names),
                            position=[float(angle) for angle in self._robot.joint_positions()])
        joints.header.stamp = to_time(stamp_ns)
        self._joints.publish(joints)

        pose = PoseStamped()
        pose.header.stamp = to_time(stamp_ns)
        pose.header.frame_id = self._frame_id
        place, turn = pose.pose.position, pose.pose.orientation
        place.x, place.y, place.z = map(float, self._robot.end_effector_position())
        turn.x, turn.y, turn.z, turn.w = map(float, self._robot.end_effector_quaternion())
        self._pose.publish(pose)

    def publish_pictures(self, stamp_ns: int, static: np.ndarray, gripper: np.ndarray) -> None:
        """static, gripper: uint8 (H, W, 3) RGB."""
        self._static.publish(image_message(self._sized(static), stamp_ns, "static_camera"))
        self._gripper.publish(image_message(self._sized(gripper), stamp_ns, "gripper_camera"))

    def _sized(self, picture: np.ndarray) -> np.ndarray:
        is_sized = picture.shape[:2] == self._size[::-1]
        return picture if is_sized else cv2.resize(picture, self._size)

    def publish_episode(self, stamp_ns: int, seed: int, reset: int, step: int, done: bool) -> None:
        episode = SimulatorEpisode(
            task=self._robot.task, seed=seed, instruction=self._robot.instruction,
            reset=reset, step=step, success=bool(self._robot.success), done=done)
        episode.header.stamp = to_time(stamp_ns)
        self._episode.publish(episode)


def image_message(rgb: np.ndarray, stamp_ns: int, frame_id: str) -> Image:
    """rgb: uint8 (H, W, 3)."""
    height, width, _ = rgb.shape
    message = Image(height=height, width=width, encoding="rgb8", step=3 * width)
    message.header.stamp = to_time(stamp_ns)
    message.header.frame_id = frame_id
    # Anything but an array is checked byte by byte in Python, 65 ms for a small picture.
    message.data = array("B", rgb.tobytes())
    return message

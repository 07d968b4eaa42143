"""What the robot says of itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from deer_ros.control.command import Pose
from deer_ros.control.rotation import normalised
from deer_ros.control.safety import Input, age_s, stale
from deer_ros.data.episode import POSE_NAMES, columns_of, joint_names

JOINTS = "joint_states"


@dataclass(frozen=True)
class Joint:
    """stamp_ns: of the newest message that names it. repeats: those that have come since without a
    newer stamp."""

    position: float
    stamp_ns: int
    repeats: int = 0


@dataclass(frozen=True)
class RobotState:
    """The newest of what the robot says of itself; None and stamp 0 where nothing has come.

    pose_repeats: messages that have come since without a newer stamp. joints: as `proprioception`
    calls them; several publishers may share their topic.
    """

    pose: Pose | None = None
    pose_stamp_ns: int = 0
    pose_repeats: int = 0
    joints: Mapping[str, Joint] = field(default_factory=dict)

    def with_pose(self, pose: Pose, stamp_ns: int) -> RobotState:
        """After one more pose."""
        repeats = _repeats(self.pose_repeats, self.pose_stamp_ns, stamp_ns)
        return replace(self, pose=pose, pose_stamp_ns=stamp_ns, pose_repeats=repeats)

    def without_pose(self) -> RobotState:
        """As if none had come."""
        return replace(self, pose=None, pose_stamp_ns=0, pose_repeats=0)

    def with_joints(self, message: Any, stamp_ns: int) -> RobotState:
        """After one more sensor_msgs/JointState. Some drivers send velocities alone."""
        joints = dict(self.joints)
        for name, position in zip(joint_names(message.name), message.position):
            before = joints.get(name)
            repeats = 0 if before is None else _repeats(before.repeats, before.stamp_ns, stamp_ns)
            joints[name] = Joint(position, stamp_ns, repeats)
        return replace(self, joints=joints)

    def pose_input(self, now_ns: int, is_needed: bool = True) -> Input:
        """The pose's topic."""
        age = age_s(now_ns, self.pose_stamp_ns or None)
        return Input("end_effector/pose", age, self.pose_repeats, is_needed)

    def joints_input(self, now_ns: int, layout: Sequence[str] = ()) -> Input:
        """The joints' topic, as old as the oldest joint of `layout`, or of all where that names
        none: a publisher that lives on hides none that is dead."""
        named = [name for name in layout if name not in POSE_NAMES]
        missing = [name for name in named if name not in self.joints]
        counted = named or list(self.joints)
        if missing or not counted:
            part = f"{', '.join(missing)} (it has {', '.join(self.joints)})" if self.joints else ""
            return Input(JOINTS, None, is_needed=bool(named), part=part)
        name = min(counted, key=lambda name: self.joints[name].stamp_ns)
        oldest = self.joints[name]
        age = age_s(now_ns, oldest.stamp_ns or None)
        return Input(JOINTS, age, oldest.repeats, bool(named), name)

    def recent_pose(self, now_ns: int, timeout_s: float) -> Pose | None:
        """The newest pose, unless it is too old to start from, or of the future."""
        return None if stale([self.pose_input(now_ns)], timeout_s) else self.pose

    def proprioception(self, layout: Sequence[str]) -> np.ndarray:
        """The values that `layout` names, float32 (P,), as bags and models call them.

        Raises ValueError for what the robot has not said, or said to be NaN or infinite.
        """
        said: dict[str, float] = {}
        if self.pose is not None:
            said |= zip(POSE_NAMES, (*self.pose.position, *self.pose.orientation))
        said |= {name: joint.position for name, joint in self.joints.items()}
        try:
            columns = columns_of(layout, list(said))
        except ValueError as error:
            raise ValueError(f"{error}; joint_states and end_effector/pose say it.") from error
        values = np.array(list(said.values()), np.float32)[columns]
        if not np.isfinite(values).all():
            raise ValueError(
                f"{layout[int(np.isfinite(values).argmin())]} of the robot is not finite."
            )
        return values


def _repeats(repeats: int, before_ns: int, stamp_ns: int) -> int:
    return repeats + 1 if stamp_ns == before_ns else 0


def pose_of(message: Any, frame_id: str) -> Pose:
    """The pose in a geometry_msgs/PoseStamped. ValueError unless it is a pose in `frame_id`."""
    if message.header.frame_id != frame_id:
        raise ValueError(
            f"it is in the frame {message.header.frame_id!r}, action.frame_id is {frame_id!r}, and "
            "poses are not transformed."
        )
    place, turn = message.pose.position, message.pose.orientation
    position = np.array([place.x, place.y, place.z])
    if not np.isfinite(position).all():
        raise ValueError(f"its position is {position.tolist()}.")
    return Pose(position, normalised(np.array([turn.x, turn.y, turn.z, turn.w])))

"""What the robot says of itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from deer_ros.control.command import Pose
from deer_ros.control.rotation import normalised


@dataclass(frozen=True)
class RobotState:
    """The newest of what the robot says of itself; None and stamp 0 where nothing has come.

    joints: a sensor_msgs/JointState, as it came.
    """

    pose: Pose | None = None
    pose_stamp_ns: int = 0
    joints: Any = None
    joints_stamp_ns: int = 0


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

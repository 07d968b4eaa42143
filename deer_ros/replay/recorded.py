"""What was done when the bag was recorded, in the model's units."""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np

from deer_ros.data.units import ActionUnits, check_units, from_twist
from deer_ros.replay.messages import stamp_ns
from deer_ros.replay.topics import Topics

# A command of that age or more belongs to another picture. One that belongs to a picture may be
# recorded that much after it.
OLDEST_NS = 500_000_000
TOLERANCE_NS = 1_000_000
KEPT = 4096
_OPEN = 0.5


class Recorded:
    """Takes what was recorded as it comes, and says what belongs to a picture.

    The node's own actions, where it ran when the bag was recorded, are taken by the stamp of their
    picture; or else velocities and openings, the newest at the picture's time.
    """

    def __init__(self, units: ActionUnits, topics: Topics) -> None:
        self.notes: list[str] = []
        self._units = units
        self._topics = topics
        self._twists: deque[tuple[int, np.ndarray]] = deque(maxlen=KEPT)
        self._openings: deque[tuple[int, float]] = deque(maxlen=KEPT)
        self._actions: dict[int, np.ndarray] = {}
        try:
            check_units(units)
            self._comparable = True
        except ValueError as error:
            self._comparable = False
            self._reason = str(error)

    def twist(self, message: Any) -> None:
        """A geometry_msgs/TwistStamped, m/s and rad/s."""
        if not self._comparable:
            note = f"{self._topics.twist} is not compared with: {self._reason}"
            if note not in self.notes:
                self.notes.append(note)
            return
        parts = (message.twist.linear, message.twist.angular)
        values = np.array([getattr(part, axis) for part in parts for axis in "xyz"])
        if not np.isfinite(values).all():
            raise ValueError("a velocity is not finite.")
        self._twists.append((stamp_ns(message.header.stamp), from_twist(values, self._units)))

    def opening(self, recorded_ns: int, message: Any) -> None:
        """A std_msgs/Float64, 0 closed to 1 open."""
        if not np.isfinite(message.data):
            raise ValueError("an opening of the gripper is not finite.")
        self._openings.append((recorded_ns, float(message.data)))

    def action(self, message: Any) -> None:
        """A deer_ros/EndEffectorAction."""
        values = np.append(np.asarray(message.action, np.float32), np.float32(message.gripper))
        self._actions[stamp_ns(message.static_stamp)] = values

    def at(self, static_ns: int) -> np.ndarray | None:
        """float32 (7,), the gripper -1 or +1, NaN where it was not recorded; None: nothing was."""
        if static_ns in self._actions:
            return self._actions[static_ns]
        twist = _newest(self._twists, static_ns)
        if twist is None or static_ns - twist[0] > OLDEST_NS:
            return None
        opening = _newest(self._openings, static_ns)
        gripper = np.nan if opening is None else (1.0 if opening[1] >= _OPEN else -1.0)
        return np.append(twist[1], np.float32(gripper)).astype(np.float32)


def _newest(column: deque, time_ns: int) -> tuple | None:
    """The last that came and is not after the time."""
    return next((item for item in reversed(column) if item[0] <= time_ns + TOLERANCE_NS), None)

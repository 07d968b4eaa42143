"""What was done when the bag was recorded, in the model's units."""

from __future__ import annotations

from typing import Any

import numpy as np

from deer_ros.data.columns import Column
from deer_ros.data.stamps import stamp_ns
from deer_ros.data.units import ActionUnits, from_twist

# A command that is older belongs to another picture. One that belongs to a picture may be recorded
# that much after it.
OLDEST_NS = 500_000_000
_OPEN = 0.5
# A measured opening may go a little beyond its ends.
_BEYOND = 0.1


class Recorded:
    """Takes what was recorded as it comes, and says what belongs to a picture.

    The node's own actions, where it ran when the bag was recorded, are taken by the stamp of their
    picture; or else velocities and openings, the newest at the picture's time. A gripper may be
    commanded on change only, so that its opening is never too old.
    """

    def __init__(self, units: ActionUnits) -> None:
        """units: of the actions that `at` gives. Velocities must be in their frame."""
        self._units = units
        self._twists: Column[np.ndarray | None] = Column()
        self._openings: Column[float | None] = Column()
        self._actions: dict[int, np.ndarray] = {}

    def twist(self, message: Any) -> None:
        """A geometry_msgs/TwistStamped, m/s and rad/s."""
        parts = (message.twist.linear, message.twist.angular)
        values = np.array([getattr(part, axis) for part in parts for axis in "xyz"])
        self._twists.add(stamp_ns(message.header.stamp), from_twist(values, self._units))

    def opening(self, recorded_ns: int, message: Any) -> None:
        """A std_msgs/Float64, 0 closed to 1 open. ValueError where it is something else."""
        value = float(message.data)
        if np.isfinite(value) and not -_BEYOND <= value <= 1 + _BEYOND:
            # Without the number: whoever counts these sentences has two of them at most.
            raise ValueError(
                f"an opening of the gripper is {'above 1' if value > 1 else 'below 0'}; it must be "
                "from 0, closed, to 1, open"
            )
        self._openings.add(recorded_ns, value)

    def action(self, message: Any) -> None:
        """A deer_ros/EndEffectorAction."""
        values = np.append(np.asarray(message.action, np.float32), np.float32(message.gripper))
        self._actions[stamp_ns(message.static_stamp)] = values

    def lost_twist(self, recorded_ns: int) -> None:
        """A velocity that cannot be read: nobody knows what was done until the next."""
        self._twists.add(recorded_ns, None)

    def lost_opening(self, recorded_ns: int) -> None:
        """An opening that cannot be read."""
        self._openings.add(recorded_ns, None)

    def at(self, static_ns: int) -> np.ndarray | None:
        """float32 (7,), the gripper -1 or +1, NaN where it was not recorded; None: nothing was."""
        if static_ns in self._actions:
            return self._actions[static_ns]
        twist = self._twists.newest(static_ns, OLDEST_NS)
        if twist is None:
            return None
        opening = self._openings.newest(static_ns)
        gripper = np.nan
        if opening is not None and np.isfinite(opening):
            gripper = 1.0 if opening >= _OPEN else -1.0
        return np.append(twist, np.float32(gripper)).astype(np.float32)

    def whole_at(self, static_ns: int) -> np.ndarray | None:
        """As `at`; None where something lacks."""
        return None if self.lacks(static_ns) else self.at(static_ns)

    def lacks(self, static_ns: int) -> set[str]:
        """Which of `twist` and `opening` are not known for that picture, and no action either."""
        if static_ns in self._actions:
            return set()
        known = {
            "twist": self._twists.newest(static_ns, OLDEST_NS),
            "opening": self._openings.newest(static_ns),
        }
        return {kind for kind, value in known.items() if value is None}

    def forget_before(self, time_ns: int) -> None:
        """Drop what no picture of that time or later needs."""
        self._twists.forget_before(time_ns)
        self._openings.forget_before(time_ns)
        for old in [stamp for stamp in self._actions if stamp < time_ns]:
            del self._actions[old]

    def forget(self) -> None:
        """Drop all: the clock was set."""
        self._twists.clear()
        self._openings.clear()
        self._actions.clear()

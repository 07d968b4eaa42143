"""What was said beside the pictures of a recording, and what of it belongs to a picture."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from deer_ros.data.columns import Column
from deer_ros.data.recorded import OLDEST_NS, Recorded
from deer_ros.data.stamps import stamp_ns
from deer_ros.data.units import ActionUnits

SENSED = ("pose", "joints", "state")
COMMANDS = ("twist", "opening", "action")
UNSTAMPED = ("opening", "state")
WORLD = "world"
# No recorder writes a message down that long after it was stamped.
OTHER_CLOCK_NS = 60_000_000_000


class Said:
    """Takes messages as they come, by what they are for: one of SENSED or COMMANDS.

    Joints are known by their names: several publishers may share the topic. What nobody has said by
    the end of an episode is no part of it.
    """

    def __init__(self, kinds: Mapping[str, str], units: ActionUnits, frame_id: str) -> None:
        """
        Args:
            kinds: what each topic that is there is for.
            units: of the actions.
            frame_id: what the robot calls the fixed frame of poses and velocities.
        """
        self._topics = {kind: topic for topic, kind in kinds.items()}
        self._frame_id = frame_id
        self._frame_ids: dict[str, str] = {}
        self._columns: defaultdict[str, Column] = defaultdict(Column)
        self._joints: dict[str, float] = {}
        self._recorded = Recorded(units)
        self._newest_ns: dict[str, int] = {}
        self._has_actions = not self._topics.keys().isdisjoint(COMMANDS)

    def add(self, kind: str, recorded_ns: int, message: Any) -> None:
        """One more. ValueError where it does not mean what its topic is for."""
        header = getattr(message, "header", None)
        time_ns = recorded_ns if header is None else stamp_ns(header.stamp)
        self._newest_ns[kind] = max(time_ns, self._newest_ns.get(kind, time_ns))
        if kind in ("pose", "twist"):
            self._check_frame(kind, header.frame_id)
        if kind == "twist":
            self._recorded.twist(message)
        elif kind == "opening":
            self._recorded.opening(recorded_ns, message)
        elif kind == "joints":
            self._add_joints(time_ns, message)
        elif kind in SENSED:
            self._columns[kind].add(time_ns, message)
        elif message.commanded:
            self._recorded.action(message)

    def lose(self, kind: str, recorded_ns: int) -> None:
        """Nobody knows what was said: what was said before does not stand for it."""
        if kind in SENSED:
            self._columns[kind].add(recorded_ns, None)
        elif kind == "twist":
            self._recorded.lost_twist(recorded_ns)
        elif kind == "opening":
            self._recorded.lost_opening(recorded_ns)

    def at(self, times_ns: Sequence[int], late_ns: int) -> list[dict[str, Any] | None]:
        """What belongs to each static picture of an episode, by kind; None where something lacks.

        SENSED values are messages, but joints are positions by name; `action` is float32 (7,).

        Args:
            times_ns: of the pictures.
            late_ns: how long after their stamps they were recorded.

        Raises:
            ValueError: no picture has all.
        """
        self._check_clock(late_ns)
        frames = [self._newest(time_ns) for time_ns in times_ns]
        _want_all_joints(frames)
        whole = [None if _lacks(frame) else frame for frame in frames]
        if all(frame is None for frame in whole):
            lacking = set().union(*map(self._lacking, frames, times_ns))
            named = " and ".join(map(self._named, sorted(lacking)))
            raise ValueError(f"no static picture has {named} at its time")
        return whole

    def forget_before(self, time_ns: int) -> None:
        """Drop what no picture of that time or later needs."""
        self._recorded.forget_before(time_ns)
        for column in self._columns.values():
            column.forget_before(time_ns)

    def forget(self) -> None:
        """Drop all: the clock was set."""
        self._recorded.forget()
        self._joints.clear()
        for column in self._columns.values():
            column.clear()

    def _check_frame(self, kind: str, frame_id: str) -> None:
        """Nothing is transformed. An empty name says nothing, and is taken for the fixed frame."""
        if not frame_id:
            return
        before = self._frame_ids.setdefault(kind, frame_id)
        if frame_id != before:
            raise ValueError(
                f"its frame_id changes from {before!r} to {frame_id!r}; it must stay what it is, "
                "since nothing is transformed"
            )
        if frame_id not in (WORLD, self._frame_id):
            hint = f"if it is the robot's fixed frame, give --param action.frame_id:={frame_id}"
            if kind == "pose":
                hint += "; if no model reads it, --remap end_effector/pose:=none leaves it out"
            raise ValueError(
                f"it is in the frame {frame_id!r} and must be in {self._frame_id!r} or {WORLD!r}, "
                f"since nothing is transformed ({hint})"
            )

    def _check_clock(self, late_ns: int) -> None:
        unstamped = [self._topics[kind] for kind in UNSTAMPED if kind in self._topics]
        if unstamped and abs(late_ns) > OTHER_CLOCK_NS:
            raise ValueError(
                f"messages of {' and '.join(unstamped)} have no stamp and were recorded on another "
                f"clock than the pictures', which are stamped {late_ns / 1e9:.0f} s before they "
                "were recorded"
            )

    def _add_joints(self, time_ns: int, message: Any) -> None:
        positions = dict(zip(message.name, map(float, message.position)))
        if positions:  # some drivers send velocities alone
            self._joints |= positions
            self._columns["joints"].add(time_ns, dict(self._joints))

    def _newest(self, time_ns: int) -> dict[str, Any]:
        frame = {
            kind: column.newest(time_ns, OLDEST_NS) for kind, column in self._columns.items()
        }
        if self._has_actions:
            frame["action"] = self._recorded.whole_at(time_ns)
        return frame

    def _lacking(self, frame: Mapping[str, Any], time_ns: int) -> set[str]:
        """As `_lacks`, by kinds that have a topic."""
        lacking = _lacks(frame)
        if "action" in lacking - self._topics.keys():
            lacking = lacking - {"action"} | self._recorded.lacks(time_ns)
        return lacking

    def _named(self, kind: str) -> str:
        unset = " (its stamps are all 0)" if self._newest_ns.get(kind) == 0 else ""
        return f"{self._topics[kind]}{unset}"


def _want_all_joints(frames: list[dict[str, Any]]) -> None:
    """A joint that is heard of later than others lacks before, as a topic does."""
    most = max(len(frame.get("joints") or ()) for frame in frames)
    for frame in frames:
        if len(frame.get("joints") or ()) < most:
            frame["joints"] = None


def _lacks(frame: Mapping[str, Any]) -> set[str]:
    return {kind for kind, value in frame.items() if value is None}

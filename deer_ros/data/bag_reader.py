"""Reads episodes out of bags, one in memory at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from deer_ros.data import bag_format as topics
from deer_ros.data.bag_format import BagError
from deer_ros.data.episode import POSE_NAMES, Episode, joint_names
from deer_ros.data.jpeg import decode_picture
from deer_ros.data.units import ActionUnits, check_units, from_twist

LONGEST_GAP_NS = 500_000_000
"""A longer time between two static pictures ends an episode; an older message is no partner."""

# A message without a stamp has only the time of its recording, a little after what it belongs to.
_TOLERANCE_NS = 1_000_000
_OPEN = 0.5


@dataclass
class _Recording:
    """The messages of one episode by topic, each with its time in ns."""

    instruction: str | None
    messages: dict[str, list[tuple[int, object]]] = field(default_factory=dict)

    def add(self, topic: str, time_ns: int, message: object) -> None:
        self.messages.setdefault(topic, []).append((time_ns, message))

    @property
    def has_pictures(self) -> bool:
        return topics.STATIC_TOPIC in self.messages

    def is_followed_by(self, static_stamp_ns: int) -> bool:
        """Whether a static picture of that time still belongs to this episode."""
        if not self.has_pictures:
            return True
        return 0 <= static_stamp_ns - self.messages[topics.STATIC_TOPIC][-1][0] <= LONGEST_GAP_NS


def read_episodes(path: str | Path, action: ActionUnits) -> Iterator[Episode]:
    """The episodes of a bag, or of all bags in a folder.

    Frames are the static camera's pictures; each is joined by the newest message of every other
    topic at its time. Frames that lack one, as at the start of a recording, are left out.

    Args:
        path: a bag's folder, an .mcap file, or a folder of bags.
        action: the units that the episodes' actions shall have.

    Raises:
        FileNotFoundError, ValueError: at once, where there is no bag at `path`, or where actions
            are not in the frame 'world'.
        BagError (a ValueError): while iterating, naming the bag that is damaged, lacks a topic
            or holds something that is no episode.
    """
    return read_all_episodes([path], action)


def read_all_episodes(
    paths: Iterable[str | Path],
    action: ActionUnits,
    on_bad: Callable[[ValueError], None] | None = None,
) -> Iterator[Episode]:
    """As `read_episodes`, for several bags or folders of bags, one after the other.

    on_bad: hears of every bag that cannot be read and every episode that cannot be used, which are
    left out then (of a bag that is damaged in the middle, what follows); None: they are refused.
    """
    check_units(action)
    found = [bag for path in paths for bag in topics.find_bags(path)]
    return (episode for bag in found for episode in _usable_episodes(bag, action, on_bad))


def _usable_episodes(
    path: Path, action: ActionUnits, on_bad: Callable[[ValueError], None] | None
) -> Iterator[Episode]:
    try:
        yield from _episodes_of_bag(path, action, on_bad)
    except BagError as error:
        if on_bad is None:
            raise
        on_bad(error)


def _episodes_of_bag(
    path: Path, action: ActionUnits, on_bad: Callable[[ValueError], None] | None
) -> Iterator[Episode]:
    with topics.open_bag(path) as reader:
        topics.check_topics(path, reader.connections)
        present = {c.topic for c in reader.connections if c.msgcount}
    count = 0
    for recording in _recordings(path):
        try:
            episode = _episode(recording, present, action, source=f"{path}#{count}")
        except ValueError as error:
            bad = BagError(path, f"episode {count} cannot be used: {error}")
            if on_bad is None:
                raise bad from error
            on_bad(bad)
        else:
            yield episode
        count += 1
    if count == 0:
        raise BagError(path, "it holds no picture that follows an instruction")


def _recordings(path: Path) -> Iterator[_Recording]:
    recording = _Recording(instruction=None)
    for topic, time_ns, message in _messages(path):
        if topic == topics.INSTRUCTION_TOPIC:
            if recording.has_pictures:
                yield recording
            recording = _Recording(message.data)
        elif recording.instruction is not None:
            if topic == topics.STATIC_TOPIC and not recording.is_followed_by(time_ns):
                yield recording
                recording = _Recording(recording.instruction)
            recording.add(topic, time_ns, message)
    if recording.has_pictures:
        yield recording


def _messages(path: Path) -> Iterator[tuple[str, int, object]]:
    """Topic, time (its header's stamp, or else when it was recorded) and message, as recorded."""
    with topics.open_bag(path) as reader:
        wanted = [c for c in reader.connections if c.topic in topics.MESSAGE_TYPES]
        for connection, recorded_ns, data in reader.messages(wanted):
            message = topics.TYPES.deserialize_cdr(data, connection.msgtype)
            yield connection.topic, _time_ns(message, recorded_ns), message


def _time_ns(message: object, recorded_ns: int) -> int:
    if not hasattr(message, "header"):
        return recorded_ns
    stamp = message.header.stamp
    return stamp.sec * 1_000_000_000 + stamp.nanosec


def _episode(
    recording: _Recording, present: set[str], action: ActionUnits, source: str
) -> Episode:
    columns = _frames(recording, present & topics.MESSAGE_TYPES.keys())
    messages = {topic: [message for _, message in column] for topic, column in columns.items()}
    proprioception, names = _proprioception(messages)
    return Episode(
        instruction=recording.instruction,
        static=_pictures(messages[topics.STATIC_TOPIC]),
        gripper=_pictures(messages[topics.GRIPPER_TOPIC]),
        stamps_ns=np.array([time_ns for time_ns, _ in columns[topics.STATIC_TOPIC]], np.int64),
        actions=_actions(messages, action),
        proprioception=proprioception,
        proprioception_names=names,
        state=_states(messages),
        source=source,
    )


def _frames(recording: _Recording, present: set[str]) -> dict[str, list[tuple[int, object]]]:
    """For every topic the messages that belong to the frames, as many as there are frames."""
    partners = present - {topics.STATIC_TOPIC, topics.INSTRUCTION_TOPIC}
    # One picture may have been published twice.
    statics = dict(recording.messages[topics.STATIC_TOPIC])
    stamps_ns = np.array(sorted(statics), np.int64)
    complete = np.ones(len(stamps_ns), bool)
    columns = {}
    for topic in partners:
        column = sorted(recording.messages.get(topic, []), key=lambda item: item[0])
        times_ns = np.array([time_ns for time_ns, _ in column], np.int64)
        newest = np.searchsorted(times_ns, stamps_ns + _TOLERANCE_NS, side="right") - 1
        complete &= newest >= 0
        # The gripper's command may be recorded on change only; all else has to be recent.
        if len(times_ns) and topic != topics.OPENING_TOPIC:
            complete &= stamps_ns - times_ns[newest] <= LONGEST_GAP_NS
        columns[topic] = (column, newest)
    if not complete.any():
        raise ValueError(f"no static picture has all of {', '.join(sorted(partners))} at its time")
    kept = np.flatnonzero(complete)
    frames = {
        topic: [column[i] for i in newest[kept]] for topic, (column, newest) in columns.items()
    }
    frames[topics.STATIC_TOPIC] = [(int(t), statics[int(t)]) for t in stamps_ns[kept]]
    return frames


def _pictures(messages: list) -> np.ndarray:
    pictures = [decode_picture(message.data) for message in messages]
    shapes = {picture.shape for picture in pictures}
    if len(shapes) > 1:
        raise ValueError(f"its pictures have several sizes: {sorted(shapes)}")
    return np.stack(pictures)


def _actions(messages: dict[str, list], units: ActionUnits) -> np.ndarray | None:
    if topics.TWIST_TOPIC not in messages or topics.OPENING_TOPIC not in messages:
        return None
    twists = np.array([_six(message.twist) for message in messages[topics.TWIST_TOPIC]])
    opening = np.array([message.data for message in messages[topics.OPENING_TOPIC]])
    gripper = np.where(opening >= _OPEN, 1.0, -1.0)
    gripper[~np.isfinite(opening)] = np.nan
    return np.column_stack([from_twist(twists, units), gripper]).astype(np.float32)


def _six(twist: object) -> list[float]:
    return [getattr(part, axis) for part in (twist.linear, twist.angular) for axis in "xyz"]


def _proprioception(messages: dict[str, list]) -> tuple[np.ndarray | None, tuple[str, ...]]:
    """Pose and joint positions, whichever were recorded, and their names if all have one."""
    parts: list[np.ndarray] = []
    names: list[str] = []
    if topics.POSE_TOPIC in messages:
        poses = [_seven(message.pose) for message in messages[topics.POSE_TOPIC]]
        parts.append(np.array(poses, np.float32))
        names += POSE_NAMES
    if joints := messages.get(topics.JOINTS_TOPIC):
        parts.append(_rows([message.position for message in joints], "joint positions"))
        if any(list(message.name) != list(joints[0].name) for message in joints):
            raise ValueError("the names of its joints, or their order, change")
        names += joint_names(joints[0].name)
    if not parts:
        return None, ()
    values = np.concatenate(parts, axis=1)
    return values, tuple(names) if len(names) == values.shape[1] else ()


def _seven(pose: object) -> list[float]:
    p, q = pose.position, pose.orientation
    return [p.x, p.y, p.z, q.x, q.y, q.z, q.w]


def _states(messages: dict[str, list]) -> np.ndarray | None:
    if topics.STATE_TOPIC not in messages:
        return None
    return _rows([message.data for message in messages[topics.STATE_TOPIC]], "state values")


def _rows(rows: list[np.ndarray], name: str) -> np.ndarray:
    sizes = {len(row) for row in rows}
    if len(sizes) > 1:
        raise ValueError(f"the number of its {name} changes: {sorted(sizes)}")
    return np.array(rows, dtype=np.float32)

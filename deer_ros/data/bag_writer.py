"""Writes episodes into a bag."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

import numpy as np
from rosbags.interfaces import Connection
from rosbags.rosbag2 import Writer

from deer_ros.data import bag_format as topics
from deer_ros.data.bag_format import TYPES
from deer_ros.data.episode import POSE_SIZE, Episode
from deer_ros.data.jpeg import encode_jpeg
from deer_ros.data.new_bag import new_bag
from deer_ros.data.units import ActionUnits, check_units, to_twist

FIRST_STAMP_NS = 1_000_000_000
PAUSE_NS = 2_000_000_000
"""Time between the last frame of an episode and the first of the next."""


class EpisodeBagWriter:
    """A context manager that writes a bag; it appears under its name only when it is complete.

    Episodes keep the distances between their stamps and are laid one after the other. An
    exception inside the `with` block removes what was written.
    """

    def __init__(
        self,
        path: str | Path,
        action: ActionUnits,
        *,
        joint_names: Sequence[str] = (),
        frame_id: str = "world",
        notes: Mapping[str, str] | None = None,
        replaces: bool = False,
    ) -> None:
        """
        Args:
            path: folder of the new bag; its parents are made.
            action: what one unit of the episodes' actions is.
            joint_names: names of the joints in the episodes' proprioception.
            frame_id: frame of poses and velocities.
            notes: for the bag's metadata, see `bag_notes`; more may be put into `.notes`
                before the block ends.
            replaces: a bag that is there makes way once this one is complete.
        """
        check_units(action)
        self.path = Path(path)
        self.notes = dict(notes or {})
        self._action = action
        self._joint_names = list(joint_names)
        self._frame_id = frame_id
        self._bag = new_bag(self.path, replaces)
        self._writer: Writer | None = None
        self._connections: dict[str, Connection] = {}
        self._next_stamp_ns = FIRST_STAMP_NS

    def __enter__(self) -> EpisodeBagWriter:
        self._writer = self._bag.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is None:
            for key, value in self.notes.items():
                self._writer.set_custom_data(key, value)
        self._bag.__exit__(kind, error, traceback)

    def write(self, episode: Episode) -> None:
        """Appends an episode.

        Raises:
            ValueError: its proprioception does not have one value for each joint name.
        """
        self._check_proprioception(episode)
        shift = self._next_stamp_ns - int(episode.stamps_ns[0])
        self._put(
            topics.INSTRUCTION_TOPIC,
            self._next_stamp_ns,
            _new("std_msgs/msg/String")(data=episode.instruction),
        )
        for index, stamp in enumerate(episode.stamps_ns):
            self._write_frame(episode, index, int(stamp) + shift)
        self._next_stamp_ns = int(episode.stamps_ns[-1]) + shift + PAUSE_NS

    def _write_frame(self, episode: Episode, index: int, stamp_ns: int) -> None:
        for topic, pictures in (
            (topics.STATIC_TOPIC, episode.static),
            (topics.GRIPPER_TOPIC, episode.gripper),
        ):
            self._put(topic, stamp_ns, _image(stamp_ns, topic.split("/")[2], pictures[index]))
        if episode.proprioception is not None:
            values = episode.proprioception[index].astype(np.float64)
            self._put(topics.POSE_TOPIC, stamp_ns, self._pose(stamp_ns, values[:POSE_SIZE]))
            self._put(topics.JOINTS_TOPIC, stamp_ns, self._joints(stamp_ns, values[POSE_SIZE:]))
        if episode.actions is not None:
            *pose, gripper = episode.actions[index]
            twist = to_twist(np.array(pose), self._action)
            self._put(topics.TWIST_TOPIC, stamp_ns, self._twist(stamp_ns, twist))
            opening = _new("std_msgs/msg/Float64")(data=float(gripper > 0))
            self._put(topics.OPENING_TOPIC, stamp_ns, opening)
        if episode.state is not None:
            self._put(topics.STATE_TOPIC, stamp_ns, _array(episode.state[index]))

    def _put(self, topic: str, stamp_ns: int, message: object) -> None:
        kind = topics.MESSAGE_TYPES[topic]
        if topic not in self._connections:
            self._connections[topic] = self._writer.add_connection(topic, kind, typestore=TYPES)
        data = TYPES.serialize_cdr(message, kind)
        self._writer.write(self._connections[topic], stamp_ns, data)

    def _check_proprioception(self, episode: Episode) -> None:
        if episode.proprioception is None:
            return
        expected = POSE_SIZE + len(self._joint_names)
        actual = episode.proprioception.shape[1]
        if actual != expected:
            raise ValueError(
                f"episode {episode.source}: its proprioception has {actual} values; {expected} are "
                f"needed, {POSE_SIZE} of the pose and one for each of {self._joint_names}"
            )

    def _pose(self, stamp_ns: int, pose: np.ndarray) -> object:
        return _new("geometry_msgs/msg/PoseStamped")(
            header=_header(stamp_ns, self._frame_id),
            pose=_new("geometry_msgs/msg/Pose")(
                position=_new("geometry_msgs/msg/Point")(*pose[:3]),
                orientation=_new("geometry_msgs/msg/Quaternion")(*pose[3:]),
            ),
        )

    def _joints(self, stamp_ns: int, positions: np.ndarray) -> object:
        return _new("sensor_msgs/msg/JointState")(
            header=_header(stamp_ns, ""),
            name=self._joint_names,
            position=positions,
            velocity=np.zeros(0),
            effort=np.zeros(0),
        )

    def _twist(self, stamp_ns: int, twist: np.ndarray) -> object:
        vector = _new("geometry_msgs/msg/Vector3")
        return _new("geometry_msgs/msg/TwistStamped")(
            header=_header(stamp_ns, self._frame_id),
            twist=_new("geometry_msgs/msg/Twist")(
                linear=vector(*twist[:3]), angular=vector(*twist[3:])
            ),
        )


def _new(kind: str) -> type:
    return TYPES.types[kind]


def _header(stamp_ns: int, frame_id: str) -> object:
    time = _new("builtin_interfaces/msg/Time")(*divmod(stamp_ns, 1_000_000_000))
    return _new("std_msgs/msg/Header")(stamp=time, frame_id=frame_id)


def _image(stamp_ns: int, camera: str, picture: np.ndarray) -> object:
    return _new("sensor_msgs/msg/CompressedImage")(
        header=_header(stamp_ns, camera),
        format="jpeg",
        data=np.frombuffer(encode_jpeg(picture), dtype=np.uint8),
    )


def _array(values: np.ndarray) -> object:
    layout = _new("std_msgs/msg/MultiArrayLayout")(dim=[], data_offset=0)
    return _new("std_msgs/msg/Float64MultiArray")(layout=layout, data=values.astype(np.float64))

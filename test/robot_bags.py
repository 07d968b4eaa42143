"""Bags as a recorder beside a robot would make them, with every fault that a test asks for."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer

from deer_ros.data.jpeg import encode_jpeg
from deer_ros.data.own_messages import typestore

SECOND = 1_000_000_000
START_NS = 100 * SECOND
TYPES = typestore()
STATIC, GRIPPER = "/camera/static/image/compressed", "/camera/gripper/image/compressed"


class RobotBag:
    """Messages in the order of `put`; a context manager that writes them when it ends."""

    def __init__(self, path: Path, storage=StoragePlugin.MCAP, compression=CompressionMode.NONE):
        self.path = path
        self._writer = Writer(path, version=9, storage_plugin=storage)
        self._writer.set_compression(compression, CompressionFormat.ZSTD)
        self._connections = {}

    def __enter__(self) -> RobotBag:
        self._writer.open()
        return self

    def __exit__(self, *_) -> None:
        self._writer.close()

    def raw(self, topic: str, kind: str, recorded_ns: int, data: bytes, definition="",
            digest="RIHS01_x") -> None:
        if topic not in self._connections:
            told = {"typestore": TYPES} if not definition else {
                "msgdef": definition, "rihs01": digest}
            self._connections[topic] = self._writer.add_connection(topic, kind, **told)
        self._writer.write(self._connections[topic], recorded_ns, data)

    def put(self, topic: str, kind: str, recorded_ns: int, *fields) -> None:
        message = TYPES.types[kind](*fields)
        self.raw(topic, kind, recorded_ns, TYPES.serialize_cdr(message, kind))

    def instruction(self, recorded_ns: int, text: str) -> None:
        self.put("/instruction", "std_msgs/msg/String", recorded_ns, text)

    def picture(self, topic: str, stamp_ns: int, seed: int, late_ns: int = 2_000_000,
                data: bytes | None = None) -> None:
        data = encode_jpeg(scene(seed)) if data is None else data
        self.put(topic, "sensor_msgs/msg/CompressedImage", stamp_ns + late_ns,
                 header(stamp_ns), "jpeg", np.frombuffer(data, np.uint8))

    def raw_picture(self, topic: str, stamp_ns: int, seed: int) -> None:
        rgb = scene(seed)
        self.put(topic, "sensor_msgs/msg/Image", stamp_ns + 2_000_000, header(stamp_ns),
                 rgb.shape[0], rgb.shape[1], "rgb8", 0, rgb.strides[0], rgb.reshape(-1))

    def twist(self, stamp_ns: int, values: Iterable[float], frame_id: str = "") -> None:
        vector, twist = (TYPES.types[f"geometry_msgs/msg/{n}"] for n in ("Vector3", "Twist"))
        values = list(values)
        self.put("/recorded/twist", "geometry_msgs/msg/TwistStamped", stamp_ns + 3_000_000,
                 header(stamp_ns, frame_id), twist(vector(*values[:3]), vector(*values[3:])))

    def pose(self, stamp_ns: int, frame_id: str) -> None:
        point, turn, pose = (
            TYPES.types[f"geometry_msgs/msg/{n}"] for n in ("Point", "Quaternion", "Pose"))
        self.put("/end_effector/pose", "geometry_msgs/msg/PoseStamped", stamp_ns,
                 header(stamp_ns, frame_id), pose(point(1.0, 2.0, 3.0), turn(0.0, 0.0, 0.0, 1.0)))

    def opening(self, recorded_ns: int, value: float) -> None:
        self.put("/recorded/gripper", "std_msgs/msg/Float64", recorded_ns, value)


def header(stamp_ns: int, frame_id: str = "") -> object:
    time = TYPES.types["builtin_interfaces/msg/Time"](*divmod(stamp_ns, SECOND))
    return TYPES.types["std_msgs/msg/Header"](time, frame_id)


def scene(seed: int) -> np.ndarray:
    """Smooth colours that differ from seed to seed, 24x32."""
    rng = np.random.default_rng(seed)
    corner, slopes = rng.uniform(0, 100, 3), rng.uniform(0, 75, (2, 3))
    down, right = np.linspace(0, 1, 24)[:, None, None], np.linspace(0, 1, 32)[:, None]
    return (corner + slopes[0] * down + slopes[1] * right).astype(np.uint8)


def write_bag(path: Path, frames: int = 12, rate_hz: float = 20.0, skew_ns: int = 15_000_000,
              instruction: str | None = "open the drawer", recorded: bool = True,
              start_ns: int = START_NS, **options) -> Path:
    """Two cameras, the second one behind by `skew_ns`; what was done, where `recorded`."""
    with RobotBag(path, **options) as bag:
        if instruction is not None:
            bag.instruction(start_ns - SECOND // 10, instruction)
        add_frames(bag, frames, rate_hz, skew_ns, recorded, start_ns)
    return path


def add_frames(bag: RobotBag, frames: int, rate_hz: float = 20.0, skew_ns: int = 15_000_000,
               recorded: bool = True, start_ns: int = START_NS, seed: int = 0) -> None:
    for frame in range(frames):
        stamp_ns = start_ns + round(frame * SECOND / rate_hz)
        bag.picture(STATIC, stamp_ns, seed=1000 * seed + frame)
        if recorded:
            bag.twist(stamp_ns, [0.1 * np.sin(frame + axis) for axis in range(6)])
            bag.opening(stamp_ns + 3_000_000, float(frame % 2))
        bag.picture(GRIPPER, stamp_ns + skew_ns, seed=1000 * seed + 500 + frame)

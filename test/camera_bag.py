"""Bags as a robot's recorder leaves them: two cameras that are apart, jitter, missing frames."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from rosbags.rosbag2 import StoragePlugin, Writer

from deer_ros.data.bag_format import (
    GRIPPER_TOPIC,
    INSTRUCTION_TOPIC,
    POSE_TOPIC,
    STATIC_TOPIC,
    TYPES,
)
from deer_ros.data.bag_format import MESSAGE_TYPES as KINDS
from deer_ros.data.jpeg import encode_jpeg

MS = 1_000_000
START_NS = 1_700_000_000 * 1000 * MS
HEIGHT, WIDTH = 48, 64


def new(kind: str, **fields) -> object:
    return TYPES.types[kind](**fields)


def header(stamp_ns: int, frame_id: str = "") -> object:
    time = new("builtin_interfaces/msg/Time", sec=stamp_ns // 10**9, nanosec=stamp_ns % 10**9)
    return new("std_msgs/msg/Header", stamp=time, frame_id=frame_id)


def text(sentence: str) -> object:
    return new("std_msgs/msg/String", data=sentence)


def picture(stamp_ns: int, pixels: np.ndarray) -> object:
    data = np.frombuffer(encode_jpeg(pixels), np.uint8)
    return new("sensor_msgs/msg/CompressedImage", header=header(stamp_ns), format="jpeg", data=data)


def pose(stamp_ns: int, x: float) -> object:
    return new(
        "geometry_msgs/msg/PoseStamped", header=header(stamp_ns, "base_link"),
        pose=new("geometry_msgs/msg/Pose",
                 position=new("geometry_msgs/msg/Point", x=x, y=0.0, z=0.3),
                 orientation=new("geometry_msgs/msg/Quaternion", x=0.0, y=0.0, z=0.0, w=1.0)))


def write_camera_bag(
    folder: Path, frames: int, *, rate_hz: float = 20.0, apart_ms: float = 15.0,
    jitter_ms: float = 2.0, missing: float = 0.02, seed: int = 0,
    storage: StoragePlugin = StoragePlugin.MCAP, instruction: str = "open the drawer",
) -> int:
    """Write a bag; returns how many pictures are in it. Every picture differs from all others."""
    random = np.random.default_rng(seed)
    messages = [(START_NS, INSTRUCTION_TOPIC, text(instruction))]
    for topic, shift_ms in ((STATIC_TOPIC, 0.0), (GRIPPER_TOPIC, apart_ms)):
        for frame in range(frames):
            if 0 < frame and random.random() < missing:
                continue
            at_ms = 100 + frame * 1e3 / rate_hz + shift_ms + random.uniform(-1, 1) * jitter_ms
            stamp_ns = START_NS + round(at_ms * MS)
            recorded_ns = stamp_ns + round(random.uniform(1, 4) * MS)
            pixels = random.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
            messages.append((recorded_ns, topic, picture(stamp_ns, pixels)))
    for frame in range(frames):
        stamp_ns = START_NS + round((100 + frame * 1e3 / rate_hz) * MS)
        messages.append((stamp_ns + MS, POSE_TOPIC, pose(stamp_ns, 0.001 * frame)))
    messages.sort(key=lambda message: message[0])
    with Writer(folder, version=8, storage_plugin=storage) as bag:
        connections = {
            topic: bag.add_connection(topic, KINDS[topic], typestore=TYPES)
            for topic in (INSTRUCTION_TOPIC, STATIC_TOPIC, GRIPPER_TOPIC, POSE_TOPIC)}
        for recorded_ns, topic, message in messages:
            data = TYPES.serialize_cdr(message, KINDS[topic])
            bag.write(connections[topic], recorded_ns, bytes(data))
    return sum(topic in (STATIC_TOPIC, GRIPPER_TOPIC) for _, topic, _ in messages)

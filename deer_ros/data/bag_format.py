"""What a bag of episodes is: its topics, where it lies, what is said of a damaged one."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rosbags.rosbag2 import Reader
from rosbags.typesys import Stores, get_typestore

from deer_ros.unfinished import is_unfinished

STATIC_TOPIC = "/camera/static/image/compressed"
GRIPPER_TOPIC = "/camera/gripper/image/compressed"
JOINTS_TOPIC = "/joint_states"
POSE_TOPIC = "/end_effector/pose"
INSTRUCTION_TOPIC = "/instruction"
TWIST_TOPIC = "/recorded/twist"
OPENING_TOPIC = "/recorded/gripper"
STATE_TOPIC = "/simulator/state"

MESSAGE_TYPES = {
    INSTRUCTION_TOPIC: "std_msgs/msg/String",
    STATIC_TOPIC: "sensor_msgs/msg/CompressedImage",
    GRIPPER_TOPIC: "sensor_msgs/msg/CompressedImage",
    JOINTS_TOPIC: "sensor_msgs/msg/JointState",
    POSE_TOPIC: "geometry_msgs/msg/PoseStamped",
    TWIST_TOPIC: "geometry_msgs/msg/TwistStamped",
    OPENING_TOPIC: "std_msgs/msg/Float64",
    STATE_TOPIC: "std_msgs/msg/Float64MultiArray",
}

TYPES = get_typestore(Stores.ROS2_JAZZY)


class BagError(ValueError):
    """A bag that cannot be read. The sentence begins with its path."""

    def __init__(self, path: Path, sentence: str) -> None:
        super().__init__(f"bag {path}: {sentence}")


def find_recordings(path: str | Path) -> list[Path]:
    """The recording at `path` (a bag's folder or one of its files), or those in that folder, by
    name. MCAP and SQLite files, and what killed recorders left: files, but no metadata.

    Raises FileNotFoundError where there is nothing, ValueError where there is no bag, BagError
    where a folder in that folder holds bags, which nobody would read.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"there is no bag or folder of bags at {path}")
    if path.is_file() and _is_storage(path):
        return [path]
    inside = sorted(path.iterdir()) if path.is_dir() else []
    if is_bag(path):
        return [path]
    files = [inner for inner in inside if inner.is_file() and _is_storage(inner)]
    # The files of one recording are numbered; others are bags of their own.
    one = len({re.sub(r"(_\d+)?\..*", "", file.name) for file in files}) == 1
    bags = [path] if one else list(files)
    folders = [one for one in inside if one.is_dir() and not is_unfinished(one)]
    bags += filter(_is_recording, folders)
    for folder in folders:
        deeper = None if folder in bags else _recording_in(folder)
        if deeper is not None:
            raise BagError(
                deeper,
                f"it lies too deep to be read with {path}, of which only the bags right in it are; "
                f"name {folder} as well, or instead, or move it away",
            )
    if not bags:
        raise ValueError(f"{path} is no bag and holds none (a bag is a folder with .mcap or .db3)")
    return bags


def _is_recording(folder: Path) -> bool:
    return is_bag(folder) or any(_is_storage(inner) for inner in folder.iterdir())


def _recording_in(folder: Path) -> Path | None:
    inside = (one for one in sorted(folder.iterdir()) if one.is_dir() and _is_recording(one))
    return next((one for one in inside if not is_unfinished(one)), None)


def _is_storage(path: Path) -> bool:
    return path.name.removesuffix(".zstd").endswith((".mcap", ".db3"))


def is_bag(path: Path) -> bool:
    """Whether it looks like a finished bag from outside."""
    if path.is_dir():
        return (path / "metadata.yaml").is_file()
    return path.suffix == ".mcap"


def bag_notes(path: str | Path) -> dict[str, str]:
    """The notes that were written into the bag's metadata (rosbag2's `custom_data`).

    Raises:
        BagError: the bag is damaged.
    """
    with open_bag(Path(path)) as reader:
        return dict(reader.storage.metadata.custom or {})


@contextmanager
def open_bag(path: Path) -> Iterator[Reader]:
    """A reader; whatever goes wrong in the block but the system's own errors is a BagError.

    Keep the block to reading: damaged bytes make the parsers fail in any way there is.
    """
    try:
        with Reader(path) as reader:
            yield reader
    except (BagError, OSError):
        raise
    except Exception as error:
        reason = str(error) or type(error).__name__
        raise BagError(path, f"it is damaged or was not finished ({reason})") from error

"""This package's messages in bags, where ROS is not installed: types and definitions from msg/."""

from __future__ import annotations

from functools import cache

from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

from deer_ros.resources import share

ACTION = "deer_ros/msg/EndEffectorAction"
STATUS = "deer_ros/msg/PolicyStatus"

# What stands between a definition and those of its parts, in rosbag2 as in MCAP files.
_SEPARATOR = "=" * 80 + "\n"


def typestore() -> Typestore:
    """The messages of ROS 2 Jazzy and those of this package, for a caller who may add to it."""
    store = get_typestore(Stores.ROS2_JAZZY)
    for kind in (ACTION, STATUS):
        store.register(get_types_from_msg(_text(kind), kind))
    return store


@cache
def known_types() -> Typestore:
    """As `typestore`, made once: nobody may add to it."""
    return typestore()


def definition(store: Typestore, kind: str) -> tuple[str, str]:
    """Definition with those of its parts, and RIHS01 hash, of a message type in `store`.

    This package's own are word for word as in their files, with all that the comments say.
    """
    text, _ = store.generate_msgdef(kind, ros_version=2)
    if kind in (ACTION, STATUS):
        _, separator, parts = text.partition(_SEPARATOR)
        text = _text(kind) + separator + parts
    return text, store.hash_rihs01(kind)


@cache
def _text(kind: str) -> str:
    return share("msg", kind.rpartition("/")[2] + ".msg").read_text(encoding="utf-8")

"""How a bag is to be played into a running policy node: `python3 -m deer_ros.replay.played`.

A program of its own for the launch file, which a ROS 2 installation runs with the system's Python.
Bags are read with packages that only the Python of the nodes may have.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from deer_ros.data.bag_topics import (
    COMPRESSED,
    IMAGE_KINDS,
    IMAGE_SUFFIXES,
    RAW,
    Names,
    find_topics,
)
from deer_ros.data.recording import Recording
from deer_ros.replay.set_apart import set_apart

USAGE_ERROR = 2
POSE = "end_effector/pose"


def as_played(
    bag: Path, rules: Sequence[str], transport: str = "", namespace: str = ""
) -> dict[str, Any]:
    """What the launch file has to know, as JSON takes it.

    rules: `from:=to`, for topics that are called otherwise in the bag. transport: `raw` or
    `compressed`; empty: whichever is in the bag. Returns `transport`; `remap`, new names by the
    policy's own; and `renamed`, new names of what must not be played under its own. Raises
    ValueError or OSError with a sentence: it lists the bag's topics where the cameras' are not
    among them.
    """
    with Recording(bag) as recording:
        if namespace:
            # Bags hold no names that are relative to it: they are taken as they are given.
            Names(rules)
            remap = dict(rule.split(":=", 1) for rule in rules)
        else:
            transport, remap = _as_recorded(recording, rules, transport)
        renamed = _renamed(recording, remap, namespace)
    return {"transport": transport, "remap": remap, "renamed": renamed}


def _as_recorded(
    recording: Recording, rules: Sequence[str], transport: str
) -> tuple[str, dict[str, str]]:
    topics = find_topics(recording, Names(rules), transport or None)
    transport = RAW if topics.image_kind == IMAGE_KINDS[RAW] else COMPRESSED
    names = {
        f"camera/{camera}/image{IMAGE_SUFFIXES[transport]}": topic
        for camera, topic in topics.cameras.items()
    }
    names |= {
        "instruction": topics.instruction,
        POSE: topics.pose,
        "joint_states": topics.joints,
    }
    return transport, {name: topic for name, topic in names.items() if topic != f"/{name}"}


def _renamed(recording: Recording, remap: dict[str, str], namespace: str) -> dict[str, str]:
    """What was commanded when the bag was recorded must not be taken for commands of now."""
    root = f"/{namespace.strip('/')}" if namespace else ""
    pose = remap.get(POSE, POSE)
    inputs = [pose if pose.startswith("/") else f"{root}/{pose}"]
    return set_apart(recording.topics, f"{root}/deer", inputs)


def main(words: Sequence[str] | None = None) -> int:
    """Print it as JSON. Exit code 2, with a sentence, where the bag cannot be played so."""
    parser = argparse.ArgumentParser(prog="deer_ros.replay.played", description=__doc__)
    parser.add_argument("bag", type=Path)
    parser.add_argument("--remap", action="append", default=[], metavar="FROM:=TO")
    parser.add_argument("--transport", default="")
    parser.add_argument("--namespace", default="")
    given = parser.parse_args(words)
    try:
        print(json.dumps(as_played(given.bag, given.remap, given.transport, given.namespace)))
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return USAGE_ERROR
    return 0


if __name__ == "__main__":
    sys.exit(main())

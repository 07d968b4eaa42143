"""A publisher for every topic of a bag that this installation can publish."""

from __future__ import annotations

import time
from collections import defaultdict
from dataclasses import dataclass, field

from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.publisher import Publisher

from deer_ros.data.recording import Recording, Topic
from deer_ros.nodes.installed_types import message_class, type_hash
from deer_ros.nodes.qos import publisher_profile

CLOCK_TOPIC = "/clock"
FLUSH_S, LINGER_S = 1.0, 0.2


@dataclass
class Publishers:
    """of: by the topic's name in the bag. skipped: topics with their counts, by reason."""

    of: dict[str, Publisher] = field(default_factory=dict)
    skipped: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    skipped_count: int = 0

    def flush(self) -> None:
        """Wait, not for long, until what was published has reached its subscribers."""
        end_s = time.monotonic() + FLUSH_S
        for publisher in self.of.values():
            left_s = max(0.0, end_s - time.monotonic())
            publisher.wait_for_all_acked(Duration(seconds=left_s))
        # Best effort is never acknowledged.
        time.sleep(LINGER_S)


def open_publishers(node: Node, recording: Recording, has_clock: bool) -> Publishers:
    """has_clock: the player tells the time itself, so a recorded one is left out."""
    publishers = Publishers()
    for topic in sorted(recording.topics.values(), key=lambda topic: topic.name):
        try:
            if has_clock and topic.name == CLOCK_TOPIC:
                raise ValueError("the player has a clock of its own")
            publishers.of[topic.name] = _open(node, recording, topic)
        except Exception as error:  # rclpy's classes for names and types that it refuses are many
            publishers.skipped[str(error).splitlines()[0]].append(
                f"{topic.name} ({topic.count} messages)")
            publishers.skipped_count += topic.count
    return publishers


def _open(node: Node, recording: Recording, topic: Topic) -> Publisher:
    if len(topic.kinds) > 1:
        raise ValueError(f"it holds several message types ({', '.join(topic.kinds)})")
    kind = message_class(topic.kind)
    installed = type_hash(topic.kind)
    # The bytes are not touched: under another definition they would be read as something else.
    if installed and recording.knows(topic.kind) and (
        recording.types.hash_rihs01(topic.kind) != installed
    ):
        raise ValueError(f"the installed {topic.kind} is defined otherwise than the recorded one")
    return node.create_publisher(kind, topic.name, publisher_profile(topic.qos))

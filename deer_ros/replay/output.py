"""The bag that a replay leaves: what was recorded, and beside it what the policy says."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from typing import Any

from rosbags.interfaces import Connection
from rosbags.rosbag2 import Writer

from deer_ros.data.bag_topics import Topics
from deer_ros.data.own_messages import ACTION, STATUS, definition, typestore
from deer_ros.data.recording import Recording, Topic
from deer_ros.replay.messages import message
from deer_ros.replay.records import EARLIER

KINDS = {"action": ACTION, "status": STATUS}
# Where nobody knows a type's hash, as in SQLite bags of older ROS releases.
_NO_HASH = "RIHS01_" + 64 * "0"


def labelled(topics: Topics, label: str) -> Topics:
    """The topics of one run of a sweep: its outputs have its name in front."""
    if not label:
        return topics
    return replace(topics, action=f"/{label}{topics.action}", status=f"/{label}{topics.status}")


class Output:
    """Copies messages as they are, and adds actions and statuses.

    What the node itself had said when the bag was recorded moves to `/recorded/...`, and what is
    there to `/recorded/recorded/...`, so that two runs' words never stand on one topic.
    """

    def __init__(self, writer: Writer, recording: Recording, runs: Iterable[Topics]) -> None:
        self._writer = writer
        self._types = typestore()
        said = [name for topics in runs for name in (topics.action, topics.status)]
        self.moved = _moves(recording.topics, said)
        self._copied = {
            topic.name: self._copy_of(topic, recording) for topic in recording.topics.values()
        }
        self._said: dict[str, Connection] = {}

    def copy(self, topic: str, recorded_ns: int, data: bytes) -> None:
        """A message of the input, byte for byte."""
        self._writer.write(self._copied[topic], recorded_ns, data)

    def say(self, topic: str, what: str, now_ns: int, frame_id: str,
            fields: Mapping[str, Any]) -> None:
        """what: `action` or `status`."""
        kind = KINDS[what]
        if topic not in self._said:
            text, digest = definition(self._types, kind)
            self._said[topic] = self._writer.add_connection(
                topic, kind, msgdef=text, rihs01=digest
            )
        made = message(self._types, kind, now_ns, frame_id, fields)
        self._writer.write(self._said[topic], now_ns, self._types.serialize_cdr(made, kind))

    def _copy_of(self, topic: Topic, recording: Recording) -> Connection:
        text, digest = topic.definition, topic.digest
        if recording.knows(topic.kind) and not (text and digest):
            known_text, known_digest = definition(recording.types, topic.kind)
            text, digest = text or known_text, digest or known_digest
        return self._writer.add_connection(
            self.moved.get(topic.name, topic.name),
            topic.kind,
            msgdef=text,
            rihs01=digest or _NO_HASH,
            offered_qos_profiles=topic.qos,
        )


def _moves(there: Collection[str], said: Iterable[str]) -> dict[str, str]:
    """Where every topic goes that stands where something will be said, or is moved to."""
    moves = {}
    for name in said:
        while name in there:
            moves[name] = name = EARLIER + name
    return moves

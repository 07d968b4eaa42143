"""What can be read of an MCAP file without its end, as a whole file."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from mcap.records import Channel, Message, Schema
from mcap.stream_reader import StreamReader
from mcap.writer import CompressionType, Writer
from rosbags.rosbag2.metadata import parse_qos

# Of the definitions that rosbags reads; an empty one is none.
DEFINITIONS = ("ros2msg", "ros2idl", "omgidl", "")
QOS = "offered_qos_profiles"


@dataclass(frozen=True)
class Repaired:
    """messages: that were copied. lost_bytes: after the last record that could be read.

    is_whole: there is no damage. left_out: numbers of messages that are none of ROS 2, by topic and
    encoding.
    """

    messages: int
    lost_bytes: int
    is_whole: bool
    left_out: Counter[str] = field(default_factory=Counter)


def repair(source: Path, target: Path) -> Repaired:
    """Copy the records of `source` up to its first damage to a new file `target`, with an index.

    Channels that are none of ROS 2 are left out.
    """
    schemas: dict[int, int] = {0: 0}
    channels: dict[int, int] = {}
    foreign_schemas: dict[int, str] = {}
    foreign: dict[int, str] = {}
    left_out: Counter[str] = Counter()
    count, whole_until, is_whole = 0, 0, False
    with source.open("rb") as read, target.open("wb") as written:
        writer = Writer(written, compression=CompressionType.NONE)
        writer.start(profile="ros2")
        try:
            for record in StreamReader(read, validate_crcs=True).records:
                if isinstance(record, Schema) and record.encoding not in DEFINITIONS:
                    foreign_schemas[record.id] = record.encoding
                elif isinstance(record, Schema):
                    schemas[record.id] = writer.register_schema(
                        record.name, record.encoding, record.data
                    )
                elif isinstance(record, Channel) and (
                    record.message_encoding != "cdr" or record.schema_id in foreign_schemas
                ):
                    encoding = foreign_schemas.get(record.schema_id, record.message_encoding)
                    foreign[record.id] = f"{record.topic} ({encoding})"
                elif isinstance(record, Channel):
                    channels[record.id] = writer.register_channel(
                        record.topic, record.message_encoding, schemas[record.schema_id],
                        _readable(record.metadata),
                    )
                elif isinstance(record, Message) and record.channel_id in foreign:
                    left_out[foreign[record.channel_id]] += 1
                elif isinstance(record, Message):
                    writer.add_message(
                        channels[record.channel_id], record.log_time, record.data,
                        record.publish_time, record.sequence,
                    )
                    count += 1
                whole_until = read.tell()
            is_whole = True
        except Exception:  # damaged bytes make a parser fail in any way there is
            pass
        writer.finish()
    return Repaired(count, source.stat().st_size - whole_until, is_whole, left_out)


def _readable(metadata: dict[str, str]) -> dict[str, str]:
    """Without a quality of service that cannot be read, which is not worth a channel."""
    try:
        parse_qos(metadata.get(QOS, ""))
    except Exception:
        return {key: value for key, value in metadata.items() if key != QOS}
    return metadata

"""What can be read of an MCAP file without its end, as a whole file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mcap.records import Channel, Message, Schema
from mcap.stream_reader import StreamReader
from mcap.writer import CompressionType, Writer


@dataclass(frozen=True)
class Repaired:
    """messages: that were copied. lost_bytes: after the last record that could be read."""

    messages: int
    lost_bytes: int


def repair(source: Path, target: Path) -> Repaired:
    """Copy the records of `source` up to its first damage to a new file `target`, with an index."""
    schemas: dict[int, int] = {0: 0}
    channels: dict[int, int] = {}
    count, whole_until = 0, 0
    with source.open("rb") as read, target.open("wb") as written:
        writer = Writer(written, compression=CompressionType.NONE)
        writer.start(profile="ros2")
        try:
            for record in StreamReader(read, validate_crcs=True).records:
                if isinstance(record, Schema):
                    schemas[record.id] = writer.register_schema(
                        record.name, record.encoding, record.data
                    )
                elif isinstance(record, Channel):
                    channels[record.id] = writer.register_channel(
                        record.topic, record.message_encoding, schemas[record.schema_id],
                        record.metadata,
                    )
                elif isinstance(record, Message):
                    writer.add_message(
                        channels[record.channel_id], record.log_time, record.data,
                        record.publish_time, record.sequence,
                    )
                    count += 1
                whole_until = read.tell()
        except Exception:  # damaged bytes make a parser fail in any way there is
            pass
        writer.finish()
    return Repaired(count, source.stat().st_size - whole_until)

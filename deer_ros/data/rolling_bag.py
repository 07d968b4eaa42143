"""Writes a bag while it is recorded: MCAP files that are short, so that a kill loses little."""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from dataclasses import dataclass, field
from io import FileIO
from pathlib import Path

import yaml
from mcap.writer import CompressionType, Writer
from rosbags.interfaces import Qos
from rosbags.rosbag2.metadata import dump_qos_v8

# The newest that all supported ROS 2 releases read.
METADATA_VERSION = 8
CHUNK_BYTES = 2**20
FILE_S = 30.0
FLUSH_S = 1.0


@dataclass(frozen=True)
class Channel:
    """A topic as it is recorded. definition: with those of its parts; digest: RIHS01 hash."""

    topic: str
    kind: str
    definition: str
    digest: str
    qos: tuple[Qos, ...] = ()


@dataclass
class Span:
    """What lies in a file, or in the whole bag."""

    count: int = 0
    first_ns: int | None = None
    last_ns: int | None = None

    def add(self, recorded_ns: int) -> None:
        """One more message."""
        self.count += 1
        self.first_ns = recorded_ns if self.first_ns is None else min(self.first_ns, recorded_ns)
        self.last_ns = recorded_ns if self.last_ns is None else max(self.last_ns, recorded_ns)

    def times(self) -> dict[str, dict[str, int]]:
        """As metadata.yaml has them."""
        start_ns = self.first_ns or 0
        return {
            "starting_time": {"nanoseconds_since_epoch": start_ns},
            "duration": {"nanoseconds": (self.last_ns or start_ns) - start_ns},
        }


class _Straight:
    """A file without a buffer of Python's: what has been written survives a kill, and a failure to
    write shows where it happens."""

    def __init__(self, file: FileIO) -> None:
        self._file = file

    def write(self, data: bytes) -> int:
        view = memoryview(data)
        while view:
            view = view[self._file.write(view):]
        return len(data)

    def tell(self) -> int:
        return self._file.tell()

    def flush(self) -> None:
        """Nothing is held back."""


@dataclass
class _File:
    path: Path
    opened_s: float
    stream: FileIO
    writer: Writer
    span: Span = field(default_factory=Span)
    channels: dict[Channel, int] = field(default_factory=dict)
    schemas: dict[str, int] = field(default_factory=dict)
    header_bytes: int = 0
    whole_bytes: int = 0
    flushed_s: float = 0.0


class RollingBag:
    """A bag in `folder`: files of `file_s` seconds each, all of which can be read by themselves.

    A message is on its way to the disk at most FLUSH_S or CHUNK_BYTES after `write`, if `tick` is
    called in between: a killed process loses no more. metadata.yaml tells of the finished files.
    Times to wait by are seconds of any clock that does not jump. Not for two threads at once.

    OSError from any method: nothing more can be written. `abandon` then keeps what there is.
    """

    def __init__(self, folder: Path, file_s: float = FILE_S) -> None:
        """folder: is made where there is none."""
        self.folder = folder
        self.span = Span()
        self._file_s = file_s
        self._file: _File | None = None
        self._finished: list[tuple[str, Span]] = []
        self._counts: dict[Channel, int] = {}
        self._beside = folder / "metadata.yaml.new"
        self._held: int | None = None
        folder.mkdir(parents=True, exist_ok=True)

    @classmethod
    def in_free_folder(cls, wanted: Path, file_s: float = FILE_S) -> RollingBag:
        """In `wanted`, or, if there is something in it or another one writes there, in the first
        free of wanted_2, wanted_3 ..."""
        number, folder = 1, wanted
        while (held := _claimed(folder)) is None:
            number += 1
            folder = wanted.with_name(f"{wanted.name}_{number}")
        bag = cls(folder, file_s)
        bag._held = held
        return bag

    def write(self, channel: Channel, recorded_ns: int, data: bytes, now_s: float) -> None:
        """Append a serialised message."""
        self.tick(now_s)
        if self._file is None:
            self._file = self._opened(now_s)
        file = self._file
        if channel not in file.channels:
            file.channels[channel] = _registered(file, channel)
        file.writer.add_message(file.channels[channel], recorded_ns, data, recorded_ns)
        for span in (file.span, self.span):
            span.add(recorded_ns)
        file.whole_bytes = file.stream.tell()
        self._counts[channel] = self._counts.get(channel, 0) + 1

    def tick(self, now_s: float) -> None:
        """Write what has waited long enough; begin a new file when it is time."""
        file = self._file
        if file is None:
            return
        if now_s - file.opened_s >= self._file_s:
            self._finish()
        elif now_s - file.flushed_s >= FLUSH_S:
            file.writer.flush()
            file.whole_bytes = file.stream.tell()
            file.flushed_s = now_s

    def close(self) -> None:
        """Finish the last file."""
        if self._file is not None:
            self._finish()
        elif not self._finished:
            self._write_metadata()
        self._let_go()

    def abandon(self) -> None:
        """Give up after an OSError: keep the chunks that are whole, and raise nothing."""
        file, self._file = self._file, None
        if file is not None:
            with suppress(OSError):
                file.stream.truncate(file.whole_bytes)
            with suppress(OSError):
                file.stream.close()
            if file.whole_bytes <= file.header_bytes:
                with suppress(OSError):
                    file.path.unlink()
        with suppress(OSError):
            self._beside.unlink()
        self._let_go()

    def _let_go(self) -> None:
        if self._held is not None:
            os.close(self._held)
            self._held = None

    def _opened(self, now_s: float) -> _File:
        path = self.folder / f"{self.folder.name}_{len(self._finished)}.mcap"
        stream = open(path, "xb", buffering=0)
        writer = Writer(_Straight(stream), CHUNK_BYTES, CompressionType.NONE)
        writer.start(profile="ros2", library="deer_ros")
        header_bytes = stream.tell()
        return _File(path, now_s, stream, writer, flushed_s=now_s, header_bytes=header_bytes)

    def _finish(self) -> None:
        file = self._file
        file.writer.finish()
        os.fsync(file.stream.fileno())
        file.stream.close()
        self._file = None
        self._finished.append((file.path.name, file.span))
        self._write_metadata()

    def _write_metadata(self) -> None:
        whole = Span()
        for _, span in self._finished:
            whole.count += span.count
            if span.count:
                whole.first_ns = min(whole.first_ns or span.first_ns, span.first_ns)
                whole.last_ns = max(whole.last_ns or span.last_ns, span.last_ns)
        information = {
            "version": METADATA_VERSION,
            "storage_identifier": "mcap",
            "relative_file_paths": [name for name, _ in self._finished],
            **whole.times(),
            "message_count": whole.count,
            "topics_with_message_count": [
                {
                    "topic_metadata": {
                        "name": channel.topic,
                        "type": channel.kind,
                        "serialization_format": "cdr",
                        "offered_qos_profiles": dump_qos_v8(list(channel.qos)),
                        "type_description_hash": channel.digest,
                    },
                    "message_count": count,
                }
                for channel, count in self._counts.items()
            ],
            "compression_format": "",
            "compression_mode": "",
            "files": [
                {"path": name, **span.times(), "message_count": span.count}
                for name, span in self._finished
            ],
            "custom_data": None,
            "ros_distro": os.environ.get("ROS_DISTRO", "unknown"),
        }
        content = yaml.safe_dump({"rosbag2_bagfile_information": information}, sort_keys=False)
        self._beside.write_text(content, encoding="utf-8")
        os.replace(self._beside, self.folder / "metadata.yaml")


def _registered(file: _File, channel: Channel) -> int:
    """The number of a channel in a file, which gets its definition first."""
    if channel.kind not in file.schemas:
        encoding = "ros2msg" if channel.definition else ""
        file.schemas[channel.kind] = file.writer.register_schema(
            channel.kind, encoding, channel.definition.encode())
    return file.writer.register_channel(
        channel.topic, "cdr", file.schemas[channel.kind],
        {"offered_qos_profiles": dump_qos_v8(list(channel.qos)),
         "topic_type_hash": channel.digest},
    )


def _claimed(folder: Path) -> int | None:
    """A descriptor of the folder, which is made and locked; None where it is not free.

    Two recorders that start at once would both find it empty.
    """
    try:
        folder.mkdir(parents=True)
    except FileExistsError:
        if not folder.is_dir():
            return None
    held = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        is_free = True
    except BlockingIOError:
        is_free = False
    except OSError:  # not every file system on a network has locks
        is_free = True
    if is_free and not any(folder.iterdir()):
        return held
    os.close(held)
    return None

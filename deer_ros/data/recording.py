"""Any robot's recording: rosbag2 in MCAP or SQLite files, whole or what a killed recorder left."""

from __future__ import annotations

import heapq
import re
import tempfile
import textwrap
from collections.abc import Collection, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml
from rosbags.interfaces import Connection, MessageDefinitionFormat, Qos
from rosbags.rosbag2 import Reader
from rosbags.typesys import get_types_from_idl, get_types_from_msg

from deer_ros.data.bag_format import BagError
from deer_ros.data.mcap_repair import Repaired, repair
from deer_ros.data.own_messages import known_types, typestore
from deer_ros.data.zstd_files import ZSTD_SUFFIX, decompressed, is_compressed, unpack

STORAGES = (".mcap", ".db3")
OURS = "deer_ros/"


@dataclass(frozen=True)
class Topic:
    """kinds: its message types, more than one only in a broken recording. count: of messages."""

    name: str
    kinds: tuple[str, ...]
    definition: str
    digest: str
    count: int
    qos: tuple[Qos, ...]

    @property
    def kind(self) -> str:
        """The type of its messages."""
        return self.kinds[0]


class Recording:
    """A context manager that reads one bag: its folder, or one of its files.

    What is damaged or missing is left out and said in `losses`, a sentence each; more may come
    while messages are read. `notes` tell of what cannot be understood and is there all the same.
    `topics` by name. Nothing is written beside the bag.

    Raises FileNotFoundError where there is nothing, BagError where nothing can be read.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.losses: list[str] = []
        self.notes: list[str] = []
        self.topics: dict[str, Topic] = {}
        self._types = known_types()
        self._stack = ExitStack()
        self._readers: list[tuple[str, Reader]] = []
        self._expected: int | None = None

    def __enter__(self) -> Recording:
        if not self.path.exists():
            raise FileNotFoundError(f"there is no bag at {self.path}")
        try:
            self._open()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_exception: object) -> None:
        self._stack.close()

    def messages(self, topics: Collection[str] | None = None) -> Iterator[tuple[str, int, bytes]]:
        """Topic, time of recording (ns) and bytes of the messages, in the order of recording.

        Files follow one another, merged where their times overlap. topics: None is all.
        """
        read = 0
        for _, _, topic, recorded_ns, data in _merged(
            [self._of_file(name, reader) for name, reader in self._readers]
        ):
            read += 1
            if topics is None or topic in topics:
                yield topic, recorded_ns, data
        if self._expected is not None and read < self._expected and not self.losses:
            self.losses.append(
                f"its metadata speaks of {self._expected} messages; {read} could be read"
            )

    def decode(self, topic: str, data: bytes) -> Any:
        """The message in `data`. ValueError where it is not what its type says."""
        kind = self.topics[topic].kind
        try:
            return self._types.deserialize_cdr(data, kind)
        except Exception as error:
            raise ValueError(f"{len(data)} bytes are no {kind}") from error

    def knows(self, kind: str) -> bool:
        """Whether messages of that type can be decoded."""
        return kind in self._types.fielddefs

    @property
    def types(self):
        """The types that are known, those defined in the bag among them (a rosbags Typestore)."""
        return self._types

    def _open(self) -> None:
        expected = self._metadata()
        for file in self._files():
            reader = self._opened(file)
            if reader is not None:
                self._readers.append((file.name, reader))
                self._note_topics(reader.connections)
        if not self._readers:
            why = "; ".join(self.losses) or "it holds no .mcap and no .db3 file"
            raise BagError(self.path, f"nothing of it can be read: {why}")
        if expected is None:
            self._check_follow()
        self._expected = expected
        self._learn_types()

    def _files(self) -> list[Path]:
        if not self.path.is_dir():
            return [self.path]
        found = [file for file in self.path.iterdir() if _storage(file) in STORAGES]
        return sorted(found, key=_natural)

    def _metadata(self) -> int | None:
        """How many messages the folder's metadata speaks of, if it has any."""
        file = self.path / "metadata.yaml"
        if not self.path.is_dir():
            return None
        if not file.exists():
            self.losses.append(
                "it has no metadata.yaml: the recorder was killed, or still runs, or its files are "
                "recordings of their own: name them one by one then"
            )
            return None
        try:
            content = yaml.safe_load(file.read_text(encoding="utf-8"))
            information = content["rosbag2_bagfile_information"]
            names = [Path(name).name for name in information["relative_file_paths"]]
            expected = int(information["message_count"])
        except Exception:
            self.losses.append("its metadata.yaml is damaged")
            return None
        missing = [name for name in names if not (self.path / name).exists()]
        if missing:
            self.losses.append(f"files of it are missing: {', '.join(missing)}")
        return expected

    def _check_follow(self) -> None:
        """A recorder begins a file where the one before ends; a simulator's clock begins anew."""
        files = [(name, reader) for name, reader in self._readers if reader.message_count]
        for (name, before), (next_name, after) in pairwise(files):
            if after.start_time < (before.start_time + before.end_time) / 2:
                raise BagError(
                    self.path,
                    f"its files {name} and {next_name} do not follow one another in time: they are "
                    "recordings of their own; name them one by one",
                )

    def _opened(self, file: Path) -> Reader | None:
        try:
            whole = self._unpacked(file) if file.suffix == ZSTD_SUFFIX else file
        except Exception as error:
            self.losses.append(f"{file.name} cannot be decompressed ({_reason(error)})")
            return None
        try:
            reader = self._stack.enter_context(Reader(whole))
        except PermissionError:
            raise
        except Exception as error:
            return self._repaired(whole, _reason(error))
        if _is_out_of_order(reader):
            return self._copied(whole)[0] or reader
        return reader

    def _unpacked(self, file: Path) -> Path:
        whole = self._folder() / file.stem
        unpack(file, whole)
        return whole

    def _repaired(self, file: Path, reason: str) -> Reader | None:
        if file.suffix == ".mcap":
            reader, found = self._copied(file)
            if reader is not None and not (found.is_whole and found.left_out):
                self.losses.append(
                    f"{file.name} was not finished or is damaged ({reason}): "
                    f"{found.messages} messages up to the damage are there, what followed is lost "
                    f"({found.lost_bytes} of {file.stat().st_size} bytes)"
                )
            if reader is not None:
                return reader
        self.losses.append(f"{file.name} is damaged ({reason}); all of it is lost")
        return None

    def _copied(self, file: Path) -> tuple[Reader | None, Repaired]:
        """A copy with an index, and without what is none of ROS 2."""
        copy = self._folder() / file.name
        found = repair(file, copy)
        self.losses += [
            f"{topic} in {file.name} is left out: {count} messages that are none of ROS 2"
            for topic, count in found.left_out.items()
        ]
        return self._opened_copy(copy) if found.messages else None, found

    def _opened_copy(self, copy: Path) -> Reader | None:
        """None where what was copied is damaged itself, as the name of a type."""
        try:
            return self._stack.enter_context(Reader(copy))
        except OSError:
            raise
        except Exception:
            return None

    def _folder(self) -> Path:
        return Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="deer_bag_")))

    def _note_topics(self, connections: Collection[Connection]) -> None:
        for connection in connections:
            definition = connection.msgdef.data
            if connection.msgdef.format is MessageDefinitionFormat.NONE:
                definition = ""
            new = Topic(
                connection.topic, (connection.msgtype,), definition, connection.digest,
                connection.msgcount, tuple(connection.ext.offered_qos_profiles),
            )
            known = self.topics.setdefault(new.name, new)
            if known is not new:
                self.topics[new.name] = replace(
                    known,
                    kinds=tuple(dict.fromkeys(known.kinds + new.kinds)),
                    definition=known.definition or new.definition,
                    count=known.count + new.count,
                )

    def _learn_types(self) -> None:
        """Take the definitions in the bag for types that are not known otherwise.

        The bag's own wording counts for this package's messages too: an older release may have
        recorded them.
        """
        told = [
            (kind, topic.definition) for topic in self.topics.values() for kind in topic.kinds
            if topic.definition and (kind.startswith(OURS) or not self.knows(kind))
        ]
        if told:
            self._types = typestore()
        for kind, definition in told:
            try:
                self._learn_type(kind, definition)
            except Exception as error:
                # What this package reads of others is defined by ROS, whatever a bag says.
                said = self.losses if kind.startswith(OURS) else self.notes
                said.append(f"the definition of {kind} cannot be read ({_reason(error)})")

    def _learn_type(self, kind: str, definition: str) -> None:
        is_idl = definition.startswith("=" * 80 + "\nIDL: ")
        types = get_types_from_idl(definition) if is_idl else get_types_from_msg(definition, kind)
        new = {
            name: fields for name, fields in types.items()
            if name == kind or not self.knows(name)
        }
        if kind.startswith(OURS):
            self._types.fielddefs.pop(kind, None)
        self._types.register(new)
        try:
            self._types.generate_msgdef(kind, ros_version=2)
        except Exception:  # it speaks of parts that nobody defines
            for name in new:
                self._types.fielddefs.pop(name, None)
            raise

    def _of_file(
        self, name: str, reader: Reader
    ) -> Iterator[tuple[str, int, bytes]]:
        """Ends with a loss noted where the file is damaged."""
        count = 0
        try:
            for connection, recorded_ns, data in reader.messages():
                if is_compressed(data):
                    data = decompressed(data)
                yield connection.topic, recorded_ns, data
                count += 1
        except OSError:
            raise
        except Exception as error:
            total = reader.message_count
            self.losses.append(
                f"{name} is damaged ({_reason(error)}): {count} of {total} messages could be read"
            )


def _is_out_of_order(reader: Reader) -> bool:
    """Whether it is an MCAP file without an index whose times fall back, where rosbags gives up."""
    if reader.path.suffix != ".mcap" or reader.storage.chunks or not reader.message_count:
        return False
    try:
        for _ in reader.messages():
            pass
    except Exception as error:
        return "not in timestamp order" in str(error)
    return False


def _merged(files: list[Iterator]) -> Iterator[tuple[int, int, str, int, bytes]]:
    """(time, file) first, so that nothing else is compared; each file is in order by itself."""
    numbered = [
        ((recorded_ns, number, topic, recorded_ns, data) for topic, recorded_ns, data in file)
        for number, file in enumerate(files)
    ]
    return heapq.merge(*numbered, key=lambda message: message[:2])


def _storage(file: Path) -> str:
    """The suffix of the file itself, once decompressed."""
    return Path(file.stem).suffix if file.suffix == ZSTD_SUFFIX else file.suffix


def _natural(file: Path) -> list:
    """bag_2 comes before bag_10."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", file.name)]


def _reason(error: Exception) -> str:
    """In one line; a parser may quote all that it was given."""
    return textwrap.shorten(str(error), 200, placeholder="...").rstrip(".") or type(error).__name__

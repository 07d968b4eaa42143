"""Zstandard, as rosbag2 compresses whole files and single messages."""

from __future__ import annotations

from pathlib import Path

import zstandard

ZSTD_SUFFIX = ".zstd"
_MAGIC = b"\x28\xb5\x2f\xfd"


def is_compressed(data: bytes) -> bool:
    """Whether it begins as a compressed message does. A plain one begins with a zero byte (CDR)."""
    return bytes(data[:4]) == _MAGIC


def decompressed(data: bytes) -> bytes:
    """The message in it; rosbag2 does not always note how long it is."""
    return zstandard.ZstdDecompressor().decompressobj().decompress(data)


def unpack(source: Path, target: Path) -> None:
    """Decompress a file. Raises zstandard.ZstdError where it is damaged."""
    with source.open("rb") as read, target.open("wb") as written:
        zstandard.ZstdDecompressor().copy_stream(read, written)

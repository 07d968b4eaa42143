"""The archives that PyTorch writes: zip files, in which every tensor's bytes are one record."""

from __future__ import annotations

import re
import struct
import sys
import zipfile
from pathlib import Path
from typing import BinaryIO

CLIP_HINT = (
    "CLIP's weights are taken as a plain file of tensors named visual.* (open_clip) or "
    "vision_model.* (transformers)"
)


def tensor_records(path: Path) -> dict[int, int] | None:
    """Where in an archive each uncompressed record of tensors begins, and its size, in bytes.

    None where the file is no archive. Empty where the records do not lie in the order of their
    numbers, or in another byte order than here. Raises ValueError for a damaged one or a program.
    """
    try:
        if not zipfile.is_zipfile(path):
            return None
        with zipfile.ZipFile(path) as archive, path.open("rb") as stream:
            names = archive.namelist()
            is_program = any(name.endswith("/constants.pkl") for name in names)
            swapped = any(
                name.endswith("/byteorder") and archive.read(name).decode() != sys.byteorder
                for name in names
            )
            data = [info for info in archive.infolist() if _number(info) is not None]
            starts = [_start(stream, info) for info in sorted(data, key=_number)]
            sizes = {_start(stream, info): info.file_size for info in data
                     if info.compress_type == zipfile.ZIP_STORED}
    except Exception as error:  # broken archives raise errors of many kinds
        raise damaged(path, error) from error
    if is_program:
        raise ValueError(
            f"{path} is a TorchScript archive, a program with weights, as OpenAI publishes CLIP; "
            f"it is not run. {CLIP_HINT}."
        )
    return {} if swapped or starts != sorted(starts) else sizes


def damaged(path: Path, error: Exception) -> ValueError:
    """What is raised where a file breaks whatever reads it."""
    return ValueError(
        f"{path} cannot be read as a PyTorch file ({type(error).__name__}); it is damaged, "
        "incomplete or something else."
    )


def _number(info: zipfile.ZipInfo) -> int | None:
    """Of a record of tensors: PyTorch numbers them in the order of its pickle."""
    match = re.search(r"/data/(\d+)$", info.filename)
    return int(match[1]) if match else None


def _start(stream: BinaryIO, info: zipfile.ZipInfo) -> int:
    """Where a record's bytes begin: its own header may be longer than the directory's entry."""
    stream.seek(info.header_offset + 26)
    name, extra = struct.unpack("<HH", stream.read(4))
    return info.header_offset + 30 + name + extra

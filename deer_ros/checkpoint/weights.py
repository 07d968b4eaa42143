"""The weights of a model directory: one safetensors file, or several with an index.

Nothing else is ever opened as weights, so that no pickle is read.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
BYTES = {
    "F64": 8, "I64": 8, "U64": 8, "F32": 4, "I32": 4, "U32": 4, "F16": 2, "BF16": 2, "I16": 2,
    "U16": 2, "F8_E4M3": 1, "F8_E5M2": 1, "I8": 1, "U8": 1, "BOOL": 1,
}
FLOATS = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
}  # fmt: skip
# Of a tensor, the most that a fingerprint reads whole, and the pieces that it reads otherwise.
WHOLE_BYTES = 1 << 20
PIECES = 16


@dataclass(frozen=True)
class StoredTensor:
    """What a file's header says of one tensor. dtype is in safetensors' words: F32, BF16, ...

    start: where in the file its values begin, in bytes.
    """

    shape: tuple[int, ...]
    dtype: str
    start: int

    @property
    def parameters(self) -> int:
        """Number of values."""
        return torch.Size(self.shape).numel()

    @property
    def bytes(self) -> int:
        """Size of the values in the file."""
        return self.parameters * BYTES[self.dtype]


def weight_files(folder: Path) -> dict[str, Path]:
    """Which file holds each tensor. FileNotFoundError or ValueError where that cannot be told."""
    index = folder / INDEX
    if index.is_file():
        return _indexed(index)
    file = folder / WEIGHTS
    if not file.is_file():
        raise FileNotFoundError(f"{folder} has neither {WEIGHTS} nor {INDEX}.")
    with open_weights(file) as tensors:
        return dict.fromkeys(tensors.keys(), file)


def _indexed(index: Path) -> dict[str, Path]:
    try:
        mapping = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        # Only the name counts: an index must not lead out of its directory.
        files = {name: index.parent / Path(file).name for name, file in mapping.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{index} cannot be read: {error!r}.") from error
    for file in set(files.values()):
        if not file.is_file():
            raise FileNotFoundError(f"{index} names {file.name}, which is not there.")
    return files


def open_weights(file: Path) -> safe_open:
    """Open a safetensors file, which checks its header. ValueError if it is none."""
    try:
        # For PyTorch it would map the file to write on, which one larger than memory forbids.
        return safe_open(str(file), framework="numpy")
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{file} cannot be read as safetensors: {error}.") from error


def read_header(file: Path) -> dict[str, StoredTensor]:
    """What a safetensors file holds, without reading a value. ValueError if it is none."""
    with open_weights(file), file.open("rb") as stream:  # the library has checked the header
        length = struct.unpack("<Q", stream.read(8))[0]
        header = json.loads(stream.read(length))
    header.pop("__metadata__", None)
    return {
        name: StoredTensor(
            tuple(entry["shape"]), entry["dtype"], 8 + length + entry["data_offsets"][0]
        )
        for name, entry in header.items()
    }


def map_tensors(file: Path, tensors: Mapping[str, StoredTensor]) -> dict[str, Tensor]:
    """Tensors of a file in one mapping: read when used, and given back when the last one goes.

    Their memory is the page cache's own, no copy: what is written to the file in its place changes
    them, and one that is cut short ends the process. What is written to them stays in it.
    """
    unit = mmap.ALLOCATIONGRANULARITY
    start = min(tensor.start for tensor in tensors.values()) // unit * unit
    end = max(tensor.start + tensor.bytes for tensor in tensors.values())
    with file.open("rb") as stream:
        pages = mmap.mmap(stream.fileno(), end - start, access=mmap.ACCESS_COPY, offset=start)
    return {
        name: torch.frombuffer(
            pages, dtype=FLOATS[t.dtype], count=t.parameters, offset=t.start - start
        ).view(t.shape)
        for name, t in tensors.items()
    }


def read_tensors(file: Path, tensors: Mapping[str, StoredTensor]) -> dict[str, Tensor]:
    """Tensors of a file in memory of their own: whatever becomes of the file, they stay.

    ValueError where the file ends before they do.
    """
    found = {}
    with file.open("rb") as stream:
        for name, tensor in tensors.items():
            values = torch.empty(tensor.parameters, dtype=FLOATS[tensor.dtype])
            stream.seek(tensor.start)
            if stream.readinto(values.view(torch.uint8).numpy()) != tensor.bytes:
                raise ValueError(f"{file} ends within tensor {name!r}; it was cut short.")
            found[name] = values.view(tensor.shape)
    return found


def touch(tensor: Tensor) -> None:
    """Bring a mapped tensor's pages into memory now, so that its first use does not wait."""
    tensor.view(-1).view(torch.uint8)[:: mmap.PAGESIZE].sum()


def check_shape(
    name: str, found: Sequence[int], expected: Sequence[int], file: Path
) -> None:
    """ValueError naming tensor, file and both shapes where they differ."""
    if tuple(found) != tuple(expected):
        raise ValueError(
            f"tensor {name!r} in {file} has shape {tuple(found)}; the configuration asks for "
            f"{tuple(expected)}."
        )


def stored_tensors(folder: str | Path) -> dict[str, StoredTensor]:
    """All tensors of a model directory, read from the files' headers alone."""
    files = weight_files(Path(folder))
    headers = {file: read_header(file) for file in sorted(set(files.values()))}
    return {name: find_tensor(headers[file], name, file) for name, file in files.items()}


def find_tensor(header: Mapping[str, StoredTensor], name: str, file: Path) -> StoredTensor:
    """A tensor in a file's header. ValueError where an index promised one that is not there."""
    if name not in header:
        raise ValueError(f"tensor {name!r} cannot be read from {file}: it is not in there.")
    return header[name]


def weights_sha256(folder: str | Path) -> str:
    """SHA-256 of the weights: of `model.safetensors`, or of its shards in their names' order."""
    digest = hashlib.sha256()
    for file in sorted(set(weight_files(Path(folder)).values())):
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def weights_fingerprint(folder: str | Path) -> str:
    """SHA-256 over every tensor's name, type, shape and bytes; the same however files are split.

    Of a tensor of more than 1 MiB, 16 evenly spaced pieces of 64 KiB stand for all of it, so that
    gigabytes take a moment. Training changes all of a tensor; for a change of single numbers in a
    large one, see `weights_sha256`. Raises FileNotFoundError or ValueError as loading would.
    """
    files = weight_files(Path(folder))
    headers = {file: read_header(file) for file in sorted(set(files.values()))}
    digest = hashlib.sha256()
    for name in sorted(files):
        file = files[name]
        tensor = find_tensor(headers[file], name, file)
        digest.update(json.dumps([name, tensor.dtype, tensor.shape]).encode())
        with file.open("rb") as stream:
            for start, length in _pieces(tensor):
                stream.seek(start)
                digest.update(stream.read(length))
    return digest.hexdigest()


def _pieces(tensor: StoredTensor) -> list[tuple[int, int]]:
    """Start and length of what is read of a tensor's values."""
    if tensor.bytes <= WHOLE_BYTES:
        return [(tensor.start, tensor.bytes)]
    length = WHOLE_BYTES // PIECES
    last = tensor.bytes - length
    return [(tensor.start + last * piece // (PIECES - 1), length) for piece in range(PIECES)]

"""The weights of a model directory: one safetensors file, or several with an index.

Nothing else is ever opened as weights, so that no pickle is read.
"""

from __future__ import annotations

import hashlib
import json
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


@dataclass(frozen=True)
class StoredTensor:
    """What a file's header says of one tensor. dtype is in safetensors' words: F32, BF16, ..."""

    shape: tuple[int, ...]
    dtype: str

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


def open_weights(file: Path, device: str | torch.device = "cpu") -> safe_open:
    """Map a safetensors file; its tensors are read one by one. ValueError if it is none."""
    try:
        return safe_open(str(file), framework="pt", device=str(device))
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{file} cannot be read as safetensors: {error}.") from error


def read_tensor(tensors: safe_open, name: str, shape: torch.Size, file: Path) -> Tensor:
    """One tensor of an open file, checked to be floats of `shape`."""
    try:
        tensor = tensors.get_tensor(name)
    except SafetensorError as error:
        raise ValueError(f"tensor {name!r} cannot be read from {file}: {error}.") from error
    check_shape(name, tensor.shape, shape, file)
    if not tensor.is_floating_point():
        raise ValueError(f"tensor {name!r} in {file} is of type {tensor.dtype}; weights are floats.")
    return tensor


def check_shape(name: str, found: torch.Size, expected: torch.Size, file: Path) -> None:
    """ValueError naming tensor, file and both shapes where they differ."""
    if tuple(found) != tuple(expected):
        raise ValueError(
            f"tensor {name!r} in {file} has shape {tuple(found)}; the configuration asks for "
            f"{tuple(expected)}."
        )


def stored_tensors(folder: str | Path) -> dict[str, StoredTensor]:
    """All tensors of a model directory, read from the files' headers alone."""
    files = weight_files(Path(folder))
    stored = {}
    for file in sorted(set(files.values())):
        with open_weights(file) as tensors:
            for name in (n for n, holder in files.items() if holder == file):
                try:
                    part = tensors.get_slice(name)
                except SafetensorError as error:
                    raise ValueError(
                        f"tensor {name!r} cannot be read from {file}: {error}."
                    ) from error
                stored[name] = StoredTensor(tuple(part.get_shape()), part.get_dtype())
    return stored


def weights_sha256(folder: str | Path) -> str:
    """SHA-256 of the weights: of `model.safetensors`, or of its shards in the order of their names."""
    digest = hashlib.sha256()
    for file in sorted(set(weight_files(Path(folder)).values())):
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()

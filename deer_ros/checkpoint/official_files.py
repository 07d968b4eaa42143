"""The authors' files, read tensor by tensor: PyTorch pickles and safetensors.

Only the place of each tensor in its file is kept; its values are read when they are asked for.
Pickles are read with PyTorch's restricted unpickler.
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from deer_ros.checkpoint.torch_archive import damaged, tensor_records
from deer_ros.checkpoint.weights import FLOATS, read_header

PICKLES = (".pt", ".pth", ".bin")
SAFETENSORS = ".safetensors"
NESTED = ("model_state_dict", "state_dict")
FOLDER_FILES = (
    "model.safetensors.index.json", "model.safetensors",
    "pytorch_model.bin.index.json", "pytorch_model.bin",
)
DTYPES = FLOATS | {
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8,
    "U8": torch.uint8, "BOOL": torch.bool,
}

Shape = tuple[int, ...]


@dataclass(frozen=True)
class OnDisk:
    """Where a tensor lies in its file: `offset` in bytes, `stride` in elements."""

    path: Path
    dtype: torch.dtype
    shape: Shape
    stride: tuple[int, ...]
    offset: int

    def rows(self, start: int, stop: int | None) -> Tensor:
        """Rows of the first axis, or all of it."""
        start, stop, _ = slice(start, stop).indices(self.shape[0] if self.shape else 1)
        shape = (stop - start, *self.shape[1:]) if self.shape else ()
        first = start * self.stride[0] if self.stride else 0
        span = 1 + sum((n - 1) * step for n, step in zip(shape, self.stride))
        buffer = bytearray(span * self.dtype.itemsize)
        with self.path.open("rb") as stream:
            stream.seek(self.offset + first * self.dtype.itemsize)
            if stream.readinto(buffer) != len(buffer):
                raise ValueError(f"{self.path} ends in the middle of a tensor; it is incomplete.")
        return torch.frombuffer(buffer, dtype=self.dtype).as_strided(shape, self.stride)


class OldPickle:
    """A pickle that can only be read whole: older versions of PyTorch wrote it, or it was zipped
    anew.

    It is there from the first time that it is asked for until it is let go of.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._content: Any = None

    def content(self) -> Any:
        """All of it."""
        if self._content is None:
            self._content = _unpickled(self.path, "cpu")
        return self._content

    def release(self) -> None:
        """Free its memory."""
        self._content = None


@dataclass(frozen=True)
class InOldPickle:
    """A tensor of a file that can only be read whole."""

    file: OldPickle
    name: str
    dtype: torch.dtype
    shape: Shape

    def rows(self, start: int, stop: int | None) -> Tensor:
        """Rows of the first axis, or all of it."""
        tensor = _weights(self.file.content())[0][self.name].detach()
        return tensor[start:stop] if self.shape else tensor


@dataclass(frozen=True)
class OfficialFile:
    """A file's tensors, none of them read yet, and the values beside them."""

    path: Path
    tensors: Mapping[str, OnDisk | InOldPickle]
    values: Mapping[str, Any]
    whole: OldPickle | None = None

    def read(self, name: str, start: int = 0, stop: int | None = None) -> Tensor:
        """Rows `start` to `stop` of a tensor, or all of it; float32, whatever the file holds."""
        stored = self.tensors[name]
        if not stored.dtype.is_floating_point:
            raise ValueError(
                f"tensor {name!r} in {self.path} is of type {stored.dtype}; weights are floats."
            )
        return stored.rows(start, stop).to(torch.float32)

    def release(self) -> None:
        """Free what of the file is in memory; it is read again where it is needed again."""
        if self.whole is not None:
            self.whole.release()

    def same(self, one: str, other: str) -> bool:
        """Whether two names stand for equal tensors."""
        a, b = self.tensors[one], self.tensors[other]
        if isinstance(a, OnDisk) and a == b:
            return True
        return torch.equal(self.read(one), self.read(other))


def official_paths(path: str | Path) -> list[Path]:
    """The files that a path stands for: itself, the shards of an index, or those in a folder.

    Raises FileNotFoundError or ValueError where there are none.
    """
    path = Path(path)
    if path.is_dir():
        found = next((path / name for name in FOLDER_FILES if (path / name).is_file()), None)
        if found is None:
            raise FileNotFoundError(f"{path} has none of {', '.join(FOLDER_FILES)}.")
        path = found
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}.")
    if path.suffix == ".json":
        return _shards(path)
    if path.suffix not in (*PICKLES, SAFETENSORS):
        raise ValueError(
            f"{path} ends with {path.suffix!r}; weights are read from "
            f"{', '.join((*PICKLES, SAFETENSORS))}, a folder of them or its index."
        )
    return [path]


def _shards(index: Path) -> list[Path]:
    try:
        names = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
        paths = sorted({index.parent / Path(name).name for name in names})
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{index} cannot be read as an index of weights: {error!r}.") from error
    for path in paths:
        if not path.is_file():
            raise FileNotFoundError(f"{index} names {path.name}, which is not there.")
    return paths


def open_official(path: Path) -> OfficialFile:
    """Find a file's tensors. ValueError says why it cannot be read, or what it wanted to run."""
    return _from_safetensors(path) if path.suffix == SAFETENSORS else _from_pickle(path)


def _from_safetensors(path: Path) -> OfficialFile:
    tensors = {}
    for name, stored in read_header(path).items():
        if stored.dtype not in DTYPES:
            raise ValueError(f"tensor {name!r} in {path} is of unknown type {stored.dtype}.")
        stride = torch.empty(stored.shape, device="meta").stride()
        tensors[name] = OnDisk(path, DTYPES[stored.dtype], stored.shape, stride, stored.start)
    return OfficialFile(path, tensors, {})


def _from_pickle(path: Path) -> OfficialFile:
    # Only archives, which newer versions of PyTorch write, say where each tensor lies.
    records = tensor_records(path)
    whole = OldPickle(path)
    content = whole.content() if records is None else _unpickled(path, "meta")
    if not isinstance(content, Mapping):
        raise ValueError(f"{path} holds a {type(content).__name__}; it must hold named tensors.")
    tensors, values = _weights(content)
    for name, tensor in tensors.items():
        _check_named_tensor(path, name, tensor)
    places = None if records is None else _places(path, tensors, records)
    if places is not None:
        return OfficialFile(path, places, values)
    found = {n: InOldPickle(whole, n, t.dtype, tuple(t.shape)) for n, t in tensors.items()}
    return OfficialFile(path, found, _without_memory(values), whole)


def _check_named_tensor(path: Path, name: Any, tensor: Any) -> None:
    if not isinstance(name, str):
        raise ValueError(f"{path} has a tensor named {name!r}; names must be texts.")
    if not isinstance(tensor, Tensor):
        raise ValueError(
            f"{path} has {name!r} of type {type(tensor).__name__} among its weights; they must be "
            "tensors."
        )
    if tensor.layout != torch.strided:
        raise ValueError(
            f"tensor {name!r} in {path} is stored as {tensor.layout}; weights must be dense."
        )


def _weights(content: Mapping[str, Any]) -> tuple[Mapping[str, Any], dict[str, Any]]:
    """The tensors of a file by name, and the values beside them."""
    key = next((k for k in NESTED if isinstance(content.get(k), Mapping)), None)
    if key is None:
        return content, {}
    return content[key], {k: v for k, v in content.items() if k != key}


def _without_memory(value: Any) -> Any:
    """Tensors among the values, as an optimizer's, by their shapes alone: nothing reads them."""
    if isinstance(value, Tensor):
        return value.to("meta")
    if isinstance(value, Mapping):
        return {name: _without_memory(inner) for name, inner in value.items()}
    return [_without_memory(inner) for inner in value] if isinstance(value, list) else value


def _places(
    path: Path, tensors: Mapping[str, Tensor], records: Mapping[int, int]
) -> dict[str, OnDisk] | None:
    """Where each tensor lies; None where that cannot be told.

    PyTorch works out where its own writer would have put a tensor. In an archive that was zipped
    anew, which it reads right, that is elsewhere: a place counts only where a record of the
    tensor's size begins.
    """
    places = {}
    for name, tensor in tensors.items():
        storage = tensor.untyped_storage()
        start = getattr(storage, "_checkpoint_offset", None)
        if start is None:
            raise ValueError(
                f"PyTorch {torch.__version__} does not say where tensors lie in {path}; 2.11 does."
            )
        if records.get(start) != storage.nbytes():
            return None
        offset = start + tensor.storage_offset() * tensor.dtype.itemsize
        places[name] = OnDisk(path, tensor.dtype, tuple(tensor.shape), tensor.stride(), offset)
    return places


def _unpickled(path: Path, device: str) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # guesses about what a damaged file may be
            return torch.load(path, map_location=device, weights_only=True)
    except Exception as error:  # broken files raise errors of many kinds
        if wanted := re.search(r"GLOBAL (\S+)", str(error)):
            raise ValueError(
                f"{path} is a pickle that needs more than tensors and plain values ({wanted[1]}), "
                "and so could run any program; it is refused. Save its tensors alone."
            ) from error
        raise damaged(path, error) from error

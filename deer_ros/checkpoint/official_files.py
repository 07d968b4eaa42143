"""The authors' files, read tensor by tensor: PyTorch pickles and safetensors.

Pickles are read with PyTorch's restricted unpickler and mapped into memory, not copied, so that only
the tensors that are asked for are ever read.
"""

from __future__ import annotations

import json
import re
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from deer_ros.checkpoint.weights import open_weights

PICKLES = (".pt", ".pth", ".bin")
SAFETENSORS = ".safetensors"
NESTED = ("model_state_dict", "state_dict")
FOLDER_FILES = (
    "model.safetensors.index.json", "model.safetensors",
    "pytorch_model.bin.index.json", "pytorch_model.bin",
)
CLIP_HINT = (
    "CLIP's weights are taken as a plain file of tensors named visual.* (open_clip) or "
    "vision_model.* (transformers)"
)


class OfficialFile:
    """An open file: names, shapes, values besides the tensors, and one tensor at a time."""

    def __init__(
        self, path: Path, tensors: Mapping[str, Tensor] | safe_open, values: Mapping[str, Any]
    ) -> None:
        self.path = path
        self.values = values
        self._tensors = tensors

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Name and shape of every tensor, in the order of the file."""
        if isinstance(self._tensors, Mapping):
            return {name: tuple(tensor.shape) for name, tensor in self._tensors.items()}
        return {n: tuple(self._tensors.get_slice(n).get_shape()) for n in self._tensors.keys()}

    def read(self, name: str, start: int = 0, stop: int | None = None) -> Tensor:
        """Rows `start` to `stop` of a tensor, or all of it; float32, whatever the file holds."""
        whole = start == 0 and stop is None
        if isinstance(self._tensors, Mapping):
            tensor = self._tensors[name] if whole else self._tensors[name][start:stop]
        else:
            tensors = self._tensors
            tensor = tensors.get_tensor(name) if whole else tensors.get_slice(name)[start:stop]
        if not tensor.is_floating_point():
            raise ValueError(
                f"tensor {name!r} in {self.path} is of type {tensor.dtype}; weights are floats."
            )
        return tensor.detach().to(torch.float32)

    def same(self, one: str, other: str) -> bool:
        """Whether two names stand for equal tensors."""
        if isinstance(self._tensors, Mapping):
            a, b = self._tensors[one], self._tensors[other]
            if a.data_ptr() == b.data_ptr() and a.shape == b.shape and a.stride() == b.stride():
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


@contextmanager
def open_official(path: Path) -> Iterator[OfficialFile]:
    """Open one file. ValueError says why it cannot be read, or what it wanted to run."""
    if path.suffix == SAFETENSORS:
        with open_weights(path) as tensors:
            try:
                yield OfficialFile(path, tensors, {})
            except SafetensorError as error:
                raise ValueError(f"{path} cannot be read as safetensors: {error}.") from error
    else:
        yield _from_pickle(path)


def _from_pickle(path: Path) -> OfficialFile:
    content = _unpickled(path)
    if not isinstance(content, Mapping):
        raise ValueError(f"{path} holds a {type(content).__name__}; it must hold named tensors.")
    key = next((k for k in NESTED if isinstance(content.get(k), Mapping)), None)
    tensors = content if key is None else content[key]
    values = {} if key is None else {k: v for k, v in content.items() if k != key}
    wrong = [name for name, tensor in tensors.items() if not isinstance(tensor, Tensor)]
    if wrong:
        raise ValueError(
            f"{path} has {wrong[0]!r} of type {type(tensors[wrong[0]]).__name__} among its weights; "
            "they must be tensors."
        )
    return OfficialFile(path, tensors, values)


def _unpickled(path: Path) -> Any:
    is_zip = zipfile.is_zipfile(path)
    if is_zip and _is_torchscript(path):
        raise ValueError(
            f"{path} is a TorchScript archive, a program with weights, as OpenAI publishes CLIP; it "
            f"is not run. {CLIP_HINT}."
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # guesses about what a damaged file may be
            # Only files of the newer kind, which are archives, can be mapped.
            return torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)
    except Exception as error:  # broken files raise errors of many kinds
        if wanted := re.search(r"GLOBAL (\S+)", str(error)):
            raise ValueError(
                f"{path} is a pickle that needs more than tensors and plain values ({wanted[1]}), and "
                "so could run any program; it is refused. Save its tensors alone."
            ) from error
        raise ValueError(
            f"{path} cannot be read as a PyTorch file ({type(error).__name__}); it is damaged, "
            "incomplete or something else."
        ) from error


def _is_torchscript(path: Path) -> bool:
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


"""Where the weights of a policy come from, now and later: a model directory, a device, a type."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from pathlib import Path

import torch
from torch import Tensor, nn

from deer_ros.checkpoint.weights import (
    FLOATS,
    StoredTensor,
    check_shape,
    find_tensor,
    map_tensors,
    read_header,
    read_tensors,
    touch,
    weight_files,
)
from deer_ros.model.config import DeerConfig
from deer_ros.model.deer import DeerModel
from deer_ros.model.language import DecoderLayer

EMBEDDING = "embedding"
# Up to so many bytes of weights are copied: a file that is overwritten does not change them then.
COPIED_BYTES = 256 << 20
_LAYER = re.compile(r"^layers\.(\d+)\.")


class WeightSource:
    """The weights of one model directory, read part by part: no layer before it is asked for.

    On the CPU, in the stored type, weights of large files are the files' own pages; otherwise one
    tensor after the other is copied, so that never more than one is there twice.
    """

    def __init__(
        self,
        folder: str | Path,
        config: DeerConfig,
        device: str | torch.device = "cpu",
        dtype: torch.dtype | None = None,
    ) -> None:
        """dtype None keeps the stored one. Raises OSError or ValueError with a sentence."""
        self.folder = Path(folder).absolute()
        self._config = config
        self._device = torch.device(device)
        self._dtype = dtype
        self._stored: str | None = None
        self._files = weight_files(self.folder)
        self._identities = {file: _identity(file) for file in set(self._files.values())}
        size = sum(bytes_ for _, bytes_, _ in self._identities.values())
        self._get = read_tensors if size <= COPIED_BYTES else map_tensors
        self._headers: dict[Path, dict[str, StoredTensor]] = {}

    @property
    def names(self) -> set[str]:
        """All tensors of the directory."""
        return set(self._files)

    def fill(self, model: DeerModel) -> None:
        """Give a model built on the meta device its weights, of the layers that it has."""
        for name, part in model.named_children():
            if part is model.layers:
                for index, layer in enumerate(model.layers):
                    self._fill(layer, f"layers.{index}.")
            else:
                # Of the embedding only the rows of the words in use are ever needed.
                self._fill(part, f"{name}.", at_once=name != EMBEDDING)

    def layers(self, first: int, last: int) -> tuple[DecoderLayer, ...]:
        """Layers `first` to `last`, counted from 1, ready to run.

        Slow; may be called from any thread. Raises OSError or ValueError where a file has vanished,
        has changed since the first load or cannot be read.
        """
        config = self._config
        loaded = []
        for number in range(first, last + 1):
            with torch.device("meta"):
                layer = DecoderLayer(config.language, config.vision.width, number)
            self._fill(layer, f"layers.{number - 1}.")
            loaded.append(layer.eval().requires_grad_(False))
        return tuple(loaded)

    def check_unchanged(self) -> None:
        """FileNotFoundError or ValueError where the directory's weights are not the ones that were
        read first."""
        for file in self._identities:
            self._check_unchanged(file)

    def _check_unchanged(self, file: Path) -> None:
        if _identity(file) != self._identities[file]:
            raise ValueError(
                f"{file} has changed since the policy was loaded; load the policy again to use it."
            )

    def _fill(self, part: nn.Module, prefix: str, at_once: bool = True) -> None:
        expected = part.state_dict()
        found = {name: self._find(prefix + name, t.shape) for name, t in expected.items()}
        by_file: dict[Path, dict[str, StoredTensor]] = defaultdict(dict)
        for name, tensor in found.items():
            by_file[self._files[prefix + name]][name] = tensor
        weights: dict[str, Tensor] = {}
        for file, tensors in by_file.items():
            weights |= self._read(file, tensors, at_once)
        part.load_state_dict(weights, assign=True)

    def _read(
        self, file: Path, tensors: dict[str, StoredTensor], at_once: bool
    ) -> dict[str, Tensor]:
        """at_once: not only when they are used."""
        dtype = self._dtype or FLOATS[self._stored]
        if self._device.type == "cpu" and all(FLOATS[t.dtype] == dtype for t in tensors.values()):
            weights = self._get(file, tensors)
            for tensor in weights.values() if at_once else ():
                touch(tensor)
            return weights
        try:
            return {
                name: self._get(file, {name: tensor})[name].to(self._device, dtype)
                for name, tensor in tensors.items()
            }
        except torch.OutOfMemoryError as error:
            raise ValueError(
                f"the weights in {self.folder} do not fit into the free memory of {self._device}; "
                "load fewer layers (max_layer), a smaller dtype, or to another device."
            ) from error

    def _find(self, name: str, shape: torch.Size) -> StoredTensor:
        file = self._files[name]
        self._check_unchanged(file)
        if file not in self._headers:
            self._headers[file] = read_header(file)
        tensor = find_tensor(self._headers[file], name, file)
        check_shape(name, tensor.shape, shape, file)
        if tensor.dtype not in FLOATS:
            raise ValueError(
                f"tensor {name!r} in {file} is of type {tensor.dtype}; weights are floats."
            )
        self._stored = self._stored or tensor.dtype
        if self._dtype is None and tensor.dtype != self._stored:
            raise ValueError(
                f"the weights in {self.folder} are of types {self._stored} and {tensor.dtype}; "
                "they must be of one, or be loaded with a dtype."
            )
        return tensor


def layer_index(name: str) -> int | None:
    """The language layer that a tensor belongs to, counted from 0 as in its name; else None."""
    match = _LAYER.match(name)
    return int(match[1]) if match else None


def _identity(file: Path) -> tuple[int, int, int]:
    """Differs once the file is replaced or written to."""
    try:
        found = os.stat(file)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{file} is not there any more.") from error
    return found.st_ino, found.st_size, found.st_mtime_ns

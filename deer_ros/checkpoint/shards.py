"""Safetensors files written tensor by tensor, so that a model need never be in memory whole.

The format: the header's length as a little-endian 64-bit number, a JSON header with every tensor's
type, shape and place, then the values, one tensor after the other.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from deer_ros.checkpoint.weights import INDEX, WEIGHTS

SHARD_BYTES = 4 << 30
FLOAT32_BYTES = 4

Shape = tuple[int, ...]


def write_shards(
    folder: Path,
    shapes: Sequence[tuple[str, Shape]],
    tensor: Callable[[str], Tensor],
    progress: Callable[[int], None],
    shard_bytes: int = SHARD_BYTES,
) -> None:
    """Write float32 tensors to `folder`, in the order of `shapes`; to several files if many.

    tensor(name) is asked for one at a time. progress(bytes) hears of every tensor written.
    """
    shards = _split(shapes, shard_bytes)
    files = [
        WEIGHTS if len(shards) == 1 else f"model-{n:05d}-of-{len(shards):05d}.safetensors"
        for n in range(1, len(shards) + 1)
    ]
    for file, shard in zip(files, shards):
        _write(folder / file, shard, tensor, progress)
    if len(shards) > 1:
        mapping = {name: file for file, shard in zip(files, shards) for name, _ in shard}
        total = sum(tensor_bytes(shape) for _, shape in shapes)
        index = {"metadata": {"total_size": total}, "weight_map": mapping}
        (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def tensor_bytes(shape: Shape) -> int:
    """Size of a tensor's values when written."""
    return FLOAT32_BYTES * torch.Size(shape).numel()


def _split(shapes: Sequence[tuple[str, Shape]], most: int) -> list[list[tuple[str, Shape]]]:
    shards: list[list[tuple[str, Shape]]] = [[]]
    size = 0
    for name, shape in shapes:
        if shards[-1] and size + tensor_bytes(shape) > most:
            shards.append([])
            size = 0
        shards[-1].append((name, shape))
        size += tensor_bytes(shape)
    return shards


def _write(
    file: Path,
    shapes: Sequence[tuple[str, Shape]],
    tensor: Callable[[str], Tensor],
    progress: Callable[[int], None],
) -> None:
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, shape in shapes:
        start, end = end, end + tensor_bytes(shape)
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with file.open("xb") as stream:
        stream.write(struct.pack("<Q", len(text)) + text)
        for name, shape in shapes:
            values = tensor(name).contiguous()
            if values.dtype != torch.float32 or tuple(values.shape) != shape:
                raise AssertionError(f"{name} became {values.dtype} {tuple(values.shape)}")
            stream.write(memoryview(values.numpy()).cast("B"))
            progress(tensor_bytes(shape))

"""How many layers a policy holds: what memory permits, what is read and what is let go."""

from __future__ import annotations

import ctypes

import torch

from deer_ros.budget.memory import weights_mib
from deer_ros.checkpoint.source import WeightSource
from deer_ros.decision import DepthChange
from deer_ros.model.deer import DeerModel


def dtype_of(model: DeerModel) -> str:
    """The weights' type by name, such as `float32`."""
    return str(next(model.parameters()).dtype).removeprefix("torch.")


def depth_within(model: DeerModel, max_layer: int, memory_mib: float | None) -> int:
    """The deepest exit up to `max_layer` whose weights fit into the memory; at least the first."""
    exits = model.config.permitted_exits(max_layer)
    if memory_mib is None:
        return exits[-1]
    needed = {layer: weights_mib(model.config, layer, dtype_of(model)) for layer in exits}
    return max((layer for layer in exits if needed[layer] <= memory_mib), default=exits[0])


def read_layers(
    model: DeerModel, source: WeightSource | None, depth: int, asked: int
) -> DepthChange:
    """Read what the model lacks to run to `depth`, an exit. asked: what was wanted originally.

    Slow, and changes nothing. Raises ValueError or OSError where that cannot be.
    """
    before = model.max_layer
    if depth <= before:
        return DepthChange(before, depth, (), asked)
    if source is None:
        raise ValueError(
            f"this policy has {before} layers and was not loaded from a model directory, so "
            f"there is nothing to read layers up to {depth} from."
        )
    return DepthChange(before, depth, source.layers(before + 1, depth), asked)


def hold(model: DeerModel, change: DepthChange) -> None:
    """Take the layers of a change, and let go of those past it.

    Raises ValueError and changes nothing if the depth is another by now than when it was read.
    """
    built = model.max_layer
    if change.before != built:
        raise ValueError(
            f"layers were loaded for a policy of {change.before} layers; it has {built} now. "
            "Load them again."
        )
    kept = model.layers[: change.after]
    model.layers = torch.nn.ModuleList([*kept, *change.layers]).eval()
    if change.after < built:
        _give_back_freed_memory()


def _give_back_freed_memory() -> None:
    """What was freed goes back to the system; glibc's allocator would keep some for itself."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)

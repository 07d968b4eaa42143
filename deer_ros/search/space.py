"""Where thresholds are looked for: within a factor of the start, on a logarithmic scale."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from deer_ros.budget.solver import ALWAYS
from deer_ros.model.config import LEARNED

# Without a calibration and without any threshold to go by: what steps of most policies differ by.
USUAL = (1e-3, 1.0)
# Of a calibration's deltas; below them an exit is nearly never taken, above them nearly always.
QUANTILES = (0.02, 0.98)
# From never to always, whatever the start is.
MOST_SPAN = 1e12
# No two answers are as near to each other, and a span below it would come to 0.
LEAST = 1e-12


@dataclass(frozen=True)
class Space:
    """A box of thresholds, one side per exit that the criterion may take or not.

    exits: numbers of those exits. low, high: bounds of their thresholds, above 0.
    """

    exits: tuple[int, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]

    @classmethod
    def around(
        cls,
        start: Sequence[float],
        exits: Sequence[int],
        span: float,
        deltas: np.ndarray | None = None,
    ) -> Space:
        """From start / span to start * span at every one of `exits`.

        A start that is never or always taken, or beyond what the criterion ever says, is first
        moved to the end of the range that it lies beyond. That range is the deltas' (exits of the
        model, samples), where they are known, or else that of the start's other thresholds.
        """
        if not 1 < span <= MOST_SPAN:
            raise ValueError(f"span is {span}; it must be above 1, and {MOST_SPAN:g} at most.")
        centres = [
            max(min(max(start[k], low), high), LEAST)
            for k in exits
            for low, high in (_range(start, exits, deltas, k),)
        ]
        return cls(
            tuple(exits),
            tuple(centre / span for centre in centres),
            tuple(centre * span for centre in centres),
        )

    @property
    def bounds(self) -> dict[str, tuple[float, float]]:
        """Low and high by the parameter's name."""
        return {_name(k): sides for k, *sides in zip(self.exits, self.low, self.high)}

    def parameters(self, thresholds: Sequence[float]) -> dict[str, float]:
        """The point of the box that is nearest to `thresholds`, one per exit of the model."""
        return {
            name: min(max(thresholds[k], low), high)
            for k, (name, (low, high)) in zip(self.exits, self.bounds.items())
        }

    def thresholds(
        self, start: Sequence[float], parameters: Mapping[str, float]
    ) -> tuple[float, ...]:
        """One per exit of the model: the start's, but for those that are searched."""
        found = list(start)
        for k in self.exits:
            found[k] = float(parameters[_name(k)])
        return tuple(found)


def searched_exits(exit_layers: Sequence[int], max_layer: int, metric: str) -> tuple[int, ...]:
    """Numbers of the exits whose threshold matters, of those up to `max_layer`.

    The deepest is always taken, and one after layer 1 never where `metric` compares: nothing comes
    before it. ValueError where none is left.
    """
    permitted = [k for k, layer in enumerate(exit_layers) if layer <= max_layer]
    exits = tuple(k for k in permitted[:-1] if exit_layers[k] > 1 or metric == LEARNED)
    if not exits:
        raise ValueError(
            f"up to layer {max_layer} this model has no exit that it may take or leave, so there "
            "are no thresholds to search; permit more layers."
        )
    return exits


def _range(
    start: Sequence[float], exits: Sequence[int], deltas: np.ndarray | None, k: int
) -> tuple[float, float]:
    if deltas is not None:
        positive = deltas[k][deltas[k] > 0]
        if positive.size:
            low, high = np.quantile(positive, QUANTILES)
            return float(low), float(high)
    usual = [start[n] for n in exits if 0 < start[n] < ALWAYS]
    return (min(usual), max(usual)) if usual else USUAL


def _name(exit_number: int) -> str:
    return f"exit_{exit_number}"

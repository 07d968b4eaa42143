"""How long every part of a step takes in virtual time, from a cost table."""

from __future__ import annotations

import numpy as np

from deer_ros.budget.timing import CostTable
from deer_ros.model.config import DeerConfig

CAMERAS = 2


class VirtualTimes:
    """Seconds of the parts, such that a step to an exit takes what the table has measured for it.

    Budgets are solved from whole steps, whose medians are not the sums of the parts' medians. So
    what lies between two exits is as long as the difference of the whole steps to them, and is
    divided among its parts in proportion to their own medians.
    """

    def __init__(self, table: CostTable, config: DeerConfig) -> None:
        exits = table.exit_layers
        # The pseudo answer before the first exit, too, where there is one.
        first_asked = 1 + (config.reference_layer(config.metric) is not None)
        layers_ms = [layer.p50 for layer in table.layers]
        before_ms = (table.preprocessing.p50 + table.vision.p50 + table.resampler.p50
                     + table.recurrent.p50)
        self._head_ms = table.head.p50
        self._layers_ms = layers_ms
        parts_ms = [before_ms + sum(layers_ms[: exits[0]]) + first_asked * self._head_ms]
        parts_ms += [
            sum(layers_ms[above:exit_layer]) + self._head_ms
            for above, exit_layer in zip(exits, exits[1:])
        ]
        whole_ms = np.diff(table.exits_ms("p50"), prepend=0.0)
        factors = [whole / parts if parts else 0.0 for whole, parts in zip(whole_ms, parts_ms)]
        segment = np.searchsorted(exits, np.arange(1, exits[-1] + 1))
        self._factors = [float(factors[index]) / 1e3 for index in segment]
        self.picture_s = table.preprocessing.p50 / CAMERAS * self._factors[0]
        self.see_s = (table.vision.p50 + table.resampler.p50) * self._factors[0]
        self.recurrent_s = table.recurrent.p50 * self._factors[0]

    def layer_s(self, layer: int) -> float:
        """Of a layer, counted from 1."""
        return self._layers_ms[layer - 1] * self._factors[layer - 1]

    def head_s(self, layer: int) -> float:
        """Of the answer after a layer."""
        return self._head_ms * self._factors[layer - 1]

"""Which layers are asked for an answer, and which answer is taken."""

from __future__ import annotations

import math
import numbers
from collections.abc import Sequence
from dataclasses import dataclass

from deer_ros.budget.cadence import Cadence
from deer_ros.budget.criterion import check_metric
from deer_ros.model.config import LEARNED, DeerConfig


@dataclass(frozen=True)
class ExitRule:
    """The rule in force, immutable, so that a step sees one whole.

    exits: layers (from 1) of the permitted exits. thresholds: one per exit of the model, infinite
    from the deepest permitted one on, which is always taken. cadence: which steps ask, and what the
    others do. asked: what the thresholds would be at full depth; where fewer were given, the
    model's own, or none to leave by if those are of another metric. ensemble: answer with the mean
    of the taken exit and the one before it.
    """

    exits: tuple[int, ...]
    thresholds: tuple[float, ...]
    metric: str
    cadence: Cadence
    asked: tuple[float, ...]
    ensemble: bool = False

    @classmethod
    def of(
        cls,
        config: DeerConfig,
        built_layers: int,
        thresholds: Sequence[float] | None = None,
        metric: str | None = None,
        max_layer: int | None = None,
        cadence: Cadence | None = None,
        ensemble: bool = False,
    ) -> ExitRule:
        """A checked rule for a model of which `built_layers` are there; None takes the model's own.

        Raises ValueError with a sentence for a wrong number of thresholds, NaN, an unknown metric
        or a `max_layer` before the first exit.
        """
        metric = config.metric if metric is None else metric
        check_metric(metric)
        config.check_metric(metric)
        cadence = Cadence.of(config) if cadence is None else cadence
        if not isinstance(max_layer, (numbers.Integral, type(None))):
            raise ValueError(f"max_layer is {max_layer!r}; it must be a whole number or None.")
        deepest = built_layers if max_layer is None else min(max_layer, built_layers)
        exits = config.permitted_exits(deepest)
        given = config.thresholds if thresholds is None else _floats(thresholds)
        count = len(config.exit_layers)
        if len(given) not in (count, len(exits)):
            raise ValueError(
                f"{len(given)} thresholds were given; give one per exit of the model ({count}, "
                f"after layers {list(config.exit_layers)}) or per permitted exit ({len(exits)})."
            )
        if any(math.isnan(t) for t in given):
            raise ValueError(f"the thresholds are {list(given)}; NaN is not allowed among them.")
        kept = given[: len(exits) - 1]
        always = (math.inf,) * (count - len(kept))
        # The model's own thresholds mean something else under another metric.
        own = metric == config.metric
        deeper = config.thresholds if own else (-math.inf,) * (count - 1) + (math.inf,)
        asked = given if len(given) == count else kept + deeper[len(kept) :]
        return cls(exits, kept + always, metric, cadence, asked, bool(ensemble))

    def at_depth(self, config: DeerConfig, built_layers: int) -> ExitRule:
        """The same rule for another number of layers, all of them permitted."""
        return ExitRule.of(
            config, built_layers, self.asked, self.metric, None, self.cadence, self.ensemble
        )

    def held(self, step: int, decided: int | None) -> int | None:
        """The exit that a step of an episode, counted from 0, takes unasked; None where it asks.

        decided: the exit of the step before.
        """
        if decided is None or self.cadence.decides(step):
            return None
        return self.cadence.between(decided)

    def layers(self, exit_layer: int | None, kept: int | None) -> tuple[int, ...]:
        """Layers that a step asks, in order; the last is taken if none before it is.

        exit_layer: run to that exit, asking nothing. kept: what `held` says; an exit that is not
        permitted any more holds no longer. Exits that can never be taken (threshold below zero) are
        asked only where the next one needs them for comparison, or an ensemble does. Raises
        ValueError for an `exit_layer` that is no permitted exit.
        """
        if exit_layer is not None:
            if exit_layer not in self.exits:
                raise ValueError(
                    f"exit_layer is {exit_layer}; the permitted exits are after layers "
                    f"{list(self.exits)}."
                )
            return (exit_layer,)
        if kept in self.exits:
            return (kept,)
        asked = {self.exits[-1]}
        for index, layer in enumerate(self.exits[:-1]):
            reference = self.exits[index - 1] if index else layer - 1
            if self.thresholds[index] >= 0 and self.metric == LEARNED:
                asked.add(layer)
            elif self.thresholds[index] >= 0 and reference > 0:
                asked |= {layer, reference}
            if self.ensemble:
                asked.add(layer)
        return tuple(sorted(asked))


def _floats(thresholds: Sequence[float]) -> tuple[float, ...]:
    try:
        return tuple(float(t) for t in thresholds)
    except (TypeError, ValueError) as error:
        raise ValueError(f"the thresholds are {thresholds!r}; they must be numbers.") from error

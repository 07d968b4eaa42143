"""How often the criterion is asked, and what that makes of means over steps."""

from __future__ import annotations

import numbers
from dataclasses import dataclass

import numpy as np

from deer_ros.model.config import DeerConfig


@dataclass(frozen=True)
class Cadence:
    """The criterion decides at every `steps_per_decision`-th step of an episode, from its first on.

    Steps in between keep the exit, but go no deeper than `layer_between`, an exit; None: as deep as
    was decided. A deep step's understanding stays in the recurrent state, so that the steps after
    it need not be as deep.
    """

    steps_per_decision: int = 1
    layer_between: int | None = None

    @classmethod
    def asked(
        cls,
        config: DeerConfig,
        steps_per_decision: int | None = None,
        max_layer_between: int | None = None,
    ) -> Cadence | None:
        """As `of`; None where nothing is given, and the model may choose."""
        if steps_per_decision is None and max_layer_between is None:
            return None
        return cls.of(config, steps_per_decision, max_layer_between)

    @classmethod
    def of(
        cls,
        config: DeerConfig,
        steps_per_decision: int | None = None,
        max_layer_between: int | None = None,
    ) -> Cadence:
        """What is given, and the model's own for what is None.

        max_layer_between: rounded down to an exit; 0: no limit. Raises ValueError with a sentence
        for what is no cadence.
        """
        own = config.exits
        steps = own.steps_per_decision if steps_per_decision is None else steps_per_decision
        most = own.max_layer_between if max_layer_between is None else max_layer_between
        for name, value, least in (
            ("steps_per_decision", steps, 1), ("max_layer_between", most or 0, 0)
        ):
            if not isinstance(value, numbers.Integral) or value < least:
                raise ValueError(f"{name} is {value!r}; it must be a whole number from {least}.")
        if most and most < config.exit_layers[0]:
            raise ValueError(
                f"max_layer_between is {most}; the first exit of this model is after layer "
                f"{config.exit_layers[0]}, so it must be at least that, or 0 for no limit."
            )
        return cls(int(steps), config.permitted_exits(most)[-1] if most else None)

    @property
    def arguments(self) -> dict[str, int]:
        """What `of` makes this of."""
        return {
            "steps_per_decision": self.steps_per_decision,
            "max_layer_between": self.layer_between or 0,
        }

    def __str__(self) -> str:
        if self.steps_per_decision == 1:
            return "every step"
        within = self.layer_between
        limit = "" if within is None else f", in between no deeper than layer {within}"
        return f"every {self.steps_per_decision} steps{limit}"

    def decides(self, step: int) -> bool:
        """Whether a step of an episode, counted from 0, asks the criterion."""
        return step % self.steps_per_decision == 0

    def between(self, decided: int) -> int:
        """The exit that a step in between takes, where exit layer `decided` was decided for."""
        return decided if self.layer_between is None else min(decided, self.layer_between)

    def per_step(self, by_exit: np.ndarray, exit_layers: tuple[int, ...]) -> np.ndarray:
        """Means over a decision's steps, of what a step that leaves at each exit costs or loses.

        by_exit, and the result: (K, ...), for the first K of the model's exits.
        """
        n, between = self.steps_per_decision, self._between(len(by_exit), exit_layers)
        return (by_exit + (n - 1) * by_exit[between]) / n

    def shares_of_steps(self, shares: np.ndarray, exit_layers: tuple[int, ...]) -> np.ndarray:
        """Shares of all steps that leave at every exit, from those of the decisions: (K,)."""
        n, between = self.steps_per_decision, self._between(len(shares), exit_layers)
        return (shares + (n - 1) * np.bincount(between, shares, len(shares))) / n

    def _between(self, count: int, exit_layers: tuple[int, ...]) -> np.ndarray:
        exits = exit_layers[:count]
        return np.array([exits.index(self.between(layer)) for layer in exits])

"""How long every part of a step takes on one machine, as it was measured there."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from deer_ros.model.schema import from_dict, to_dict

PERCENTILES = ("p50", "p99")
# Eleven days: no part of a step takes that long, and means of more would overflow.
MOST_MS = 1e9


@dataclass(frozen=True)
class Milliseconds:
    """Median and 99th percentile of what was measured."""

    p50: float
    p99: float

    @classmethod
    def of(cls, samples_ms: Sequence[float]) -> Milliseconds:
        """The percentiles of at least one sample; the high one is a sample, none is above it in
        more than one of a hundred."""
        p99 = np.percentile(samples_ms, 99, method="higher")
        return cls(float(np.median(samples_ms)), float(p99))

    def plus(self, other: Milliseconds) -> Milliseconds:
        """Both together; of the high percentiles the sum is on the safe side."""
        return Milliseconds(self.p50 + other.p50, self.p99 + other.p99)

    def times(self, count: int) -> Milliseconds:
        """So many of them."""
        return Milliseconds(self.p50 * count, self.p99 * count)


TIMES = (
    "preprocessing", "vision", "resampler", "recurrent", "head", "layers", "segments", "exits",
)
"""The parts of a cost table that were timed."""


@dataclass(frozen=True)
class CostTable:
    """Measured milliseconds of every part of a loaded model.

    machine, device, dtype, threads: what it was measured on. prompt_tokens: length of the prompt.
    steps: how many were measured. exit_layers: the exits up to the deepest layer that was loaded.

    preprocessing: both pictures. vision: the tower, both cameras. resampler: both cameras. layers:
    one by one. recurrent: what the recurrent state adds to the head, once a step. head: one answer.

    segments: what lies before exit k and after exit k - 1, head included; the first is the fixed
    part. exits: a whole step that asks every exit up to k and leaves there. These two were timed in
    whole steps, so that they are not the sums of the parts' percentiles.
    """

    machine: str
    device: str
    dtype: str
    threads: int
    prompt_tokens: int
    steps: int
    exit_layers: tuple[int, ...]
    preprocessing: Milliseconds
    vision: Milliseconds
    resampler: Milliseconds
    recurrent: Milliseconds
    head: Milliseconds
    layers: tuple[Milliseconds, ...]
    segments: tuple[Milliseconds, ...]
    exits: tuple[Milliseconds, ...]

    def __post_init__(self) -> None:
        exits = len(self.exit_layers)
        if not exits or {len(self.segments), len(self.exits)} != {exits}:
            raise ValueError(
                f"a cost table has {exits} exits, {len(self.segments)} segments and times of "
                f"{len(self.exits)} exits; there must be equally many, at least one."
            )
        if len(self.layers) != self.exit_layers[-1]:
            raise ValueError(
                f"a cost table has {len(self.layers)} layers and its deepest exit after layer "
                f"{self.exit_layers[-1]}; they must be the same."
            )
        for part in TIMES:
            times = getattr(self, part)
            if isinstance(times, Milliseconds):
                _check_times(part, times)
                continue
            for number, ms in enumerate(times):
                _check_times(f"{part}[{number}]", ms)

    def step_ms(self, exit_index: int, percentile: str = "p50") -> float:
        """A whole step that asks every exit up to this one, counted from 0, and leaves there."""
        return getattr(self.exits[exit_index], _checked(percentile))

    def exits_ms(self, percentile: str = "p50") -> np.ndarray:
        """`step_ms` of every exit that was loaded, float64 (exits,), never falling with depth."""
        values = [getattr(exit_ms, _checked(percentile)) for exit_ms in self.exits]
        return np.maximum.accumulate(np.array(values, np.float64))

    def fixed_ms(self, percentile: str = "p50") -> float:
        """What a step takes at least: it leaves at the first exit."""
        return self.step_ms(0, percentile)

    def llm_ms(self, exit_index: int, percentile: str = "p50") -> float:
        """The layers before this exit alone, the sum of their percentiles."""
        layers = self.layers[: self.exit_layers[exit_index]]
        return sum(getattr(layer, _checked(percentile)) for layer in layers)

    def at_depth(self, exit_layers: tuple[int, ...]) -> CostTable:
        """For fewer or more exits of the same model. Parts that were not loaded are taken to be as
        slow as the deepest that was measured."""
        deepest = self.layers[-1]
        layers = self.layers + (deepest,) * (exit_layers[-1] - len(self.layers))
        segments, exits = list(self.segments), list(self.exits)
        for before, layer in zip(exit_layers, exit_layers[1:]):
            if layer > self.exit_layers[-1]:
                segments.append(deepest.times(layer - before).plus(self.head))
                exits.append(exits[-1].plus(segments[-1]))
        count = len(exit_layers)
        return dataclasses.replace(
            self, exit_layers=exit_layers, layers=layers[: exit_layers[-1]],
            segments=tuple(segments[:count]), exits=tuple(exits[:count]),
        )  # fmt: skip

    def to_json(self) -> dict[str, Any]:
        """Nested dictionaries that JSON can hold."""
        return to_dict(self)

    @classmethod
    def from_json(cls, values: Any) -> CostTable:
        """Back from `to_json`. ValueError names a key that is missing, unknown or wrong."""
        return from_dict(cls, values, "cost table")

    @classmethod
    def load(cls, path: str | Path) -> CostTable:
        """Read a JSON file that holds `to_json`, or all that `deer bench --json` prints.

        Raises FileNotFoundError, or ValueError naming the file and what is wrong.
        """
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"there is no cost table {path}; `deer bench --out` makes one.")
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            within = isinstance(values, dict) and values.get("cost_table")
            return cls.from_json(within or values)
        except (ValueError, OSError, RecursionError) as error:
            raise ValueError(f"{path} is no cost table that can be read: {error}") from error


def _check_times(part: str, times: Milliseconds) -> None:
    """ValueError for what nothing can have taken: negative, infinite, or a median above 99 of 100
    samples."""
    for name, ms in vars(times).items():
        if not 0 <= ms <= MOST_MS:
            raise ValueError(
                f"{part}.{name} of the cost table is {ms} ms; it must be 0 to {MOST_MS:g}. Measure "
                "again with `deer bench`."
            )
    if times.p50 > times.p99:
        raise ValueError(
            f"{part} of the cost table takes {times.p50} ms in the median and {times.p99} at the "
            "99th percentile; that one must not be lower. Measure again with `deer bench`."
        )


def _checked(percentile: str) -> str:
    if percentile not in PERCENTILES:
        raise ValueError(f"percentile is {percentile!r}; allowed are {', '.join(PERCENTILES)}.")
    return percentile

"""Whether two runs over the same recordings did the same."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from deer_ros.replay.records import StepRecord


@dataclass(frozen=True)
class Difference:
    """What is different in one step, in words; largest: of the action's values, NaN for others."""

    bag: str
    topic: str
    episode: int
    step: int
    time_s: float
    what: str
    largest: float


@dataclass(frozen=True)
class Comparison:
    """steps: that both runs have. differing: those that are not the same within the tolerance.

    only_earlier, only_later: steps that one run alone has. first: in the order of the recordings.
    largest, mean: absolute difference of an action's value, over the common steps.
    exits: steps that left at another exit.
    """

    tolerance: float
    steps: int
    differing: int
    only_earlier: int
    only_later: int
    exits: int
    grippers: int
    largest: float
    mean: float
    first: Difference | None

    @property
    def is_same(self) -> bool:
        """Whether there is no difference beyond the tolerance."""
        return self.first is None

    def describe(self) -> str:
        """In a few sentences."""
        if self.is_same:
            return (f"the same in {self.steps} steps within {self.tolerance:g} (largest difference "
                    f"of an action's value {self.largest:.3g}).")
        first = self.first
        return (
            f"they differ in {self.differing} of {self.steps} steps"
            f"{self._alone()}, beyond {self.tolerance:g}. First: {first.bag}, {first.topic}, "
            f"episode {first.episode}, step {first.step}, at {first.time_s:.3f} s: {first.what}. "
            f"Another exit in {self.exits} steps, another gripper in {self.grippers}; an action's "
            f"value differs by {self.largest:.3g} at most, {self.mean:.3g} on average."
        )

    def to_json(self) -> dict[str, Any]:
        """JSON-ready: what is not a number is null."""
        values = asdict(self) | {"same": self.is_same}
        return {name: _plain(value) for name, value in values.items()}

    def _alone(self) -> str:
        parts = [
            f"{count} steps are in the {name} run only"
            for count, name in ((self.only_earlier, "earlier"), (self.only_later, "later")) if count
        ]
        return "".join(f", {part}" for part in parts)


Runs = Sequence[tuple[str, str, Sequence[StepRecord]]]
"""(bag, topic, steps) each."""


def compare(earlier: Runs, later: Runs, tolerance: float) -> Comparison:
    """Step by step: a step is known by its bag, its run's topic and the stamps of its pictures.

    tolerance: largest absolute difference of each of an action's six values. Exit, gripper and
    instruction must be equal. NaN is equal to nothing. Raises ValueError where the runs have no
    bag and topic in common, or the tolerance is no number from 0.
    """
    if not tolerance >= 0:
        raise ValueError(f"the tolerance is {tolerance}; it must be a number from 0.")
    before = {(bag, topic): steps for bag, topic, steps in earlier}
    after = {(bag, topic): steps for bag, topic, steps in later}
    if not before.keys() & after.keys():
        raise ValueError(
            f"the runs have no bag in common: the earlier one has {_names(before)}, this one "
            f"{_names(after)}."
        )
    judged = _Judged()
    for key in sorted(before.keys() | after.keys()):
        judged.add(key, before.get(key, ()), after.get(key, ()), tolerance)
    return judged.result(tolerance)


class _Judged:
    """Sums over the steps of all bags."""

    def __init__(self) -> None:
        self.steps = self.differing = self.exits = self.grippers = 0
        self.only = [0, 0]
        self.gaps: list[np.ndarray] = []
        self.first: Difference | None = None

    def add(
        self, key: tuple[str, str], earlier: Sequence[StepRecord], later: Sequence[StepRecord],
        tolerance: float,
    ) -> None:
        sides = [_named(side) for side in (earlier, later)]
        start_ns = min((record.time_ns for record in (*earlier, *later)), default=0)
        for name in dict.fromkeys([*sides[0], *sides[1]]):
            pair = [side.get(name) for side in sides]
            known = pair[1] or pair[0]
            what, largest = self._judge(pair, tolerance)
            found = Difference(
                *key, known.episode, known.step, (known.time_ns - start_ns) / 1e9, what, largest
            )
            is_first = self.first is None or (
                self.first.bag == found.bag and found.time_s < self.first.time_s)
            if what and is_first:
                self.first = found

    def result(self, tolerance: float) -> Comparison:
        gaps = np.concatenate(self.gaps) if self.gaps else np.zeros(1)
        return Comparison(
            tolerance, self.steps, self.differing, *self.only, self.exits, self.grippers,
            float(gaps.max()), float(gaps.mean()), self.first,
        )

    def _judge(self, pair: list[StepRecord | None], tolerance: float) -> tuple[str, float]:
        """What is different in a step, in words, empty if nothing is; and by how much."""
        before, after = pair
        if before is None or after is None:
            self.only[before is None] += 1
            return f"a step that only the {'later' if before is None else 'earlier'} run has", (
                float("nan"))
        self.steps += 1
        gap = np.abs(np.asarray(after.action, np.float64) - before.action)
        self.gaps.append(gap)
        words = []
        if before.instruction != after.instruction:
            words.append(f"the instruction {before.instruction!r} became {after.instruction!r}")
        if before.exit_layer != after.exit_layer:
            self.exits += 1
            words.append(f"exit after layer {before.exit_layer} became {after.exit_layer}")
        if before.gripper != after.gripper:
            self.grippers += 1
            words.append(f"gripper {before.gripper:+g} became {after.gripper:+g}")
        if not (gap <= tolerance).all():
            words.append(f"the action differs by {gap.max():.3g}")
        self.differing += bool(words)
        return ", ".join(words), float(gap.max())


def _named(records: Sequence[StepRecord]) -> dict[tuple, StepRecord]:
    """By the stamps of their pictures, and how often they were used before: bags can be looped."""
    named: dict[tuple, StepRecord] = {}
    seen: Counter = Counter()
    for record in records:
        named[record.stamps_ns, seen[record.stamps_ns]] = record
        seen[record.stamps_ns] += 1
    return named


def _names(runs: dict[tuple[str, str], Any]) -> str:
    return ", ".join(f"{bag} {topic}" for bag, topic in sorted(runs)) or "none"


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(inner) for name, inner in value.items()}
    return None if isinstance(value, float) and not np.isfinite(value) else value

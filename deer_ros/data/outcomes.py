"""What came of taking exits in closed loop: what a gate that guesses success learns from."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from deer_ros.data.caches import reading


@dataclass(frozen=True)
class Outcomes:
    """Answers of exits, and whether their episodes failed in the end. Of n answers:

    read: float32 (n, W), what the gate reads of the head. poses: float32 (n, 6). layers: int64
    (n,), after which exit, from 1. at_full_depth: bool (n,), whether full depth was taken from
    there to the end, and else that exit. failed: bool (n,). episodes: int64 (n,), of which episode.
    """

    read: np.ndarray
    poses: np.ndarray
    layers: np.ndarray
    at_full_depth: np.ndarray
    failed: np.ndarray
    episodes: np.ndarray

    def __len__(self) -> int:
        return len(self.layers)

    def of(self, rows: np.ndarray) -> Outcomes:
        """Some of the answers, by number or by mask."""
        return Outcomes(*(values[rows] for values in vars(self).values()))

    @classmethod
    def joined(cls, parts: Sequence[Outcomes]) -> Outcomes:
        """All answers of one or more parts, whose episodes are different ones."""
        joined = {f.name: np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(cls)}
        first = np.cumsum([0, *(int(part.episodes.max(initial=-1)) + 1 for part in parts)])
        numbers = [part.episodes + start for part, start in zip(parts, first)]
        return cls(**{**joined, "episodes": np.concatenate(numbers)})

    def save(self, path: Path) -> None:
        """Write an `.npz` file, whole or not at all."""
        unfinished = path.with_suffix(".unfinished.npz")
        np.savez(unfinished, **vars(self))
        os.replace(unfinished, path)

    @classmethod
    def load(cls, path: Path) -> Outcomes:
        """Read what `save` wrote. ValueError names the file where it is damaged."""
        with reading(path), np.load(path, allow_pickle=False) as file:
            return cls(**{field.name: file[field.name] for field in fields(cls)})

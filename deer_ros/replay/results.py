"""What runs over recordings leave to be told."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from deer_ros.data.bag_topics import Topics
from deer_ros.observation import Observation
from deer_ros.replay.records import StepRecord
from deer_ros.stepping.plan import Plan


@dataclass(frozen=True, eq=False)
class Pictured:
    """A step with what the cameras saw: uint8 RGB (H, W, 3)."""

    record: StepRecord
    observation: Observation


@dataclass
class RunResult:
    """One run over one bag. stops: statuses of a standing policy, by their sentence.

    pictured: the steps whose actions differ most from the recorded ones, or, where there are none,
    from full depth; the largest difference first. sampler: images seen, used, refused.
    """

    label: str
    topics: Topics
    plan: Plan
    steps: list[StepRecord] = field(default_factory=list)
    stops: Counter = field(default_factory=Counter)
    failed: Counter = field(default_factory=Counter)
    pictured: list[Pictured] = field(default_factory=list)
    images: dict[str, int] = field(default_factory=dict)
    episodes: int = 0
    resets: Counter = field(default_factory=Counter)


@dataclass
class BagResult:
    """One bag. refused: inputs that were not taken, and why; losses: what of the bag is missing."""

    name: str
    duration_s: float
    runs: list[RunResult]
    refused: Counter
    losses: list[str]
    moved: dict[str, str]
    notes: list[str]


def all_steps(bags: Sequence[BagResult], run: int) -> Iterator[StepRecord]:
    """Of one run, over all bags."""
    for bag in bags:
        yield from bag.runs[run].steps

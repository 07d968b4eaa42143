"""Whether there is time for more layers: what is left of a step against what they may take."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from deer_ros.budget.timing import CostTable

WINDOW = 100
"""Steps that a prediction rests on."""


class SegmentTimes:
    """What the segments of a step take: the layers from one exit to the next, and the head.

    Percentiles of the last steps begin with the cost table's. A step that did not reach a segment
    counts as if the segment had taken what the table says: a machine that was once slow is so tried
    again, in about one step of a hundred.
    """

    def __init__(self, table: CostTable) -> None:
        self.table = table
        self._expected_ms = [segment.p99 for segment in table.segments]
        self._windows = [deque([ms] * WINDOW, maxlen=WINDOW) for ms in self._expected_ms]

    def predicted_ms(self, segment: int) -> float:
        """Time that the segment before exit number `segment` stays below in 99 % of the steps."""
        rank = math.ceil(0.99 * WINDOW) - 1
        return sorted(self._windows[segment])[rank]

    def learn(self, segments_ms: Sequence[float]) -> None:
        """Take in what the segments of a step took, those that ran, from the first on."""
        for segment, window in enumerate(self._windows):
            ran = segment < len(segments_ms)
            window.append(segments_ms[segment] if ran else self._expected_ms[segment])


@dataclass(frozen=True)
class Deadline:
    """Promises that a step ends by `latency_ms` after its start, as far as that can be predicted.

    A segment begins only if the time spent so far and its predicted time fit. None begins after the
    deadline, so that a step overshoots by less than the segment that was running then; the first
    one, the fixed part, always runs.
    """

    latency_ms: float
    times: SegmentTimes

    def permits(self, segment: int, elapsed_ms: float) -> bool:
        """Whether a segment may begin `elapsed_ms` after the step's start."""
        return elapsed_ms + max(self.times.predicted_ms(segment), 0.0) <= self.latency_ms

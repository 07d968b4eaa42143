"""Values by time: what had been said last when a picture was taken."""

from __future__ import annotations

from bisect import bisect_right
from typing import Generic, TypeVar

Value = TypeVar("Value")

# A message without a stamp has only the time of its recording, a little after what it belongs to.
TOLERANCE_NS = 1_000_000


class Column(Generic[Value]):
    """The values of one topic. Times are integer nanoseconds, in any order."""

    def __init__(self) -> None:
        self._times_ns: list[int] = []
        self._values: list[Value] = []

    def add(self, time_ns: int, value: Value) -> None:
        """One more; of several at one time the last counts."""
        place = bisect_right(self._times_ns, time_ns)
        self._times_ns.insert(place, time_ns)
        self._values.insert(place, value)

    def newest(self, time_ns: int, oldest_ns: int | None = None) -> Value | None:
        """The last value that is not after the time; None where there is none, or where it is older
        than `oldest_ns` at that time."""
        place = bisect_right(self._times_ns, time_ns + TOLERANCE_NS) - 1
        if place < 0:
            return None
        if oldest_ns is not None and time_ns - self._times_ns[place] > oldest_ns:
            return None
        return self._values[place]

    def forget_before(self, time_ns: int) -> None:
        """Drop what `newest` does not give for this time or any later one."""
        place = max(0, bisect_right(self._times_ns, time_ns + TOLERANCE_NS) - 1)
        del self._times_ns[:place], self._values[:place]

    def clear(self) -> None:
        """Drop all."""
        self._times_ns.clear()
        self._values.clear()

"""When a recorded moment is due. Reads no clock: times are integer nanoseconds of the caller's."""

from __future__ import annotations

# What is late by up to this is caught up with. What is later stays late, as do all that follow:
# pictures that come in a burst are dropped by whoever takes the newest only.
CATCH_UP_NS = 10_000_000


class Pace:
    """Bag time goes on at `rate` times the speed of a steady clock, except while paused."""

    def __init__(self, rate: float, paused: bool = False) -> None:
        self.rate = rate
        self.paused = paused
        self._bag_ns = self._steady_ns = 0

    def start(self, bag_ns: int, steady_ns: int) -> None:
        """From `steady_ns` on, bag time goes on from `bag_ns`."""
        self._bag_ns, self._steady_ns = bag_ns, steady_ns

    def bag_ns(self, steady_ns: int) -> int:
        """The bag's time at that moment."""
        elapsed_ns = 0 if self.paused else max(0, steady_ns - self._steady_ns)
        return self._bag_ns + round(elapsed_ns * self.rate)

    def wait_ns(self, bag_ns: int, steady_ns: int) -> int | None:
        """How long until a recorded moment is due; negative: so late. None while paused."""
        if self.paused:
            return None
        return self._steady_ns + round((bag_ns - self._bag_ns) / self.rate) - steady_ns

    def done(self, bag_ns: int, steady_ns: int) -> int:
        """What was recorded at `bag_ns` has been played; returns how late it was.

        Whatever follows keeps its distance to it.
        """
        late_ns = -(self.wait_ns(bag_ns, steady_ns) or 0)
        self._steady_ns += max(0, late_ns - CATCH_UP_NS)
        return max(0, late_ns)

    def set_rate(self, rate: float, steady_ns: int) -> None:
        """From now on."""
        self.start(self.bag_ns(steady_ns), steady_ns)
        self.rate = rate

    def pause(self, paused: bool, steady_ns: int) -> None:
        """Stand still, or go on from where it stands."""
        self.start(self.bag_ns(steady_ns), steady_ns)
        self.paused = paused

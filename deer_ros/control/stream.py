"""What goes out on the velocity topic, and when: a policy that falls silent must not leave a robot
moving.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from deer_ros.control.command import Command

# Zeros go on for this long, in case one is lost, before the topic is left to others.
ZEROS_S = 0.5


@dataclass(frozen=True)
class Emission:
    """A message that is due. command: None means zero velocity."""

    command: Command | None


class CommandStream:
    """Repeats a command for as long as it holds, and those that follow it; then zeros for half a
    second, then nothing.

    Times are integer nanoseconds of any clock that does not jump. `poll` is to be called when
    `next_ns` has come, and after every `hold` or `stop`.
    """

    def __init__(self, rate_hz: float) -> None:
        self.set_rate(rate_hz)
        self._command: Command | None = None
        self._following: Iterator[Command] = iter(())
        self._duration_ns = 0
        self._ends_ns = 0
        self._zeros_end_ns = 0
        self.next_ns: int | None = None

    def set_rate(self, rate_hz: float) -> None:
        """Messages per second."""
        self._period_ns = round(1e9 / rate_hz)

    def hold(
        self,
        command: Command,
        now_ns: int,
        duration_s: float,
        following: Iterable[Command] = (),
    ) -> None:
        """Send `command` now, and again until `duration_s` has passed; then each that follows.

        following: each is asked for when the one before has ended, and lasts as long.
        """
        self._command = command
        self._following = iter(following)
        self._duration_ns = round(duration_s * 1e9)
        self._ends_ns = now_ns + self._duration_ns
        self.next_ns = now_ns

    def stop(self, now_ns: int) -> None:
        """Send zero now."""
        self._command = None
        self._following = iter(())
        self._zeros_end_ns = now_ns + round(ZEROS_S * 1e9)
        self.next_ns = now_ns

    @property
    def moves(self) -> bool:
        """Whether a command holds, so that the robot moves."""
        return self._command is not None

    def repeat(self, now_ns: int) -> None:
        """Send what holds again, now."""
        if self.next_ns is not None:
            self.next_ns = now_ns

    def silence(self) -> None:
        """Send nothing any more."""
        self._command = None
        self._following = iter(())
        self.next_ns = None

    def poll(self, now_ns: int) -> Emission | None:
        """The message due at `now_ns`, if any."""
        if self.next_ns is None or now_ns < self.next_ns:
            return None
        while self._command is not None and now_ns >= self._ends_ns:
            self._command = next(self._following, None)
            self._ends_ns += self._duration_ns
            if self._command is None:
                self.stop(now_ns)
        command = self._command
        self.next_ns = now_ns + self._period_ns
        if command is not None:
            # The end does not wait for the next repetition.
            self.next_ns = min(self.next_ns, self._ends_ns)
        elif self.next_ns > self._zeros_end_ns:
            self.next_ns = None
        return Emission(command)

"""The thread that sends commands on time, whatever the executor and the model are doing."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable

from rclpy.clock import ROSClock

from deer_ros.control.command import Command
from deer_ros.control.stream import CommandStream


class Commander:
    """Drives a CommandStream; `publish(command)` sends one message, None meaning zero velocity.

    A command lasts in the robot's time: that of /clock in simulation, else a clock that nobody can
    set. All methods may be called from any thread; the first message goes out before they return.
    lock: held while a following command is asked for, and while anything is sent.
    """

    def __init__(
        self,
        clock: ROSClock,
        publish: Callable[[Command | None], None],
        rate_hz: float,
        lock: threading.RLock,
    ) -> None:
        self._clock = clock
        self._publish = publish
        self._stream = CommandStream(rate_hz)
        self._condition = threading.Condition(lock)
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="commander", daemon=True)
        self._thread.start()

    def set_rate(self, rate_hz: float) -> None:
        """Messages per second."""
        with self._condition:
            self._stream.set_rate(rate_hz)

    def hold(
        self, command: Command, duration_s: float, following: Iterable[Command] = ()
    ) -> None:
        """Send a command now and repeat it for `duration_s`, then each that follows, then zeros."""
        with self._condition:
            if not self._closed:
                self._stream.hold(command, self._now_ns(), duration_s, following)
                self._send_due()

    def stop(self) -> None:
        """Send zero now."""
        with self._condition:
            if not self._closed:
                self._stream.stop(self._now_ns())
                self._send_due()

    def tick(self) -> None:
        """Simulated time has moved."""
        with self._condition:
            self._condition.notify()

    def close(self) -> None:
        """Send nothing any more, and end the thread."""
        with self._condition:
            self._closed = True
            self._stream.silence()
            self._condition.notify()
        self._thread.join()

    def _send_due(self) -> None:
        emission = self._stream.poll(self._now_ns())
        if emission is not None:
            self._publish(emission.command)
        self._condition.notify()

    def _run(self) -> None:
        with self._condition:
            while not self._closed:
                if self._stream.next_ns is not None and self._stream.next_ns <= self._now_ns():
                    self._send_due()
                self._condition.wait(self._wait_s())

    def _wait_s(self) -> float | None:
        """Until the next message is due; simulated time comes with `tick`."""
        if self._stream.next_ns is None or self._clock.ros_time_is_active:
            return None
        return max(0.0, (self._stream.next_ns - self._now_ns()) / 1e9)

    def _now_ns(self) -> int:
        return self._clock.now().nanoseconds if self._clock.ros_time_is_active else (
            time.monotonic_ns())

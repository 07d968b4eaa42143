"""The thread that sends commands on time, whatever the executor and the model are doing."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterable

from rclpy.clock import ROSClock

from deer_ros.control.command import Command
from deer_ros.control.stream import CommandStream


class Commander:
    """Drives a CommandStream; `publish(command)` sends one message, None meaning zero velocity.

    A command lasts in the robot's time: that of /clock in simulation, else a clock that nobody can
    set. Where /clock stands still for `standstill_s` of real time while a command holds, zero goes
    out: a robot that does not live in that time would never stop. Once the clock moves on, so does
    the command. All methods may be called from any thread; the first message goes out before they
    return. lock: held while a following command is asked for, and while anything is sent. failed:
    called with the lock when a following command could not be made; zero goes out instead.
    """

    def __init__(
        self,
        clock: ROSClock,
        publish: Callable[[Command | None], None],
        rate_hz: float,
        standstill_s: float,
        lock: threading.RLock,
        failed: Callable[[Exception], None],
    ) -> None:
        self._clock = clock
        self._publish = publish
        self._failed = failed
        self._stream = CommandStream(rate_hz)
        self._condition = threading.Condition(lock)
        self._closed = False
        self._standstill_s = standstill_s
        self._moved_on_s = 0.0
        self._stands = False
        self._thread = threading.Thread(target=self._run, name="commander", daemon=True)
        self._thread.start()

    def set_times(self, rate_hz: float, standstill_s: float) -> None:
        """Messages per second, and how long the clock may stand while the robot moves."""
        with self._condition:
            self._stream.set_rate(rate_hz)
            self._standstill_s = standstill_s
            self._condition.notify()

    def hold(
        self, command: Command, duration_s: float, following: Iterable[Command] = ()
    ) -> None:
        """Send a command now and repeat it for `duration_s`, then each that follows, then zeros."""
        with self._condition:
            if not self._closed:
                self._stream.hold(command, self._now_ns(), duration_s, following)
                self._note_motion()
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
            if self._stands:
                self._stream.repeat(self._now_ns())
            self._note_motion()
            self._condition.notify()

    def close(self) -> None:
        """Send nothing any more, and end the thread."""
        with self._condition:
            self._closed = True
            self._stream.silence()
            self._condition.notify()
        self._thread.join()

    def _note_motion(self) -> None:
        self._moved_on_s = time.monotonic()
        self._stands = False

    def _send_due(self) -> None:
        try:
            emission = self._stream.poll(self._now_ns())
        except Exception as error:
            # Without this thread nothing would ever stop the robot.
            self._stream.stop(self._now_ns())
            emission = self._stream.poll(self._now_ns())
            self._failed(error)
        if emission is not None:
            self._publish(emission.command)
        self._condition.notify()

    def _run(self) -> None:
        with self._condition:
            while not self._closed:
                if self._stream.next_ns is not None and self._stream.next_ns <= self._now_ns():
                    self._send_due()
                elif self._clock.ros_time_is_active and self._patience_s() <= 0:
                    self._stands = True
                    self._publish(None)
                self._condition.wait(self._wait_s())

    def _patience_s(self) -> float:
        """How much longer the clock may stand still; for ever where nothing moves."""
        if self._stands or not self._stream.moves:
            return math.inf
        return self._moved_on_s + self._standstill_s - time.monotonic()

    def _wait_s(self) -> float | None:
        """Until the next message is due; simulated time comes with `tick`."""
        if self._clock.ros_time_is_active:
            patience_s = self._patience_s()
            return None if patience_s == math.inf else max(0.0, patience_s)
        if self._stream.next_ns is None:
            return None
        return max(0.0, (self._stream.next_ns - self._now_ns()) / 1e9)

    def _now_ns(self) -> int:
        return self._clock.now().nanoseconds if self._clock.ros_time_is_active else (
            time.monotonic_ns())

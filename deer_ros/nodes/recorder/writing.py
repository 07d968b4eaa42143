"""A thread that writes messages to disk, and what waits for it, in bounded memory."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from pathlib import Path

from deer_ros.data.rolling_bag import Channel, RollingBag

LIMIT_BYTES = 64 * 2**20
# What a message takes beside its bytes.
OVERHEAD_BYTES = 200
TICK_S = 0.25
# A clock that was set is no jitter: a bag whose times fall back would be read in another order.
JUMP_BACK_NS = 500_000_000


class Writing:
    """Takes messages at once and writes them when the disk lets it.

    Where more waits than `limit_bytes`, what comes is dropped, and counted by topic. Where the
    clock jumps back, a new bag begins. failure: why no more is written, once that is so.
    """

    def __init__(self, folder: Path, file_s: float, limit_bytes: int = LIMIT_BYTES) -> None:
        """Raises OSError where there can be no folder."""
        self.dropped: Counter[str] = Counter()
        self.written = 0
        self.failure: str | None = None
        self._wanted = folder
        self._file_s = file_s
        self._limit_bytes = limit_bytes
        self._bag = RollingBag.in_free_folder(folder, file_s)
        self._newest_ns: int | None = None
        self._waiting: deque[tuple[Channel, int, bytes]] = deque()
        self._waiting_bytes = 0
        self._condition = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="writing", daemon=True)
        self._thread.start()

    @property
    def folder(self) -> Path:
        """Of the bag that is written."""
        return self._bag.folder

    def put(self, channel: Channel, recorded_ns: int, data: bytes) -> bool:
        """Have a message written. False: it was dropped."""
        size = len(data) + OVERHEAD_BYTES
        with self._condition:
            # One message is always taken, however large it is.
            is_full = self._waiting_bytes and self._waiting_bytes + size > self._limit_bytes
            if self.failure or is_full:
                self.dropped[channel.topic] += 1
                return False
            self._waiting.append((channel, recorded_ns, data))
            self._waiting_bytes += size
            self._condition.notify()
        return True

    def close(self) -> None:
        """Write what waits, finish the bag and end the thread."""
        with self._condition:
            self._closed = True
            self._condition.notify()
        self._thread.join()

    def _run(self) -> None:
        try:
            while (batch := self._next_batch()) is not None:
                for channel, recorded_ns, data in batch:
                    self._write(channel, recorded_ns, data)
                    with self._condition:
                        self._waiting_bytes -= len(data) + OVERHEAD_BYTES
                self._bag.tick(time.monotonic())
            self._bag.close()
        except Exception as error:  # whatever it is, the robot goes on and the user is told
            reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
            with self._condition:
                self.failure = f"{reason} ({self._bag.folder})"
                for channel, _, _ in self._waiting:
                    self.dropped[channel.topic] += 1
                self._waiting.clear()
            self._bag.abandon()

    def _next_batch(self) -> list[tuple[Channel, int, bytes]] | None:
        """All that waits; None when all is done."""
        with self._condition:
            if not (self._waiting or self._closed):
                self._condition.wait(TICK_S)
            if self._closed and not self._waiting:
                return None
            batch = list(self._waiting)
            self._waiting.clear()
            return batch

    def _write(self, channel: Channel, recorded_ns: int, data: bytes) -> None:
        if self._newest_ns is not None and recorded_ns < self._newest_ns - JUMP_BACK_NS:
            self._bag.close()
            self._bag = RollingBag.in_free_folder(self._wanted, self._file_s)
            self._newest_ns = None
        self._bag.write(channel, recorded_ns, data, time.monotonic())
        self._newest_ns = max(recorded_ns, self._newest_ns or recorded_ns)
        self.written += 1

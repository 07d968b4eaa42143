"""How long this machine stood still: what must be on time cannot be, where nothing runs."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Callable

NAP_S = 0.005
# Less than what any test allows for being late.
NOTICED_S = 0.04
TRIES = 5


class Stillness:
    """While it is entered, a thread that only sleeps. longest_s: by how much it woke too late."""

    def __enter__(self) -> Stillness:
        self.longest_s = 0.0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._sleep, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_exception) -> None:
        self._ended.set()
        self._thread.join()

    def _sleep(self) -> None:
        while not self._ended.is_set():
            started_s = time.monotonic()
            time.sleep(NAP_S)
            self.longest_s = max(self.longest_s, time.monotonic() - started_s - NAP_S)


def on_time(trial: Callable[[], object], tries: int = TRIES) -> None:
    """Run a trial of what must be on time.

    One that fails while the machine stood still says nothing of what is tried, and is repeated; a
    failure while it ran, or in the last trial, counts.
    """
    for number in range(tries):
        with Stillness() as still:
            failure = _failure_of(trial)
        if failure is None:
            return
        if still.longest_s < NOTICED_S or number == tries - 1:
            raise failure


def _failure_of(trial: Callable[[], object]) -> Exception | None:
    try:
        trial()
    except (AssertionError, subprocess.TimeoutExpired) as error:
        return error
    return None

"""SIGINT and SIGTERM as a call in a thread of their own.

rclpy's handlers close the context before a last command can go out, and Python's run only when the
main thread comes back from waiting. Blocking the signals would not do: libraries that are imported
start threads, and a signal goes to any of them. But wherever it goes, it writes to a pipe at once.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)

_pipe: tuple[int, int] | None = None


def catch_stop_signals() -> None:
    """From now on they end nothing by themselves. In the main thread, before all else."""
    global _pipe
    if _pipe is None:
        _pipe = os.pipe()
        os.set_blocking(_pipe[1], False)
    signal.set_wakeup_fd(_pipe[1], warn_on_full_buffer=False)
    for wanted in STOP_SIGNALS:
        signal.signal(wanted, _do_nothing)


def on_stop_signal(callback: Callable[[str], None]) -> None:
    """Call `callback` with the first signal's name, in a thread of its own.

    It may have come since `catch_stop_signals`.
    """
    reading = _pipe[0]

    def wait() -> None:
        number = 0
        while number not in STOP_SIGNALS:
            number = os.read(reading, 1)[0]
        callback(signal.Signals(number).name)

    threading.Thread(target=wait, name="stop signals", daemon=True).start()


def _do_nothing(_number: int, _frame: object) -> None:
    """The pipe has been written to already."""

"""SIGINT and SIGTERM as a call in a thread of their own.

rclpy's handlers close the context before a last command can go out, and Python's run only when the
main thread comes back from waiting. A thread that waits for the signals acts at once.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def block_stop_signals() -> None:
    """Keep them for the thread of `on_stop_signal`; to be called before any thread is started."""
    signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)


def on_stop_signal(callback: Callable[[str], None]) -> None:
    """Call `callback` with the first signal's name, in a thread of its own."""

    def wait() -> None:
        received = signal.sigwait(STOP_SIGNALS)
        callback(signal.Signals(received).name)

    threading.Thread(target=wait, name="stop signals", daemon=True).start()

"""The one thread that the model is used from."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

Result = TypeVar("Result")


class Worker:
    """Runs calls that it is given, in order, and otherwise the jobs that it can take.

    lock: held while `take` is asked for a job (None: nothing to do), and to be held when `wake` is
    called. `work` runs a job without it. Neither may raise.
    """

    def __init__(
        self,
        lock: threading.RLock,
        take: Callable[[], Any | None],
        work: Callable[[Any], None],
    ) -> None:
        self._condition = threading.Condition(lock)
        self._take = take
        self._work = work
        self._calls: deque[Callable[[], None]] = deque()
        self._closed = False
        # A step that hangs must not keep the process alive.
        self._thread = threading.Thread(target=self._run, name="worker", daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """Something changed: ask `take` again."""
        self._condition.notify()

    def call(self, function: Callable[[], Result]) -> Future[Result]:
        """Run `function` before the next job."""
        future: Future[Result] = Future()

        def run() -> None:
            try:
                future.set_result(function())
            except Exception as error:
                future.set_exception(error)

        with self._condition:
            self._calls.append(run)
            self._condition.notify()
        return future

    def close(self, timeout_s: float) -> bool:
        """End the thread after what it is doing. False if that lasts longer than `timeout_s`."""
        with self._condition:
            self._closed = True
            self._condition.notify()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while True:
            with self._condition:
                job = None
                while not (self._closed or self._calls):
                    job = self._take()
                    if job is not None:
                        break
                    self._condition.wait()
                if self._closed:
                    return
                call = self._calls.popleft() if job is None else None
            if call is not None:
                call()
            else:
                self._work(job)

"""Processes that record bags of demonstrations side by side."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Event
from pathlib import Path
from queue import Empty

from deer_ros.sim.collection import BagPlan, BagSummary, Settings, record_bag
from deer_ros.sim.demonstrations import Leader
from deer_ros.sim.robot import SimulatedRobot

_POLL_S = 0.2
_TIDYING_S = 60.0
"""More than an episode lasts, and the removal of an unfinished bag."""


def record_bags(
    folder: Path,
    plans: Sequence[BagPlan],
    settings: Settings,
    processes: int,
    on_attempt: Callable[[bool], None],
    on_bag: Callable[[BagSummary], None],
    open_leader: Callable[[], Leader] | None = None,
) -> None:
    """Records the bags in the order of `plans`, several at a time.

    On an error or KeyboardInterrupt the processes end after their present episode and remove the
    bags they have not finished; then it is raised. They do the same where this process is killed.

    Args:
        on_attempt: called here after each attempt at an episode with its success.
        on_bag: called here after each finished bag.
        open_leader: called once in each process; what it gives leads every episode.

    Raises:
        ValueError: a bag could not be recorded, see `record_bag`.
        OSError: it could not be written, or a process died.
    """
    # A forked OpenGL context does not work.
    context = multiprocessing.get_context("spawn")
    stop, attempts = context.Event(), context.Queue()
    pool = ProcessPoolExecutor(
        min(processes, len(plans)), context, _start,
        (folder, settings, open_leader, stop, attempts),
    )
    try:
        pending = {pool.submit(_record, plan) for plan in plans}
        while pending:
            done, pending = wait(pending, timeout=_POLL_S, return_when=FIRST_COMPLETED)
            _drain(attempts, on_attempt)
            for future in done:
                on_bag(future.result())
    except BrokenProcessPool as error:
        raise OSError("a recording process died; finished bags are kept") from error
    finally:
        stop.set()
        pool.shutdown(wait=True, cancel_futures=True)


def _drain(attempts: Queue, on_attempt: Callable[[bool], None]) -> None:
    while True:
        try:
            on_attempt(attempts.get_nowait())
        except Empty:
            return


class _Stopped(Exception):
    """The parent wants no more episodes, or is gone."""


class _Recorder:
    """What a process keeps from bag to bag."""

    def __init__(
        self,
        folder: Path,
        settings: Settings,
        open_leader: Callable[[], Leader] | None,
        stop: Event,
        attempts: Queue,
    ) -> None:
        self._folder = folder
        self._settings = settings
        self._open_leader = open_leader
        self._leader: Leader | None = None
        self._stop = stop
        self._attempts = attempts
        self._robot = SimulatedRobot(settings.height, settings.width)

    def record(self, plan: BagPlan) -> BagSummary:
        # Not when the process starts: what is wrong with a leader would not reach the parent.
        if self._leader is None and self._open_leader is not None:
            self._leader = self._open_leader()
        return record_bag(
            self._folder, plan, self._settings, self._robot, self._after_attempt, self._leader
        )

    def _after_attempt(self, success: bool) -> None:
        self._attempts.put(success)
        if self._stop.is_set() or not multiprocessing.parent_process().is_alive():
            raise _Stopped


_recorder: _Recorder | None = None
_recording = threading.Lock()


def _start(
    folder: Path,
    settings: Settings,
    open_leader: Callable[[], Leader] | None,
    stop: Event,
    attempts: Queue,
) -> None:
    global _recorder
    threading.Thread(target=_end_with_parent, daemon=True).start()
    # Ctrl-C reaches every process of a terminal; the parent says when to stop.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Progress that the parent no longer reads must not keep this process alive.
    attempts.cancel_join_thread()
    _recorder = _Recorder(folder, settings, open_leader, stop, attempts)


def _end_with_parent() -> None:
    """Where the parent was killed, nobody tells this process to end: it would wait for more."""
    multiprocessing.parent_process().join()
    # The present episode's end stops the recording, see `_after_attempt`.
    _recording.acquire(timeout=_TIDYING_S)
    os._exit(1)


def _record(plan: BagPlan) -> BagSummary:
    with _recording:
        return _recorder.record(plan)

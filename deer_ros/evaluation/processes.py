"""Jobs in this process, or spread over several that each keep a policy and a simulator."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Any, TypeVar

import torch

Job = TypeVar("Job")
Result = TypeVar("Result")


def run_jobs(
    start: Callable[..., Callable[[Job], Result]],
    arguments: tuple[Any, ...],
    jobs: Sequence[Job],
    processes: int = 1,
) -> Iterator[Result]:
    """The jobs' results, in no particular order.

    start(*arguments) is called once per process and gives the function that runs a job. Every
    result must depend on its own job alone. What it or a job raises ends them all, and so does an
    interrupt, in the middle of their jobs; OSError says that a process died.
    """
    if not jobs:
        return
    if processes == 1:
        yield from map(start(*arguments), jobs)
        return
    others = multiprocessing.active_children()
    pool = ProcessPoolExecutor(
        min(processes, len(jobs)), multiprocessing.get_context("spawn"), _start, (start, arguments)
    )
    try:
        with _deaf_children():
            begun = [pool.submit(_run, job) for job in jobs]
        for done in as_completed(begun):
            yield done.result()
    except (KeyboardInterrupt, GeneratorExit):
        # An episode may last for minutes, and nobody would keep it.
        for process in set(multiprocessing.active_children()) - set(others):
            process.terminate()
        raise
    except BrokenProcessPool as error:
        raise OSError(
            "a process of the evaluation died: it was killed, out of memory perhaps, or could not "
            "start; what it wrote to stderr may say why. Use fewer --processes."
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def _deaf_children() -> Iterator[None]:
    """Processes that are started meanwhile never hear of Ctrl-C.

    It reaches every process of a terminal. Whoever asked for jobs ends them then; by themselves
    they would do so with a traceback each, even while they still start.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


_worker: dict[str, Any] = {}


def _start(start: Callable[..., Callable[[Any], Any]], arguments: tuple[Any, ...]) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    # One thread per process: more would wait for each other.
    torch.set_num_threads(1)
    _worker["start"], _worker["arguments"] = start, arguments


def _end_with_parent() -> None:
    """Where whoever asks for jobs was killed, nobody tells this process to end."""
    multiprocessing.parent_process().join()
    os._exit(1)


def _run(job: Any) -> Any:
    # Not when the process starts: what is wrong would not reach whoever asked for jobs.
    if "run" not in _worker:
        _worker["run"] = _worker["start"](*_worker["arguments"])
    return _worker["run"](job)

"""Jobs in this process, or spread over several that each keep a policy and a simulator."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
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
    result must depend on its own job alone.
    """
    if processes == 1:
        yield from map(start(*arguments), jobs)
        return
    context = multiprocessing.get_context("spawn")
    with context.Pool(processes, _start, (start, arguments)) as pool:
        yield from pool.imap_unordered(_run, jobs)


_worker: dict[str, Callable[[Any], Any]] = {}


def _start(start: Callable[..., Callable[[Any], Any]], arguments: tuple[Any, ...]) -> None:
    # One thread per process: more would wait for each other.
    torch.set_num_threads(1)
    _worker["run"] = start(*arguments)


def _run(job: Any) -> Any:
    return _worker["run"](job)

"""Progress of a long run on stderr: a bar on a terminal, lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.progress import track as rich_track

Result = TypeVar("Result")


def track(results: Iterable[Result], total: int,
          describe: Callable[[Result], str]) -> Iterator[Result]:
    """The results as they come, each told in one line."""
    stderr = Console(file=sys.stderr, highlight=False)
    if not stderr.is_terminal:
        for number, result in enumerate(results, start=1):
            print(f"{number}/{total} {describe(result)}", file=sys.stderr, flush=True)
            yield result
        return
    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
               TextColumn("{task.description}"))
    with Progress(*columns, console=stderr) as progress:
        bar = progress.add_task("starting", total=total)
        for result in results:
            progress.update(bar, advance=1, description=describe(result))
            yield result


def count(results: Iterable[Result], what: str, total: int,
          every_s: float = 60.0) -> Iterator[Result]:
    """The results as they come, of which there are many: their number, once in `every_s`."""
    stderr = Console(file=sys.stderr, highlight=False)
    if stderr.is_terminal:
        yield from rich_track(results, what, total, console=stderr)
        return
    told_s = time.monotonic()
    for number, result in enumerate(results, start=1):
        if time.monotonic() - told_s >= every_s:
            told_s = time.monotonic()
            print(f"{what} {number}/{total}", file=sys.stderr, flush=True)
        yield result

"""Progress of a long run on stderr: a bar on a terminal, a line per result elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

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

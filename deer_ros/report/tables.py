"""Tables for people, drawn by rich; plain text where the output is no terminal."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TextIO

from rich import box
from rich.console import Console
from rich.table import Table

from deer_ros.report.episodes import ALL_TASKS, TaskSummary

# A pipe or a log file has no width of its own, and rich would fold the columns at 80.
PLAIN_WIDTH = 160


def console(stream: TextIO | None = None) -> Console:
    """A rich console on the stream (None: stdout) that never folds a table in a file or a pipe."""
    found = Console(file=stream, highlight=False)
    return found if found.is_terminal else Console(file=stream, width=PLAIN_WIDTH, highlight=False)


def table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]],
          total: bool = False) -> Table:
    """First column left-aligned, others right. total: the last row stands apart."""
    drawn = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD,
                  pad_edge=False, padding=(0, 1, 0, 0))
    for index, name in enumerate(header):
        drawn.add_column(name, justify="left" if index == 0 else "right", no_wrap=True)
    for index, row in enumerate(rows):
        drawn.add_row(*row, end_section=total and index == len(rows) - 2)
    return drawn


def task_table(title: str, summaries: Sequence[TaskSummary], layers: int | None = None) -> Table:
    """Success against cost per task, the total last. layers: depth of the model, if known."""
    with_latency = any(summary.latency_ms_p50 is not None for summary in summaries)
    header = [
        "task", "success", "steps", f"mean\nexit\nof {layers}" if layers else "mean\nexit\nlayer",
        "GFLOPs\na step\nllm", "GFLOPs\na step\nall", "model\nms\np50", "model\nms\np95",
    ] + (["stamp to\naction\nms p50", "stamp to\naction\nms p95"] if with_latency else [])
    rows = [
        [
            summary.task,
            f"{summary.successes}/{summary.episodes}",
            number(summary.mean_steps, 1),
            number(summary.mean_exit_layer, 2),
            number(summary.llm_gflops),
            number(summary.step_gflops),
            number(summary.model_ms_p50),
            number(summary.model_ms_p95),
        ] + ([number(summary.latency_ms_p50), number(summary.latency_ms_p95)]
             if with_latency else [])
        for summary in summaries
    ]
    return table(title, header, rows, total=summaries[-1].task == ALL_TASKS)


def number(value: float | None, decimals: int | None = None) -> str:
    """A dash for what is missing; three significant digits unless decimals are asked for."""
    if value is None or not math.isfinite(value):
        return "-"
    if decimals is not None:
        return f"{value:.{decimals}f}"
    if value == 0:
        return "0"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:.{digits}f}"

"""Tables for people, drawn by rich; plain text where the output is no terminal."""

from __future__ import annotations

import math
import re
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TextIO

from rich import box
from rich.console import Console, ConsoleOptions, Group
from rich.table import Table

from deer_ros.report.episodes import ALL_TASKS, TaskSummary

# A pipe or a log file has no width of its own, and rich would fold the columns at 80.
PLAIN_WIDTH = 160
# Longer names of a wide table's columns go on in the next line.
NAME_WIDTH = 24


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Where nobody reads on, raise: rich would end the process with a code of its own."""
        raise


def console(stream: TextIO | None = None) -> Console:
    """A rich console on the stream (None: stdout) that never folds a table in a file or a pipe."""
    found = _Console(file=stream, highlight=False)
    return found if found.is_terminal else _Console(file=stream, width=PLAIN_WIDTH, highlight=False)


def table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]],
          total: bool = False) -> Table:
    """First column left-aligned, others right. total: the last row stands apart.

    Where there is not room enough the first column is folded, so that numbers stay whole.
    """
    drawn = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD,
                  pad_edge=False, padding=(0, 1, 0, 0))
    for index, name in enumerate(header):
        drawn.add_column(name, justify="right" if index else "left", no_wrap=index > 0,
                         overflow="ellipsis" if index else "fold")
    for index, row in enumerate(rows):
        drawn.add_row(*row, end_section=total and index == len(rows) - 2)
    return drawn


@dataclass(frozen=True)
class WideTable:
    """As `table`, in as many blocks of columns as it takes where it is printed.

    Every block begins with the first column.
    """

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Table]:
        """What rich prints."""
        # Nothing measures more than it is given.
        wider = options.update(width=options.max_width + 1)

        def fits(begun: int, end: int) -> bool:
            return console.measure(self._block(begun, end), options=wider).maximum < wider.max_width

        begun, count = 1, len(self.header)
        while begun < count:
            ends = (end for end in range(begun + 2, count + 1) if fits(begun, end))
            end = max(ends, default=begun + 1)
            yield self._block(begun, end)
            begun = end

    def _block(self, begun: int, end: int) -> Table:
        header = [self.header[0], *map(_folded, self.header[begun:end])]
        rows = [[row[0], *row[begun:end]] for row in self.rows]
        return table(self.title if begun == 1 else "", header, rows)


def _folded(name: str) -> str:
    """In lines of `NAME_WIDTH` that end behind a comma or a slash, if there are any."""
    return "\n".join(textwrap.wrap(re.sub("([,/])", r"\1 ", name), NAME_WIDTH))


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


def success_table(summaries: Sequence[Any]) -> Group:
    """Success over all and what a step cost, a row per setting; below it success by task.

    summaries: `deer_ros.evaluation.comparison.Summary`.
    """
    overall = [
        [s.setting, _interval(s.success), str(s.episodes), *costs]
        for s, costs in zip(summaries, _costs(summaries))
    ]
    rates = [{success.task: success.rate for success in s.tasks} for s in summaries]
    # An evaluation that was stopped has tasks that not every setting has begun.
    by_task = [
        [task, *(_interval(of[task]) if task in of else "" for of in rates)]
        for task in dict.fromkeys(task for of in rates for task in of)
    ]
    return Group(
        table("closed loop: success in %, mean over tasks, with Wilson's 95 % interval; costs are "
              "means over all steps", ("setting", "success", "episodes", *_cost_names(summaries)),
              overall),
        WideTable("success in % by task", ("task", *(s.setting for s in summaries)), by_task),
    )  # fmt: skip


def calvin_table(scores: Sequence[Any]) -> Table:
    """Tasks done in a row and what a step cost, a row per setting.

    scores: `deer_ros.evaluation.calvin.Score`.
    """
    in_a_row = [f"{n + 1} in\na row\n%" for n in range(len(scores[0].in_a_row))]
    rows = [
        [s.setting, str(s.chains), f"{s.average_length:.2f}",
         *(f"{100 * share:.1f}" for share in s.in_a_row), *costs]
        for s, costs in zip(scores, _costs(scores))
    ]  # fmt: skip
    header = ("setting", "chains", "average\nlength", *in_a_row, *_cost_names(scores))
    return table("CALVIN, long horizon: means are over all steps", header, rows)


def _cost_names(found: Sequence[Any]) -> tuple[str, ...]:
    unit = "MFLOPs" if _is_small(found) else "GFLOPs"
    return "mean\nexit\nlayer", f"{unit}\na step\nLLM", f"{unit}\na step\nall", "ms\na step"


def _costs(found: Sequence[Any]) -> list[list[str]]:
    """What `_cost_names` names, for each."""
    scale = 1e3 if _is_small(found) else 1.0
    return [
        [f"{f.mean_exit_layer:.2f}", f"{scale * f.mean_llm_gflops:.1f}",
         f"{scale * f.mean_step_gflops:.1f}", f"{f.mean_step_ms:.1f}"]
        for f in found
    ]  # fmt: skip


def _is_small(found: Sequence[Any]) -> bool:
    """Whether this is counted in mega, as the bundled model, and not in giga as published ones."""
    return max(f.mean_step_gflops for f in found) < 1


def _interval(found: Any) -> str:
    """A share and its interval in per cent."""
    return f"{100 * found.estimate:.1f} [{100 * found.low:.0f}, {100 * found.high:.0f}]"


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

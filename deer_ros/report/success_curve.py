"""Success against cost as a picture: one panel for the language model, one for the whole step."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from deer_ros.report.files import write_bytes

FORMATS = ("png", "svg", "pdf")
FIXED, OTHERS = "#718096", ("#2b6cb0", "#dd6b20", "#2f855a", "#6b46c1", "#b7791f", "#c53030")
SIZE_INCHES = (10.0, 4.2)


@dataclass(frozen=True)
class Point:
    """A setting. success, low, high: 0..1, with its interval. fixed: a fixed exit."""

    name: str
    fixed: bool
    success: float
    low: float
    high: float
    llm_gflops: float
    step_gflops: float


def check_format(file: str | Path) -> None:
    """ValueError unless the file's ending is one that can be drawn."""
    if Path(file).suffix[1:].lower() not in FORMATS:
        raise ValueError(f"the picture {file} must end in one of {', '.join(FORMATS)}.")


def write_success_curve(file: str | Path, points: Sequence[Point], title: str) -> None:
    """Draw the points; the fixed exits are joined, for what lies above their line is gained."""
    check_format(file)
    figure = Figure(SIZE_INCHES, layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    largest = max(max(point.llm_gflops, point.step_gflops) for point in points)
    # Small models count in mega.
    scale, unit = (1e3, "MFLOPs") if largest < 1 else (1.0, "GFLOPs")
    _panel(left, points, [scale * point.llm_gflops for point in points])
    _panel(right, points, [scale * point.step_gflops for point in points])
    left.set(xlabel=f"language model, {unit} a step", ylabel="success, %")
    right.set(xlabel=f"whole step, vision included, {unit}")
    figure.suptitle(title, fontsize=11)
    handles, labels = left.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False, fontsize=8)
    drawn = io.BytesIO()
    figure.savefig(drawn, format=Path(file).suffix[1:].lower(), dpi=150)
    write_bytes(file, drawn.getvalue())


def _panel(axes: Axes, points: Sequence[Point], costs: Sequence[float]) -> None:
    pairs = sorted(zip(costs, points), key=lambda pair: pair[0])
    fixed = [(cost, point) for cost, point in pairs if point.fixed]
    if fixed:
        _draw(axes, fixed, FIXED, "o-", "fixed exits, by layer")
    for cost, point in fixed:
        # Beside the bars of the intervals, and no more than the layer, as neighbours lie close.
        axes.annotate(
            point.name.removeprefix("exit "), (cost, 100 * point.success), fontsize=7, color=FIXED,
            xytext=(2, -9), textcoords="offset points",
        )
    others = [(cost, point) for cost, point in pairs if not point.fixed]
    for number, pair in enumerate(others):
        _draw(axes, [pair], OTHERS[number % len(OTHERS)], "D", pair[1].name)
    axes.set_xlim(left=0)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)


def _draw(
    axes: Axes, pairs: Sequence[tuple[float, Point]], colour: str, style: str, label: str
) -> None:
    axes.errorbar(
        [cost for cost, _ in pairs],
        [100 * point.success for _, point in pairs],
        yerr=[
            [100 * max(0.0, point.success - point.low) for _, point in pairs],
            [100 * max(0.0, point.high - point.success) for _, point in pairs],
        ],
        fmt=style, color=colour, label=label, ms=5, lw=1.2, elinewidth=0.8, capsize=2,
    )

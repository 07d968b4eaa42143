"""Drawings of a run, as SVG for a page."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from deer_ros.replay.records import StepRecord

WIDTH, HEIGHT = 8.0, 2.7
POLICY, FULL, RECORDED, LIMIT, FAINT = "#2b6cb0", "#718096", "#dd6b20", "#c53030", "#a0aec0"
# More points than that become a picture inside the drawing.
MANY = 2000

matplotlib.rcParams.update({
    "font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "axes.titlesize": 10,
    "axes.titlelocation": "left", "legend.frameon": False, "svg.hashsalt": "deer_ros",
    # Letters stay letters: small, and found by a browser's search.
    "svg.fonttype": "none",
})


def exit_histogram(steps: Sequence[StepRecord], layers: Sequence[int]) -> str:
    """How many steps left at each exit."""
    figure, axes = _figure()
    counts = [sum(step.exit_layer == layer for step in steps) for layer in layers]
    bars = axes.bar([str(layer) for layer in layers], counts, color=POLICY)
    axes.bar_label(bars, [f"{100 * count / len(steps):.1f} %" for count in counts], fontsize=8)
    axes.set(title="Exits", xlabel="exit after layer", ylabel="steps")
    return _svg(figure)


def exit_timeline(
    steps: Sequence[StepRecord], layers: Sequence[int], scope: str, asked: float | None
) -> str:
    """Where each step left, and what was spent on average until then."""
    figure, axes = _figure(rows=2)
    number = np.arange(1, len(steps) + 1)
    axes[0].plot(number, [step.exit_layer for step in steps], ".", ms=3, color=POLICY,
                 rasterized=len(steps) > MANY)
    axes[0].set(title="Exit of every step", ylabel="layer", yticks=layers)
    axes[0].margins(y=0.12)
    spent = np.array([getattr(step, f"{scope}_gflops") for step in steps])
    axes[1].plot(number, np.cumsum(spent) / number, color=POLICY, label="spent, mean until then")
    if asked is not None:
        axes[1].axhline(asked, color=LIMIT, lw=1, ls="--", label="asked, on average")
    axes[1].set(title="Spent", xlabel="step", ylabel=f"GFLOPs ({scope})")
    axes[1].legend()
    for axis in axes:
        _mark_episodes(axis, steps)
    return _svg(figure)


def deltas(steps: Sequence[StepRecord], layers: Sequence[int]) -> str:
    """Distribution of every exit's delta against its threshold; all exits, taken or not."""
    figure, axes = _figure()
    exits = [(index, layer) for index, layer in enumerate(layers)]
    drawn = []
    for index, layer in exits:
        values = np.array([
            step.full_deltas[index] for step in steps
            if step.full_deltas is not None and index < len(step.full_deltas)
        ])
        values = values[np.isfinite(values) & (values > 0)]
        if len(values):
            axes.boxplot(values, positions=[index], widths=0.5, whis=(5, 95), showfliers=False,
                         medianprops={"color": POLICY})
            drawn.append((index, layer))
        known = [step.thresholds[index] for step in steps if index < len(step.thresholds)]
        finite = sorted({float(t) for t in known if np.isfinite(t) and 0 < t < 1e6})
        axes.hlines(finite, index - 0.35, index + 0.35, color=LIMIT, lw=1.5)
    axes.plot([], [], color=LIMIT, label="threshold in force")
    axes.set(title="Deltas (boxes: quartiles; whiskers: 5 to 95 %)", xlabel="exit after layer",
             ylabel="delta", yscale="log")
    axes.set_xticks([i for i, _ in exits], [str(layer) for _, layer in exits])
    axes.legend()
    return _svg(figure)


def latencies(steps: Sequence[StepRecord], deadline_ms: float | None) -> str:
    """Distribution of the steps' times."""
    figure, axes = _figure()
    values = np.array([step.step_ms for step in steps])
    axes.hist(values, bins=60, color=POLICY)
    for percent, style in ((50, "-"), (95, "--"), (99, ":")):
        value = np.percentile(values, percent)
        axes.axvline(value, color=FULL, ls=style, lw=1, label=f"p{percent} {value:.2f} ms")
    if deadline_ms is not None:
        axes.axvline(deadline_ms, color=LIMIT, lw=1.5, label=f"deadline {deadline_ms:g} ms")
    axes.set(title="Time of a step", xlabel="ms", ylabel="steps")
    axes.legend()
    return _svg(figure)


def differences(steps: Sequence[StepRecord]) -> str:
    """Difference of every step's action to full depth, and to what was recorded."""
    figure, axes = _figure()
    number = np.arange(1, len(steps) + 1)
    for values, colour, label in (
        ([step.to_recorded for step in steps], RECORDED, "to the recorded action"),
        ([step.to_full_depth for step in steps], POLICY, "to full depth"),
    ):
        if np.isfinite(values).any():
            axes.plot(number, values, color=colour, lw=0.8, label=label,
                      rasterized=len(steps) > MANY)
    axes.set(title="Difference of the action (root mean square of six values)", xlabel="step",
             ylabel="units of action")
    _mark_episodes(axes, steps)
    axes.legend()
    return _svg(figure)


def jerks(jerk_m_s3: dict[str, float | None]) -> str:
    """Root mean square jerk of the commanded motion."""
    figure, axes = _figure(height=1.6)
    known = {name: value for name, value in jerk_m_s3.items() if value is not None}
    colours = {"policy": POLICY, "full depth": FULL, "recorded": RECORDED}
    bars = axes.barh(list(known), list(known.values()), color=[colours[name] for name in known])
    axes.bar_label(bars, [f"{value:.3g}" for value in known.values()], padding=3, fontsize=8)
    axes.invert_yaxis()
    axes.set(title="Jerk of the commanded motion, root mean square", xlabel="m/s³")
    return _svg(figure)


def sweep(runs: Sequence[dict[str, Any]]) -> str:
    """Cost against difference to full depth, a point per run."""
    figure, axes = _figure()
    for told in runs:
        error = told["to_full_depth"]
        if error is None or told["step_gflops"] is None:
            continue
        axes.plot(told["step_gflops"], error["mean"], "o", color=POLICY)
        axes.annotate(told["run"] or "policy", (told["step_gflops"], error["mean"]), fontsize=8,
                      xytext=(4, 4), textcoords="offset points")
    axes.set(title="Runs: cost against difference to full depth", xlabel="GFLOPs a step, all parts",
             ylabel="mean difference")
    axes.margins(x=0.15, y=0.15)
    return _svg(figure)


def _mark_episodes(axes: Axes, steps: Sequence[StepRecord]) -> None:
    starts = [index + 1 for index, step in enumerate(steps) if step.step == 1]
    if 1 < len(starts) <= 100:
        for start in starts:
            axes.axvline(start, color=FAINT, lw=0.4, zorder=0)


def _figure(rows: int = 1, height: float = HEIGHT) -> tuple[Figure, Any]:
    height *= 1 + 0.6 * (rows - 1)
    figure = Figure(figsize=(WIDTH, height))
    # A layout that is fitted to its texts costs more time than all the drawing.
    figure.subplots_adjust(left=0.1, right=0.99, bottom=0.5 / height, top=1 - 0.25 / height)
    return figure, figure.subplots(rows, 1, sharex=rows > 1)


def _svg(figure: Figure) -> str:
    """The drawing's element, without the declarations that only a file needs."""
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()[text.getvalue().index("<svg"):]

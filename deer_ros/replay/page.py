"""The report of a replay: one HTML file that needs nothing else."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from deer_ros.data.jpeg import encode_jpeg
from deer_ros.replay import plots
from deer_ros.replay.results import BagResult, Pictured, all_steps
from deer_ros.report.files import write_text
from deer_ros.report.tables import number

PICTURE_HEIGHT = 160

STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem;
  color: #1a202c; background: #fff; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.2rem; margin-top: 2.2rem; }
table { border-collapse: collapse; margin: .6rem 0; } td, th { padding: .2rem .8rem .2rem 0;
  text-align: left; vertical-align: top; border-bottom: 1px solid #e2e8f0; }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; }
svg { max-width: 100%; height: auto; } .note { color: #4a5568; } .bad { color: #c53030; }
.steps { display: grid; grid-template-columns: repeat(auto-fill, minmax(17rem, 1fr)); gap: 1rem; }
figure { margin: 0; } figure img { max-width: 100%; } figcaption { font-size: .8rem; }
"""

TIMES = {
    "virtual": "Times are virtual: they come from the cost table ({machine}, {device}, {dtype}), "
    "not from this run, and budgets of time were kept in them.",
    "measured": "Times were measured while this run was made, and differ from run to run; the "
    "actions do not. With a cost table (deer bench), times and budgets of time are virtual.",
}


def write_page(path: Path, content: Mapping[str, Any], bags: Sequence[BagResult]) -> None:
    """content: of replay.json."""
    runs = content["runs"]
    parts = [
        f"<h1>Replay of {escape(', '.join(bag.name for bag in bags))}</h1>",
        _paragraph(f"Model: {content['model']}. {_times(content)}"),
        _comparison(content["compared"]),
    ]
    if len(runs) > 1:
        parts += [
            "<h2>Runs</h2>", _run_table(runs), plots.sweep(runs),
            _paragraph("All runs are exact: the layers' outputs, which do not depend on the exits "
                       "that a run takes, were computed once; the head, with its recurrent state, "
                       "ran for each of them by itself."),
        ]
    for index, told in enumerate(runs):
        parts += _run(bags, index, told)
    parts += ["<h2>Recordings</h2>", _bag_table(content["bags"])]
    for bag in content["bags"]:
        parts.append(_of_bag(bag))
    body = "\n".join(parts)
    write_text(path, f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
                     f"<title>Replay</title><style>{STYLE}</style></head>\n<body>{body}</body>"
                     "</html>\n")


def _times(content: Mapping[str, Any]) -> str:
    return TIMES[content["times"]].format(**(content["cost_table"] or {}))


def _comparison(compared: Mapping[str, Any] | None) -> str:
    if compared is None:
        return ""
    if compared["same"]:
        return _paragraph(f"Compared with an earlier run: the same in {compared['steps']} steps "
                          f"within {compared['tolerance']:g}.")
    first = compared["first"]
    return _paragraph(
        f"Compared with an earlier run: {compared['differing']} of {compared['steps']} steps "
        f"differ beyond {compared['tolerance']:g}, first in {first['bag']}, episode "
        f"{first['episode']}, step {first['step']}: {first['what']}.", "bad")


def _run(bags: Sequence[BagResult], index: int, told: Mapping[str, Any]) -> Iterable[str]:
    steps = list(all_steps(bags, index))
    plan = bags[0].runs[index].plan
    yield f"<h2>{escape(told['run'] or 'Policy')}</h2>"
    yield _figures(told)
    if not steps:
        yield _paragraph("No step was made.", "bad")
        yield _counts("Stops", told["stops"])
        return
    asked = {entry["budget"]: entry["asked"] for entry in told["budgets"]}
    scope = "llm" if plan.budget is None else plan.budget.scope
    layers = plan.rule.exits
    yield plots.exit_histogram(steps, layers)
    yield plots.exit_timeline(steps, layers, scope, asked.get("average_gflops"))
    yield plots.deltas(steps, layers)
    yield plots.latencies(steps, asked.get("latency_ms"))
    yield plots.differences(steps)
    if any(value is not None for value in told["jerk_m_s3"].values()):
        yield plots.jerks(told["jerk_m_s3"])
    yield _pictures([pictured for bag in bags for pictured in bag.runs[index].pictured])
    yield _counts("Stops", told["stops"])
    yield _counts("Steps without an answer", told["failed"])
    yield _counts("Episodes began because of", told["resets"])


def _figures(told: Mapping[str, Any]) -> str:
    images = told["images"]
    rows = [
        ("steps", str(told["steps"])),
        ("episodes", str(told["episodes"])),
        ("mean exit layer", number(told["mean_exit_layer"], 2)),
        ("GFLOPs a step, language model", number(told["llm_gflops"])),
        ("GFLOPs a step, all", number(told["step_gflops"])),
        ("ms a step", _spread(told["step_ms"])),
        ("difference to full depth", _spread(told["to_full_depth"])),
        ("difference to the recorded actions", _spread(told["to_recorded"])),
        ("full depth to the recorded actions", _spread(told["full_depth_to_recorded"])),
        ("gripper as recorded", _percent(told["gripper_as_recorded"])),
        ("pictures", f"{images.get('seen', 0)} seen, {images.get('used', 0)} used, "
                     f"{images.get('refused', 0)} refused"),
    ]
    rows += [
        (entry["budget"], f"asked {number(entry['asked'])}, spent {number(entry['spent'])}")
        for entry in told["budgets"]
    ]
    return _table(("", ""), rows)


def _spread(found: Mapping[str, float] | None) -> str:
    if found is None:
        return "-"
    return ", ".join(f"{name} {number(value)}" for name, value in found.items())


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f} %"


def _run_table(runs: Sequence[Mapping[str, Any]]) -> str:
    rows = [
        (told["run"] or "policy", str(told["steps"]), number(told["mean_exit_layer"], 2),
         number(told["llm_gflops"]), number(told["step_gflops"]), _mean_of(told["step_ms"]),
         _mean_of(told["to_full_depth"]), _mean_of(told["to_recorded"]))
        for told in runs
    ]
    return _table(("run", "steps", "mean exit", "GFLOPs llm", "GFLOPs step", "ms",
                   "to full depth", "to recorded"), rows)


def _mean_of(found: Mapping[str, float] | None) -> str:
    return number(None if found is None else found["mean"])


def _bag_table(bags: Sequence[Mapping[str, Any]]) -> str:
    return _table(("bag", "seconds", "steps"), [
        (bag["bag"], number(bag["duration_s"], 1), str(bag["steps"])) for bag in bags])


def _of_bag(bag: Mapping[str, Any]) -> str:
    sentences = [("bad", f"{bag['bag']}: {loss}.") for loss in bag["lost"]]
    sentences += [("note", f"{bag['bag']}: {note}") for note in bag["notes"]]
    sentences += [
        ("note", f"{bag['bag']}: {before} was recorded by an earlier run; in the new bag it is "
                 f"{after}.") for before, after in bag["moved"].items()
    ]
    counted = _counts(f"Not taken in {bag['bag']}", bag["refused"])
    return "".join(_paragraph(text, kind) for kind, text in sentences) + counted


def _pictures(pictured: Sequence[Pictured]) -> str:
    """The steps whose actions differ most, the largest first."""
    def difference(item: Pictured) -> float:
        recorded = item.record.to_recorded
        return recorded if np.isfinite(recorded) else item.record.to_full_depth

    chosen = sorted(pictured, key=difference, reverse=True)[:len(pictured) and 8]
    if not chosen:
        return ""
    what = "what was recorded" if np.isfinite(chosen[0].record.to_recorded) else "full depth"
    shown = "".join(_picture(item) for item in chosen)
    return (f"<h3>The steps that differ most from {what}</h3>"
            f'<div class="steps">{shown}</div>')


def _picture(item: Pictured) -> str:
    record = item.record
    pair = np.hstack([_small(item.observation.static), _small(item.observation.gripper)])
    data = base64.b64encode(encode_jpeg(pair)).decode()
    lines = [
        f"episode {record.episode}, step {record.step}: {record.instruction}",
        f"exit after layer {record.exit_layer}; to full depth {number(record.to_full_depth)}"
        + (f", to recorded {number(record.to_recorded)}"
           if np.isfinite(record.to_recorded) else ""),
        f"action {_vector(record.action)} gripper {record.gripper:+g}",
    ]
    if record.recorded_action is not None:
        lines.append(f"recorded {_vector(record.recorded_action[:6])} gripper "
                     f"{record.recorded_action[6]:+g}")
    caption = "<br>".join(escape(line) for line in lines)
    return (f'<figure><img alt="both cameras" src="data:image/jpeg;base64,{data}">'
            f"<figcaption>{caption}</figcaption></figure>")


def _small(picture: np.ndarray) -> np.ndarray:
    height, width, _ = picture.shape
    size = max(1, round(width * PICTURE_HEIGHT / height)), PICTURE_HEIGHT
    return cv2.resize(picture, size, interpolation=cv2.INTER_AREA)


def _vector(values: np.ndarray) -> str:
    return " ".join(f"{value:+.2f}" for value in values)


def _counts(title: str, counts: Mapping[str, int]) -> str:
    if not counts:
        return ""
    rows = [(str(count), what) for what, count in sorted(counts.items(), key=lambda i: -i[1])]
    return f"<h3>{escape(title)}</h3>" + _table(("count", "what"), rows)


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{escape(cell)}</th>" for cell in header)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table>{f'<tr>{head}</tr>' if any(header) else ''}{body}</table>"


def _paragraph(text: str, kind: str = "note") -> str:
    return f'<p class="{kind}">{escape(text)}</p>'

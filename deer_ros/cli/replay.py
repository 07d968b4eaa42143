"""`deer replay`: what the policy would have done, over recorded bags."""

from __future__ import annotations

import argparse
import json
import re
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from deer_ros.budget.timing import CostTable
    from deer_ros.replay.compare import Comparison
    from deer_ros.replay.results import BagResult
    from deer_ros.stepping.settings import Settings

    Runs = Sequence[tuple[str, Settings]]

HELP = "run the policy over recorded bags in lockstep; compare with an earlier run"

DIFFERENT = 1
DEFAULT_TOLERANCE = 1e-5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    add = parser.add_argument
    add("paths", nargs="+", metavar="[MODEL] BAG", type=Path,
        help="a model directory (default: that of --params, else the bundled one), then bags, "
        "their files, or folders of bags")
    add("--out", type=Path, default=Path("replay_output"), metavar="FOLDER",
        help="for the bags with ~/action and ~/status, report.html and replay.json (default: "
        "%(default)s)")
    add("--force", action="store_true", help="replace an earlier replay's folder")
    add("--params", type=Path, metavar="FILE", help="the node's parameter file")
    add("--param", action="append", default=[], metavar="NAME:=VALUE",
        help="one of the node's parameters; may be given several times")
    add("--remap", action="append", default=[], metavar="FROM:=TO",
        help="another topic, such as camera/static/image:=/front/image_raw")
    add("--instruction", metavar="TEXT", help="to be used instead of the instructions in the bags")
    add("--budget", action="append", default=[], metavar="NAME=VALUE,...",
        help="one run with these budgets, such as average_gflops=8; each --budget is another run "
        "in the same pass over the bags")
    add("--cost-table", type=Path, metavar="FILE",
        help="milliseconds of every part, of deer bench (default: the model's own, if it has any)")
    add("--compare", type=Path, metavar="EARLIER",
        help="an earlier replay's folder, or a bag with the node's actions: exit code 1 where "
        "actions, exits or instructions differ")
    add("--tolerance", type=float, default=DEFAULT_TOLERANCE, metavar="X",
        help="of --compare: largest difference of a value of an action (default: %(default)s)")
    add("--no-report", action="store_true",
        help="leave report.html out: a comparison in CI needs none")
    add("--json", action="store_true", help="print the figures as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Replay; 0 when it is done and, with --compare, nothing differs."""
    from deer_ros.data.bag_format import find_recordings
    from deer_ros.replay.parameters import read_assignment, read_budget, read_file, settings_of
    from deer_ros.replay.topics import Names

    if not arguments.tolerance >= 0:
        raise ValueError(f"--tolerance is {arguments.tolerance}; it must be a number from 0.")
    model, paths = _model_and_bags(arguments.paths)
    changes: dict[str, Any] = read_file(arguments.params) if arguments.params else {}
    changes |= dict(read_assignment(text) for text in arguments.param)
    if model is not None:
        changes["model"] = str(model)
    is_free = "image.transport" not in changes
    runs: Runs = [("", settings_of(changes))]
    if arguments.budget:
        is_alone = len(arguments.budget) == 1
        runs = [
            ("" if is_alone else _label(text), settings_of(changes | read_budget(text)))
            for text in arguments.budget
        ]
    _check_labels([label for label, _ in runs])
    names = Names(arguments.remap)
    bags = [bag for path in paths for bag in find_recordings(path)]
    _check_out(arguments.out, arguments.force)
    earlier = _read_earlier(arguments.compare) if arguments.compare else None
    results, table = _replay(arguments, bags, names, is_free, runs)
    comparison = None if earlier is None else _compare(earlier, results, arguments.tolerance)
    content = _content(arguments, results, table, comparison)
    _write(arguments, content, results)
    _print(arguments, content, comparison)
    return DIFFERENT if comparison is not None and not comparison.is_same else 0


def _model_and_bags(paths: Sequence[Path]) -> tuple[Path | None, Sequence[Path]]:
    """A model directory, or a model's name on the hub, may come first. ValueError where no bag
    follows."""
    if (paths[0] / "config.json").is_file() or (len(paths) > 1 and not paths[0].exists()):
        if len(paths) == 1:
            raise ValueError(f"{paths[0]} is a model; name the bags to replay after it.")
        return paths[0], paths[1:]
    return None, paths


def _label(text: str) -> str:
    """A run's name, as a topic may have it."""
    return re.sub(r"[^A-Za-z0-9]+", "_", text).strip("_")


def _check_labels(labels: Sequence[str]) -> None:
    doubled = {label for label in labels if labels.count(label) > 1}
    if doubled:
        raise ValueError(f"--budget is given twice: {', '.join(sorted(doubled))}.")


def _check_out(out: Path, force: bool) -> None:
    if out.exists() and not force:
        raise FileExistsError(f"{out} exists already; choose another --out, or say --force")
    if out.exists() and not (out / "replay.json").is_file():
        raise FileExistsError(f"{out} is no earlier replay; --force does not replace it")


def _replay(
    arguments: argparse.Namespace, bags: Sequence[Path], names: Any, is_free: bool,
    runs: Runs,
) -> tuple[list[BagResult], CostTable | None]:
    import dataclasses

    from deer_ros.replay.run import Lockstep
    from deer_ros.stepping.loading import load_policy

    # What is missing in a bag is told before the model is loaded.
    for bag in bags:
        _check_bag(bag, names, is_free, runs, arguments.instruction)
    # All layers, whatever one of the runs permits.
    policy = load_policy(
        dataclasses.replace(runs[0][1], exit_max_layer=0, exit_policy="fixed"))
    table = _cost_table(arguments.cost_table, policy)
    lockstep = Lockstep(policy, table)
    building = _building(arguments.out)
    shutil.rmtree(building, ignore_errors=True)
    try:
        results = []
        for number, bag in enumerate(bags, start=1):
            results.append(_replay_bag(
                lockstep, bag, names, is_free, runs, arguments.instruction, building,
                f"{number}/{len(bags)} {bag.name}"))
            _warn(results[-1])
    except BaseException:
        shutil.rmtree(building, ignore_errors=True)
        raise
    return results, table


def _building(out: Path) -> Path:
    from deer_ros.data.bag_format import PARTIAL

    return out.with_name(out.name + PARTIAL)


def _check_bag(bag: Path, names: Any, is_free: bool, runs: Runs, instruction: str | None
               ) -> None:
    from deer_ros.data.bag_format import BagError
    from deer_ros.data.recording import Recording
    from deer_ros.replay.topics import find_topics

    with Recording(bag) as recording:
        topics = find_topics(recording, names, runs[0][1], is_free)
        found = recording.topics.get(topics.instruction)
        if not (instruction or runs[0][1].instruction or (found and found.count)):
            raise BagError(
                bag, f"nothing was recorded on {topics.instruction}; give --instruction TEXT")


def _replay_bag(
    lockstep: Any, bag: Path, names: Any, is_free: bool, runs: Runs, instruction: str | None,
    out: Path, title: str,
) -> BagResult:
    from deer_ros.data.new_bag import NewBag
    from deer_ros.data.recording import Recording
    from deer_ros.replay.one_run import Asked
    from deer_ros.replay.output import Output, labelled
    from deer_ros.replay.topics import find_topics

    with Recording(bag) as recording, _progress(recording, title) as on_message:
        topics = find_topics(recording, names, runs[0][1], is_free)
        asked = [
            Asked(label, settings, labelled(topics, label)) for label, settings in runs
        ]
        with NewBag(_free_name(out, bag)) as writer:
            output = Output(writer, recording, [run.topics for run in asked])
            result = lockstep.replay(recording, topics, asked, output, instruction, on_message)
        return result


def _free_name(out: Path, bag: Path) -> Path:
    name = bag.stem if bag.suffix in (".mcap", ".db3") else bag.name
    place, number = out / name, 1
    while place.exists():
        number += 1
        place = out / f"{name}_{number}"
    return place


def _progress(recording: Any, title: str) -> Any:
    from contextlib import contextmanager

    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    @contextmanager
    def shown():
        console = Console(stderr=True, highlight=False)
        total = sum(topic.count for topic in recording.topics.values())
        with Progress(TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(),
                      console=console, disable=not console.is_terminal) as progress:
            bar = progress.add_task(title, total=total)
            yield lambda count: progress.update(bar, completed=count)

    return shown()


def _cost_table(path: Path | None, policy: Any) -> CostTable | None:
    from deer_ros.budget.timing import CostTable

    table = CostTable.load(path) if path is not None else None
    if table is not None and tuple(table.exit_layers) != tuple(policy.config.exit_layers):
        raise ValueError(
            f"{path} is of a model with exits after layers {list(table.exit_layers)}; this one has "
            f"{list(policy.config.exit_layers)}.")
    return table


def _read_earlier(path: Path) -> list[tuple[str, str, list]]:
    from deer_ros.replay.records import find_run, read_records

    losses: list[str] = []
    runs = [
        (bag.name, topic, steps)
        for bag in find_run(path) for topic, steps in read_records(bag, losses).items()
    ]
    for loss in losses:
        print(f"deer replay: {path}: {loss}", file=sys.stderr)
    return runs


def _compare(earlier: list, results: Sequence[BagResult], tolerance: float) -> Comparison:
    from deer_ros.replay.compare import compare

    later = [
        (bag.name, run.topics.action, run.steps) for bag in results for run in bag.runs
    ]
    if len(earlier) == len(later) == 1:
        # A live recording has another name than the bag that it was made from.
        earlier = [(later[0][0], later[0][1], earlier[0][2])]
    return compare(earlier, later, tolerance)


def _content(
    arguments: argparse.Namespace, results: Sequence[BagResult], table: CostTable | None,
    comparison: Comparison | None,
) -> dict[str, Any]:
    """replay.json: everything that the report says in numbers."""
    from deer_ros.replay.summary import summary

    return {
        "model": results[0].runs[0].plan.settings.model,
        "times": "virtual" if table is not None else "measured",
        "cost_table": None if table is None else {
            "machine": table.machine, "device": table.device, "dtype": table.dtype},
        "instruction": arguments.instruction,
        "bags": [
            {"bag": bag.name, "duration_s": bag.duration_s, "lost": bag.losses,
             "refused": dict(bag.refused), "moved": bag.moved, "notes": bag.notes,
             "steps": len(bag.runs[0].steps)}
            for bag in results
        ],
        "runs": [summary(results, run) for run in range(len(results[0].runs))],
        "compared": None if comparison is None else comparison.to_json(),
    }


def _write(
    arguments: argparse.Namespace, content: dict[str, Any], results: Sequence[BagResult]
) -> None:
    """The whole folder at once: it is there complete, or not at all."""
    from deer_ros.report.files import write_json

    out, building = arguments.out, _building(arguments.out)
    if not arguments.no_report:
        from deer_ros.replay.page import write_page

        write_page(building / "report.html", content, results)
    write_json(building / "replay.json", content)
    if out.exists():
        shutil.rmtree(out)
    building.rename(out)


def _warn(result: BagResult) -> None:
    for loss in result.losses:
        print(f"deer replay: bag {result.name}: {loss}", file=sys.stderr)
    if not any(run.steps for run in result.runs):
        stops = ", ".join(result.runs[0].stops) or "no two pictures came together"
        failed = "; ".join(result.runs[0].failed)
        print(f"deer replay: bag {result.name}: no step was made ({stops}{'; ' if failed else ''}"
              f"{failed}); see the report.", file=sys.stderr)


def _print(
    arguments: argparse.Namespace, content: dict[str, Any], comparison: Comparison | None
) -> None:
    from deer_ros.report.tables import console, number, table

    if arguments.json:
        print(json.dumps(content))
        return
    rows = []
    for told in content["runs"]:
        full, recorded, ms = told["to_full_depth"], told["to_recorded"], told["step_ms"]
        rows.append((
            told["run"] or "policy", str(told["steps"]), str(told["episodes"]),
            number(told["mean_exit_layer"], 2), number(told["llm_gflops"]),
            number(told["step_gflops"]), number(ms and ms["p50"]), number(ms and ms["p95"]),
            number(full and full["mean"]), number(recorded and recorded["mean"]),
        ))
    console().print(table(
        f"{len(content['bags'])} bags, times are {content['times']}",
        ("run", "steps", "episodes", "mean\nexit", "GFLOPs\nllm", "GFLOPs\nstep", "ms\np50",
         "ms\np95", "to full\ndepth", "to\nrecorded"), rows))
    print(f"{arguments.out}/{'replay.json' if arguments.no_report else 'report.html'}")
    if comparison is not None:
        print(f"compared with {arguments.compare}: {comparison.describe()}")

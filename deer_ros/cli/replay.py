"""`deer replay`: what the policy would have done, over recorded bags."""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deer_ros.cli.bag_arguments import (
    add_bag_arguments,
    bag_inputs,
    check_one_model,
    node_parameters,
)

if TYPE_CHECKING:
    from deer_ros.data.bag_inputs import BagInputs
    from deer_ros.data.recording import Recording
    from deer_ros.replay.compare import Comparison
    from deer_ros.replay.folder import ReplayFolder
    from deer_ros.replay.results import BagResult
    from deer_ros.replay.run import Lockstep
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
    add_bag_arguments(parser)
    add("--budget", action="append", default=[], metavar="NAME=VALUE,...",
        help="one run with these budgets, such as average_gflops=8; each --budget is another run "
        "in the same pass over the bags")
    add("--cost-table", type=Path, metavar="FILE",
        help="milliseconds of every part, of deer bench (default: cost_table.json in the model, if "
        "it has any)")
    add("--compare", type=Path, metavar="EARLIER",
        help="an earlier replay's folder, or a bag with the node's actions: exit code 1 where "
        "actions, exits or instructions differ")
    add("--tolerance", type=float, metavar="X",
        help="of --compare: largest difference of a value of an action (default: "
        f"{DEFAULT_TOLERANCE:g})")
    add("--no-report", action="store_true",
        help="leave report.html out: a comparison in CI needs none")
    add("--json", action="store_true", help="print the figures as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Replay; 0 when it is done and, with --compare, nothing differs."""
    from deer_ros.data.bag_format import find_recordings
    from deer_ros.replay.folder import ReplayFolder, check_bag, figures

    tolerance = _tolerance(arguments)
    model, paths = _model_and_bags(arguments.paths)
    check_one_model(arguments, model)
    changes = node_parameters(arguments)
    if model is not None:
        changes["model"] = str(model)
    runs = _runs(arguments.budget, changes)
    inputs = bag_inputs(arguments, changes)
    bags = [bag for path in paths for bag in find_recordings(path)]
    with ReplayFolder(arguments.out, arguments.force) as folder:
        earlier = _read_earlier(arguments.compare) if arguments.compare else None
        # What is missing in a bag is told before the model is loaded.
        for bag in bags:
            check_bag(bag, inputs)
        lockstep = _lockstep(runs[0][1], arguments.cost_table)
        results = _replay(folder, lockstep, bags, inputs, runs)
        comparison = None if earlier is None else _compare(earlier, results, tolerance)
        content = figures(results, arguments.instruction, lockstep.table, comparison)
        folder.finish(content, results, not arguments.no_report)
    _print(arguments, content, comparison)
    return DIFFERENT if comparison is not None and not comparison.is_same else 0


def _tolerance(arguments: argparse.Namespace) -> float:
    given = arguments.tolerance
    if given is None:
        return DEFAULT_TOLERANCE
    if arguments.compare is None:
        raise ValueError(f"--tolerance is {given}, and nothing is compared; say --compare, too.")
    if not given >= 0:
        raise ValueError(f"--tolerance is {given}; it must be a number from 0.")
    return given


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


def _runs(budgets: Sequence[str], changes: Mapping[str, Any]) -> Runs:
    """The runs that are asked for, each with its name, which is empty for a single one."""
    from deer_ros.replay.parameters import read_budget, settings_of

    if not budgets:
        return [("", settings_of(changes))]
    is_alone = len(budgets) == 1
    runs = [
        ("" if is_alone else _label(text), settings_of({**changes, **read_budget(text)}))
        for text in budgets
    ]
    labels = [label for label, _ in runs]
    doubled = {label for label in labels if labels.count(label) > 1}
    if doubled:
        raise ValueError(f"--budget is given twice: {', '.join(sorted(doubled))}.")
    return runs


def _lockstep(settings: Settings, cost_table: Path | None) -> Lockstep:
    """The model that `settings` name, with all its layers: another run may permit more of them."""
    import dataclasses

    from deer_ros.checkpoint.cost_table import find_cost_table
    from deer_ros.replay.run import Lockstep
    from deer_ros.stepping.loading import load_policy, model_folder

    policy = load_policy(dataclasses.replace(settings, exit_max_layer=0, exit_policy="fixed"))
    table = find_cost_table(model_folder(settings), policy.config, cost_table)
    return Lockstep(policy, table)


def _replay(
    folder: ReplayFolder, lockstep: Lockstep, bags: Sequence[Path], inputs: BagInputs, runs: Runs
) -> list[BagResult]:
    from deer_ros.data.recording import Recording

    results = []
    for number, bag in enumerate(bags, start=1):
        with (
            Recording(bag) as recording,
            _progress(recording, f"{number}/{len(bags)} {bag.name}") as on_message,
        ):
            results.append(folder.replay(lockstep, recording, inputs, runs, on_message))
        _warn(results[-1])
    return results


@contextmanager
def _progress(recording: Recording, title: str) -> Iterator[Callable[[int], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True, highlight=False)
    total = sum(topic.count for topic in recording.topics.values())
    with Progress(TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(),
                  console=console, disable=not console.is_terminal) as progress:
        bar = progress.add_task(title, total=total)
        yield lambda count: progress.update(bar, completed=count)


def _read_earlier(path: Path) -> list[tuple[str, str, list]]:
    from deer_ros.replay.records import find_run, read_records

    losses: list[str] = []
    runs = [
        (bag.name, topic, steps)
        for bag in find_run(path) for topic, steps in read_records(bag, losses).items()
    ]
    for loss in losses:
        print(f"deer replay: {path}: {loss}", file=sys.stderr)
    if not runs:
        raise ValueError(
            f"{path} holds no deer_ros/msg/EndEffectorAction: no run of this policy, or one that "
            "made no step; there is nothing to compare with."
        )
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

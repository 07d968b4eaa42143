"""`deer calibrate`: what every exit answers on demonstrations, stored beside the model."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deer_ros.cli.bag_arguments import (
    OF_BAGS,
    add_bag_arguments,
    bag_inputs,
    check_heeded,
    check_one_model,
    name_bad,
    node_parameters,
)
from deer_ros.model.config import METRICS
from deer_ros.report.locks import locked_beside

if TYPE_CHECKING:
    from deer_ros.budget.calibration import Calibration
    from deer_ros.data.bag_inputs import BagInputs

HELP = "run a model over demonstrations and store what its exits answer, for budgets"

METHODS = ("run-time", "original")
# What only one of the methods heeds.
OF_METHOD = {"second_pass": "run-time", "windows": "original"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument("paths", nargs="+", metavar="[MODEL] DATA",
                        help="model directory, or its name on the Hugging Face hub (default: the "
                             "bundled model), then demonstrations: bags, folders of bags, CALVIN "
                             "or LeRobot datasets")
    add_bag_arguments(parser)
    parser.add_argument("--skip-bad", action="store_true",
                        help="leave out what cannot be used, and name it; of a damaged bag what "
                             "can be read is used (default: refuse)")
    parser.add_argument("--lerobot", action="append", default=[], metavar="NAME=VALUE",
                        help="what is what in a LeRobot dataset, as static=observation.images.top; "
                             "may be given several times")
    parser.add_argument("--out", type=Path, metavar="FILE",
                        help="file to write (default: calibration.safetensors in the model)")
    parser.add_argument("--method", choices=METHODS, default="run-time",
                        help="state carried through whole episodes, in two passes, or the authors' "
                             "windows with past exits drawn (default: run-time)")
    parser.add_argument("--metric", choices=METRICS,
                        help="of the criterion (default: the model's)")
    parser.add_argument("--holdout", type=float, default=0.5, metavar="SHARE",
                        help="of the episodes, to measure risk on alone (default: 0.5)")
    parser.add_argument("--second-pass", type=float, metavar="SHARE",
                        help="of full depth's cost beyond the cheapest exit, that the thresholds "
                             "of the second pass of the method run-time spend (default: 0.5)")
    parser.add_argument("--rows", type=int, default=64, metavar="N",
                        help="thresholds of a frontier, at most (default: 64)")
    parser.add_argument("--windows", type=int, metavar="N",
                        help="of the method original (default: 600)")
    parser.add_argument("--seed", type=int, default=0, metavar="N",
                        help="which episodes are held out, and what is drawn (default: 0)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N")
    parser.add_argument("--dtype", default="auto",
                        help="auto (as stored), float32, bfloat16, float16")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Gather, solve, measure and store; 0 when the file is written."""
    from deer_ros.calibration.calibrate import Settings
    from deer_ros.report.files import destination

    settings = Settings(
        method=arguments.method, metric=arguments.metric, holdout=arguments.holdout,
        rows=arguments.rows, seed=arguments.seed, **_of_method(arguments),
    )
    changes = node_parameters(arguments, ("model", *OF_BAGS))
    model, data = _model_and_data(arguments.paths)
    check_one_model(arguments, model)
    folder = _folder(model, changes.get("model", ""))
    check_heeded(arguments, data)
    inputs = bag_inputs(arguments, changes)
    out = _out(folder, arguments.out)
    with locked_beside(out, "calibrates into"):
        calibration = _calibrate(folder, data, inputs, settings, arguments)
        calibration.save(destination(out))
    facts = describe(calibration, out)
    if arguments.json:
        print(json.dumps(facts, indent=2))
    else:
        _print(facts)
    return 0


def _calibrate(
    folder: Path, data: list[Path], inputs: BagInputs, settings: Any, arguments: Any
) -> Calibration:
    import dataclasses

    from deer_ros.calibration.calibrate import calibrate, check_fits, needed_layers
    from deer_ros.calibration.features import at_steps, gather_features
    from deer_ros.checkpoint.fingerprint import weights_fingerprint
    from deer_ros.data.lerobot_keys import LeRobotKeys
    from deer_ros.data.readers import read_all_episodes
    from deer_ros.data.survey import Survey
    from deer_ros.policy import DeerPolicy

    policy = DeerPolicy.from_pretrained(folder, arguments.device, arguments.dtype)
    # Before the demonstrations, which take their time.
    check_fits(settings, policy.config)
    fingerprint = weights_fingerprint(folder)
    keys = LeRobotKeys.parse(arguments.lerobot)
    on_bad = name_bad if arguments.skip_bad else None
    episodes = read_all_episodes(
        data, policy.config.action, on_bad, keys, inputs, policy.preprocessor.resize)
    layers = needed_layers(policy.config, settings.method)
    # The authors' windows are of all frames, as is training.
    executions = 1 if settings.method == "original" else policy.config.action.executions_per_step
    rate_hz = policy.config.action.rate_hz / executions
    if executions > 1 and not inputs.rate_hz:
        episodes = (at_steps(episode, rate_hz) for episode in episodes)
    survey = Survey(rate_hz)
    with _reporting() as (frames, stage):
        features = gather_features(policy, survey.watched(episodes), layers, frames, on_bad)
        if survey.pace():
            print(f"deer calibrate: {survey.pace()}", file=sys.stderr)
        made = calibrate(policy.model.head, policy.config, features, fingerprint, settings, stage)
    notes = {
        "episodes": str(len(features.lengths)),
        "held_out": str(_held_out(made)),
        "frames": str(len(features.values)),
        "seed": str(settings.seed),
    }
    return dataclasses.replace(made, notes=notes)


def _held_out(calibration: Calibration) -> int:
    losses = calibration.frontiers[len(calibration.exit_layers)].losses
    return 0 if losses is None else losses.shape[1]


def _of_method(arguments: argparse.Namespace) -> dict[str, Any]:
    """What is given for the method. ValueError for what another one would heed."""
    given = {name: getattr(arguments, name) for name in OF_METHOD}
    given = {name: value for name, value in given.items() if value is not None}
    for name, value in given.items():
        if OF_METHOD[name] != arguments.method:
            raise ValueError(
                f"--{name.replace('_', '-')} is {value}, and the method {arguments.method} has no "
                f"use for it; leave it out, or say --method {OF_METHOD[name]}."
            )
    return given


def _model_and_data(paths: list[str]) -> tuple[str | None, list[Path]]:
    """The model, None where none is named, and what follows it. A first path that is no model is
    data."""
    from deer_ros.checkpoint.directory import CONFIG

    first, *data = map(Path, paths)
    if (first / CONFIG).is_file() and not data:
        raise ValueError(f"there is only the model {first}; name bags to calibrate it on.")
    if data and ((first / CONFIG).is_file() or not first.exists()):
        return paths[0], data
    return None, [first, *data]


def _folder(model: str | None, default: str) -> Path:
    """The model's directory. default: the parameters' model, as the node takes it."""
    from deer_ros.resources import find_model

    if model is None and default not in ("", "bundled"):
        model = default
    return find_model(model)


def _out(folder: Path, given: Path | None) -> Path:
    """Where to write; told before the work begins if that cannot be."""
    from deer_ros.checkpoint.directory import CALIBRATION
    from deer_ros.report.files import destination

    out = destination(folder / CALIBRATION if given is None else given)
    if not out.parent.is_dir() or not os.access(out.parent, os.W_OK):
        raise ValueError(f"{out.parent} is no folder that can be written to; name another --out.")
    return out


def describe(calibration: Calibration, out: Path) -> dict[str, Any]:
    """All that `deer calibrate --json` prints."""
    errors, deltas = calibration.errors(), calibration.deltas()
    return {
        "calibration": str(out),
        "method": calibration.method,
        "metric": calibration.metric,
        "fingerprint": calibration.fingerprint,
        "samples": len(calibration),
        **{name: int(calibration.notes[name]) for name in ("episodes", "held_out", "frames")},
        "exits": [
            {
                "exit": index,
                "layer": layer,
                "median_delta": _finite(sorted(deltas[index])[len(calibration) // 2]),
                "mean_action_error": float(errors[index].mean()),
                "share_taken": float((calibration.taken == index).mean()),
            }
            for index, layer in enumerate(calibration.exit_layers)
        ],
        "rows": {str(exits): len(f) for exits, f in sorted(calibration.frontiers.items())},
        "kib": out.stat().st_size / 1024,
    }


def _finite(value: float) -> float | None:
    return float(value) if value == value else None


def _print(facts: dict[str, Any]) -> None:
    from deer_ros.report.tables import console, number, table

    print(f"calibration: {facts['calibration']} ({facts['kib']:.0f} KiB)")
    print(f"method:      {facts['method']}, metric {facts['metric']}")
    print(f"episodes:    {facts['episodes']}, of which {facts['held_out']} only measure risk; "
          f"{facts['samples']} samples of {facts['frames']} frames")
    console().print(table(
        "exits",
        ("exit", "after layer", "median delta", "mean action error", "taken"),
        [(str(e["exit"]), str(e["layer"]),
          "none" if e["median_delta"] is None else number(e["median_delta"]),
          number(e["mean_action_error"]), f"{100 * e['share_taken']:.1f} %")
         for e in facts["exits"]],
    ))


@contextmanager
def _reporting() -> Iterator[tuple[Callable[[int], None], Callable[[str, int, int], None]]]:
    """Progress as bars on a terminal, else not at all."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    console = Console(stderr=True, highlight=False)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        bars = {"frames": progress.add_task("frames", total=None)}

        def stage(what: str, done: int, total: int) -> None:
            if what not in bars:
                bars[what] = progress.add_task(what, total=total)
            progress.update(bars[what], completed=done, total=total)

        yield lambda steps: progress.advance(bars["frames"], steps), stage

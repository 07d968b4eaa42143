"""`deer collect`: demonstrations of the simulator's scripted experts, as bags."""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from deer_ros.report.files import write_json
from deer_ros.report.locks import locked
from deer_ros.sim.tasks import DEMONSTRATION_TASKS, TASKS, find_task

if TYPE_CHECKING:
    from deer_ros.sim.collection import BagSummary, Settings
    from deer_ros.sim.demonstrations import Leader

HELP = "record demonstrations of the simulator's scripted experts into bags"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument("--out", type=Path, required=True,
                        help="folder of bags; what it holds already is kept and completed")
    parser.add_argument("--tasks", type=_tasks, default=DEMONSTRATION_TASKS, metavar="A,B",
                        help=f"of {', '.join(TASKS)} (default: the "
                             f"{len(DEMONSTRATION_TASKS)} of the bundled model)")
    parser.add_argument("--episodes", type=_positive, default=150, metavar="N",
                        help="successful episodes of each task (default: 150)")
    parser.add_argument("--seed", type=_not_negative, default=0, metavar="N",
                        help="another seed lays out other scenes (default: 0)")
    parser.add_argument("--processes", type=_positive, default=2, metavar="N",
                        help="processes that record (default: 2)")
    parser.add_argument("--noise", type=_noise, default=0.25, metavar="STD",
                        help="standard deviation of the noise on half of the episodes, "
                             "in units of action (default: 0.25)")
    parser.add_argument("--policy", metavar="MODEL",
                        help="a model directory: its policy leads every episode for a while, along "
                             "an exit drawn at random, before the expert ends it; the actions are "
                             "the expert's all along (there is no noise then)")
    parser.add_argument("--height", type=_positive, default=128, metavar="PIXELS",
                        help="of pictures (default: 128)")
    parser.add_argument("--width", type=_positive, default=128, metavar="PIXELS",
                        help="of pictures (default: 128)")
    parser.add_argument("--json", action="store_true", help="print the manifest")


def run(arguments: argparse.Namespace) -> int:
    """Collect; 0 when all bags and the manifest are there."""
    # MuJoCo takes a second to load and needs OpenGL: not for --help.
    from deer_ros.sim.cameras import check_picture_size
    from deer_ros.sim.collection import Settings, manifest

    check_picture_size(arguments.height, arguments.width)
    settings = Settings(
        arguments.seed, arguments.noise, arguments.height, arguments.width,
        **_fingerprints(arguments.policy),
    )
    with locked(arguments.out, "collects"):
        summaries = _existing(arguments.out, settings)
        _record_missing(arguments, settings, summaries)
    content = manifest(list(summaries.values()))
    if arguments.json:
        print(json.dumps(content, indent=2))
    else:
        print(f"{arguments.out}: {content['episodes']} episodes, {content['frames']} frames")
    return 0


def _existing(folder: Path, settings: Settings) -> dict[tuple[str, int], BagSummary]:
    """The bags in the folder by task and index. ValueError where they were recorded otherwise."""
    from deer_ros.sim.collection import find_summaries

    summaries, errors = find_summaries(folder)
    for error in errors:
        print(f"deer collect: {error}; if it is one of those asked for, it is recorded anew",
              file=sys.stderr)
    for summary in summaries:
        if not summary.settings.agrees(settings):
            raise ValueError(
                f"{folder} holds {summary.name}, recorded with {_text(summary.settings)}; now "
                f"asked is {_text(settings)}: use the same settings or another folder"
            )
    return {(summary.task, summary.index): summary for summary in summaries}


def _record_missing(
    arguments: argparse.Namespace,
    settings: Settings,
    summaries: dict[tuple[str, int], BagSummary],
) -> None:
    """Adds to `summaries`, and to the manifest in the folder, what is asked for and not there."""
    from deer_ros.sim.collection import manifest, plan_bags
    from deer_ros.sim.recorders import record_bags

    def have(plan) -> int:
        summary = summaries.get((plan.task, plan.index))
        return summary.episodes if summary else 0

    def keep(summary: BagSummary) -> None:
        summaries[summary.task, summary.index] = summary
        write_json(arguments.out / "manifest.json", manifest(list(summaries.values())))
        progress.console.print(
            f"{summary.name}: {summary.episodes} episodes of {summary.attempts} attempts"
        )

    plans = plan_bags(arguments.tasks, arguments.episodes)
    missing = [plan for plan in plans if have(plan) < plan.episodes]
    if summaries:
        write_json(arguments.out / "manifest.json", manifest(list(summaries.values())))
    if not missing:
        return
    with _progress_bar() as progress:
        bar = progress.add_task("episodes", total=sum(plan.episodes for plan in missing))
        record_bags(
            arguments.out,
            missing,
            settings,
            arguments.processes,
            on_attempt=lambda success: progress.advance(bar, float(success)),
            on_bag=keep,
            open_leader=_leader(arguments.policy),
        )


def _progress_bar():
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True, highlight=False)
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
    )


def _fingerprints(model: str | None) -> dict[str, str]:
    """Of the policy that leads, as `Settings` have them; none where none does."""
    from deer_ros.checkpoint.fingerprint import weights_fingerprint
    from deer_ros.evaluation.facts import config_fingerprint
    from deer_ros.resources import find_model

    if model is None:
        return {}
    folder = find_model(model)
    return {"policy": weights_fingerprint(folder), "configuration": config_fingerprint(folder)}


def _leader(model: str | None) -> Callable[[], Leader] | None:
    from deer_ros.evaluation.leader import PolicyLeader

    return None if model is None else partial(PolicyLeader, model)


def _text(settings: Settings) -> str:
    led = "no --policy" if settings.policy is None else f"--policy {settings.policy[:12]}..."
    if settings.configuration is not None:
        led += f" of configuration {settings.configuration[:12]}..."
    return (
        f"--seed {settings.seed} --noise {settings.noise} --height {settings.height} "
        f"--width {settings.width} {led} (Meta-World {settings.metaworld})"
    )


def _tasks(text: str) -> tuple[str, ...]:
    try:
        return tuple(find_task(name.strip()).name for name in dict.fromkeys(text.split(",")))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _positive(text: str) -> int:
    value = _not_negative(text)
    if value == 0:
        raise argparse.ArgumentTypeError("it is 0; it must be at least 1")
    return value


def _not_negative(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"it is {text!r}; it must be a whole number, 0 or more")
    return int(text)


def _noise(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"it is {text!r}; it must be a number from 0 to 1")
    return value

"""`deer train`: a multi-exit model from demonstrations."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import TaskID

    from deer_ros.training.run import Report

HELP = "train a multi-exit model on bags of demonstrations"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument("config", type=Path, help="YAML file with model, data and phases")
    parser.add_argument("--data", type=Path, nargs="+", required=True,
                        help="bags, or folders of bags, of demonstrations")
    parser.add_argument("--out", type=Path, required=True,
                        help="folder of the run; a run that is there is resumed")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads (0: torch's choice)")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Train, or go on training; 0 when the model directory is written."""
    import torch

    from deer_ros.data.bag_reader import read_all_episodes
    from deer_ros.training.config import TrainingConfig
    from deer_ros.training.run import TrainingRun

    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    config = TrainingConfig.load(arguments.config)
    episodes = read_all_episodes(arguments.data, config.model.action)
    _check_same_data(arguments.out, arguments.data)
    with _reporting(arguments.out) as report:
        model = TrainingRun(config, episodes, arguments.out, report)()
    print(json.dumps({"model": str(model)}) if arguments.json else f"model directory: {model}")
    return 0


def _check_same_data(folder: Path, data: list[Path]) -> None:
    """A run goes on with the frames that it has read: ValueError where other data are named now."""
    file = folder / "data.json"
    named = sorted(str(path.resolve()) for path in data)
    if file.exists():
        before = json.loads(file.read_text(encoding="utf-8"))
        if before != named:
            raise ValueError(
                f"the run in {folder} was started with --data {' '.join(before)}; it cannot go on "
                "with other data. Name the same, or another --out."
            )
        return
    folder.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(named) + "\n", encoding="utf-8")


@contextmanager
def _reporting(folder: Path) -> Iterator[Report]:
    """Reports go to the run's log, and to stderr: as bars on a terminal, else as lines."""
    from rich.console import Console
    from rich.progress import Progress, TextColumn

    console = Console(stderr=True)
    columns = (*Progress.get_default_columns(), TextColumn("loss {task.fields[loss]:.4f}"))
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        bars: dict[str, TaskID] = {}

        def report(phase: str, step: int, steps: int, losses: dict[str, float]) -> None:
            with (folder / "log.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps({"phase": phase, "step": step, **losses}) + "\n")
            loss = losses.get("total", 0.0)
            if phase not in bars:
                bars[phase] = progress.add_task(phase, total=steps, loss=loss)
            progress.update(bars[phase], completed=step, loss=loss)
            if not console.is_terminal:
                shown = "  ".join(f"{name} {value:.4f}" for name, value in losses.items())
                print(f"{phase} {step}/{steps}  {shown}", file=sys.stderr, flush=True)

        yield report

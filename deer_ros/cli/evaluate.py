"""`deer evaluate`: closed-loop success in the simulator, against what it costs."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict

HELP = "closed-loop rollouts in the simulator: success against cost"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument("model", nargs="?", help="model directory (default: the bundled model)")
    parser.add_argument("--tasks", help="comma-separated (default: those of the demonstrations)")
    parser.add_argument("--episodes", type=int, default=20, help="per task and setting")
    parser.add_argument("--seed", type=int, default=0,
                        help="first evaluation seed, counted from where evaluation seeds start")
    parser.add_argument("--exits", default="",
                        help="fixed exits to run, comma-separated layers, or 'all'")
    parser.add_argument("--threshold", default="",
                        help="comma-separated: each is a setting with that threshold at every exit")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--json", action="store_true", help="print every episode as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Run the episodes and print a table; 0 when all were run."""
    from rich.console import Console
    from rich.progress import track

    from deer_ros.evaluation.rollout import run_all
    from deer_ros.sim.tasks import DEMONSTRATION_TASKS, EVALUATION_SEED_START, find_task

    tasks = arguments.tasks.split(",") if arguments.tasks else list(DEMONSTRATION_TASKS)
    for task in tasks:
        find_task(task)
    if arguments.episodes < 1 or arguments.processes < 1 or arguments.seed < 0:
        raise ValueError("--episodes and --processes must be at least 1, --seed at least 0.")
    first = EVALUATION_SEED_START + arguments.seed
    seeds = range(first, first + arguments.episodes)
    settings = _settings(arguments)
    console = Console(stderr=True)
    total = len(settings) * len(tasks) * len(seeds)
    results = run_all(arguments.model, settings, tasks, seeds, arguments.processes)
    rollouts = list(
        track(results, "episodes", total, console=console, disable=not console.is_terminal)
    )
    if arguments.json:
        print(json.dumps([asdict(r) for r in rollouts]))
    else:
        Console().print(_table(rollouts, tasks, [s.name for s in settings]))
    return 0


def _settings(arguments: argparse.Namespace) -> list:
    """The settings that the arguments ask for; the model's own thresholds and full depth always."""
    from deer_ros.evaluation.rollout import Setting
    from deer_ros.model.config import DeerConfig
    from deer_ros.resources import bundled_model

    config = DeerConfig.load(f"{arguments.model or bundled_model()}/config.json")
    exits = list(config.exit_layers)
    settings = []
    if config.exits.thresholds is not None:
        settings.append(Setting("own thresholds", thresholds=config.thresholds))
    for text in filter(None, arguments.threshold.split(",")):
        settings.append(Setting(f"threshold {text}", thresholds=(float(text),) * len(exits)))
    chosen = exits if arguments.exits == "all" else map(int, filter(None, arguments.exits.split(",")))
    for layer in chosen:
        if layer not in exits:
            raise ValueError(f"--exits has {layer}; the exits are after layers {exits}.")
        settings.append(Setting(f"exit {layer}", exit_layer=layer))
    if not any(s.exit_layer == exits[-1] for s in settings):
        settings.append(Setting("full depth"))
    return settings


def _table(rollouts: list, tasks: list[str], settings: list[str]):
    import numpy as np
    from rich.table import Table

    table = Table(title="closed loop: successes of episodes, by setting")
    table.add_column("task")
    for setting in settings:
        table.add_column(setting, justify="right")
    for task in tasks:
        counts = []
        for setting in settings:
            rows = [r for r in rollouts if r.task == task and r.setting == setting]
            counts.append(f"{sum(r.success for r in rows)}/{len(rows)}")
        table.add_row(task, *counts)
    table.add_section()
    for label, value, form in (
        ("success, %", lambda r: 100 * r.success, "{:.1f}"),
        ("mean exit layer", lambda r: r.mean_exit_layer, "{:.2f}"),
        ("LLM MFLOPs per step", lambda r: 1e3 * r.mean_llm_gflops, "{:.1f}"),
        ("whole-step MFLOPs", lambda r: 1e3 * r.mean_step_gflops, "{:.1f}"),
        ("ms per step", lambda r: r.mean_step_ms, "{:.1f}"),
    ):
        means = [np.mean([value(r) for r in rollouts if r.setting == s]) for s in settings]
        table.add_row(label, *(form.format(mean) for mean in means))
    return table

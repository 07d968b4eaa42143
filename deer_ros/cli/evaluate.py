"""`deer evaluate`: closed-loop success in a simulator, against what it costs."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from deer_ros.evaluation.calvin import Score
    from deer_ros.evaluation.episode import Setting
    from deer_ros.evaluation.metaworld import Rollout

HELP = "closed-loop rollouts in a simulator: success against cost"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument("model", nargs="?", help="model directory, or owner/name on the Hugging "
                        "Face hub (default: the bundled model)")
    parser.add_argument("--env", choices=("metaworld", "calvin"), default="metaworld",
                        help="calvin: chains of five tasks in the CALVIN simulator, if installed")
    parser.add_argument("--exits", default="",
                        help="fixed exits to run, comma-separated layers, or 'all'")
    parser.add_argument("--threshold", default="",
                        help="comma-separated: each is a setting with that threshold at every exit")
    parser.add_argument("--preset", default="",
                        help="comma-separated: each is a setting, the published exit rule of that "
                        "name")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--json", action="store_true", help="print every episode as JSON")
    metaworld = parser.add_argument_group("--env metaworld")
    metaworld.add_argument("--tasks",
                           help="comma-separated (default: those of the demonstrations)")
    metaworld.add_argument("--episodes", type=int, default=20, help="per task and setting")
    metaworld.add_argument("--seed", type=int, default=0,
                           help="first evaluation seed, counted from where evaluation seeds start")
    calvin = parser.add_argument_group("--env calvin")
    calvin.add_argument("--dataset", help="folder of a CALVIN dataset, such as task_D_D")
    calvin.add_argument("--chains", type=int, default=1000,
                        help="chains of the benchmark's list of that length (default: 1000; the "
                        "DeeR paper's figures are of 224)")
    calvin.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N")
    calvin.add_argument("--dtype", default="auto", help="auto, float32, bfloat16, float16")


def run(arguments: argparse.Namespace) -> int:
    """Run the episodes and print a table; 0 when all were run."""
    if arguments.processes < 1:
        raise ValueError(f"--processes is {arguments.processes}; it must be at least 1.")
    return (_run_calvin if arguments.env == "calvin" else _run_metaworld)(arguments)


def _run_metaworld(arguments: argparse.Namespace) -> int:
    from rich.console import Console

    from deer_ros.sim.tasks import DEMONSTRATION_TASKS, EVALUATION_SEED_START, find_task

    tasks = arguments.tasks.split(",") if arguments.tasks else list(DEMONSTRATION_TASKS)
    for task in tasks:
        find_task(task)
    if arguments.episodes < 1 or arguments.seed < 0:
        raise ValueError("--episodes must be at least 1, --seed at least 0.")
    first = EVALUATION_SEED_START + arguments.seed
    seeds = range(first, first + arguments.episodes)
    settings = _settings(arguments)

    from deer_ros.evaluation import metaworld

    jobs = [(s, task, seed) for task in tasks for s in settings for seed in seeds]
    rollouts = _run_all(metaworld.start, (arguments.model,), jobs, arguments.processes, "episodes")
    if arguments.json:
        print(json.dumps([asdict(r) for r in rollouts]))
    else:
        Console().print(_metaworld_table(rollouts, tasks, [s.name for s in settings]))
    return 0


def _run_calvin(arguments: argparse.Namespace) -> int:
    from deer_ros.evaluation import calvin
    from deer_ros.evaluation.calvin_chains import chains
    from deer_ros.report.tables import console

    if arguments.dataset is None:
        raise ValueError("--env calvin needs --dataset, the folder of a CALVIN dataset.")
    if arguments.chains < 1:
        raise ValueError(f"--chains is {arguments.chains}; it must be at least 1.")
    calvin.check_installation(arguments.dataset)
    settings = _settings(arguments)
    numbered = list(enumerate(chains(arguments.chains)))
    jobs = [(setting, number, chain) for setting in settings for number, chain in numbered]
    start = (arguments.model, arguments.device, arguments.dtype, arguments.dataset)
    results = _run_all(calvin.start, start, jobs, arguments.processes, "chains")
    scores = [
        calvin.score(s.name, [r for r in results if r.setting == s.name]) for s in settings
    ]
    if arguments.json:
        print(json.dumps({"scores": [asdict(s) for s in scores],
                          "chains": [asdict(r) for r in results]}))
    else:
        console().print(_calvin_table(scores))
    return 0


def _run_all(
    start: Callable, start_arguments: tuple, jobs: Sequence, processes: int, what: str
) -> list[Any]:
    from rich.console import Console
    from rich.progress import track

    from deer_ros.evaluation.processes import run_jobs

    console = Console(stderr=True)
    results = run_jobs(start, start_arguments, jobs, processes)
    return list(track(results, what, len(jobs), console=console, disable=not console.is_terminal))


def _settings(arguments: argparse.Namespace) -> list[Setting]:
    """The settings that the arguments ask for.

    The model's own thresholds and full depth are added: in CALVIN, where a setting takes hours, one
    of them and only where nothing was asked for.
    """
    from deer_ros.budget.presets import find_preset
    from deer_ros.evaluation.episode import Setting
    from deer_ros.exit_rule import ExitRule
    from deer_ros.model.config import DeerConfig
    from deer_ros.resources import find_model

    config = DeerConfig.load(find_model(arguments.model) / "config.json")
    exits = list(config.exit_layers)
    settings = []
    for name in filter(None, arguments.preset.split(",")):
        preset = find_preset(name)
        # One that does not fit the model is refused now, not after the first hours.
        ExitRule.of(config, exits[-1], preset.thresholds, preset.metric, preset.max_layer)
        settings.append(Setting(f"preset {name}", preset=name))
    for text in filter(None, arguments.threshold.split(",")):
        settings.append(Setting(f"threshold {text}", thresholds=(float(text),) * len(exits)))
    listed = filter(None, arguments.exits.split(","))
    for layer in exits if arguments.exits == "all" else map(int, listed):
        if layer not in exits:
            raise ValueError(f"--exits has {layer}; the exits are after layers {exits}.")
        settings.append(Setting(f"exit {layer}", exit_layer=layer))
    has_own = config.exits.thresholds is not None
    own = [Setting("own thresholds", thresholds=config.thresholds)] if has_own else []
    full = [] if exits[-1] in (s.exit_layer for s in settings) else [Setting("full depth")]
    if arguments.env == "calvin":
        return settings or own or full
    return own + settings + full


def _metaworld_table(rollouts: list[Rollout], tasks: list[str], settings: list[str]):
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
    of_setting = [[r for r in rollouts if r.setting == s] for s in settings]
    shares = [100 * np.mean([r.success for r in rows]) for rows in of_setting]
    table.add_row("success, %", *(f"{share:.1f}" for share in shares))

    def means(figure: str) -> list[float]:
        return [np.mean([getattr(r, figure) for r in rows]) for rows in of_setting]

    # The bundled model is small: mega where a published model takes giga.
    for row in _cost_rows("M", 1e3, means):
        table.add_row(*row)
    return table


def _calvin_table(scores: list[Score]):
    from deer_ros.report.tables import table

    rows = [
        ["chains", *(str(s.chains) for s in scores)],
        ["average length", *(f"{s.average_length:.2f}" for s in scores)],
        *(
            [f"{n + 1} in a row, %", *(f"{100 * s.in_a_row[n]:.1f}" for s in scores)]
            for n in range(len(scores[0].in_a_row))
        ),
        *_cost_rows("G", 1.0, lambda figure: [getattr(s, figure) for s in scores]),
    ]
    return table("CALVIN, long horizon: means are over all steps",
                 ("", *(s.setting for s in scores)), rows)


def _cost_rows(
    prefix: str, per_giga: float, means: Callable[[str], list[float]]
) -> Iterator[list[str]]:
    """Rows of what a step cost; means(figure) gives one number per setting."""
    for label, figure, scale, digits in (
        ("mean exit layer", "mean_exit_layer", 1.0, 2),
        (f"LLM {prefix}FLOPs per step", "mean_llm_gflops", per_giga, 1),
        (f"whole-step {prefix}FLOPs", "mean_step_gflops", per_giga, 1),
        ("ms per step", "mean_step_ms", 1.0, 1),
    ):
        yield [label, *(f"{scale * mean:.{digits}f}" for mean in means(figure))]

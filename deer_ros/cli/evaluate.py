"""`deer evaluate`: closed-loop success in a simulator, against what it costs."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deer_ros.report.tables import calvin_table, console, success_table

if TYPE_CHECKING:
    from deer_ros.evaluation.comparison import Summary
    from deer_ros.evaluation.episode import Setting
    from deer_ros.evaluation.results import ResultsFile
    from deer_ros.evaluation.rollouts import Job, World
    from deer_ros.model.config import DeerConfig

HELP = "closed-loop rollouts in a simulator: success against cost"
DEFAULTS: dict[tuple[str, ...], dict[str, Any]] = {
    ("metaworld", "libero"): {
        "tasks": "", "episodes": 20, "seed": 0, "max_steps": None, "swap_words": False,
        "plot": None,
    },
    ("libero",): {"suite": "libero_spatial"},
    ("calvin",): {"dataset": None, "chains": 1000},
}  # fmt: skip
"""Flags that are not for every --env, by those that they are for."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument("model", nargs="?", help="model directory (default: the bundled model)")
    parser.add_argument("--env", choices=("metaworld", "libero", "calvin"), default="metaworld",
                        help="metaworld: this package's simulated robot (default). libero: one of "
                        "LIBERO's suites. calvin: chains of five tasks. The last two are to be "
                        "installed by the user")
    settings = parser.add_argument_group(
        "settings", "the model's own thresholds and full depth are always among them; with --env "
        "calvin one of them runs, and only if nothing is asked for"
    )
    settings.add_argument("--exits", default="",
                          help="fixed exits to run, comma-separated layers, or 'all'")
    settings.add_argument("--threshold", default="",
                          help="comma-separated: each is a setting with that threshold at every "
                          "exit, or with one for each, joined by slashes")
    settings.add_argument("--preset", default="",
                          help="comma-separated: each is a setting, the published exit rule of "
                          "that name")
    settings.add_argument("--average-gflops", default="", metavar="X,...",
                          help="comma-separated: each is a setting, that budget for the language "
                          "model")
    settings.add_argument("--budget", action="append", default=[], metavar="NAME=VALUE,...",
                          help="a setting, any budget: average_gflops=0.05,scope=step; may be "
                          "given several times")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--out", type=Path, metavar="FILE",
                        help="keep every episode there, one JSON object a line; a run that was "
                        "killed goes on where it was (see also `deer compare`)")
    parser.add_argument("--json", action="store_true",
                        help="print every episode as JSON (for summaries with intervals see --out "
                        "and `deer compare --json`)")
    parser.add_argument("--device", help="auto, cpu, cuda, cuda:N (default: cpu for metaworld, "
                        "whose models are small, else auto)")
    parser.add_argument("--dtype", default="auto",
                        help="auto (as stored, the default), float32, bfloat16, float16")
    tasks = parser.add_argument_group("--env metaworld and libero")
    tasks.add_argument("--tasks", help="comma-separated (default: those of the demonstrations, or "
                       "all of the suite)")
    tasks.add_argument("--episodes", type=int, help="per task and setting (default: 20)")
    tasks.add_argument("--seed", type=int, help="first evaluation seed, counted from where "
                       "evaluation seeds start (default: 0)")
    tasks.add_argument("--swap-words", action="store_true", default=None,
                       help="in the scene of each task say the words of another one that it could "
                       "serve as well, and judge by that one")
    tasks.add_argument("--max-steps", type=int,
                       help="control periods of an episode (default: the model's, or the suite's)")
    tasks.add_argument("--plot", type=Path, metavar="FILE",
                       help="draw success against GFLOPs: .png, .svg or .pdf")
    tasks.add_argument("--suite", help="of LIBERO (default: libero_spatial)")
    calvin = parser.add_argument_group("--env calvin")
    calvin.add_argument("--dataset", help="folder of a CALVIN dataset, such as task_D_D")
    calvin.add_argument("--chains", type=int,
                        help="chains of the benchmark's list of that length (default: 1000; the "
                        "DeeR paper's figures are of 224)")


def run(arguments: argparse.Namespace) -> int:
    """Run the episodes and print a table; 0 when all were run."""
    from deer_ros.checkpoint.directory import read_config
    from deer_ros.inputs import find_device, find_dtype
    from deer_ros.report.files import destination
    from deer_ros.resources import find_model

    _fill_in(arguments)
    if arguments.processes < 1:
        raise ValueError(f"--processes is {arguments.processes}; it must be at least 1.")
    find_dtype(arguments.dtype)
    find_device(arguments.device or "auto")
    for file in (arguments.out, arguments.plot):
        if file is not None:
            destination(file)
    folder = find_model(arguments.model)
    run_them = _run_calvin if arguments.env == "calvin" else _run_tasks
    return run_them(arguments, folder, read_config(folder))


def _fill_in(arguments: argparse.Namespace) -> None:
    """Put defaults in for what was not given; ValueError for what was and is for another --env."""
    for environments, defaults in DEFAULTS.items():
        for name, default in defaults.items():
            if getattr(arguments, name) is None:
                setattr(arguments, name, default)
            elif arguments.env not in environments:
                raise ValueError(
                    f"--{name.replace('_', '-')} is for --env {' and '.join(environments)}; this "
                    f"is --env {arguments.env}. Leave it out, or name that --env."
                )


def _run_tasks(arguments: argparse.Namespace, folder: Path, config: DeerConfig) -> int:
    from deer_ros.evaluation import rollouts
    from deer_ros.evaluation.comparison import by_setting, summarise
    from deer_ros.evaluation.settings import check_budgets

    if arguments.plot is not None:
        from deer_ros.report.success_curve import check_format

        check_format(arguments.plot)
    world = _world(arguments)
    settings = _settings(arguments, config)
    jobs = _jobs(arguments, world, settings)
    check_budgets(settings, folder, config, {job.said: world.words[job.said] for job in jobs})
    max_steps = world.max_steps or config.max_episode_steps
    start = (
        str(folder), world.open, max_steps, arguments.device or world.device, arguments.dtype,
        world.threads,
    )  # fmt: skip
    about = {
        "environment": world.name, "max_steps": max_steps, "simulator": dict(world.simulator),
    }  # fmt: skip
    with _results_file(arguments, folder, config, settings, about) as file:
        found = _run_all(
            rollouts.start, start, jobs, arguments.processes, "episodes", file,
            rollouts.Rollout.from_json,
        )
    exits = {setting.name: setting.exit_layer for setting in settings}
    summaries = [
        summarise(name, list(episodes.values()), exits[name])
        for name, episodes in by_setting(found).items()
    ]
    if arguments.json:
        print(json.dumps([asdict(rollout) for rollout in found]))
    else:
        console().print(success_table(summaries))
    # Last: where it cannot be written, what was found has been told.
    if arguments.plot is not None:
        _plot(arguments.plot, summaries, world)
    return 0


def _world(arguments: argparse.Namespace) -> World:
    tasks = arguments.tasks.split(",") if arguments.tasks else []
    if arguments.max_steps is not None and arguments.max_steps < 1:
        raise ValueError(f"--max-steps is {arguments.max_steps}; it must be at least 1.")
    if arguments.env == "libero":
        from deer_ros.evaluation import libero

        return libero.world(arguments.suite, tasks, arguments.max_steps)
    from deer_ros.evaluation import metaworld

    return metaworld.world(tasks, arguments.max_steps)


def _jobs(arguments: argparse.Namespace, world: World, settings: list[Setting]) -> list[Job]:
    from deer_ros.evaluation.rollouts import Job

    if arguments.episodes < 1 or arguments.seed < 0:
        raise ValueError("--episodes must be at least 1, --seed at least 0.")
    said = {task: task for task in world.tasks}
    if arguments.swap_words:
        said = world.others
        alone = [task for task in world.tasks if task not in said]
        if not said or (arguments.tasks and alone):
            raise ValueError(
                f"--swap-words: the scene of {', '.join(alone)} serves no other task's words."
            )
    first = world.first_seed + arguments.seed
    seeds = range(first, first + arguments.episodes)
    for task in said:
        world.check_scene(task, seeds[-1])
    return [
        Job(setting, task, seed, words)
        for task, words in said.items() for setting in settings for seed in seeds
    ]  # fmt: skip


def _run_calvin(arguments: argparse.Namespace, folder: Path, config: DeerConfig) -> int:
    from deer_ros.evaluation import calvin
    from deer_ros.evaluation.calvin_chains import chains
    from deer_ros.evaluation.settings import check_budgets

    if arguments.dataset is None:
        raise ValueError("--env calvin needs --dataset, the folder of a CALVIN dataset.")
    if arguments.chains < 1:
        raise ValueError(f"--chains is {arguments.chains}; it must be at least 1.")
    calvin.check_installation(arguments.dataset)
    settings = _settings(arguments, config)
    check_budgets(settings, folder, config, calvin.words())
    numbered = list(enumerate(chains(arguments.chains)))
    jobs = [calvin.Job(s, number, chain) for s in settings for number, chain in numbered]
    start = (str(folder), arguments.device or "auto", arguments.dtype, arguments.dataset)
    about = {
        "environment": "calvin", "chains": arguments.chains, **calvin.facts(arguments.dataset),
    }  # fmt: skip
    with _results_file(arguments, folder, config, settings, about) as file:
        results = _run_all(
            calvin.start, start, jobs, arguments.processes, "chains", file,
            calvin.ChainResult.from_json,
        )
    scores = [
        calvin.score(s.name, [r for r in results if r.setting == s.name]) for s in settings
    ]
    if arguments.json:
        print(json.dumps({"scores": [asdict(s) for s in scores],
                          "chains": [asdict(r) for r in results]}))
    else:
        console().print(calvin_table(scores))
    return 0


def _run_all(
    start: Callable, start_arguments: tuple, jobs: Sequence[Any], processes: int, what: str,
    file: ResultsFile | None, from_json: Callable[[dict], Any],
) -> list[Any]:
    """The jobs' results in the jobs' order; those that the file has are taken from there."""
    from deer_ros.evaluation.processes import run_jobs
    from deer_ros.report.progress import count

    try:
        kept = [] if file is None else [from_json(values) for values in file.episodes]
    except (TypeError, KeyError, AttributeError, ValueError) as error:
        raise ValueError(f"{file.file} has an episode that is none: {error}.") from error
    found = {result.key: result for result in kept}
    left = [job for job in jobs if job.key not in found]
    for result in count(run_jobs(start, start_arguments, left, processes), what, len(left)):
        found[result.key] = result
        if file is not None:
            file.add(asdict(result))
    return [found[job.key] for job in jobs]


@contextmanager
def _results_file(
    arguments: argparse.Namespace, folder: Path, config: DeerConfig, settings: list[Setting],
    about: dict[str, Any],
) -> Iterator[ResultsFile | None]:
    """The file of --out, if asked for, that knows the settings; nobody else writes into it."""
    from deer_ros.checkpoint.fingerprint import weights_fingerprint
    from deer_ros.evaluation.facts import config_fingerprint
    from deer_ros.evaluation.results import ResultsFile
    from deer_ros.evaluation.settings import definitions
    from deer_ros.report.locks import locked_file

    if arguments.out is None:
        yield None
        return
    if arguments.dtype != "auto":
        about = {**about, "dtype": arguments.dtype}
    about = {
        **about, "weights": weights_fingerprint(folder),
        # How long an episode lasts, the environment's facts tell.
        "config": config_fingerprint(folder, told=("max_episode_steps",)),
    }  # fmt: skip
    with locked_file(arguments.out, f"evaluates into {arguments.out}"):
        file = ResultsFile(arguments.out, about)
        for name, definition in definitions(settings, folder, config).items():
            file.define(name, definition)
        yield file


def _settings(arguments: argparse.Namespace, config: DeerConfig) -> list[Setting]:
    """The settings that the arguments ask for.

    The model's own thresholds and full depth are added: in CALVIN, where a setting takes hours, one
    of them and only where nothing was asked for.
    """
    from deer_ros.evaluation import settings

    own, full = settings.own_thresholds(config), settings.full_depth(config)
    asked = [
        *settings.presets(config, arguments.preset),
        *settings.thresholds(config, arguments.threshold),
        *settings.average_gflops(arguments.average_gflops),
        *settings.budgets(arguments.budget),
        *settings.fixed_exits(config, arguments.exits),
    ]
    settings.check_names(asked)
    if arguments.env == "calvin":
        return asked or own or [full]
    is_asked = any(setting.exit_layer == full.exit_layer for setting in asked)
    return own + asked + [full] * (not is_asked)


def _plot(file: Path, summaries: list[Summary], world: World) -> None:
    from deer_ros.report.success_curve import Point, write_success_curve

    points = [
        Point(s.setting, s.fixed_exit is not None, s.success.estimate, s.success.low,
              s.success.high, s.mean_llm_gflops, s.mean_step_gflops)
        for s in summaries
    ]  # fmt: skip
    tasks, episodes = len(summaries[0].tasks), summaries[0].episodes
    title = (
        f"Success against cost, {world.name}: {tasks} task{'s' * (tasks > 1)}, {episodes} episodes "
        "a setting, 95 % intervals"
    )
    write_success_curve(file, points, title)

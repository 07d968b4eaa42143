"""`deer evaluate`: closed-loop success in a simulator, against what it costs."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from deer_ros.evaluation.calvin import Score
    from deer_ros.evaluation.comparison import Summary
    from deer_ros.evaluation.episode import Setting
    from deer_ros.evaluation.results import ResultsFile
    from deer_ros.evaluation.rollouts import Job, World

HELP = "closed-loop rollouts in a simulator: success against cost"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument("model", nargs="?", help="model directory (default: the bundled model)")
    parser.add_argument("--env", choices=("metaworld", "libero", "calvin"), default="metaworld",
                        help="metaworld: this package's simulated robot (default). libero: one of "
                        "LIBERO's suites. calvin: chains of five tasks. The last two are to be "
                        "installed by the user")
    settings = parser.add_argument_group(
        "settings", "the model's own thresholds and full depth are always among them"
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
    parser.add_argument("--plot", type=Path, metavar="FILE",
                        help="draw success against GFLOPs: .png, .svg or .pdf")
    parser.add_argument("--json", action="store_true", help="print every episode as JSON")
    tasks = parser.add_argument_group("--env metaworld and libero")
    tasks.add_argument("--tasks", help="comma-separated (default: those of the demonstrations, or "
                       "all of the suite)")
    tasks.add_argument("--episodes", type=int, default=20, help="per task and setting")
    tasks.add_argument("--seed", type=int, default=0,
                       help="first evaluation seed, counted from where evaluation seeds start")
    tasks.add_argument("--swap-words", action="store_true",
                       help="in the scene of each task say the words of another one that it could "
                       "serve as well, and judge by that one")
    tasks.add_argument("--max-steps", type=int,
                       help="control periods of an episode (default: the model's, or the suite's)")
    tasks.add_argument("--suite", default="libero_spatial",
                       help="of LIBERO (default: libero_spatial)")
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
    return (_run_calvin if arguments.env == "calvin" else _run_tasks)(arguments)


def _run_tasks(arguments: argparse.Namespace) -> int:
    from deer_ros.evaluation import rollouts
    from deer_ros.evaluation.comparison import by_setting, summarise
    from deer_ros.report.tables import console

    if arguments.plot is not None:
        from deer_ros.report.success_curve import check_format

        check_format(arguments.plot)
    world = _world(arguments)
    settings = _settings(arguments)
    jobs = _jobs(arguments, world, settings)
    file = _results_file(arguments, settings, environment=world.name, max_steps=world.max_steps)
    found = _run_all(
        rollouts.start, (arguments.model, world.open, world.max_steps), jobs, arguments.processes,
        "episodes", file, lambda job: job.key, rollouts.Rollout.from_json,
    )
    exits = {setting.name: setting.exit_layer for setting in settings}
    summaries = [
        summarise(name, list(episodes.values()), exits[name])
        for name, episodes in by_setting(found).items()
    ]
    if arguments.plot is not None:
        _plot(arguments.plot, summaries, world)
    if arguments.json:
        print(json.dumps([asdict(rollout) for rollout in found]))
    else:
        console().print(success_table(summaries))
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
    return [
        Job(setting, task, seed, words)
        for task, words in said.items() for setting in settings for seed in seeds
    ]  # fmt: skip


def _run_calvin(arguments: argparse.Namespace) -> int:
    from deer_ros.evaluation import calvin
    from deer_ros.evaluation.calvin_chains import chains
    from deer_ros.report.tables import console

    if arguments.dataset is None:
        raise ValueError("--env calvin needs --dataset, the folder of a CALVIN dataset.")
    if arguments.chains < 1:
        raise ValueError(f"--chains is {arguments.chains}; it must be at least 1.")
    if arguments.plot is not None or arguments.swap_words:
        raise ValueError("--plot and --swap-words are not for --env calvin.")
    calvin.check_installation(arguments.dataset)
    settings = _settings(arguments)
    numbered = list(enumerate(chains(arguments.chains)))
    jobs = [(setting, number, chain) for setting in settings for number, chain in numbered]
    start = (arguments.model, arguments.device, arguments.dtype, arguments.dataset)
    file = _results_file(arguments, settings, environment="calvin", chains=arguments.chains)
    results = _run_all(
        calvin.start, start, jobs, arguments.processes, "chains", file,
        lambda job: (job[0].name, job[1]), calvin.ChainResult.from_json,
    )
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
    start: Callable, start_arguments: tuple, jobs: Sequence[Any], processes: int, what: str,
    file: ResultsFile | None, key: Callable[[Any], tuple], from_json: Callable[[dict], Any],
) -> list[Any]:
    """The jobs' results in the jobs' order; those that the file has are taken from there."""
    from rich.console import Console
    from rich.progress import track

    from deer_ros.evaluation.processes import run_jobs

    try:
        kept = [] if file is None else [from_json(values) for values in file.episodes]
    except (TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{file.file} has an episode that is none: {error}.") from error
    found = {result.key: result for result in kept}
    left = [job for job in jobs if key(job) not in found]
    console = Console(stderr=True)
    results = run_jobs(start, start_arguments, left, processes)
    for result in track(
        results, what, len(left), console=console, disable=not console.is_terminal
    ):
        found[result.key] = result
        if file is not None:
            file.add(asdict(result))
    return [found[key(job)] for job in jobs]


def _results_file(
    arguments: argparse.Namespace, settings: list[Setting], **about: Any
) -> ResultsFile | None:
    """The file of --out, if asked for, that knows the settings."""
    import hashlib

    from deer_ros.budget.cadence import Cadence
    from deer_ros.checkpoint.directory import CALIBRATION, read_config
    from deer_ros.checkpoint.fingerprint import weights_fingerprint
    from deer_ros.evaluation.results import ResultsFile
    from deer_ros.resources import find_model

    if arguments.out is None:
        return None
    folder = find_model(arguments.model)
    file = ResultsFile(arguments.out, {**about, "weights": weights_fingerprint(folder)})
    calibration = Path(folder) / CALIBRATION
    cadence = Cadence.of(read_config(folder))
    for setting in settings:
        definition = setting.definition
        if setting.exit_layer is None and cadence.steps_per_decision > 1:
            definition |= cadence.arguments
        if setting.budget is not None and calibration.is_file():
            # Its thresholds are solved from that.
            definition["calibration"] = hashlib.sha256(calibration.read_bytes()).hexdigest()
        file.define(setting.name, definition)
    return file


def _settings(arguments: argparse.Namespace) -> list[Setting]:
    """The settings that the arguments ask for.

    The model's own thresholds and full depth are added: in CALVIN, where a setting takes hours, one
    of them and only where nothing was asked for.
    """
    from deer_ros.checkpoint.directory import read_config
    from deer_ros.evaluation import settings
    from deer_ros.resources import find_model

    config = read_config(find_model(arguments.model))
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


def success_table(summaries: Sequence[Summary]):
    """Success per task and over all, and what a step costs; a column per setting."""
    from deer_ros.report.tables import table

    rates = [{success.task: success.rate for success in s.tasks} for s in summaries]
    # An evaluation that was stopped has tasks that not every setting has begun.
    rows = [
        [task, *(interval(of[task]) if task in of else "" for of in rates)]
        for task in dict.fromkeys(task for of in rates for task in of)
    ]
    rows.append(["mean over tasks", *(interval(s.success) for s in summaries)])
    rows.append(["episodes", *(str(s.episodes) for s in summaries)])
    # The bundled model is small: mega where a published model takes giga.
    small = max(s.mean_step_gflops for s in summaries) < 1
    rows += _cost_rows(
        "M" if small else "G", 1e3 if small else 1.0,
        lambda figure: [getattr(s, figure) for s in summaries],
    )
    return table("closed loop: success in %, with Wilson's 95 % interval; costs are means over "
                 "all steps", ("task", *(s.setting for s in summaries)), rows)


def interval(found: Any) -> str:
    """A share and its interval in per cent."""
    return f"{100 * found.estimate:.1f} [{100 * found.low:.0f}, {100 * found.high:.0f}]"


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

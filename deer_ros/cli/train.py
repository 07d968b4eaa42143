"""`deer train`: a multi-exit model from demonstrations."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from deer_ros.cli.bag_arguments import (
    add_bag_arguments,
    as_arguments,
    as_said,
    bag_inputs,
    name_bad,
    node_parameters,
)

if TYPE_CHECKING:
    from rich.progress import TaskID

    from deer_ros.data.episode import Episode
    from deer_ros.data.survey import Survey
    from deer_ros.model.config import DeerConfig
    from deer_ros.training.config import EvaluationHook, TrainingConfig
    from deer_ros.training.dataset import OnBad
    from deer_ros.training.phases import Report
    from deer_ros.training.run import Practise

HELP = "train a multi-exit model on demonstrations"
FAILED = 1
# Of all figures, those that one line has room for.
SHOWN = ("total", "gradient_norm", "validation_total", "evaluation_success")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument("config", type=Path, help="YAML file with model, data and phases")
    parser.add_argument("--data", type=Path, nargs="+", required=True,
                        help="demonstrations: bags, folders of bags, CALVIN or LeRobot datasets")
    add_bag_arguments(parser)
    parser.add_argument("--lerobot", action="append", default=[], metavar="NAME=VALUE",
                        help="what is what in a LeRobot dataset, as static=observation.images.top; "
                        "may be given several times")
    parser.add_argument("--out", type=Path, required=True,
                        help="folder of the run; a run that is there is resumed")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="changes",
                        help="change a value of the configuration, as policy.auxiliary_weight=0; "
                        "may be given several times")
    parser.add_argument("--skip-bad", action="store_true",
                        help="leave out what cannot be used, and name it; of a damaged bag what "
                        "can be read is used (default: refuse)")
    parser.add_argument("--processes", type=int, default=1,
                        help="processes on this machine, one per GPU where there are some; across "
                        "machines start `python -m deer_ros.cli train` with torchrun or accelerate")
    parser.add_argument("--cpu", action="store_true", help="leave GPUs alone")
    parser.add_argument("--threads", type=int, default=0,
                        help="CPU threads of each process (0: torch's choice)")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Train, or go on training; 0 when the model directory is written, 1 if it diverged."""
    from deer_ros.inputs import check_threads

    if arguments.processes < 1:
        raise ValueError(f"--processes is {arguments.processes}; it must be at least 1.")
    check_threads(arguments.threads, least=0)
    if arguments.out.is_file():
        raise ValueError(f"--out is {arguments.out}, which is a file; name a folder.")
    if arguments.cpu:
        os.environ["ACCELERATE_USE_CPU"] = "true"

    from deer_ros.data.survey import Survey
    from deer_ros.report.locks import locked
    from deer_ros.training.config import TrainingConfig
    from deer_ros.training.folder import check_same_run, forget_refused_run, remember_run

    config = TrainingConfig.load(arguments.config, arguments.changes)
    model = _model_config(config)
    config.check_batches(model, arguments.processes)
    said = config.language.steps > 0 or config.policy.paraphrases
    practised = model.head.guesses_success and config.practice.steps > 0
    config = _with_tasks(config, said, practised)
    on_bad = _name_bad if arguments.skip_bad else None
    source, episodes = _demonstrations(arguments, model, on_bad)
    source |= _start_weights(config)
    survey = Survey(model.action.rate_hz)
    check_same_run(arguments.out, source, config)
    evaluate = _evaluation(config.evaluation) if config.evaluation.every_steps else None
    sentences = _sentences(config) if said else ()
    practise = _practice(config) if practised else None
    launches = arguments.processes > 1 and "WORLD_SIZE" not in os.environ

    _set_up_torch(arguments.threads)

    from deer_ros.training.run import TrainingRun

    first = _is_first()
    mine = locked(arguments.out, "trains") if first else nullcontext()
    with mine, _reporting(arguments.out, first) as report:
        if first:
            forget_refused_run(arguments.out)
        training = TrainingRun(
            config, survey.watched(episodes), arguments.out, report, on_bad=on_bad,
            evaluate=evaluate, sentences=sentences, practise=practise,
        )
        if first:
            _name_strange(survey)
            remember_run(arguments.out, source, config)
        if first and not launches:
            _name_unknown(training.unknown_instructions())
            _name_unknown_words(training.unknown_words())
        try:
            # What several processes would refuse is refused by one, in its own words.
            written = None if launches else training()
        except ArithmeticError as error:
            if first:
                print(f"deer train: {error}", file=sys.stderr)
            return FAILED
    if launches:
        _launch(arguments)
    if first:
        facts = {"model": str(written)}
        print(json.dumps(facts) if arguments.json else f"model directory: {written}")
    return 0


def _demonstrations(
    arguments: argparse.Namespace, model: DeerConfig, on_bad: OnBad | None
) -> tuple[dict[str, Any], Iterator[Episode]]:
    """Where the episodes come from and how they are read, as JSON takes it; and the episodes, their
    pictures as large as the model takes them."""
    from deer_ros.data.lerobot_keys import LeRobotKeys
    from deer_ros.data.readers import read_all_episodes
    from deer_ros.model.preprocessing import Preprocessor
    from deer_ros.model.schema import to_dict

    keys = LeRobotKeys.parse(arguments.lerobot)
    inputs = bag_inputs(arguments, node_parameters(arguments))
    source = {
        "data": sorted(str(path.resolve()) for path in arguments.data),
        "lerobot": to_dict(keys),
        "bags": as_said(arguments, inputs),
    }
    resize = Preprocessor(model.vision.image_size).resize
    return source, read_all_episodes(arguments.data, model.action, on_bad, keys, inputs, resize)


def _set_up_torch(threads: int) -> None:
    import torch

    if "WORLD_SIZE" in os.environ and not torch.cuda.is_available():
        # Where there is no GPU and it is not told so, accelerate takes every process for the only.
        os.environ["ACCELERATE_USE_CPU"] = "true"
    if threads:
        torch.set_num_threads(threads)


def _launch(arguments: argparse.Namespace) -> NoReturn:
    """Become torchrun, which starts this command in every process."""
    os.environ.setdefault("OMP_NUM_THREADS", str(arguments.threads or 1))
    command = [sys.executable, "-m", "deer_ros.training.launch", "--standalone"]
    command += [f"--nproc-per-node={arguments.processes}", "-m", "deer_ros.cli", "train"]
    command += [str(arguments.config), "--out", str(arguments.out)]
    command += ["--data", *map(str, arguments.data), "--threads", str(arguments.threads)]
    command += [word for change in arguments.changes for word in ("--set", change)]
    command += [word for value in arguments.lerobot for word in ("--lerobot", value)]
    command += as_arguments(arguments)
    command += ["--skip-bad"] * arguments.skip_bad + ["--json"] * arguments.json
    os.execv(command[0], command)


def _is_first() -> bool:
    """Whether this is the process of several that speaks and writes."""
    return int(os.environ.get("RANK", "0")) == 0


def _model_config(config: TrainingConfig) -> DeerConfig:
    """Of the model that is trained, wherever it comes from."""
    from deer_ros.checkpoint.directory import CONFIG
    from deer_ros.model.config import DeerConfig

    if config.start_from is None:
        return config.model
    file = Path(config.start_from) / CONFIG
    if not file.is_file():
        raise FileNotFoundError(
            f"start_from is {config.start_from}, which is no model directory: it has no {CONFIG}."
        )
    return DeerConfig.load(file)


def _start_weights(config: TrainingConfig) -> dict[str, str]:
    """Which weights a run starts from, so that it does not go on from others."""
    from deer_ros.checkpoint.weights import weights_fingerprint
    from deer_ros.training.folder import START_WEIGHTS, VISION_WEIGHTS

    starts = {START_WEIGHTS: config.start_from, VISION_WEIGHTS: config.vision.start_from}
    return {name: weights_fingerprint(model) for name, model in starts.items() if model}


def _with_tasks(config: TrainingConfig, said: bool, practised: bool) -> TrainingConfig:
    """The tasks by name where their sentences or practice are needed and none are named.

    So a run that was begun goes on with the same, also where the benchmark has others by then.
    """
    import dataclasses

    from deer_ros.sim.tasks import DEMONSTRATION_TASKS

    needed = {"language": said, "practice": practised}
    named = {
        name: dataclasses.replace(phase, tasks=DEMONSTRATION_TASKS)
        for name, is_needed in needed.items()
        if is_needed and not (phase := getattr(config, name)).tasks
    }
    return dataclasses.replace(config, **named)


def _name_strange(survey: Survey) -> None:
    for remark in filter(None, (survey.pace(), survey.reach())):
        print(f"deer train: {remark}", file=sys.stderr)


def _name_unknown(instructions: list[str]) -> None:
    if instructions:
        print(
            f"deer train: {len(instructions)} of the demonstrated instructions, as "
            f"{instructions[0]!r}, belong to none of language.tasks: what they mean is not asked, "
            "and they are told in no other words. Add their tasks, if the simulator has them.",
            file=sys.stderr,
        )


def _name_unknown_words(words: list[str]) -> None:
    if words:
        print(
            f"deer train: {len(words)} of the demonstrated words, as {words[0]!r}, are none that "
            "the model knows. It takes them all for the same, and cannot tell apart instructions "
            "that differ in them alone. Use words that it knows, or train a model from nothing.",
            file=sys.stderr,
        )


def _name_bad(error: ValueError) -> None:
    if _is_first():
        name_bad(error)


def _evaluation(hook: EvaluationHook) -> Callable[[Path], dict[str, float]]:
    """Closed-loop success in the simulator of a model directory, by exit and over all.

    Raises ValueError or ModuleNotFoundError at once, not in the middle of a run.
    """
    from deer_ros.evaluation.metaworld import success_by_exit
    from deer_ros.sim.tasks import DEMONSTRATION_TASKS, EVALUATION_SEED_START, find_task

    tasks = hook.tasks or DEMONSTRATION_TASKS
    for task in tasks:
        find_task(task)
    first = EVALUATION_SEED_START + hook.seed
    seeds = range(first, first + hook.episodes)
    return lambda model: success_by_exit(model, tasks, seeds, hook.exits, hook.processes)


def _sentences(config: TrainingConfig) -> list[dict[str, str]]:
    """Everything that can be said in the simulator's tasks, and what it means, task by task."""
    from deer_ros.sim.tasks import find_task

    tasks = map(find_task, config.language.tasks)
    return [{request.instruction: request.meaning for request in task.requests} for task in tasks]


def _practice(config: TrainingConfig) -> Practise:
    """Closed-loop episodes in the simulator for a gate; raises as `_evaluation` does."""
    from deer_ros.evaluation.practice import practise
    from deer_ros.sim.tasks import find_task

    phase = config.practice
    tasks = [find_task(task).name for task in phase.tasks]
    return lambda model, folder, on_block: practise(
        model, folder, tasks, phase.episodes, config.seed, phase.processes, on_block
    )


@contextmanager
def _reporting(folder: Path, first: bool) -> Iterator[Report]:
    """Reports go to the run's log, and to stderr: as bars on a terminal, else as lines."""
    if not first:
        yield lambda phase, step, steps, figures: None
        return
    from rich.console import Console
    from rich.progress import Progress, TextColumn

    console = Console(stderr=True)
    columns = (*Progress.get_default_columns(), TextColumn("loss {task.fields[loss]:.4f}"))
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        bars: dict[str, TaskID] = {}
        logs: list = []

        def report(phase: str, step: int, steps: int, figures: dict[str, float]) -> None:
            if not logs:  # a run that is refused leaves no log
                from deer_ros.training.log import TrainingLog

                logs.append(TrainingLog(folder))
            logs[0].report(phase, step, steps, figures)
            if phase not in bars:
                bars[phase] = progress.add_task(phase, total=steps, loss=0.0)
            progress.update(bars[phase], completed=step)
            if "total" in figures:
                progress.update(bars[phase], loss=figures["total"])
            if not console.is_terminal:
                shown = "  ".join(f"{k} {v:.4f}" for k, v in figures.items() if k in SHOWN)
                print(f"{phase} {step}/{steps}  {shown}", file=sys.stderr, flush=True)

        try:
            yield report
        finally:
            for log in logs:
                log.close()

"""`deer search`: Bayesian optimisation of thresholds against rollouts."""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from deer_ros.model.config import DeerConfig
    from deer_ros.search.scoring import Scorer
    from deer_ros.search.search import Search, Trial, Verdict

HELP = "Bayesian optimisation of thresholds against rollouts, within a budget"

# Beyond those that evaluations report on.
FIRST_SEED = 100_000
# All seeds are held in memory and in the study; samplers and simulators take them up to 2**32.
MOST, MOST_SEED = 100_000, 2**31


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument("model", nargs="?", help="model directory, or its name on the Hugging "
                        "Face hub (default: the bundled model)")
    parser.add_argument("--average-gflops", type=float, metavar="X",
                        help="upper limit of a step's cost, on average (default: what the start "
                             "costs)")
    parser.add_argument("--average-cost", type=float, metavar="X",
                        help="the same in the unit of --scorer's costs, where that is not GFLOPs")
    parser.add_argument("--scope", choices=("llm", "step"), default="llm",
                        help="the decoder layers alone, as the paper counts, or the whole step")
    parser.add_argument("--max-layer", type=int, metavar="N", help="deepest permitted layer")
    parser.add_argument("--start", metavar="T,T,...",
                        help="thresholds to start from (default: solved for the budget where the "
                             "model is calibrated, or else the model's own)")
    parser.add_argument("--span", type=float, default=4.0, metavar="F",
                        help="thresholds are looked for within this factor of the start "
                             "(default: 4)")
    parser.add_argument("--trials", type=int, default=40, metavar="N",
                        help="of the study, all workers' together, the start included "
                             "(default: 40)")
    parser.add_argument("--sampler", choices=("gp", "tpe"), default="gp",
                        help="Gaussian process, or tree-structured Parzen estimator (default: gp)")
    parser.add_argument("--seed", type=int, default=0, metavar="N",
                        help="of what is drawn, and the first of the episodes (default: 0)")
    parser.add_argument("--episodes", type=int, default=5, metavar="N",
                        help="seeds of a trial, of each task (default: 5)")
    parser.add_argument("--held-out", type=int, default=10, metavar="N",
                        help="further seeds, on which the best trial must not be worse than the "
                             "start (default: 10)")
    parser.add_argument("--tasks", metavar="A,B",
                        help="of the simulator (default: those of the demonstrations)")
    parser.add_argument("--scorer", metavar="MODULE:FUNCTION",
                        help="what runs the episodes, in place of the simulator; see "
                             "docs/search.md")
    parser.add_argument("--storage", metavar="URL",
                        help="where the study is kept, to resume and share it: a database such as "
                             "sqlite:///search.db, or a file for Optuna's journal (default: not "
                             "kept)")
    parser.add_argument("--study", default="deer", metavar="NAME",
                        help="of the study in the storage (default: deer)")
    parser.add_argument("--calibration", type=Path, metavar="FILE",
                        help="(default: calibration.safetensors in the model)")
    parser.add_argument("--out", type=Path, metavar="FILE",
                        help="file to write (default: thresholds.json in the model, which then "
                             "runs by them)")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Search, compare, and write the thresholds; 1 where what comes of it exceeds the budget."""
    from deer_ros.report.files import write_json
    from deer_ros.search.result import to_keep, told
    from deer_ros.search.storage import telling_storage_errors

    _check(arguments)
    with telling_storage_errors(arguments.storage), ExitStack() as stack:
        search, out, exit_layers = _prepared(arguments, stack)
        verdict = _searched(search, arguments)
    facts = told(search, verdict)
    write_json(out, to_keep(search, verdict, exit_layers, facts).to_json())
    facts["file"] = str(out)
    if arguments.json:
        print(json.dumps(facts, indent=2))
    else:
        _print(facts, exit_layers)
    return 0 if verdict.keeps_budget else 1


def _searched(search: Search, arguments: argparse.Namespace) -> Verdict:
    """Trials with a line each, and what they come to."""
    from deer_ros.report.progress import track

    trials = search.run(arguments.trials)
    missing = max(0, arguments.trials - len(search.done()))
    try:
        for _ in track(trials, missing, lambda trial: _line(trial, search)):
            pass
        _say(f"comparing the best with the start on {arguments.held_out} held-out seeds")
        return search.verdict()
    except KeyboardInterrupt:
        _say_interrupted(search, arguments)
        raise


def _check(arguments: argparse.Namespace) -> None:
    for name, least, most in (
        ("trials", 1, MOST), ("episodes", 1, MOST), ("held_out", 1, MOST), ("seed", 0, MOST_SEED)
    ):
        value = getattr(arguments, name)
        if not least <= value <= most:
            raise ValueError(
                f"--{name.replace('_', '-')} is {value}; it must be {least} to {most}."
            )
    if arguments.scorer is not None and arguments.tasks is not None:
        raise ValueError("--tasks are the simulator's; they do not go with --scorer.")
    if arguments.average_cost is not None:
        _check_cost(arguments)


def _check_cost(arguments: argparse.Namespace) -> None:
    if not 0 < arguments.average_cost < math.inf:
        raise ValueError(
            f"--average-cost is {arguments.average_cost}; it must be a finite number above 0."
        )
    if arguments.scorer is None:
        raise ValueError(
            "--average-cost is in the unit of a --scorer's costs, and there is none; the simulator "
            "counts GFLOPs, which --average-gflops limits."
        )
    if arguments.average_gflops is not None:
        raise ValueError(
            "--average-cost and --average-gflops limit the same, in the unit of the scorer's costs "
            "and in GFLOPs; give the one that the scorer answers in."
        )


def _prepared(
    arguments: argparse.Namespace, stack: ExitStack
) -> tuple[Search, Path, tuple[int, ...]]:
    """All that can fail before the first episode: the search, its file, the model's exits."""
    from deer_ros.budget.budget import Budget
    from deer_ros.budget.cadence import Cadence
    from deer_ros.checkpoint.directory import inspect_model
    from deer_ros.checkpoint.fingerprint import find_calibration, weights_fingerprint
    from deer_ros.resources import find_model
    from deer_ros.search.problem import SCORERS_OWN, Problem
    from deer_ros.search.search import Search
    from deer_ros.search.space import Space, searched_exits
    from deer_ros.search.start import dearest, find_start, possible

    budget = Budget(average_gflops=arguments.average_gflops, scope=arguments.scope)
    folder = find_model(arguments.model)
    config, _ = inspect_model(folder)
    out = _out(folder, arguments.out)
    max_layer = config.permitted_exits(arguments.max_layer)[-1]
    calibration = find_calibration(folder, arguments.calibration)
    given = None if arguments.start is None else _numbers(arguments.start)
    name, scorer, tokens, first = _scorer(arguments, folder, config, stack)
    start = find_start(config, budget, tokens, max_layer, calibration, given)
    most = dearest(config, budget.scope, tokens, max_layer)
    if start.solved and budget.average_gflops > most:
        _say(
            f"average_gflops is {budget.average_gflops:g}; this model decides "
            f"{Cadence.of(config)}, so that a step costs {most:.6g} at most on average: the budget "
            "limits nothing."
        )
    exits = searched_exits(config.exit_layers, max_layer, start.metric)
    deltas = None if calibration is None else calibration.deltas(start.metric)
    seeds = range(first, first + arguments.episodes)
    own_unit = arguments.average_cost is not None
    checked = arguments.scorer is not None and budget.average_gflops is not None
    problem = Problem(
        fingerprint=weights_fingerprint(folder),
        scorer=name,
        budget=arguments.average_cost if own_unit else budget.average_gflops,
        scope=SCORERS_OWN if own_unit else budget.scope,
        max_layer=max_layer,
        seeds=tuple(seeds),
        held_out=tuple(range(seeds.stop, seeds.stop + arguments.held_out)),
        span=arguments.span,
        given=None if given is None else start.thresholds,
        cadence=str(Cadence.of(config)),
    )
    space = Space.around(start.thresholds, exits, arguments.span, deltas)
    search = Search(
        problem, folder, start, space, scorer, arguments.storage, arguments.study,
        arguments.sampler, arguments.seed,
        possible(config, budget.scope, max_layer) if checked else None,
    )
    return search, out, config.exit_layers


def _scorer(
    arguments: argparse.Namespace, folder: Path, config: DeerConfig, stack: ExitStack
) -> tuple[str, Scorer, int, int]:
    """Its name, itself, tokens of its prompts on average, and the first seed."""
    from deer_ros.search.scoring import load_scorer

    if arguments.scorer is not None:
        # As `python -m` does: what lies in the working directory can be named.
        sys.path.insert(0, os.getcwd())
        tokens = config.prompt.usual_tokens
        return arguments.scorer, load_scorer(arguments.scorer), tokens, arguments.seed

    from deer_ros.evaluation import metaworld
    from deer_ros.model.prompt import PromptEncoder
    from deer_ros.search.simulator import SimulatorScorer
    from deer_ros.sim.tasks import find_task

    world = metaworld.world(() if arguments.tasks is None else arguments.tasks.split(","))
    prompts = PromptEncoder.load(folder, config.prompt)
    requests = [find_task(task).requests for task in world.tasks]
    counts = [mean(len(prompts.encode(r.instruction)) for r in several) for several in requests]
    scorer = SimulatorScorer(world, arguments.scope)
    stack.callback(scorer.close)
    return (
        f"{world.name}:{','.join(world.tasks)}", scorer, round(mean(counts)),
        world.first_seed + FIRST_SEED + arguments.seed,
    )


def _out(folder: Path, given: Path | None) -> Path:
    """Where to write; told before the search begins if that cannot be."""
    from deer_ros.checkpoint.thresholds import THRESHOLDS
    from deer_ros.report.files import destination

    out = folder / THRESHOLDS if given is None else given
    destination(out)
    try:
        with tempfile.TemporaryFile(dir=out.parent):
            return out
    except OSError as error:
        raise ValueError(
            f"nothing can be written to {out.parent} ({error.strerror}); name another --out."
        ) from error


def _numbers(text: str) -> tuple[float, ...]:
    try:
        return tuple(map(float, text.split(",")))
    except ValueError as error:
        raise ValueError(f"--start is {text!r}; it must be numbers with commas.") from error


def _line(trial: Trial, search: Search) -> str:
    best = search.best()
    return (
        f"{'start' if trial.is_start else f'trial {trial.number}'}: success "
        f"{trial.score.success:.4g} at {trial.score.cost:.4g}; best {best.score.success:.4g} at "
        f"{best.score.cost:.4g}"
    )


def _say_interrupted(search: Search, arguments: argparse.Namespace) -> None:
    done = f"interrupted after {len(search.done())} of {arguments.trials} trials"
    lost = arguments.storage is None
    _say(f"{done}; {'without --storage they are lost' if lost else 'the same command goes on'}.")


def _say(sentence: str) -> None:
    print(f"deer search: {sentence}", file=sys.stderr)


def _budget(facts: dict[str, Any]) -> str:
    if facts["average_cost"] is not None:
        return f"{facts['average_cost']:g} in the unit of the scorer's costs"
    if facts["average_gflops"] is not None:
        return f"{facts['average_gflops']:g} GFLOPs, scope {facts['scope']}"
    return f"what the start costs, scope {facts['scope']}"


def _print(facts: dict[str, Any], exit_layers: tuple[int, ...]) -> None:
    from deer_ros.budget.solver import ALWAYS
    from deer_ros.report.tables import console, number, table

    def shown(threshold: float) -> str:
        return "always" if threshold >= ALWAYS else "never" if threshold < 0 else number(threshold)

    start, best = facts["start"], facts["best"]
    print(f"taken:    the {facts['taken']}: {facts['reason']}")
    print(f"file:     {facts['file']}")
    print(f"trials:   {facts['trials']}, {facts['scorer']}")
    print(f"budget:   {_budget(facts)}")
    rows = [
        (f"threshold after layer {layer}", shown(start["thresholds"][index]),
         shown(best["thresholds"][index]))
        for index, layer in enumerate(exit_layers)
    ]
    for label, pick in (("", lambda t: t), (", held-out seeds", lambda t: t["held_out"])):
        for figure in ("success", "cost"):
            if pick(start) is not None:
                rows.append((figure + label, *(f"{pick(t)[figure]:.4g}" for t in (start, best))))
    console().print(table(
        "search", ("", "start", f"best, trial {best['trial']}"), rows
    ))
    difference = facts["held_out_difference"]
    if difference is not None:
        print("success of the best less the start's on held-out seeds, in pairs: "
              f"{difference['estimate']:+.3g} (95 %: {difference['low']:+.3g} to "
              f"{difference['high']:+.3g})")

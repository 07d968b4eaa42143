"""`deer compare`: settings of an evaluation, or of two models, compared in pairs."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from deer_ros.evaluation.comparison import Comparison, Line, Outcomes
    from deer_ros.evaluation.results import Results

HELP = "paired comparison of settings whose episodes `deer evaluate --out` kept"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument("results", type=Path, help="file of `deer evaluate --out`")
    parser.add_argument("--settings", nargs="+", metavar="NAME",
                        help="compared to the other one (default: all others)")
    parser.add_argument("--against", metavar="NAME",
                        help="the setting they are compared to (default: the deepest fixed exit)")
    parser.add_argument("--against-file", type=Path, metavar="FILE",
                        help="another file of results, of another model say, that this setting is "
                        "taken from; scenes that both have make the pairs")
    parser.add_argument("--json", action="store_true",
                        help="print summaries and comparisons as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Print what each setting did, and the comparisons, if there is more than one; 0 when done."""
    from deer_ros.evaluation.comparison import compare, summarise
    from deer_ros.evaluation.results import read_results
    from deer_ros.report.tables import console, success_table

    results = read_results(arguments.results)
    other_file = arguments.against_file or arguments.results
    other = read_results(other_file) if arguments.against_file else results
    _check_alike(results, other)
    ours, theirs = (_outcomes(file, r) for file, r in
                    ((arguments.results, results), (other_file, other)))
    against, named = _choose(arguments, ours, theirs, _layers(other))
    layers = _layers(results)
    fixed = {name: episodes for name, episodes in ours.items() if layers.get(name) is not None}
    summaries = [
        summarise(name, list(episodes.values()), layers.get(name))
        for name, episodes in ours.items()
    ]
    comparisons = [
        compare(name, ours[name], against, theirs[against], {} if name in fixed else fixed)
        for name in named
    ]
    if arguments.json:
        facts = {"settings": summaries, "comparisons": comparisons}
        print(json.dumps({key: [asdict(fact) for fact in v] for key, v in facts.items()}))
        return 0
    console().print(success_table(summaries))
    if comparisons:
        console().print(_table(comparisons, against))
    return 0


def _outcomes(file: Path, results: Results) -> Outcomes:
    from deer_ros.evaluation.comparison import by_setting
    from deer_ros.evaluation.rollouts import Rollout

    try:
        found = by_setting([Rollout.from_json(values) for values in results.episodes])
    except (TypeError, KeyError, AttributeError, ValueError) as error:
        raise ValueError(f"{file} has no episodes of single tasks ({error}).") from error
    if not found:
        raise ValueError(f"{file} has no episodes yet.")
    return found


def _layers(results: Results) -> dict[str, int | None]:
    """Of every setting the layer that it stays at; None where it is no fixed exit."""
    return {name: d.get("exit_layer") for name, d in results.definitions.items()}


def _choose(
    arguments: argparse.Namespace, ours: Outcomes, theirs: Outcomes, layers: dict[str, int | None]
) -> tuple[str | None, list[str]]:
    """What is compared to, and what with it. layers: of `theirs`, as `_layers`.

    What was asked for must be there; of the rest, as a stopped evaluation leaves it, what can be
    compared is, and what cannot is said.
    """
    other_file = arguments.against_file or arguments.results
    asked = arguments.against or arguments.settings or arguments.against_file
    if not asked and len(ours) == 1:
        return None, []
    deepest = max((name for name in theirs if layers.get(name)), key=layers.get, default=None)
    against = arguments.against or deepest
    if against is None:
        lacks = f"{other_file} has no fixed exit to compare with; name a setting by --against."
        if asked:
            raise ValueError(lacks)
        _say(lacks)
        return None, []
    _check_named([against], theirs, other_file)
    if arguments.settings:
        _check_named(arguments.settings, ours, arguments.results)
        return against, arguments.settings
    named = [name for name in ours if arguments.against_file or name != against]
    apart = [name for name in named if ours[name].keys().isdisjoint(theirs[against])]
    if apart and apart == named and asked:
        return against, named  # for `compare` to refuse
    if apart:
        _say(f"{', '.join(apart)} and {against!r} have no task and seed in common yet.")
    return against, [name for name in named if name not in apart]


def _say(sentence: str) -> None:
    print(f"deer compare: {sentence}", file=sys.stderr)


def _check_alike(ours: Results, theirs: Results) -> None:
    """Episodes are pairs only where all but the model is the same, as far as the files know."""
    for key in ("environment", "max_steps", "simulator"):
        first, second = (results.about.get(key) for results in (ours, theirs))
        if None not in (first, second) and first != second:
            raise ValueError(
                f"the files are of different evaluations: {key} is {first!r} in one, {second!r} in "
                "the other."
            )


def _check_named(names: list[str], outcomes: Outcomes, file: Path) -> None:
    for name in names:
        if name not in outcomes:
            raise ValueError(f"{file} has no setting {name!r}; it has {', '.join(outcomes)}.")


def _table(comparisons: list[Comparison], against: str):
    from deer_ros.report.tables import table

    rows = [
        [
            c.setting, str(c.pairs), _points(c.difference), f"{c.only_ours} : {c.only_theirs}",
            f"{c.p:.2g}", _times(c.llm_cost_factor), _times(c.step_cost_factor),
            _line(c.lines, "llm"), _line(c.lines, "step"),
        ]
        for c in comparisons
    ]  # fmt: skip
    header = (
        "setting", "pairs", f"success less that of\n{against}, points", "only this :\nonly that",
        "exact\nMcNemar p", "LLM cost\nless by", "step cost\nless by",
        "above the line of\nfixed exits, LLM", "above the line of\nfixed exits, step",
    )  # fmt: skip
    return table("in pairs on the same scenes; [95 % intervals] by paired bootstrap within tasks",
                 header, rows)


def _points(found) -> str:
    return f"{100 * found.estimate:+.1f} [{100 * found.low:+.1f}, {100 * found.high:+.1f}]"


def _times(factor: float | None) -> str:
    return "-" if factor is None else f"{factor:.2f} x"


def _line(lines: tuple[Line, ...], scope: str) -> str:
    return next((_points(line.above) for line in lines if line.scope == scope), "-")

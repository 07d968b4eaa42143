"""`deer solve`: the thresholds that keep a budget, and what to expect of them."""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deer_ros.cli.info import PAPERS_PROMPT_TOKENS
from deer_ros.model.config import METRICS

if TYPE_CHECKING:
    from deer_ros.budget.budget import Budget
    from deer_ros.budget.solution import Solution
    from deer_ros.budget.timing import CostTable
    from deer_ros.model.config import DeerConfig

HELP = "thresholds for a budget, with the expected exits, cost and action error"

LIMITS = {
    "average_gflops": "GFLOPs of a step, on average, counted in --scope",
    "average_ms": "milliseconds of a whole step, on average",
    "peak_gflops": "GFLOPs that no step may exceed, counted in --scope",
    "memory_mib": "MiB of weights that are resident",
    "latency_ms": "milliseconds that every step may take",
    "max_action_error": "expected root mean square difference to the full-depth action",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument("model", nargs="?", help="model directory, or its name on the Hugging "
                        "Face hub (default: the bundled model)")
    for name, text in LIMITS.items():
        parser.add_argument("--" + name.replace("_", "-"), type=float, metavar="X", help=text)
    parser.add_argument("--confidence", type=float, default=0.9, metavar="P",
                        help="that the action error is kept at (default: 0.9)")
    parser.add_argument("--scope", choices=("llm", "step"), default="llm",
                        help="the decoder layers alone, as the paper counts, or the whole step")
    parser.add_argument("--solver", choices=("optimal", "exponential", "gaussian", "gamma"),
                        default="optimal", help="(default: optimal)")
    parser.add_argument("--metric", choices=METRICS,
                        help="of the criterion (default: the calibration's)")
    parser.add_argument("--max-layer", type=int, metavar="N", help="deepest permitted layer")
    parser.add_argument("--steps-per-decision", type=int, metavar="N",
                        help="ask the criterion every N steps (default: as the model does)")
    parser.add_argument("--max-layer-between", type=int, metavar="N",
                        help="deepest layer of the steps in between, 0: as deep as was decided "
                             "(default: as the model does)")
    parser.add_argument("--instruction", help="text whose prompt the costs are for "
                        f"(default: any of {PAPERS_PROMPT_TOKENS} tokens)")
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16"),
                        help="of the weights in memory (default: as stored)")
    parser.add_argument("--calibration", type=Path, metavar="FILE",
                        help="(default: calibration.safetensors in the model)")
    parser.add_argument("--timing", type=Path, metavar="FILE",
                        help="milliseconds as `deer bench --json` tells them (default: measured "
                             "now, where a budget needs them)")
    parser.add_argument("--keep", action="store_true",
                        help="make the thresholds the model's own, in its config.json: the same "
                        "for every prompt, where a budget is solved for each length")
    parser.add_argument("--json", action="store_true", help="print the answer as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Print the solution; 0 when the budget can be met."""
    from deer_ros.budget.budget import Budget
    from deer_ros.budget.cadence import Cadence
    from deer_ros.budget.cost import CostModel
    from deer_ros.budget.solution import solve
    from deer_ros.checkpoint.directory import inspect_model, keep_thresholds
    from deer_ros.checkpoint.fingerprint import find_calibration
    from deer_ros.resources import find_model

    budget = Budget(
        **{name: getattr(arguments, name) for name in LIMITS},
        confidence=arguments.confidence, scope=arguments.scope, solver=arguments.solver,
    )
    folder = find_model(arguments.model)
    config, stored = inspect_model(folder)
    calibration = find_calibration(folder, arguments.calibration)
    cost = CostModel(config, _prompt_tokens(folder, config, arguments.instruction))
    table = _timing(folder, budget, config, arguments)
    dtype = arguments.dtype or _dtype({tensor.dtype for tensor in stored.values()})
    cadence = Cadence.asked(config, arguments.steps_per_decision, arguments.max_layer_between)
    solution = solve(
        budget, config, cost, table, calibration, arguments.max_layer, dtype, arguments.metric,
        cadence, one_row=arguments.keep,
    )  # fmt: skip
    if arguments.keep:
        keep_thresholds(folder, solution.thresholds, solution.metric, solution.cadence)
    facts = describe(solution, budget, config, replace(cost, metric=solution.metric))
    if arguments.json:
        print(json.dumps(facts, indent=2))
    else:
        _print(facts)
    return 0


def _prompt_tokens(folder: Path, config: DeerConfig, instruction: str | None) -> int:
    from deer_ros.model.prompt import PromptEncoder

    if instruction is None:
        return min(PAPERS_PROMPT_TOKENS, config.prompt.max_tokens)
    return len(PromptEncoder.load(folder, config.prompt).encode(instruction))


def _timing(
    folder: Path, budget: Budget, config: DeerConfig, arguments: argparse.Namespace
) -> CostTable | None:
    """The table that was named, or, where a budget needs one, what is measured now."""
    from deer_ros.budget.timing import CostTable

    if arguments.timing is not None:
        table = CostTable.load(arguments.timing)
        if table.exit_layers != config.exit_layers[: len(table.exit_layers)]:
            raise ValueError(
                f"{arguments.timing} is of a model with exits after layers "
                f"{list(table.exit_layers)}; this model's are {list(config.exit_layers)}."
            )
        return table.at_depth(config.exit_layers)
    if budget.average_ms is None and budget.latency_ms is None:
        return None
    from deer_ros.measuring import take_threads
    from deer_ros.policy import DeerPolicy

    take_threads()
    return DeerPolicy.from_pretrained(folder, dtype=arguments.dtype or "auto").measure()


def _dtype(stored: set[str]) -> str:
    """The type that weights are held in, from safetensors' words; the widest of several."""
    names = {"F64": "float64", "F32": "float32", "BF16": "bfloat16", "F16": "float16"}
    return next((name for word, name in names.items() if word in stored), "float32")


def describe(
    solution: Solution, budget: Budget, config: DeerConfig, cost: Any
) -> dict[str, Any]:
    """All that `deer solve --json` prints. An exit that is always taken has the threshold 1e8."""
    from deer_ros.budget.solver import finite

    thresholds = finite(solution.thresholds)
    shares = solution.exit_shares or (None,) * len(solution.thresholds)
    return {
        "budget": budget.limits,
        "scope": budget.scope,
        "solver": budget.solver,
        "confidence": budget.confidence,
        "prompt_tokens": cost.prompt_tokens,
        "binding": solution.binding,
        "max_layer": solution.max_layer,
        "metric": solution.metric,
        "steps_per_decision": solution.cadence.steps_per_decision,
        "max_layer_between": solution.cadence.layer_between,
        "thresholds": list(thresholds),
        "next_row_share": 0.0 if solution.knob is None else solution.knob % 1,
        "exits": [
            {
                "exit": index,
                "layer": config.exit_layers[index],
                "threshold": threshold,
                "share": share,
                "llm_gflops": cost.language_gflops(config.exit_layers[index]),
                "step_gflops": cost.step_gflops(index),
            }
            for index, (threshold, share) in enumerate(zip(thresholds, shares))
        ],
        "expected_llm_gflops": solution.expected_llm_gflops,
        "expected_step_gflops": solution.expected_step_gflops,
        "expected_ms": solution.expected_ms,
        "expected_action_error": solution.expected_action_error,
        "expected_success_loss": solution.expected_success_loss,
        "reachable": solution.reachable,
        "reachable_unit": solution.cost_name,
    }


def _print(facts: dict[str, Any]) -> None:
    from deer_ros.budget.cadence import Cadence
    from deer_ros.report.tables import console, number, table

    asked = ", ".join(f"{name} {value:g}" for name, value in facts["budget"].items()) or "none"
    print(f"budget:        {asked} (scope {facts['scope']}, solver {facts['solver']})")
    print(f"for prompts:   of {facts['prompt_tokens']} tokens; others cost more or less")
    print(f"what binds:    {facts['binding']}")
    print(f"deepest layer: {facts['max_layer']}")
    print(f"thresholds:    {' '.join(f'{t:.6g}' for t in facts['thresholds'])} "
          f"({facts['metric']})")
    if facts["next_row_share"]:
        print(f"mixed:         in {100 * facts['next_row_share']:.3g} % of the decisions by dearer "
              "thresholds; --keep takes one row for all")
    print(f"decided:       {Cadence(facts['steps_per_decision'], facts['max_layer_between'])}")
    if facts["reachable"] is not None:
        low, high = facts["reachable"]
        print(f"reachable:     {low:.6g} to {high:.6g} {facts['reachable_unit']} on average")
    for name, unit in (("expected_llm_gflops", "GFLOPs, language model alone"),
                       ("expected_step_gflops", "GFLOPs, whole step"),
                       ("expected_ms", "ms"),
                       ("expected_action_error", "action error to full depth"),
                       ("expected_success_loss", "chance of success lost, as the gate guesses")):
        if facts[name] is not None:
            print(f"{'expected:':<15}{facts[name]:.6g} {unit}")
    console().print(table(
        "exits",
        ("exit", "after layer", "threshold", "expected share", "GFLOPs llm", "GFLOPs step"),
        [(str(e["exit"]), str(e["layer"]), _threshold(e["threshold"]),
          "" if e["share"] is None else f"{100 * e['share']:.1f} %",
          number(e["llm_gflops"]), number(e["step_gflops"])) for e in facts["exits"]],
    ))


def _threshold(value: float) -> str:
    from deer_ros.budget.solver import ALWAYS

    return "always" if value >= ALWAYS else "never" if value <= -ALWAYS else f"{value:.4g}"

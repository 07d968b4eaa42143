"""`deer set`: the budgets of a running node, all at once."""

from __future__ import annotations

import argparse
import json
import math
import sys
from typing import Any

from deer_ros.budget.budget import SCOPES, SOLVERS

HELP = "set budgets of a running node, all at once, and show those in force"

REFUSED = 1
NO_PRESET = "none"
MOST_S = 86_400  # a day; timers of ROS overflow at some centuries
LIMITS = {
    "average_gflops": ("X", "GFLOPs of a step, on average, counted in the scope"),
    "peak_gflops": ("X", "GFLOPs that no step may exceed, counted in the scope"),
    "average_ms": ("MS", "milliseconds of a step, on average"),
    "latency_ms": ("MS", "deadline of every step from its start"),
    "memory_mib": ("MIB", "weights that may be resident"),
    "max_action_error": ("X", "expected difference to the full-depth action"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    add = parser.add_argument
    add("--node", default="/deer", help="(default: %(default)s)")
    for name, (unit, text) in LIMITS.items():
        add(f"--{name.replace('_', '-')}", type=float, metavar=unit, help=f"{text}; 0: none")
    add("--confidence", type=float, metavar="P", help="that the action error is kept at")
    add("--scope", choices=SCOPES, help="what GFLOPs count: the decoder layers, or the whole step")
    add("--solver", choices=SOLVERS, help="how thresholds are found for an average")
    add("--tracking", action=argparse.BooleanOptionalAction, help="closed loop on the averages")
    add("--preset", metavar="NAME", help=f"one of the node's presets; {NO_PRESET}: take it back")
    add("--only", action="store_true",
        help="take back every limit, and the preset, that is not named here")
    add("--timeout", type=_seconds, default=10.0, metavar="S",
        help="wait that long for the node (default: %(default)g)")
    add("--json", action="store_true", help="print what is in force as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Set what was named; 0 when the node takes it, 1 when it refuses, with its reason."""
    try:
        from deer_ros.nodes.set_budgets import set_parameters
    except ModuleNotFoundError as error:
        raise ValueError(
            "this command talks to a running node, which needs ROS 2; source its setup file first "
            f"(the Python module {error.name} is missing)."
        ) from error
    names = ("preset", *LIMITS, "confidence", "scope", "solver", "tracking")
    parameters = [f"budget.{name}" for name in names]
    refusal, in_force = set_parameters(
        arguments.node, _asked(arguments, names), parameters, arguments.timeout)
    if arguments.json:
        print(json.dumps({"node": arguments.node, "refused": refusal, "in_force": in_force},
                         indent=2))
    if refusal is not None:
        print(f"deer set: refused: {refusal}", file=sys.stderr)
        return REFUSED
    if not arguments.json:
        for name, value in in_force.items():
            print(f"{name + ':':<26}{_shown(name, value)}")
    return 0


def _asked(arguments: argparse.Namespace, names: tuple[str, ...]) -> dict[str, Any]:
    """Parameters to set, by name."""
    taken_back = dict.fromkeys(LIMITS, 0.0) | {"preset": ""} if arguments.only else {}
    given = {name: getattr(arguments, name) for name in names}
    named = {name: value for name, value in given.items() if value is not None}
    if named.get("preset") == NO_PRESET:
        named["preset"] = ""
    return {f"budget.{name}": value for name, value in (taken_back | named).items()}


def _shown(name: str, value: Any) -> str:
    is_limit = name.removeprefix("budget.") in LIMITS
    if value == "" or (is_limit and value == 0):
        return "none"
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds <= MOST_S:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no number of seconds above 0, and {MOST_S} at most"
        )
    return seconds

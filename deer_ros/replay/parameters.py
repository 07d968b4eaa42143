"""The node's parameters where there is no node: from its parameter file and the command line."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from deer_ros.stepping.budgets import PREFIX
from deer_ros.stepping.settings import ROWS, Settings

NODE_NAMES = ("/**", "/*", "/deer", "deer")
BUDGETS = tuple(name.removeprefix(PREFIX) for name in ROWS if name.startswith(PREFIX))


def read_file(path: str | Path) -> dict[str, Any]:
    """The policy node's parameters in a ROS 2 parameter file, by name.

    Later entries win, as in ROS. What the node does not have (`use_sim_time` and the like) is left
    out. Raises OSError, or ValueError with a sentence where it is no such file.
    """
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"the parameter file {path} cannot be read: {reason}") from error
    if not isinstance(content, dict):
        raise ValueError(f"the parameter file {path} holds no parameters of any node.")
    found: dict[str, Any] = {}
    for node, parts in content.items():
        if node not in NODE_NAMES:
            continue
        values = parts.get("ros__parameters") if isinstance(parts, dict) else None
        if not isinstance(values, dict):
            raise ValueError(f"the parameter file {path} has no ros__parameters under {node!r}.")
        found |= _flat(values)
    if not found:
        raise ValueError(
            f"the parameter file {path} has nothing for the policy node; it is looked for under "
            f"{', '.join(NODE_NAMES)}."
        )
    return {name: value for name, value in found.items() if name in ROWS}


def read_assignment(text: str) -> tuple[str, Any]:
    """`name:=value` as the node's command line has it, the value in YAML. ValueError otherwise."""
    name, separator, value = text.partition(":=")
    if not separator or name not in ROWS:
        raise ValueError(
            f"--param is {text!r}; it must be name:=value, the name one of {', '.join(ROWS)}."
        )
    return name, _scalar(value)


def read_budget(text: str) -> dict[str, Any]:
    """One run of a sweep, `average_gflops=8,scope=step`: parameters of the node, by name.

    `budget.` in front of its names is not needed. ValueError for other names.
    """
    changes: dict[str, Any] = {}
    for part in re.split(r",(?![^\[]*\])", text):
        name, separator, value = part.partition("=")
        name = name.strip()
        if name in BUDGETS:
            name = PREFIX + name
        if separator and name in ROWS:
            changes[name] = _scalar(value)
        else:
            usual = [*BUDGETS, *(row for row in ROWS if row.startswith("exit."))]
            raise ValueError(
                f"--budget is {text!r}; it must be name=value,...; names are {', '.join(usual)}."
            )
    return changes


def settings_of(changes: Mapping[str, Any]) -> Settings:
    """The node's settings. Raises ValueError as the node would refuse them."""
    settings = Settings().replaced(changes, None)
    return dataclasses.replace(settings, version=1)


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """ROS takes `a.b: 1` and `a: {b: 1}` for the same."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def _scalar(text: str) -> Any:
    if re.fullmatch(r"[-+]?[0-9]+[eE][-+]?[0-9]+", text.strip()):
        return float(text)  # text in YAML 1.1, which wants a point in it
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"{text!r} is no value.") from error

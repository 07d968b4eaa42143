"""The node's parameters where there is no node: from its parameter file and the command line."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from deer_ros import parameter_file
from deer_ros.stepping.budgets import EXIT_PREFIX, PREFIX
from deer_ros.stepping.settings import ROWS, Settings
from deer_ros.stepping.unknown import misspelled

BUDGETS = tuple(name.removeprefix(PREFIX) for name in ROWS if name.startswith(PREFIX))
# In these runs of one pass may differ: they share the model, the pictures and when steps are due.
OF_A_RUN = tuple(
    name for prefix in (PREFIX, EXIT_PREFIX) for name in ROWS if name.startswith(prefix)
)


def read_file(path: str | Path) -> dict[str, Any]:
    """The policy node's parameters in a ROS 2 parameter file, by name.

    What the node does not have (`use_sim_time` and the like) is left out. Raises OSError, or
    ValueError with a sentence where it is no such file, says nothing to the policy node, or a name
    is misspelled.
    """
    found = parameter_file.read(path)
    if not found:
        raise ValueError(
            f"the parameter file {path} has nothing for the policy node; it is looked for under "
            f"{', '.join(parameter_file.section_names())}."
        )
    wrong = misspelled(found)
    if wrong:
        raise ValueError(f"in the parameter file {path}: {' '.join(wrong.values())}")
    return {name: value for name, value in found.items() if name in ROWS}


def read_assignment(text: str) -> tuple[str, Any]:
    """`name:=value` as the node's command line has it, the value in YAML. ValueError otherwise."""
    name, separator, value = text.partition(":=")
    if not separator or name not in ROWS:
        raise ValueError(
            f"--param is {text!r}; it must be name:=value, the name one of {', '.join(ROWS)}."
        )
    return name, _scalar(name, value)


def read_budget(text: str) -> dict[str, Any]:
    """One run of a sweep, `average_gflops=8,scope=step`: parameters of the node, by name.

    `budget.` in front of its names is not needed. ValueError for other names, and for one that is
    given twice.
    """
    changes: dict[str, Any] = {}
    for part in re.split(r",(?![^\[]*\])", text):
        name, separator, value = part.partition("=")
        name = name.strip()
        if name in BUDGETS:
            name = PREFIX + name
        if not separator or name not in OF_A_RUN:
            names = ", ".join(row.removeprefix(PREFIX) for row in OF_A_RUN)
            raise ValueError(f"--budget is {text!r}; it must be name=value,...; names are {names}.")
        if name in changes:
            raise ValueError(f"--budget is {text!r}; {name} is in it twice. Leave one out.")
        changes[name] = _scalar(name, value)
    return changes


def settings_of(changes: Mapping[str, Any]) -> Settings:
    """The node's settings. Raises ValueError as the node would refuse them."""
    settings = Settings().replaced(changes, None)
    return dataclasses.replace(settings, version=1)


def checked(changes: Mapping[str, Any]) -> dict[str, Any]:
    """The same, every value as its parameter's type. Raises ValueError for one not allowed."""
    return {name: ROWS[name].convert(value) for name, value in changes.items()}


def _scalar(name: str, text: str) -> Any:
    if re.fullmatch(r"[-+]?[0-9]+[eE][-+]?[0-9]+", text.strip()):
        return float(text)  # text in YAML 1.1, which wants a point in it
    try:
        return parameter_file.load_yaml(text)
    except ValueError as error:
        raise ValueError(
            f"{name} is {text!r}, which is no value in YAML; allowed: {ROWS[name].allowed.words}."
        ) from error

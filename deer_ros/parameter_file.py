"""ROS 2 parameter files, read without ROS: what of one is the policy node's.

Needs nothing but PyYAML, as launch files import it in the Python of the ROS 2 installation.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

NODE = "deer"
ANY_NODE = ("/**", "/*", f"/**/{NODE}")


def section_names(namespace: str = "") -> tuple[str, ...]:
    """Under which the policy node's parameters may stand."""
    place = namespace.strip("/")
    own = (f"/{place}/{NODE}", f"{place}/{NODE}") if place else (f"/{NODE}", NODE)
    return *ANY_NODE, *own


def read(path: str | Path, namespace: str = "") -> dict[str, Any]:
    """The policy node's values by name, `a: {b: 1}` as `a.b`; later ones win, as in ROS.

    Raises OSError, or ValueError with a sentence where it is no such file.
    """
    try:
        content = load_yaml(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"the parameter file {path} cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"the parameter file {path} holds no parameters of any node.")
    found: dict[str, Any] = {}
    for node, parts in content.items():
        if node not in section_names(namespace):
            continue
        values = parts.get("ros__parameters") if isinstance(parts, dict) else None
        if not isinstance(values, dict):
            raise ValueError(f"the parameter file {path} has no ros__parameters under {node!r}.")
        found |= _flat(values)
    return found


def load_yaml(text: str) -> Any:
    """What a YAML text says. Raises ValueError with the reason, in one line.

    The parser has an error of its own, but also lets through whatever dates of a thirteenth month,
    brackets without end and numbers without digits make Python raise.
    """
    try:
        return yaml.safe_load(text)
    except Exception as error:
        reason = " ".join(str(error).split())
        raise ValueError(reason or type(error).__name__) from error


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """ROS takes `a.b: 1` and `a: {b: 1}` for the same."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat

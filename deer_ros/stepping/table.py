"""Rows of a node's table of parameters: what a value must be, and what it means."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

LIVE = "live"
UNCONFIGURED = "while unconfigured"
START = "at start"


@dataclass(frozen=True)
class Allowed:
    """What a value must be, in words and as a test."""

    words: str
    test: Callable[[Any], bool]


@dataclass(frozen=True)
class Row:
    """One parameter. kind: str, bool, int, float or tuple. change: when it may be set."""

    name: str
    kind: type
    default: Any
    unit: str
    allowed: Allowed
    change: str
    meaning: str

    def convert(self, value: Any) -> Any:
        """`value` as this parameter's type. Raises ValueError with a sentence if it is not allowed.

        Whole numbers pass where fractions are asked for, inside arrays too.
        """
        converted = _converted(value, self.kind)
        if converted is None or not _is_finite(converted) or not self.allowed.test(converted):
            raise ValueError(f"{self.name} is {_shown(value)}; allowed: {self.allowed.words}.")
        return converted


def one_of(*words: str) -> Allowed:
    return Allowed(", ".join(words), lambda value: value in words)


def number(low: float, high: float) -> Allowed:
    return Allowed(f"{low:g} to {high:g}", lambda value: low <= value <= high)


def zero_or(low: float, high: float) -> Allowed:
    """A number so near to 0 that what is divided by it is beyond all bounds is none of these."""
    return Allowed(
        f"0, or {low:g} to {high:g}", lambda value: value == 0 or low <= value <= high
    )


def above_zero(high: float) -> Allowed:
    return Allowed(f"above 0, up to {high:g}", lambda value: 0 < value <= high)


def between(low: float, high: float) -> Allowed:
    return Allowed(f"between {low:g} and {high:g}", lambda value: low < value < high)


def matching(pattern: str, words: str) -> Allowed:
    return Allowed(words, lambda value: re.fullmatch(pattern, value) is not None)


def numbers(count: int, low: float, high: float) -> Allowed:
    return Allowed(
        f"{count} numbers, each {low:g} to {high:g}",
        lambda values: len(values) == count and all(low <= value <= high for value in values),
    )


ANY_TEXT = Allowed("any text", lambda value: True)
TRUTH = Allowed("true, false", lambda value: True)


def parameter(
    name: str, default: Any, unit: str, allowed: Allowed, meaning: str, change: str = LIVE
) -> Any:
    """A dataclass's field with its row of the table."""
    metadata = {"name": name, "unit": unit, "allowed": allowed, "change": change,
                "meaning": meaning}
    return dataclasses.field(default=default, metadata=metadata)


def _converted(value: Any, kind: type) -> Any:
    """None where the type does not fit. A truth value is no number."""
    if kind is tuple:
        if isinstance(value, str):
            value = _list_in(value)
        if isinstance(value, (bytes, dict, set)) or not isinstance(value, Iterable):
            return None
        items = [_converted(item, float) for item in value]
        return None if None in items else tuple(items)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:  # texts can hold whole numbers that no float can
            return None
    return value if type(value) is kind else None


def _list_in(text: str) -> list | None:
    """`ros2 param set` sends a list as text where whole numbers and fractions are mixed in it."""
    try:
        values = json.loads(text)
    except ValueError:
        return None
    return values if isinstance(values, list) else None


def _is_finite(value: Any) -> bool:
    items = value if isinstance(value, tuple) else (value,)
    return all(math.isfinite(item) for item in items if isinstance(item, float))


def _shown(value: Any) -> str:
    if value is None:
        return "not set"
    if isinstance(value, (str, int, float, bytes, dict)):
        return repr(value)
    # ROS hands in arrays, a YAML text also dates.
    return repr(list(value)) if isinstance(value, Iterable) else str(value)

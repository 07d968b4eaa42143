"""Frozen dataclasses from JSON values and back, strict about names and types.

Annotations are the schema: `int`, `float`, `bool`, `str`, `None`, unions with `None`, homogeneous
tuples and nested dataclasses.
"""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from typing import Any, TypeVar

T = TypeVar("T")


def from_dict(cls: type[T], values: Any, where: str = "") -> T:
    """Build `cls` from a dictionary. A ValueError names a key that is unknown, wrongly typed, or
    missing where it has no default."""
    if not isinstance(values, dict):
        raise ValueError(f"{where or 'the configuration'} must be an object, not {values!r}.")
    hints = typing.get_type_hints(cls)
    names = [field.name for field in dataclasses.fields(cls)]
    for key in values:
        if key not in names:
            raise ValueError(
                f"unknown key {_join(where, key)!r}; known are {', '.join(sorted(names))}."
            )
    for field in dataclasses.fields(cls):
        if field.name not in values and _is_required(field):
            raise ValueError(f"{_join(where, field.name)} is missing; there is no default for it.")
    parsed = {key: _parse(hints[key], value, _join(where, key)) for key, value in values.items()}
    return cls(**parsed)


def to_dict(value: Any) -> Any:
    """Nested dictionaries and lists that JSON can hold."""
    if dataclasses.is_dataclass(value):
        return {f.name: to_dict(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, tuple):
        return [to_dict(item) for item in value]
    return value


def _is_required(field: dataclasses.Field) -> bool:
    missing = dataclasses.MISSING
    return field.default is missing and field.default_factory is missing


def _join(where: str, key: str) -> str:
    return f"{where}.{key}" if where else str(key)


def _parse(hint: Any, value: Any, where: str) -> Any:
    if dataclasses.is_dataclass(hint):
        return from_dict(hint, value, where)
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        if value is None:
            return None
        hint = next(a for a in typing.get_args(hint) if a is not type(None))
        return _parse(hint, value, where)
    if typing.get_origin(hint) is tuple:
        if not isinstance(value, (list, tuple)):
            raise ValueError(f"{where} is {value!r}; it must be a list.")
        item = typing.get_args(hint)[0]
        return tuple(_parse(item, v, f"{where}[{i}]") for i, v in enumerate(value))
    return _scalar(hint, value, where)


def _scalar(hint: Any, value: Any, where: str) -> Any:
    if hint is type(None) and value is not None:
        raise ValueError(f"{where} is {value!r}; this version supports only null there.")
    if hint is float and isinstance(value, (int, str)) and not isinstance(value, bool):
        value = _as_float(value)
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        raise ValueError(f"{where} is {value!r}; it must be of type {hint.__name__}.")
    if hint is float and math.isnan(value):
        raise ValueError(f"{where} is NaN; it must be a number.")
    return value


def _as_float(value: int | str) -> float | int | str:
    """A number where it is one: YAML takes `1e-4`, which has no point, for a text."""
    try:
        return float(value)
    except (ValueError, OverflowError):
        return value

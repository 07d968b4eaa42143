"""Messages of this package for a bag, from plain fields."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from rosbags.interfaces import Nodetype
from rosbags.typesys.store import Typestore


def message(types: Typestore, kind: str, stamp_ns: int, frame_id: str,
            fields: Mapping[str, Any]) -> object:
    """A message with a header; what `fields` does not say is zero or empty, as in ROS.

    fields: as stepping.contents makes them, stamps in nanoseconds.
    """
    header = types.types["std_msgs/msg/Header"](_time(types, stamp_ns), frame_id)
    values = {"header": header}
    for name, node in types.fielddefs[kind][1]:
        if name == "header":
            continue
        value = fields.get(name)
        if name.endswith("_stamp"):
            values[name] = _time(types, value or 0)
        else:
            values[name] = _value(types, node, value)
    unknown = fields.keys() - values.keys()
    if unknown:
        raise ValueError(f"{kind} has no field {', '.join(sorted(unknown))}")
    return types.types[kind](**values)


def _time(types: Typestore, time_ns: int) -> object:
    return types.types["builtin_interfaces/msg/Time"](*divmod(time_ns, 1_000_000_000))


def _value(types: Typestore, node: tuple, value: Any) -> Any:
    """`value`, or what stands for nothing, as the field's type has it."""
    nodetype, details = node
    if nodetype == Nodetype.BASE:
        name = details[0]
        if name == "string":
            return value or ""
        if name == "bool":
            return bool(value)
        return float(value or 0) if name.startswith("float") else int(value or 0)
    if nodetype in (Nodetype.ARRAY, Nodetype.SEQUENCE):
        (inner, inner_details), count = details
        given = [] if value is None else value
        if inner == Nodetype.BASE and inner_details[0] == "string":
            return list(given)
        if nodetype == Nodetype.ARRAY and len(given) == 0:
            given = np.zeros(count)
        return np.asarray(given, dtype=inner_details[0])
    raise ValueError(f"a field of type {details} has no value")

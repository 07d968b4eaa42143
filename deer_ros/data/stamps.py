"""Times in messages of bags."""

from __future__ import annotations

from typing import Any


def stamp_ns(stamp: Any) -> int:
    """The time of a builtin_interfaces/Time, in nanoseconds."""
    return stamp.sec * 1_000_000_000 + stamp.nanosec

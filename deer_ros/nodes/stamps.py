"""Times of messages as integer nanoseconds, and back."""

from __future__ import annotations

from builtin_interfaces.msg import Time


def to_time(stamp_ns: int) -> Time:
    """The message of a time in nanoseconds."""
    seconds, nanoseconds = divmod(stamp_ns, 1_000_000_000)
    return Time(sec=seconds, nanosec=nanoseconds)


def to_nanoseconds(stamp: Time) -> int:
    """The time of a message, in nanoseconds."""
    return stamp.sec * 1_000_000_000 + stamp.nanosec

"""Paths that users give as parameters."""

from __future__ import annotations

from pathlib import Path


def as_path(parameter: str, value: str) -> Path:
    """A parameter's path, `~` included. ValueError where it speaks of a user that there is not."""
    try:
        return Path(value).expanduser()
    except RuntimeError:
        raise ValueError(
            f"{parameter} is {value!r}, but there is no such user; write the whole path") from None

"""Message types that are installed, by their names in bags (`std_msgs/msg/String`)."""

from __future__ import annotations

import json
import os
from importlib import import_module
from pathlib import Path


def message_class(kind: str) -> type:
    """The class to publish or subscribe with. ValueError with a sentence where there is none."""
    package, _, name = kind.partition("/msg/")
    try:
        return getattr(import_module(f"{package}.msg"), name)
    except (ImportError, AttributeError, ValueError):
        raise ValueError(f"the message type {kind} is not installed") from None


def definition_file(kind: str, suffix: str = ".msg") -> Path | None:
    """Where an installed package keeps a type's definition."""
    package, _, name = kind.partition("/msg/")
    for prefix in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep):
        file = Path(prefix, "share", package, "msg", name + suffix)
        if prefix and file.is_file():
            return file
    return None


def type_hash(kind: str) -> str | None:
    """REP 2016's hash of the installed definition; None where this release has none (Humble)."""
    file = definition_file(kind, ".json")
    if file is None:
        return None
    hashes = json.loads(file.read_text(encoding="utf-8"))["type_hashes"]
    return next((entry["hash_string"] for entry in hashes if entry["type_name"] == kind), None)

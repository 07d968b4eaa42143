"""What changes every episode besides weights and settings: a file of results tells of it."""

from __future__ import annotations

import hashlib
import json
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from deer_ros.checkpoint.directory import CONFIG, PREPROCESSOR

_RULE = ("thresholds", "metric", "steps_per_decision", "max_layer_between")
"""Of `exits`: what a setting's definition tells."""


def config_fingerprint(folder: Path, told: tuple[str, ...] = ()) -> str:
    """SHA-256 over a model's configuration, as its files say it: units, rates, prompt, pictures.

    The rule of its exits is left out, and so are the keys `told`, which are told elsewhere. Raises
    OSError, or ValueError naming the file that is no JSON object.
    """
    config, preprocessor = (_object(folder / name) for name in (CONFIG, PREPROCESSOR))
    kept = {key: value for key, value in config.items() if key not in told}
    kept["exits"] = {k: v for k, v in config.get("exits", {}).items() if k not in _RULE}
    facts = json.dumps([kept, preprocessor], sort_keys=True)
    return hashlib.sha256(facts.encode()).hexdigest()


def versions(*distributions: str) -> dict[str, str | None]:
    """By name of what is installed; None where it was not installed as a package."""
    return {name: _version(name) for name in distributions}


def _object(file: Path) -> dict[str, Any]:
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file} is no JSON: {error}.") from error
    if not isinstance(values, dict):
        raise ValueError(f"{file} holds no JSON object.")
    return values


def _version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None

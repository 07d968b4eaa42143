"""What a run's folder says of how it was started, so that it goes on as it began."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from deer_ros.model.schema import from_dict, to_dict
from deer_ros.training.config import TrainingConfig

SOURCE, CONFIG = "data.json", "config.json"
FRAMES = "frames"
START_WEIGHTS = "start_weights"
"""In a run's source: the fingerprint of the weights that it was started from, if from any."""
VISION_WEIGHTS = "vision_weights"
"""The same of the model whose vision part was taken."""
# What says how a run is watched, and changes nothing in what it learns.
MAY_CHANGE = ("evaluation", "checkpoint_every_steps", "log_every_steps", "processes")


def check_same_run(folder: Path, source: dict[str, Any], config: TrainingConfig) -> None:
    """ValueError where the run in `folder` was begun with another source or configuration.

    source: of the episodes, and how they are read, as JSON takes it.
    """
    begun = _read(folder / SOURCE, source)
    if START_WEIGHTS in source:  # which runs of earlier versions did not write down
        begun.setdefault(START_WEIGHTS, source[START_WEIGHTS])
    changed = _differences(begun, source)
    if (folder / CONFIG).exists():
        before = to_dict(from_dict(TrainingConfig, _read(folder / CONFIG, {})))
        changed = itertools.chain(changed, _differences(before, to_dict(config)))
    for key, was, now in changed:
        raise ValueError(
            f"the run in {folder} was started with {key} {was}, which is {now} now; it cannot "
            "go on as another. Restore it, or name another --out."
        )


def forget_refused_run(folder: Path) -> None:
    """Remove what a run that was refused has read: its data may be others by now, or more."""
    if not (folder / SOURCE).exists() and (folder / FRAMES).exists():
        shutil.rmtree(folder / FRAMES)


def remember_run(folder: Path, source: dict[str, Any], config: TrainingConfig) -> None:
    """Write down what `check_same_run` compares with: from now on the run has begun."""
    for name, content in ((CONFIG, to_dict(config)), (SOURCE, source)):
        beside = folder / f"{name}.part"
        beside.write_text(json.dumps(content) + "\n", encoding="utf-8")
        beside.replace(folder / name)


def _read(file: Path, otherwise: dict[str, Any]) -> dict[str, Any]:
    values = json.loads(file.read_text(encoding="utf-8")) if file.exists() else otherwise
    if not isinstance(values, dict):
        raise ValueError(
            f"the run in {file.parent} was begun by an earlier version, as its {file.name} shows; "
            "it cannot go on with this one. Name another --out."
        )
    return values


def _differences(before: dict, now: dict, where: str = "") -> Iterator[tuple[str, Any, Any]]:
    for key, value in now.items():
        if isinstance(value, dict) and isinstance(before.get(key), dict):
            yield from _differences(before[key], value, f"{where}{key}.")
        elif key not in MAY_CHANGE and f"{where}".split(".")[0] not in MAY_CHANGE:
            if before.get(key) != value:
                yield f"{where}{key}", before.get(key), value

"""What a run's folder says of how it was started, so that it goes on as it began."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from deer_ros.model.schema import from_dict, to_dict
from deer_ros.training.config import TrainingConfig

DATA, CONFIG = "data.json", "config.json"
# What says how a run is watched, and changes nothing in what it learns.
MAY_CHANGE = ("evaluation", "checkpoint_every_steps", "log_every_steps", "processes")


def check_same_run(folder: Path, data: Sequence[Path], config: TrainingConfig) -> None:
    """ValueError where the run in `folder` was started with other data or another configuration."""
    named = _named(data)
    if (folder / DATA).exists():
        before = json.loads((folder / DATA).read_text(encoding="utf-8"))
        if before != named:
            raise ValueError(
                f"the run in {folder} was started with --data {' '.join(before)}; it cannot go on "
                "with other data. Name the same, or another --out."
            )
    if (folder / CONFIG).exists():
        written = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        before = to_dict(from_dict(TrainingConfig, written))
        changed = list(_differences(before, to_dict(config)))
        if changed:
            key, was, now = changed[0]
            raise ValueError(
                f"the run in {folder} was started with {key} {was}, which is {now} now; it cannot "
                "go on as another. Restore it, or name another --out."
            )


def remember_run(folder: Path, data: Sequence[Path], config: TrainingConfig) -> None:
    """Write down what `check_same_run` compares with."""
    for name, content in ((DATA, _named(data)), (CONFIG, to_dict(config))):
        beside = folder / f"{name}.part"
        beside.write_text(json.dumps(content) + "\n", encoding="utf-8")
        beside.replace(folder / name)


def _named(data: Sequence[Path]) -> list[str]:
    return sorted(str(path.resolve()) for path in data)


def _differences(before: dict, now: dict, where: str = "") -> Iterator[tuple[str, Any, Any]]:
    for key, value in now.items():
        if isinstance(value, dict) and isinstance(before.get(key), dict):
            yield from _differences(before[key], value, f"{where}{key}.")
        elif key not in MAY_CHANGE and f"{where}".split(".")[0] not in MAY_CHANGE:
            if before.get(key) != value:
                yield f"{where}{key}", before.get(key), value

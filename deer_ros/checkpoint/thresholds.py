"""A model's own thresholds: those of its `config.json`, or of `thresholds.json` beside it.

The latter are searched ones. Where the file is there, its thresholds are the model's own ones, in
place of those in `config.json`. Weights and configuration stay as they are, and without the file
all is as before.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deer_ros.budget.criterion import check_metric
from deer_ros.checkpoint.weights import weights_fingerprint
from deer_ros.model.config import DeerConfig

THRESHOLDS = "thresholds.json"
VERSION = 1


@dataclass(frozen=True)
class SearchedThresholds:
    """An exit rule, and the weights that it was found for.

    exit_layers: the model's exits, counted from 1. thresholds: one per exit, finite; 1e8 from the
    deepest permitted exit on. metric: of the thresholds. fingerprint: of the weights. made: how
    they were found, for people.
    """

    exit_layers: tuple[int, ...]
    thresholds: tuple[float, ...]
    metric: str
    fingerprint: str
    made: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_metric(self.metric)
        if len(self.thresholds) != len(self.exit_layers):
            raise ValueError(
                f"it has {len(self.thresholds)} thresholds for {len(self.exit_layers)} exits"
            )
        if not all(math.isfinite(threshold) for threshold in self.thresholds):
            raise ValueError(f"its thresholds are {list(self.thresholds)}; they must be finite")
        for name, kind in (("fingerprint", str), ("made", dict)):
            if not isinstance(getattr(self, name), kind):
                raise ValueError(
                    f"its {name} is {getattr(self, name)!r}; it must be "
                    f"{'text' if kind is str else 'an object'}"
                )

    @classmethod
    def load(cls, path: str | Path) -> SearchedThresholds:
        """Read a file. OSError, or a ValueError that names the file and what is wrong."""
        try:
            values = json.loads(Path(path).read_text(encoding="utf-8"))
            version = values.pop("version")
            if version != VERSION:
                raise ValueError(f"its version is {version!r}; this package reads {VERSION}")
            values["exit_layers"] = tuple(map(int, values["exit_layers"]))
            values["thresholds"] = tuple(map(float, values["thresholds"]))
            return cls(**values)
        except (
            ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError
        ) as error:
            what = f"it has no {error}" if isinstance(error, KeyError) else error
            raise ValueError(f"{path} holds no thresholds that can be read: {what}.") from error

    def to_json(self) -> dict[str, Any]:
        """What `load` reads."""
        return {"version": VERSION, **dataclasses.asdict(self)}


def with_searched_thresholds(folder: str | Path, config: DeerConfig) -> DeerConfig:
    """The configuration with the thresholds and the metric of `thresholds.json`, if it is there.

    Raises ValueError where the file cannot be read, or was made for another model.
    """
    found = find_searched_thresholds(folder, config)
    if found is None:
        return config
    exits = dataclasses.replace(config.exits, thresholds=found.thresholds, metric=found.metric)
    return config.replace(exits=exits)


def find_searched_thresholds(
    folder: str | Path, config: DeerConfig
) -> SearchedThresholds | None:
    """What `thresholds.json` of a model directory holds; None where there is no such file.

    Raises ValueError where the file cannot be read, or was made for another model.
    """
    path = Path(folder) / THRESHOLDS
    # A link that leads nowhere is no reason to run by other thresholds.
    if not os.path.lexists(path):
        return None
    found = SearchedThresholds.load(path)
    if found.exit_layers != config.exit_layers:
        raise ValueError(
            f"{path} is for a model with exits after layers {list(found.exit_layers)}; this "
            f"model's are {list(config.exit_layers)}. Delete it, or put back the file that belongs "
            "to this model."
        )
    fingerprint = weights_fingerprint(folder)
    if found.fingerprint != fingerprint:
        raise ValueError(
            f"{path} was searched for other weights (fingerprint {found.fingerprint[:12]}..., "
            f"this model's is {fingerprint[:12]}...). Delete it, and run `deer search` again."
        )
    return found

"""Episodes out of LeRobot datasets (layout v3), read from their files without that library.

A dataset is a folder with meta/info.json (features, rate, where files lie), meta/tasks.parquet
(texts), meta/episodes (which rows and which seconds of which video belong to an episode), data
(actions and states, a row per frame) and videos, of which one file holds many episodes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from deer_ros.data.episode import Episode
from deer_ros.data.images import decode
from deer_ros.data.lerobot_keys import LeRobotKeys
from deer_ros.data.units import ActionUnits, from_twist, to_twist

INFO = Path("meta", "info.json")
VERSION = "v3."
_WRIST = re.compile(r"wrist|gripper|hand", re.IGNORECASE)
_SEEN = ("video", "image")
_NEEDED = ("data/chunk_index", "data/file_index", "dataset_from_index", "dataset_to_index")


@dataclass(frozen=True)
class _Units:
    """Of the dataset's actions."""

    rate_hz: float
    frame: str
    linear_scale: float
    angular_scale: float


def is_lerobot(path: Path) -> bool:
    """Whether it looks like a LeRobot dataset from outside."""
    return (path / INFO).is_file()


def read_dataset(
    folder: Path,
    action: ActionUnits,
    keys: LeRobotKeys | None = None,
    on_bad: Callable[[ValueError], None] | None = None,
) -> Iterator[Episode]:
    """The episodes of a dataset; one of several tasks in a row becomes as many.

    Args:
        action: the units that the episodes' actions shall have.
        keys: which of the dataset's values are what.
        on_bad: hears of every episode that cannot be used, which is left out then; None: refused.

    Raises ValueError, naming the file: at once where the dataset's description does not fit, and
    while iterating.
    """
    dataset = _Dataset(folder, keys or LeRobotKeys(), action)
    return dataset.episodes(on_bad)


class _Dataset:
    def __init__(self, folder: Path, keys: LeRobotKeys, action: ActionUnits) -> None:
        self._parquet = _module("pyarrow.parquet")
        self._folder, self._keys, self._units = folder, keys, action
        self._info = _info(folder / INFO)
        self._features = self._info["features"]
        self._cameras = _cameras(self._features, keys, folder)
        if keys.action not in self._features:
            raise ValueError(
                f"{folder / INFO} has no feature {keys.action!r}; it has "
                f"{', '.join(self._features)}. Name one by action=KEY."
            )
        self._threshold = _threshold(folder, keys)
        self._tasks = self._read_tasks()
        self._rows = self._read_episodes()
        self._file: tuple[Path, Any] | None = None

    def episodes(self, on_bad: Callable[[ValueError], None] | None) -> Iterator[Episode]:
        for row in self._rows:
            try:
                yield from self._episodes_of(row)
            except ValueError as error:
                if on_bad is None:
                    raise
                on_bad(error)

    def _path(self, template: str, **values: object) -> Path:
        try:
            return self._folder / self._info[template].format(**values)
        except (KeyError, IndexError, ValueError, AttributeError, TypeError) as error:
            raise ValueError(
                f"{self._folder / INFO}: {template} is {self._info.get(template)!r}, which names "
                "no file."
            ) from error

    def _read_tasks(self) -> dict[int, str]:
        file = self._folder / "meta" / "tasks.parquet"
        table = self._table(file).to_pydict()
        # The text is the index of a pandas table, whose column has one of several names.
        texts = [values for name, values in table.items() if name != "task_index"]
        if "task_index" not in table or len(texts) != 1:
            raise ValueError(f"{file} has the columns {', '.join(table)}; a text and task_index "
                             "are needed.")
        return dict(zip(table["task_index"], map(str, texts[0])))

    def _read_episodes(self) -> list[dict[str, Any]]:
        folder = self._folder / "meta" / "episodes"
        files = sorted(folder.glob("chunk-*/file-*.parquet"))
        if not files:
            raise ValueError(f"{folder} has no chunk-000/file-000.parquet.")
        columns = ["episode_index", *_NEEDED]
        for key in self._cameras:
            if self._features[key]["dtype"] == "video":
                columns += [f"videos/{key}/{name}" for name in
                            ("chunk_index", "file_index", "from_timestamp")]
        rows = []
        for file in files:
            table = self._table(file)
            missing = [name for name in columns if name not in table.column_names]
            if missing:
                raise ValueError(f"{file} lacks the column {missing[0]}.")
            rows += table.select(columns).to_pylist()
        if any(value is None for row in rows for value in row.values()):
            raise ValueError(f"{folder} has an episode of which a place is not known.")
        return sorted(rows, key=lambda row: row["episode_index"])

    def _episodes_of(self, row: dict[str, Any]) -> Iterator[Episode]:
        number = row["episode_index"]
        source = f"{self._folder}#{number}"
        frames = self._frames_of(row, source)
        seconds = np.array(frames["timestamp"], np.float64)
        pictures = [self._pictures(key, row, frames, seconds, source) for key in self._cameras]
        start = 0
        for task, members in groupby(frames["task_index"]):
            part = slice(start, start + len(list(members)))
            start = part.stop
            if task not in self._tasks:
                raise ValueError(f"episode {source}: meta/tasks.parquet has no task {task}")
            yield Episode(
                instruction=self._tasks[task],
                static=pictures[0][part],
                gripper=pictures[1][part],
                stamps_ns=np.round(seconds[part] * 1e9).astype(np.int64),
                actions=self._actions(frames, source)[part],
                source=source,
                **self._proprioception(frames, part, source),
            )

    def _frames_of(self, row: dict[str, Any], source: str) -> dict[str, list]:
        file = self._path(
            "data_path", chunk_index=row["data/chunk_index"], file_index=row["data/file_index"]
        )
        if self._file is None or self._file[0] != file:
            self._file = file, self._table(file)
        table = self._file[1]
        wanted = ["index", "timestamp", "task_index", self._keys.action]
        wanted += [key for key in (self._keys.state,) if key in self._features]
        wanted += [key for key in self._cameras if self._features[key]["dtype"] == "image"]
        missing = [name for name in wanted if name not in table.column_names]
        if missing:
            raise ValueError(f"{file} lacks the column {missing[0]}.")
        index = np.asarray(table["index"])
        first, end = row["dataset_from_index"], row["dataset_to_index"]
        rows = np.flatnonzero((index >= first) & (index < end))
        rows = rows[np.argsort(index[rows])]
        count = end - first
        if len(rows) != count or count <= 0:
            raise ValueError(
                f"episode {source}: {file} has {len(rows)} of its {count} frames"
            )
        return table.select(wanted).take(rows).to_pydict()

    def _pictures(
        self, key: str, row: dict[str, Any], frames: dict[str, list], seconds: np.ndarray,
        source: str,
    ) -> np.ndarray:
        if self._features[key]["dtype"] == "image":
            found = [decode(picture["bytes"] or b"") for picture in frames[key]]
            if len({picture.shape for picture in found}) > 1:
                raise ValueError(f"episode {source}: the pictures of {key} change their size")
            return np.stack(found)
        file = self._path(
            "video_path",
            video_key=key,
            chunk_index=row[f"videos/{key}/chunk_index"],
            file_index=row[f"videos/{key}/file_index"],
        )
        from deer_ros.data.video import read_frames

        try:
            return read_frames(
                file, row[f"videos/{key}/from_timestamp"] + seconds, 0.5 / self._info["fps"]
            )
        except ValueError as error:
            raise ValueError(f"episode {source}: {error}") from error

    def _actions(self, frames: dict[str, list], source: str) -> np.ndarray:
        keys, values = self._keys, _array(frames[self._keys.action], self._keys.action, source)
        last = max(*keys.pose, keys.gripper_column)
        if values.shape[1] <= last:
            raise ValueError(
                f"episode {source}: its {keys.action} has {values.shape[1]} values; value {last} "
                "is asked for. Name others by pose= and gripper_column=."
            )
        units = self._units
        own = _Units(
            self._info["fps"], units.frame,
            units.linear_scale if keys.linear_scale is None else keys.linear_scale,
            units.angular_scale if keys.angular_scale is None else keys.angular_scale,
        )
        pose = from_twist(to_twist(values[:, keys.pose], own), units)
        commanded = values[:, keys.gripper_column]
        is_high = commanded > self._threshold
        gripper = np.where(is_high == (keys.gripper_open == "high"), 1.0, -1.0)
        gripper[~np.isfinite(commanded)] = np.nan
        return np.column_stack([pose, gripper]).astype(np.float32)

    def _proprioception(self, frames: dict[str, list], part: slice, source: str) -> dict[str, Any]:
        key = self._keys.state
        if key not in frames:
            return {}
        values = _array(frames[key], key, source).astype(np.float32)[part]
        names = _flat_names(self._features[key].get("names"))
        fits = len(names) == values.shape[1]
        return {"proprioception": values, "proprioception_names": names if fits else ()}

    def _table(self, file: Path) -> Any:
        try:
            return self._parquet.read_table(file)
        except FileNotFoundError as error:
            raise ValueError(f"{file} is missing.") from error
        except Exception as error:  # pyarrow's own, of several kinds
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise ValueError(f"{file} cannot be read: {reason}.") from error


def _info(file: Path) -> dict[str, Any]:
    try:
        info = json.loads(file.read_text(encoding="utf-8"))
        version, fps = str(info["codebase_version"]), float(info["fps"])
        paths = info["data_path"], info.get("video_path") or "", info["features"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{file} is no description of a LeRobot dataset: {error!r}.") from error
    if not version.startswith(VERSION):
        raise ValueError(
            f"{file}: the layout is {version}; v3 is read. LeRobot's own converter makes v3 of it."
        )
    fits = all(map(isinstance, paths, (str, str, dict)))
    if not fps > 0 or not fits or not all(isinstance(f, dict) for f in paths[2].values()):
        raise ValueError(f"{file} is no description of a LeRobot dataset: fps is {fps}.")
    return {**info, "fps": fps}


def _cameras(features: dict[str, Any], keys: LeRobotKeys, folder: Path) -> tuple[str, str]:
    """The keys of the static and the gripper camera: those named, or the only two that can be."""
    found = [key for key, feature in features.items() if feature.get("dtype") in _SEEN]
    wrists = [key for key in found if _WRIST.search(key)]
    others = [key for key in found if key not in wrists]
    static = keys.static or (others[0] if len(others) == 1 else None)
    gripper = keys.gripper or (wrists[0] if len(wrists) == 1 else None)
    for option, key in (("static", static), ("gripper", gripper)):
        if key not in found:
            raise ValueError(
                f"{folder / INFO}: the {option} camera is "
                + (f"{key!r}, which it does not have" if key else "not to be told from its name")
                + f"; the cameras are {', '.join(found) or 'none'}. Name one by {option}=KEY."
            )
    return static, gripper


def _threshold(folder: Path, keys: LeRobotKeys) -> float:
    """Between closed and open: as named, or the middle of what meta/stats.json says was there."""
    if keys.gripper_threshold is not None:
        return keys.gripper_threshold
    file = folder / "meta" / "stats.json"
    try:
        stats = json.loads(file.read_text(encoding="utf-8"))[keys.action]
        least, greatest = (float(stats[end][keys.gripper_column]) for end in ("min", "max"))
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        raise ValueError(
            f"{file} does not say between which values {keys.action}[{keys.gripper_column}], the "
            "gripper, lies; name what separates closed from open by gripper_threshold=X."
        ) from error
    return (least + greatest) / 2


def _array(rows: list, key: str, source: str) -> np.ndarray:
    try:
        values = np.array(rows, np.float64)
    except (ValueError, TypeError) as error:
        raise ValueError(f"episode {source}: its {key} are no rows of numbers") from error
    if values.ndim != 2:
        raise ValueError(f"episode {source}: its {key} are of shape {values.shape}")
    return values


def _flat_names(names: Any) -> tuple[str, ...]:
    """Names of a feature's values, which some datasets keep in a list of a dictionary."""
    if isinstance(names, dict):
        names = next(iter(names.values()), ())
    return tuple(map(str, names)) if isinstance(names, (list, tuple)) else ()


def _module(name: str) -> Any:
    from importlib import import_module

    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        raise ValueError(
            f"LeRobot datasets are read with the Python module {name.split('.')[0]}, which is not "
            "installed: pip install -r requirements/lerobot.txt."
        ) from error

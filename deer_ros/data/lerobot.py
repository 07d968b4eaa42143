"""Episodes out of LeRobot datasets (layout v3), read from their files without that library.

A dataset is a folder with meta/info.json (features, rate, where files lie), meta/tasks.parquet
(texts), meta/episodes (which rows and which seconds of which video belong to an episode), data
(actions and states, a row per frame) and videos, of which one file holds many episodes.
"""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from deer_ros.data.episode import Episode
from deer_ros.data.frames import Pictures, Resize, Seen
from deer_ros.data.images import decode
from deer_ros.data.lerobot_info import (
    INFO,
    check_pose,
    find_cameras,
    find_threshold,
    flat_names,
    read_info,
)
from deer_ros.data.lerobot_keys import LeRobotKeys
from deer_ros.data.units import ActionUnits, from_twist, to_twist

_LATEST_S = 4e9
"""Later than now in Unix time; fits 64 bits in nanoseconds and in the ticks of a video."""
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
    instruction: str = "",
    resize: Resize | None = None,
) -> Iterator[Episode]:
    """The episodes of a dataset; one of several tasks in a row becomes as many.

    Args:
        action: the units that the episodes' actions shall have.
        keys: which of the dataset's values are what.
        on_bad: hears of every episode that cannot be used, which is left out then; None: refused.
        instruction: instead of the tasks' texts; empty: those.
        resize: what is kept of every picture, from when it is read; None: all of it.

    Raises ValueError, naming the file: at once where the dataset's description does not fit, and
    while iterating.
    """
    dataset = _Dataset(folder, keys or LeRobotKeys(), action, instruction, resize)
    return dataset.episodes(on_bad)


class _Dataset:
    def __init__(
        self, folder: Path, keys: LeRobotKeys, action: ActionUnits, instruction: str,
        resize: Resize | None,
    ) -> None:
        self._parquet = _module("pyarrow.parquet")
        self._folder, self._keys, self._units = folder, keys, action
        self._instruction, self._resize = instruction, resize
        self._info = read_info(folder / INFO)
        self._features = self._info["features"]
        self._cameras = find_cameras(self._features, keys, folder)
        if keys.action not in self._features:
            raise ValueError(
                f"{folder / INFO} has no feature {keys.action!r}; it has "
                f"{', '.join(self._features)}. Name one by action=KEY."
            )
        check_pose(self._features[keys.action], keys, folder)
        self._threshold = find_threshold(folder, keys)
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

    def _read_tasks(self) -> dict[int, Any]:
        """By number: the texts, and what is none, which no episode accepts."""
        file = self._folder / "meta" / "tasks.parquet"
        table = self._table(file).to_pydict()
        # The text is the index of a pandas table, whose column has one of several names.
        texts = [values for name, values in table.items() if name != "task_index"]
        if "task_index" not in table or len(texts) != 1:
            raise ValueError(f"{file} has the columns {', '.join(table)}; a text and task_index "
                             "are needed.")
        stripped = (text.strip() if isinstance(text, str) else text for text in texts[0])
        return dict(zip(table["task_index"], stripped))

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
        rows: list[dict[str, Any]] = []
        for file in files:
            table = self._table(file)
            missing = [name for name in columns if name not in table.column_names]
            if missing:
                raise ValueError(f"{file} lacks the column {missing[0]}.")
            rows += table.select(columns).to_pylist()
        for name, value in (item for row in rows for item in row.items()):
            if not (_is_time(value) if name.endswith("timestamp") else isinstance(value, int)):
                raise ValueError(
                    f"{folder}: {name} of an episode is {value!r}, by which nothing can be found."
                )
        return sorted(rows, key=lambda row: row["episode_index"])

    def _episodes_of(self, row: dict[str, Any]) -> Iterator[Episode]:
        number = row["episode_index"]
        source = f"{self._folder}#{number}"
        frames = self._frames_of(row, source)
        seconds = _seconds(frames["timestamp"], source)
        pictures = [self._pictures(key, row, frames, seconds, source) for key in self._cameras]
        start = 0
        for task, members in groupby(frames["task_index"]):
            part = slice(start, start + len(list(members)))
            start = part.stop
            if task not in self._tasks:
                raise ValueError(f"episode {source}: meta/tasks.parquet has no task {task}")
            yield Episode(
                instruction=self._instruction or self._tasks[task],
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
        if index.dtype.kind not in "iuf":  # float where one is missing
            raise ValueError(f"{file}: index is {table.schema.field('index').type}, no number.")
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
            return self._embedded(key, frames[key], source)
        file = self._path(
            "video_path",
            video_key=key,
            chunk_index=row[f"videos/{key}/chunk_index"],
            file_index=row[f"videos/{key}/file_index"],
        )
        from deer_ros.data.video import read_frames

        try:
            return read_frames(
                file, row[f"videos/{key}/from_timestamp"] + seconds, 0.5 / self._info["fps"],
                self._resize,
            )
        except ValueError as error:
            raise ValueError(f"episode {source}: {error}") from error

    def _embedded(self, key: str, column: list, source: str) -> np.ndarray:
        pictures = Pictures(len(column))
        for frame, held in enumerate(column):
            picture = _picture(held, f"episode {source}: frame {frame} of {key}")
            try:
                pictures.add(Seen.of(picture, self._resize))
            except ValueError as error:
                raise ValueError(f"episode {source}: {key}: {error}") from error
        return pictures.array()

    def _actions(self, frames: dict[str, list], source: str) -> np.ndarray:
        keys, values = self._keys, _array(frames[self._keys.action], self._keys.action, source)
        last = max(*keys.places, keys.gripper_column)
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
        pose = from_twist(to_twist(values[:, keys.places], own), units)
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
        names = flat_names(self._features[key].get("names"))
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


def _is_time(value: object) -> bool:
    return isinstance(value, (int, float)) and abs(value) <= _LATEST_S


def _seconds(timestamps: list, source: str) -> np.ndarray:
    """float64 (T,)."""
    seconds = _array(timestamps, "timestamp", source, dimensions=1)
    wrong = ~(np.abs(seconds) <= _LATEST_S)  # NaN as well
    if wrong.any():
        frame = int(wrong.argmax())
        raise ValueError(
            f"episode {source}: the timestamp of frame {frame} is {seconds[frame]}, which is no "
            "time in seconds"
        )
    return seconds


def _picture(held: Any, where: str) -> np.ndarray:
    """Out of a column of pictures: a file's bytes, or those beside the file's name."""
    data = held.get("bytes") if isinstance(held, dict) else held
    if not isinstance(data, bytes):
        raise ValueError(f"{where} is {reprlib.repr(held)}; the bytes of a picture are needed")
    try:
        return decode(data)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


def _array(values: list, key: str, source: str, dimensions: int = 2) -> np.ndarray:
    try:
        values = np.array(values, np.float64)
    except (ValueError, TypeError) as error:
        raise ValueError(f"episode {source}: its {key} are no numbers") from error
    if values.ndim != dimensions:
        raise ValueError(f"episode {source}: its {key} are of shape {values.shape}")
    return values


def _module(name: str) -> Any:
    from importlib import import_module

    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        raise ValueError(
            f"LeRobot datasets are read with the Python module {name.split('.')[0]}, which is not "
            "installed: pip install -r requirements/lerobot.txt."
        ) from error

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
from deer_ros.data.lerobot_tables import (
    LATEST_S,
    check_numbers,
    check_row,
    read_rows,
    read_table,
    read_tasks,
    told_once,
    why_not_whole,
)
from deer_ros.data.units import ActionUnits, from_twist, to_twist


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
        self._tasks = read_tasks(folder)
        videos = [key for key in self._cameras if self._features[key]["dtype"] == "video"]
        self._rows = read_rows(folder, videos)
        self._file: tuple[Path, Any] | None = None

    def episodes(self, on_bad: Callable[[ValueError], None] | None) -> Iterator[Episode]:
        refuse = on_bad or _raise
        lacks = why_not_whole(self._folder, self._rows, self._info.get("total_episodes"))
        if lacks:
            refuse(ValueError(lacks))
        for row in told_once(self._rows):
            if isinstance(row, ValueError):
                refuse(row)
                continue
            try:
                yield from self._episodes_of(row)
            except ValueError as error:
                refuse(error)

    def _path(self, template: str, **values: object) -> Path:
        try:
            return self._folder / self._info[template].format(**values)
        except (KeyError, IndexError, ValueError, AttributeError, TypeError) as error:
            raise ValueError(
                f"{self._folder / INFO}: {template} is {self._info.get(template)!r}, which names "
                "no file."
            ) from error

    def _episodes_of(self, row: dict[str, Any]) -> Iterator[Episode]:
        check_row(row)
        source = f"{self._folder}#{row['episode_index']}"
        frames = self._frames_of(row, source)
        check_numbers("task_index", frames["task_index"], f"episode {source}")
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
            self._file = file, read_table(file)
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
        held = frames[key]
        if not isinstance(held[0], list):  # as LeRobot keeps a state of one value
            held = [[value] for value in held]
        hint = "; --lerobot state=none leaves them out"
        values = _array(held, key, source, hint=hint).astype(np.float32)[part]
        names = flat_names(self._features[key].get("names"))
        fits = len(names) == values.shape[1]
        return {"proprioception": values, "proprioception_names": names if fits else ()}


def _seconds(timestamps: list, source: str) -> np.ndarray:
    """float64 (T,)."""
    seconds = _array(timestamps, "timestamp", source, dimensions=1)
    wrong = ~(np.abs(seconds) <= LATEST_S)  # NaN as well
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


def _array(
    values: list, key: str, source: str, dimensions: int = 2, hint: str = ""
) -> np.ndarray:
    try:
        values = np.array(values, np.float64)
    except (ValueError, TypeError) as error:
        raise ValueError(f"episode {source}: its {key} are no numbers{hint}") from error
    if values.ndim != dimensions:
        raise ValueError(f"episode {source}: its {key} are of shape {values.shape}{hint}")
    return values


def _raise(error: ValueError) -> None:
    raise error

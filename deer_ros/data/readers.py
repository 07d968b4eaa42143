"""Episodes out of whatever demonstrations lie at a path: bags, CALVIN's or LeRobot's datasets."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import chain
from pathlib import Path

import numpy as np

from deer_ros.data import bag_reader, calvin, lerobot
from deer_ros.data.bag_format import BagError, find_recordings
from deer_ros.data.bag_inputs import AS_DELIVERED, BagInputs
from deer_ros.data.episode import Episode
from deer_ros.data.frames import Resize
from deer_ros.data.lerobot_keys import LeRobotKeys
from deer_ros.data.units import ActionUnits

BAG, CALVIN, LEROBOT = "bags", "CALVIN's datasets", "LeRobot datasets"


def kind_of(path: str | Path) -> str:
    """Of what kind the demonstrations at a path are. What is nothing else would have to be bags."""
    path = Path(path)
    if calvin.find_split(path) is not None:
        return CALVIN
    return LEROBOT if lerobot.is_lerobot(path) else BAG


def read_all_episodes(
    paths: Iterable[str | Path],
    action: ActionUnits,
    on_bad: Callable[[ValueError], None] | None = None,
    keys: LeRobotKeys | None = None,
    inputs: BagInputs = AS_DELIVERED,
    resize: Resize | None = None,
) -> Iterator[Episode]:
    """The episodes at several paths, one path after the other, one episode in memory at a time.

    A path is a bag or a folder of bags, a CALVIN dataset or split (of a whole dataset the training
    split is read), or a LeRobot dataset.

    Args:
        action: the units that the episodes' actions shall have.
        on_bad: hears of what cannot be used, which is left out then; None: it is refused.
        keys: which values of a LeRobot dataset are what.
        inputs: the same of bags; of the rest only its `instruction` is used.
        resize: what is kept of every picture, from when it is read; None: all of it.

    Raises:
        FileNotFoundError, ValueError: at once, where a path holds no demonstrations, or none whose
            actions can be brought into these units.
        ValueError: while iterating, naming what is damaged or no episode.
    """
    return chain.from_iterable(
        [_read(Path(path), action, on_bad, keys, inputs, resize) for path in paths])


def _read(
    path: Path,
    action: ActionUnits,
    on_bad: Callable[[ValueError], None] | None,
    keys: LeRobotKeys | None,
    inputs: BagInputs,
    resize: Resize | None,
) -> Iterator[Episode]:
    kind = kind_of(path)
    if kind == CALVIN:
        split = calvin.find_split(path)
        episodes = calvin.read_split(split, action, on_bad, inputs.instruction)
        # They are short, and their pictures small.
        return episodes if resize is None else (_resized(one, resize) for one in episodes)
    if kind == LEROBOT:
        return lerobot.read_dataset(path, action, keys, on_bad, inputs.instruction, resize)
    _check_bags(path)
    return bag_reader.read_all_episodes([path], action, on_bad, inputs, resize)


def _resized(episode: Episode, resize: Resize) -> Episode:
    return replace(
        episode,
        static=np.stack([resize(picture) for picture in episode.static]),
        gripper=np.stack([resize(picture) for picture in episode.gripper]),
    )


def _check_bags(path: Path) -> None:
    if not path.exists():
        raise FileNotFoundError(f"there are no demonstrations at {path}")
    try:
        find_recordings(path)
    except BagError:
        raise
    except ValueError as error:
        raise ValueError(calvin.why_no_split(path) or (
            f"{path} holds no demonstrations: it is no bag and holds none (a bag is a folder with "
            f".mcap or .db3), no LeRobot dataset (it has no {lerobot.INFO}) and no split of "
            f"CALVIN's (it has no {calvin.ANNOTATIONS})."
        )) from error

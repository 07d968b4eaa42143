"""Episodes out of CALVIN's dataset: a NumPy file per frame, and which frames were annotated.

A split (`training`, `validation`) is a folder of episode_0000000.npz and so on, with
lang_annotations/auto_lang_ann.npy, which holds texts and the first and last frame of each. Only the
annotated stretches are episodes; the rest has no instruction.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from deer_ros.data.episode import POSE_NAMES, Episode, joint_names
from deer_ros.data.inert_pickle import read_object
from deer_ros.data.units import ActionUnits, check_units, from_twist, to_twist

ANNOTATIONS = Path("lang_annotations", "auto_lang_ann.npy")
TRAINING, VALIDATION = "training", "validation"
RATE_HZ = 30
ARM_JOINTS = tuple(f"panda_joint{number}" for number in range(1, 8))
GRIPPER_WIDTH = "gripper.width"
PROPRIOCEPTION_NAMES = (*POSE_NAMES, *joint_names(ARM_JOINTS), GRIPPER_WIDTH)
"""Pose (m, quaternion), seven joints (rad), width between the fingers (m)."""

_PARTS = {
    "rgb_static": np.uint8,
    "rgb_gripper": np.uint8,
    "rel_actions": np.float64,
    "robot_obs": np.float64,
}


@dataclass(frozen=True)
class CalvinUnits:
    """What one unit of `rel_actions` is."""

    rate_hz: float = RATE_HZ
    frame: str = "world"
    linear_scale: float = 0.02
    angular_scale: float = 0.05


def find_split(path: Path) -> Path | None:
    """The split at `path`: itself, or the training split of a whole dataset; None if it is none."""
    for folder in (path, path / TRAINING):
        if (folder / ANNOTATIONS).is_file():
            return folder
    return None


def why_no_split(path: Path) -> str:
    """Of what looks like CALVIN's and is no split, a sentence that says what is missing or to be
    named instead; empty for everything else."""
    near = [file for steps in ("", "*/", "*/*/") for file in path.glob(f"{steps}{ANNOTATIONS}")]
    if path.name == ANNOTATIONS.name:
        near = [path]
    if near:
        names = " or ".join(str(file.parents[1]) for file in sorted(near))
        return f"{path} is no split of CALVIN's dataset. Name {names} instead."
    for folder in (path, path / TRAINING, path / VALIDATION):
        if next(folder.glob("episode_*.npz"), None):
            others = " or ".join(map(str, sorted(folder.glob(f"*/{ANNOTATIONS.name}"))))
            return (
                f"{folder} has frames of CALVIN's dataset and no {ANNOTATIONS}, which says what "
                "they show" + (f"; a copy of {others} would do." if others else ".")
            )
    return ""


def read_split(
    folder: Path,
    action: ActionUnits,
    on_bad: Callable[[ValueError], None] | None = None,
    instruction: str = "",
) -> Iterator[Episode]:
    """The annotated stretches of a split, in the order of their annotations.

    Args:
        action: the units that the episodes' actions shall have.
        on_bad: hears of every stretch that cannot be used, which is left out then; None: refused.
        instruction: instead of those annotated; empty: those.

    Raises ValueError, naming the file: at once where the annotations cannot be read or actions are
    not in the frame 'world', and while iterating.
    """
    check_units(action)
    annotations = [
        (instruction or text, first, last)
        for text, first, last in _annotations(folder / ANNOTATIONS)
    ]
    return _episodes(folder, annotations, action, on_bad)


def _annotations(file: Path) -> list[tuple[str, int, int]]:
    """Text, first and last frame of each."""
    content = read_object(file)
    try:
        texts, stretches = content["language"]["ann"], content["info"]["indx"]
        found = [(_text(text), int(first), int(last)) for text, (first, last) in
                 zip(texts, stretches, strict=True)]
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"{file} holds no language annotations of CALVIN: {error!r}.") from error
    if not found:
        raise ValueError(f"{file} holds no annotation.")
    return found


def _text(annotation: object) -> str:
    """The first line of a text, or of the one text in a list."""
    if isinstance(annotation, (list, tuple)) and len(annotation) == 1:
        (annotation,) = annotation
    if not isinstance(annotation, str):
        raise TypeError(f"an annotation is {annotation!r}; it must be text")
    return annotation.split("\n")[0].strip()


def _episodes(
    folder: Path,
    annotations: list[tuple[str, int, int]],
    action: ActionUnits,
    on_bad: Callable[[ValueError], None] | None,
) -> Iterator[Episode]:
    for number, (text, first, last) in enumerate(annotations):
        source = f"{folder}#{number} (frames {first} to {last})"
        try:
            episode = _episode(folder, text, range(first, last + 1), action, source)
        except ValueError as error:
            if on_bad is None:
                raise
            on_bad(error)
        else:
            yield episode


def _episode(
    folder: Path, text: str, numbers: range, action: ActionUnits, source: str
) -> Episode:
    frames = [_frame(folder / f"episode_{number:07d}.npz") for number in numbers]
    if not frames:
        raise ValueError(f"episode {source}: it has no frames")
    columns = {}
    for part in _PARTS:
        shapes = {frame[part].shape for frame in frames}
        if len(shapes) > 1:
            raise ValueError(f"episode {source}: its {part} have several shapes: {sorted(shapes)}")
        columns[part] = np.stack([frame[part] for frame in frames])
    return Episode(
        instruction=text,
        static=columns["rgb_static"],
        gripper=columns["rgb_gripper"],
        stamps_ns=np.arange(len(frames), dtype=np.int64) * 1_000_000_000 // RATE_HZ,
        actions=_actions(columns["rel_actions"], action, source),
        proprioception=proprioception(columns["robot_obs"], source),
        proprioception_names=PROPRIOCEPTION_NAMES,
        source=source,
    )


def _frame(file: Path) -> dict[str, np.ndarray]:
    try:
        with np.lib.npyio.NpzFile(file, allow_pickle=False) as content:
            frame = {part: np.asarray(content[part]) for part in _PARTS}
    except FileNotFoundError as error:
        raise ValueError(f"{file} is missing, and an annotation names its frame.") from error
    except Exception as error:  # a damaged archive fails in many ways
        raise ValueError(f"{file} cannot be read: {error}.") from error
    for part, kind in _PARTS.items():
        if not np.can_cast(frame[part].dtype, kind):
            raise ValueError(f"{file}: {part} is {frame[part].dtype}, not {np.dtype(kind)}.")
    return frame


def _actions(values: np.ndarray, units: ActionUnits, source: str) -> np.ndarray:
    if values.shape[1:] != (7,):
        raise ValueError(
            f"episode {source}: rel_actions are of shape {values.shape[1:]}, not (7,)"
        )
    pose = from_twist(to_twist(values[:, :6], CalvinUnits()), units)
    return np.column_stack([pose, values[:, 6]]).astype(np.float32)


def proprioception(observed: np.ndarray, source: str) -> np.ndarray:
    """What `PROPRIOCEPTION_NAMES` names, float32 (T, 15), out of robot_obs (T, 15), which has
    position, Euler angles, fingers' width, seven joints and the last gripper action."""
    if observed.shape[1:] != (15,):
        raise ValueError(
            f"episode {source}: robot_obs are of shape {observed.shape[1:]}, not (15,)"
        )
    position, angles, width, joints = np.split(observed[:, :14], [3, 6, 7], axis=1)
    return np.column_stack([position, _quaternions(angles), joints, width]).astype(np.float32)


def _quaternions(angles: np.ndarray) -> np.ndarray:
    """Quaternions x, y, z, w (T, 4) of turns about the fixed axes x, then y, then z (T, 3), rad."""
    (sx, sy, sz), (cx, cy, cz) = np.sin(angles.T / 2), np.cos(angles.T / 2)
    return np.column_stack([
        sx * cy * cz - cx * sy * sz,
        cx * sy * cz + sx * cy * sz,
        cx * cy * sz - sx * sy * cz,
        cx * cy * cz + sx * sy * sz,
    ])  # fmt: skip

"""What a LeRobot dataset says of itself: features and rate, and which of them are what."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

from deer_ros.data.lerobot_keys import LeRobotKeys

INFO = Path("meta", "info.json")
VERSION = "v3."
_WRIST = re.compile(r"wrist|gripper|hand", re.IGNORECASE)
_JOINT = re.compile(r"joint|shoulder|elbow|waist|forearm", re.IGNORECASE)
_SEEN = ("video", "image")


def read_info(file: Path) -> dict[str, Any]:
    """meta/info.json, checked. Raises ValueError naming the file, as all of these do."""
    try:
        info = json.loads(file.read_text(encoding="utf-8"))
        version, fps = str(info["codebase_version"]), float(info["fps"])
        features = info["features"]
        texts = {"data_path": info["data_path"], "video_path": info.get("video_path") or ""}
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{file} is no description of a LeRobot dataset: {error!r}.") from error
    if not version.startswith(VERSION):
        raise ValueError(
            f"{file}: the layout is {version}; v3 is read. LeRobot's own converter makes v3 of it."
        )
    wrong = [f"{name} is {value!r}" for name, value in texts.items() if not isinstance(value, str)]
    if not 0 < fps < math.inf:
        wrong.append(f"fps is {fps}")
    if not isinstance(features, dict):
        wrong.append(f"features is {features!r}")
    else:
        wrong += [f"the feature {name} is {feature!r}" for name, feature in features.items()
                  if not isinstance(feature, dict)]
    if wrong:
        raise ValueError(f"{file} is no description of a LeRobot dataset: {wrong[0]}.")
    return {**info, "fps": fps}


def find_cameras(features: dict[str, Any], keys: LeRobotKeys, folder: Path) -> tuple[str, str]:
    """The keys of the static and the gripper camera: those named, or the only ones that can be.

    A camera that is named as one of them is not taken for the other as well.
    """
    found = [key for key, feature in features.items() if feature.get("dtype") in _SEEN]
    rest = [key for key in found if key not in (keys.static, keys.gripper)]
    wrists = [key for key in rest if _WRIST.search(key)]
    others = [key for key in rest if key not in wrists]
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


def check_pose(feature: dict[str, Any], keys: LeRobotKeys, folder: Path) -> None:
    """ValueError where the first six values of an action are joints, going by their names.

    Who names the places by `pose` knows what lies there.
    """
    names = flat_names(feature.get("names"))
    joints = [name for name in names[:6] if _JOINT.search(name)]
    if keys.pose is None and joints:
        raise ValueError(
            f"{folder / INFO}: {keys.action} has a value named {joints[0]!r}; how the end effector "
            "moves is needed, not joints. Name the places of dx dy dz droll dpitch dyaw by pose=, "
            "or another action by action=KEY."
        )


def find_threshold(folder: Path, keys: LeRobotKeys) -> float:
    """Between closed and open: as named, or the middle of what meta/stats.json says was there."""
    if keys.gripper_threshold is not None:
        return keys.gripper_threshold
    file = folder / "meta" / "stats.json"
    gripper = f"{keys.action}[{keys.gripper_column}], the gripper,"
    name_it = "name what separates closed from open by gripper_threshold=X."
    try:
        stats = json.loads(file.read_text(encoding="utf-8"))[keys.action]
        least, greatest = (float(stats[end][keys.gripper_column]) for end in ("min", "max"))
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        raise ValueError(
            f"{file} does not say between which values {gripper} lies; {name_it}"
        ) from error
    if not -math.inf < least < greatest < math.inf:
        raise ValueError(
            f"{file}: {gripper} lies between {least} and {greatest}, which does not tell closed "
            f"from open; {name_it}"
        )
    return (least + greatest) / 2


def flat_names(names: Any) -> tuple[str, ...]:
    """Names of a feature's values: a list, lists in a dictionary one after the other, or a
    dictionary of each name's place."""
    if isinstance(names, dict):
        held = list(names.values())
        if all(isinstance(place, int) for place in held):
            names = sorted(names, key=names.get)
        else:
            names = [name for part in held if isinstance(part, (list, tuple)) for name in part]
    return tuple(map(str, names)) if isinstance(names, (list, tuple)) else ()

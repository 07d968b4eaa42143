"""What the policy sees at one step."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Observation:
    """Pictures of the static and the gripper camera, uint8 RGB (height, width, 3) of any size.

    proprioception: float32 (P,), for models that read it, in the order of their layout
    (`config.proprioception.layout`); None for those that do not.
    """

    static: np.ndarray
    gripper: np.ndarray
    proprioception: np.ndarray | None = None

"""One episode: what the robot saw, what it was told, and what it should have done."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

POSE_NAMES = tuple(f"end_effector.{part}" for part in ("x", "y", "z", "qx", "qy", "qz", "qw"))
"""The end effector's pose in `proprioception`: position (m), then quaternion x, y, z, w."""
POSE_SIZE = len(POSE_NAMES)


def joint_names(joints: Sequence[str]) -> tuple[str, ...]:
    """What the positions of these joints are called in `proprioception`."""
    return tuple(f"joint.{joint}" for joint in joints)


def columns_of(layout: Sequence[str], names: Sequence[str]) -> list[int]:
    """Where in `names` the values of `layout` are. ValueError names those that are nowhere."""
    missing = [name for name in layout if name not in names]
    if missing:
        raise ValueError(
            f"the proprioception lacks {', '.join(missing)}; it has "
            f"{', '.join(names) or 'no names'}"
        )
    return [list(names).index(name) for name in layout]


@dataclass(frozen=True)
class Episode:
    """T frames of one task. ValueError names what does not fit together.

    instruction: what the robot was told.
    static, gripper: pictures of the two cameras, uint8 (T, height, width, 3) RGB.
    stamps_ns: when each frame was seen, int64 (T,), growing.
    actions: float32 (T, 7): six pose values in the model's units, then gripper -1 close or
        +1 open; None where nothing was recorded.
    proprioception: float32 (T, P), what the robot knew of itself: in bags the pose of the end
        effector, then the joint positions; or None.
    proprioception_names: what each of its P values is called; empty where nobody said.
    state: float32 (T, S): the simulator's own knowledge, in demonstrations only; or None.
    source: where the episode comes from, for messages to people.
    """

    instruction: str
    static: np.ndarray
    gripper: np.ndarray
    stamps_ns: np.ndarray
    actions: np.ndarray | None = None
    proprioception: np.ndarray | None = None
    state: np.ndarray | None = None
    source: str = ""
    proprioception_names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.instruction, str):
            self._fail(f"its instruction is {self.instruction!r}; it must be text")
        if not self.instruction.strip():
            self._fail("it has no instruction")
        if len(self.stamps_ns) == 0:
            self._fail("it has no frames")
        self._check("stamps_ns", np.int64, ("T",))
        if np.any(np.diff(self.stamps_ns) <= 0):
            self._fail("its stamps_ns do not grow from frame to frame")
        for name in ("static", "gripper"):
            self._check(name, np.uint8, ("T", "height", "width", 3))
        for name, columns in (("actions", 7), ("proprioception", "P"), ("state", "S")):
            if getattr(self, name) is not None:
                self._check(name, np.float32, ("T", columns))
                if name != "proprioception":  # of which a model may read a part only
                    self._check_finite(name, getattr(self, name))
        if self.actions is not None and not np.all(np.abs(self.actions[:, 6]) == 1):
            self._fail("its actions have a gripper value other than -1 (close) and +1 (open)")
        names = self.proprioception_names
        if names and (self.proprioception is None or len(names) != self.proprioception.shape[1]):
            self._fail(f"its proprioception does not have one value for each of {', '.join(names)}")

    def __len__(self) -> int:
        return len(self.stamps_ns)

    def proprioception_in(self, layout: Sequence[str]) -> np.ndarray:
        """The values of `layout`, float32 (T, len(layout)), as a model that reads them takes them.

        Raises ValueError where the episode has none of that name, or NaN or infinity.
        """
        if self.proprioception is None:
            self._fail("it has no proprioception")
        try:
            columns = columns_of(layout, self.proprioception_names)
        except ValueError as error:
            self._fail(str(error))
        values = self.proprioception[:, columns]
        for name, column in zip(layout, values.T):
            self._check_finite(name, column[:, None])
        return values

    def _check(self, name: str, dtype: type, shape: tuple[int | str, ...]) -> None:
        """A number in `shape` must be matched, `T` is the number of frames, other names any."""
        array = getattr(self, name)
        allowed = tuple(len(self) if size == "T" else size for size in shape)
        fits = len(allowed) == array.ndim and all(
            isinstance(size, str) or size == actual for size, actual in zip(allowed, array.shape)
        )
        if array.dtype != dtype or not fits:
            wanted = ", ".join(map(str, allowed))
            self._fail(
                f"{name} is {array.dtype} of shape {array.shape}; "
                f"it must be {np.dtype(dtype)} of shape ({wanted})"
            )

    def _check_finite(self, name: str, values: np.ndarray) -> None:
        broken = ~np.isfinite(values).all(axis=1)
        if broken.any():
            self._fail(f"{name} of frame {int(broken.argmax())} holds NaN or infinity")

    def _fail(self, sentence: str) -> None:
        raise ValueError(f"episode {self.source or '(unnamed)'}: {sentence}")

"""One episode: what the robot saw, what it was told, and what it should have done."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

POSE_SIZE = 7
"""The end effector's pose in `proprioception`: position (m), then quaternion x, y, z, w."""


@dataclass(frozen=True)
class Episode:
    """T frames of one task. ValueError names what does not fit together.

    instruction: what the robot was told.
    static, gripper: pictures of the two cameras, uint8 (T, height, width, 3) RGB.
    stamps_ns: when each frame was seen, int64 (T,), growing.
    actions: float32 (T, 7): six pose values in the model's units, then gripper -1 close or
        +1 open; None where nothing was recorded.
    proprioception: float32 (T, 7 + J): pose of the end effector, then J joint positions; or None.
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

    def __post_init__(self) -> None:
        if not isinstance(self.instruction, str):
            self._fail(f"its instruction is {self.instruction!r}; it must be text")
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
                self._check_finite(name)
        if self.actions is not None and not np.all(np.abs(self.actions[:, 6]) == 1):
            self._fail("its actions have a gripper value other than -1 (close) and +1 (open)")

    def __len__(self) -> int:
        return len(self.stamps_ns)

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

    def _check_finite(self, name: str) -> None:
        broken = ~np.isfinite(getattr(self, name)).all(axis=1)
        if broken.any():
            self._fail(f"{name} of frame {int(broken.argmax())} holds NaN or infinity")

    def _fail(self, sentence: str) -> None:
        raise ValueError(f"episode {self.source or '(unnamed)'}: {sentence}")

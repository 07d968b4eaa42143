"""Cameras that repeat one picture while the robot moves, as where a driver hangs.

A simulated scene in which nothing moves is drawn the same every time, so that only what comes while
steps move the robot counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from deer_ros.control.safety import Reason, Stop


@dataclass(eq=False)
class _Camera:
    data: Any = None
    first_ns: int = 0
    newest_ns: int = 0
    is_frozen: bool = False


class FrozenImages:
    """Times are the pictures' stamps. A camera that was found frozen stays so until it sends
    another picture, or until `restart`.
    """

    def __init__(self) -> None:
        self._cameras: dict[str, _Camera] = {}
        self._moving_from_ns: int | None = None

    def offer(self, camera: str, stamp_ns: int, data: Any) -> None:
        """A picture that is newer than the camera's last one. data: its bytes; None: not known."""
        source = self._cameras.setdefault(camera, _Camera())
        source.newest_ns = stamp_ns
        if not _same(source.data, data):
            source.data, source.first_ns, source.is_frozen = data, stamp_ns, False

    def moved(self, stamp_ns: int) -> None:
        """A step with pictures of that time moves the robot."""
        if self._moving_from_ns is None:
            self._moving_from_ns = stamp_ns

    def rested(self) -> None:
        """No step moves the robot any more."""
        self._moving_from_ns = None

    def restart(self) -> None:
        """What was seen so far no longer matters."""
        self._cameras.clear()
        self._moving_from_ns = None

    def stop(self, timeout_s: float) -> Stop | None:
        """Set if a camera has sent the same bytes for `timeout_s` or more; 0: never."""
        for camera, source in self._cameras.items():
            if timeout_s > 0 and self._moving_from_ns is not None:
                since_ns = max(source.first_ns, self._moving_from_ns)
                source.is_frozen |= source.newest_ns - since_ns >= timeout_s * 1e9
            if timeout_s > 0 and source.is_frozen:
                return Stop(
                    Reason.IMAGE_FROZEN,
                    f"camera/{camera}/image repeats the same picture, byte by byte, for longer "
                    f"than safety.frozen_image_timeout ({timeout_s:g} s).",
                )
        return None


def _same(before: Any, now: Any) -> bool:
    """Ends at the first difference, which in a real camera's pictures is among the first bytes."""
    if before is None or now is None or type(before) is not type(now):
        return False
    before, now = memoryview(before), memoryview(now)
    return before.nbytes == now.nbytes and before == now

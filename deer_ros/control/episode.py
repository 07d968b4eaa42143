"""An episode: the steps between two resets of the recurrent state."""

from __future__ import annotations

from deer_ros.control.safety import Reason, Stop


class Episode:
    """Numbers episodes and steps from 1, and ends an episode that has lasted long enough.

    `generation` changes with every restart, so that the result of a step that was begun before can
    be told from one that belongs here. `over` is set once the episode has ended, until `restart`.
    """

    def __init__(self) -> None:
        self.number = 1
        self.step = 0
        self.generation = 0
        self.reset_reason = ""
        self.over: Stop | None = None
        self._started_ns: int | None = None

    def restart(self, reason: str) -> None:
        """Begin a new episode with the next step."""
        if self.step:
            self.number += 1
        self.step = 0
        self.generation += 1
        self.reset_reason = reason
        self.over = None
        self._started_ns = None

    def ends(self, stamp_ns: int, max_duration_s: float) -> bool:
        """Whether a step at this stamp would come `max_duration_s` or more after the first."""
        if self._started_ns is not None and stamp_ns - self._started_ns >= max_duration_s * 1e9:
            self.over = Stop(
                Reason.EPISODE_OVER,
                f"the episode has lasted {max_duration_s:g} s (episode.max_duration); give a new "
                "instruction or call ~/reset.",
            )
        return self.over is not None

    def count_step(self, stamp_ns: int) -> None:
        """A step was made, with pictures of that time."""
        self.step += 1
        if self._started_ns is None:
            self._started_ns = stamp_ns

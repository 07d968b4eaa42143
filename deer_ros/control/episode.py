"""An episode: the steps between two resets of the recurrent state."""

from __future__ import annotations

from deer_ros.control.safety import Reason, Stop


class Episode:
    """Numbers episodes and steps from 1, and knows when an episode has lasted long enough.

    `generation` changes with every restart, so that the result of a step that was begun before can
    be told from one that belongs here. An episode that is over stays so until `restart`.
    """

    def __init__(self) -> None:
        self.number = 1
        self.step = 0
        self.generation = 0
        self.reset_reason = ""
        self._started_ns: int | None = None
        self._is_over = False

    def restart(self, reason: str) -> None:
        """Begin a new episode with the next step."""
        if self.step:
            self.number += 1
        self.step = 0
        self.generation += 1
        self.reset_reason = reason
        self._started_ns = None
        self._is_over = False

    def count_step(self, now_ns: int) -> None:
        """A step was made."""
        self.step += 1
        if self._started_ns is None:
            self._started_ns = now_ns

    def over(self, now_ns: int, max_duration_s: float) -> Stop | None:
        """Set once the episode has lasted `max_duration_s` since its first step."""
        if self._started_ns is not None and now_ns - self._started_ns >= max_duration_s * 1e9:
            self._is_over = True
        if not self._is_over:
            return None
        return Stop(
            Reason.EPISODE_OVER,
            f"the episode has lasted {max_duration_s:g} s (episode.max_duration); give a new "
            "instruction or call ~/reset.",
        )

"""What is strange about demonstrations as a whole, though every one of them can be read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from deer_ros.data.episode import Episode

PACE_TOLERANCE = 0.2
"""Cameras do not keep their rate exactly; twice or half of it is what is looked for."""
RARE = 0.01
"""So large a share of values beyond a model's reach is no slip of a hand."""


class Survey:
    """Looks at episodes as they pass."""

    def __init__(self, rate_hz: float) -> None:
        """rate_hz: of the model's steps."""
        self._rate_hz = rate_hz
        self._episodes = 0
        self._off_pace: list[tuple[float, str]] = []
        self._values = self._beyond = 0
        self._farthest = (0.0, "")

    def watched(self, episodes: Iterable[Episode]) -> Iterator[Episode]:
        """The same episodes, one by one."""
        for episode in episodes:
            self._look_at(episode)
            yield episode

    def pace(self) -> str | None:
        """A sentence where frames come at another rate than the model steps."""
        if not self._off_pace:
            return None
        rate_hz, source = self._off_pace[0]
        return (
            f"the frames of {len(self._off_pace)} of {self._episodes} episodes come at another "
            f"rate than the model's {self._rate_hz:g} Hz, as at {rate_hz:.3g} Hz in {source}; it "
            "will see another pace at run time than here. Give a new model the rate of the data "
            "(model.action.rate_hz), or take fewer frames of faster bags "
            f"(--param control_rate:={self._rate_hz:g})."
        )

    def reach(self) -> str | None:
        """A sentence where what was done is more than a model can answer, and no exception."""
        if self._beyond <= RARE * self._values:
            return None
        value, source = self._farthest
        return (
            f"{100 * self._beyond / self._values:.0f} % of the demonstrated pose values are beyond "
            f"-1 to 1, as {value:.3g} in {source}; a model answers from -1 to 1, and learns the "
            "ends instead. Say what one unit means: by model.action.linear_scale and angular_scale "
            "of a new model, or, of a LeRobot dataset, by --lerobot pose=, linear_scale= and "
            "angular_scale=."
        )

    def _look_at(self, episode: Episode) -> None:
        self._episodes += 1
        if len(episode) > 1:
            rate_hz = 1e9 / float(np.median(np.diff(episode.stamps_ns)))
            if abs(rate_hz / self._rate_hz - 1) > PACE_TOLERANCE:
                self._off_pace.append((rate_hz, episode.source))
        if episode.actions is not None:
            pose = np.abs(episode.actions[:, :6])
            self._values += pose.size
            self._beyond += int((pose > 1 + 1e-3).sum())
            if pose.max() > self._farthest[0]:
                self._farthest = (float(pose.max()), episode.source)

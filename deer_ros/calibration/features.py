"""What the head hears in demonstrations. It is all that a calibration needs of the network.

Everything below the head is the same whatever the recurrent state is, so one run of it serves
every rollout of the head that follows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from deer_ros.data.episode import Episode
from deer_ros.observation import Observation
from deer_ros.policy import DeerPolicy


@dataclass(frozen=True)
class Features:
    """Pooled features of M episodes back to back.

    values: (n, L, d) in the head's dtype, after each of `layers` (from 1). starts: int64 (M + 1,),
    where each episode starts, and n.
    """

    values: Tensor
    layers: tuple[int, ...]
    starts: np.ndarray

    @property
    def lengths(self) -> np.ndarray:
        """Steps of every episode."""
        return np.diff(self.starts)

    def chosen(self, episodes: np.ndarray) -> Features:
        """Some of the episodes, in that order."""
        steps = [np.arange(self.starts[e], self.starts[e + 1]) for e in episodes]
        starts = np.concatenate([[0], np.cumsum([len(s) for s in steps])]).astype(np.int64)
        return Features(self.values[np.concatenate(steps)], self.layers, starts)


def reference_layer(exit_layers: tuple[int, ...]) -> int | None:
    """The layer that the first exit is compared with at run time, or None where there is none."""
    return exit_layers[0] - 1 if exit_layers[0] > 1 else None


def at_steps(episode: Episode, rate_hz: float) -> Episode:
    """The frames of an episode that are nearest to the beginnings of steps, `rate_hz` a second.

    All of them where they come no faster than that.
    """
    seen = (episode.stamps_ns - episode.stamps_ns[0]) / 1e9
    half_frame = np.median(np.diff(seen)) / 2 if len(seen) > 1 else 0.0
    begun = np.arange(int((seen[-1] + half_frame) * rate_hz) + 1) / rate_hz
    after = np.searchsorted(seen, begun).clip(max=len(seen) - 1)
    before = (after - 1).clip(min=0)
    nearest = np.where(begun - seen[before] < seen[after] - begun, before, after)
    kept = np.unique(nearest)
    parts = ("static", "gripper", "stamps_ns", "actions", "proprioception", "state")
    arrays = {name: getattr(episode, name) for name in parts}
    return replace(
        episode, **{name: None if a is None else a[kept] for name, a in arrays.items()}
    )


def gather_features(
    policy: DeerPolicy,
    episodes: Iterable[Episode],
    layers: tuple[int, ...],
    progress: Callable[[int], None] = lambda steps: None,
    on_bad: Callable[[ValueError], None] | None = None,
) -> Features:
    """Run the policy's network over episodes, one in memory at a time.

    progress(steps) hears how many steps each episode had. on_bad: hears of an episode that the
    model cannot take, which is left out then; None: it is refused. Raises ValueError for that,
    where there is no episode, or an answer is not finite; the sentence names the episode.
    """
    values, lengths = [], []
    for episode in episodes:
        said = episode.instruction
        try:
            _check(episode, policy)
        except ValueError as error:
            if on_bad is None:
                raise
            on_bad(error)
            continue
        found = torch.stack(
            [policy.features(seen, said, layers) for seen in _observations(episode, policy)]
        )
        finite = torch.isfinite(found).flatten(1).all(dim=1)
        if not bool(finite.all()):
            raise ValueError(
                f"{episode.source or 'an episode'}: the model's features of frame "
                f"{int((~finite).int().argmax())} hold NaN or infinity."
            )
        values.append(found)
        lengths.append(len(episode))
        progress(len(episode))
    if not values:
        raise ValueError("there are no episodes to calibrate on.")
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return Features(torch.cat(values), layers, starts)


def _check(episode: Episode, policy: DeerPolicy) -> None:
    """ValueError naming the episode where the model cannot take it."""
    try:
        policy.prompts.encode(episode.instruction)
    except ValueError as error:
        raise ValueError(f"{episode.source or 'an episode'}: {error}") from error
    if policy.config.proprioception is not None:
        episode.proprioception_in(policy.config.proprioception.layout)


def _observations(episode: Episode, policy: DeerPolicy) -> Iterable[Observation]:
    read = policy.config.proprioception
    sensed = [None] * len(episode) if read is None else episode.proprioception_in(read.layout)
    yield from map(Observation, episode.static, episode.gripper, sensed)

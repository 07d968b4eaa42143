"""All frames of the demonstrations in arrays, and windows over them.

Pictures are kept as the tower's uint8 input, in a file beside the run, so that bags are decoded
once and a resumed run starts at once.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from deer_ros.data.episode import Episode
from deer_ros.model.preprocessing import Preprocessor

CAMERAS = 2


@dataclass(frozen=True)
class Frames:
    """N frames of E episodes, back to back.

    pictures: (N, 2, S, S, 3) uint8. actions: (N, 7) float32. states: (N, P) float32, or (N, 0)
    where the bags have none. starts: (E + 1,) int64, where each episode starts, and N.
    instructions: text of each episode.
    """

    pictures: np.ndarray
    actions: np.ndarray
    states: np.ndarray
    starts: np.ndarray
    instructions: tuple[str, ...]

    @property
    def lengths(self) -> np.ndarray:
        """Steps of every episode."""
        return np.diff(self.starts)

    def windows(self, episodes: np.ndarray, window: int) -> np.ndarray:
        """First frames of all windows of `window` steps in `episodes`; one of a shorter episode."""
        ranges = [
            np.arange(self.starts[e], max(self.starts[e], self.starts[e + 1] - window) + 1)
            for e in episodes
        ]
        return np.concatenate(ranges)


def split_episodes(count: int, holdout: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Episode numbers for training and for validation (at least one each)."""
    order = np.random.default_rng(seed).permutation(count)
    kept = min(count - 1, max(1, round(count * holdout)))
    return np.sort(order[kept:]), np.sort(order[:kept])


def load_frames(episodes: Iterable[Episode], size: int, cache: Path) -> Frames:
    """Read all episodes, or the cache of an earlier read. ValueError where there are none."""
    if not (cache / "done.json").exists():
        _write_cache(episodes, size, cache)
    meta = json.loads((cache / "done.json").read_text(encoding="utf-8"))
    if meta["size"] != size:
        raise ValueError(
            f"{cache} holds pictures of {meta['size']} pixels, the model takes {size}; use another "
            "run folder or delete it."
        )
    arrays = {name: np.load(cache / f"{name}.npy") for name in ("actions", "states", "starts")}
    shape = (len(arrays["actions"]), CAMERAS, size, size, 3)
    pictures = np.memmap(cache / "pictures.u8", np.uint8, "r", shape=shape)
    return Frames(pictures, **arrays, instructions=tuple(meta["instructions"]))


def _write_cache(episodes: Iterable[Episode], size: int, cache: Path) -> None:
    cache.mkdir(parents=True, exist_ok=True)
    preprocessor = Preprocessor(size)
    actions, states, starts, instructions = [], [], [0], []
    with (cache / "pictures.u8").open("wb") as file:
        for episode in episodes:
            if episode.actions is None:
                raise ValueError(f"{episode.source} has no actions; it cannot be trained on.")
            for pair in zip(episode.static, episode.gripper):
                for picture in pair:
                    file.write(np.ascontiguousarray(preprocessor.resize(picture)).tobytes())
            steps = len(episode.actions)
            actions.append(episode.actions)
            states.append(np.zeros((steps, 0)) if episode.state is None else episode.state)
            starts.append(starts[-1] + steps)
            instructions.append(episode.instruction)
    if not instructions:
        raise ValueError("there are no episodes to train on.")
    np.save(cache / "actions.npy", np.concatenate(actions).astype(np.float32))
    np.save(cache / "states.npy", np.concatenate(states).astype(np.float32))
    np.save(cache / "starts.npy", np.array(starts, np.int64))
    meta = {"size": size, "instructions": instructions}
    (cache / "done.json").write_text(json.dumps(meta), encoding="utf-8")

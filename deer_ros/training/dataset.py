"""All frames of the demonstrations in arrays, and windows over them.

Pictures are kept as the tower's uint8 input, in a file beside the run, so that bags are decoded
once and a resumed run starts at once.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from deer_ros.data.caches import reading
from deer_ros.data.episode import Episode
from deer_ros.model.preprocessing import Preprocessor
from deer_ros.model.prompt import PromptEncoder

CAMERAS = 2


@dataclass(frozen=True)
class Frames:
    """N frames of E episodes, back to back.

    pictures: (N, 2, S, S, 3) uint8. actions: (N, 7) float32. states: (N, S) float32, or (N, 0)
    where the bags have none. starts: (E + 1,) int64, where each episode starts, and N.
    instructions: text of each episode. proprioception: (N, P) float32 as the layout asks for, or
    None where it asks for nothing.
    """

    pictures: np.ndarray
    actions: np.ndarray
    states: np.ndarray
    starts: np.ndarray
    instructions: tuple[str, ...]
    proprioception: np.ndarray | None = None

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


@dataclass(frozen=True)
class Needs:
    """What an episode must bring. shortest: steps. layout: values of the robot's proprioception.

    prompts: raises ValueError for an instruction that the model cannot take; None: it takes any.
    """

    shortest: int = 1
    layout: tuple[str, ...] = ()
    prompts: PromptEncoder | None = None

    def check(self, episode: Episode) -> None:
        """ValueError naming the episode where it lacks something."""
        if episode.actions is None:
            raise ValueError(f"{episode.source} has no actions; it cannot be trained on.")
        if len(episode) < self.shortest:
            raise ValueError(
                f"{episode.source} has {len(episode)} steps; a window has {self.shortest}. Set "
                "policy.window to less, or policy.pad_short_episodes to true."
            )
        if self.layout:
            episode.proprioception_in(self.layout)
        if self.prompts is not None:
            try:
                self.prompts.encode(episode.instruction)
            except ValueError as error:
                raise ValueError(f"{episode.source or 'an episode'}: {error}") from error


OnBad = Callable[[ValueError], None]


def is_read(cache: Path) -> bool:
    """Whether an earlier read has left all of its frames there."""
    return (cache / "done.json").exists()


def load_frames(
    episodes: Iterable[Episode],
    size: int,
    cache: Path,
    needs: Needs | None = None,
    on_bad: OnBad | None = None,
) -> Frames:
    """Read all episodes, or the cache of an earlier read.

    on_bad: hears of an episode that lacks something, which is left out then; None: it is refused.
    Raises ValueError for that, where no episode is left, and naming a file of the cache that was
    damaged since.
    """
    needs = needs or Needs()
    if not is_read(cache):
        _write_cache(episodes, size, cache, needs, on_bad)
    with reading(cache / "done.json", cache):
        meta = json.loads((cache / "done.json").read_text(encoding="utf-8"))
        held, instructions = (meta["size"], tuple(meta.get("layout", ()))), meta["instructions"]
    if held != (size, needs.layout):
        raise ValueError(
            f"{cache} holds pictures of {held[0]} pixels and the proprioception {list(held[1])}; "
            f"the model takes {size} and {list(needs.layout)}. Use another run folder or delete it."
        )
    arrays = {name: _array(cache, name) for name in ("actions", "states", "starts")}
    sensed = _array(cache, "proprioception") if needs.layout else None
    shape = (len(arrays["actions"]), CAMERAS, size, size, 3)
    with reading(cache / "pictures.u8", cache):
        pictures = np.memmap(cache / "pictures.u8", np.uint8, "r", shape=shape)
    return Frames(
        pictures, **arrays, instructions=tuple(instructions), proprioception=sensed
    )


def _array(cache: Path, name: str) -> np.ndarray:
    file = cache / f"{name}.npy"
    with reading(file, cache):
        return np.load(file)


def _write_cache(
    episodes: Iterable[Episode], size: int, cache: Path, needs: Needs, on_bad: OnBad | None
) -> None:
    unfinished = cache.with_name(cache.name + ".unfinished")
    for folder in (unfinished, cache):
        shutil.rmtree(folder, ignore_errors=True)
    unfinished.mkdir(parents=True)
    try:
        _write_frames(episodes, size, unfinished, needs, on_bad)
        unfinished.rename(cache)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _write_frames(
    episodes: Iterable[Episode], size: int, folder: Path, needs: Needs, on_bad: OnBad | None
) -> None:
    preprocessor = Preprocessor(size)
    actions, states, sensed, starts, instructions = [], [], [], [0], []
    with (folder / "pictures.u8").open("wb") as file:
        for episode in episodes:
            try:
                needs.check(episode)
            except ValueError as error:
                if on_bad is None:
                    raise
                on_bad(error)
                continue
            for pair in zip(episode.static, episode.gripper):
                for picture in pair:
                    file.write(np.ascontiguousarray(preprocessor.resize(picture)).tobytes())
            steps = len(episode)
            actions.append(episode.actions)
            states.append(np.zeros((steps, 0)) if episode.state is None else episode.state)
            sensed.append(episode.proprioception_in(needs.layout) if needs.layout else None)
            starts.append(starts[-1] + steps)
            instructions.append(episode.instruction)
    if not instructions:
        raise ValueError("there are no episodes to train on.")
    widths = {state.shape[1] for state in states}
    if len(widths) > 1:
        # Only the simulator's own demonstrations need a state, and theirs has one width.
        states = [np.zeros((len(state), 0)) for state in states]
    np.save(folder / "actions.npy", np.concatenate(actions).astype(np.float32))
    np.save(folder / "states.npy", np.concatenate(states).astype(np.float32))
    np.save(folder / "starts.npy", np.array(starts, np.int64))
    if needs.layout:
        np.save(folder / "proprioception.npy", np.concatenate(sensed).astype(np.float32))
    meta = {"size": size, "instructions": instructions, "layout": needs.layout}
    (folder / "done.json").write_text(json.dumps(meta), encoding="utf-8")

"""One model for several runs over the same pictures: what they share is computed once.

Tower, resampler and layers depend on the pictures and the prompt alone. The recurrent state, which
depends on the exits that a run took, enters in the head only. So every run has its own head calls,
on the layers' outputs that all share, and each answer is exactly what a run of its own would give.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from torch import Tensor

from deer_ros.model.action_head import HeadState
from deer_ros.model.deer import Answer, DeerModel
from deer_ros.model.language import Prompt
from deer_ros.replay.virtual_time import VirtualTimes


class VirtualClock:
    """Seconds that pass only when they are told to."""

    def __init__(self) -> None:
        self._now_s = 0.0

    def __call__(self) -> float:
        return self._now_s

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self._now_s += seconds


class SharedModel:
    """Stands in for a DeerModel in the policies of all runs.

    `clock` passes by what each part takes: as `times` say, or, without them, as it took when it was
    computed. What was computed for another run takes its time again.
    """

    def __init__(self, model: DeerModel, clock: VirtualClock, times: VirtualTimes | None) -> None:
        self._model = model
        self._clock = clock
        self._times = times
        self._prompts: dict[bytes, Prompt] = {}
        self.start()

    def __getattr__(self, name: str) -> object:
        return getattr(self._model, name)

    def start(self) -> None:
        """Other pictures follow: forget what was computed."""
        self._latents: tuple[Tensor, float] | None = None
        self._hidden: dict[int, list[tuple[Tensor, Tensor, float]]] = {}

    def read(self, ids: Tensor, mask: Tensor | None = None) -> Prompt:
        """As DeerModel.read; the same ids give the same object."""
        key = ids.cpu().numpy().tobytes()
        if key not in self._prompts:
            self._prompts[key] = self._model.read(ids, mask)
        return self._prompts[key]

    def see(self, pictures: Tensor) -> Tensor:
        """As DeerModel.see, of the present pictures."""
        if self._latents is None:
            told_s = None if self._times is None else self._times.see_s
            self._latents = timed(lambda: self._model.see(pictures), told_s)
        latents, seconds = self._latents
        self._clock.advance(seconds)
        return latents

    def answers(
        self, prompt: Prompt, latents: Tensor, state: HeadState, layers: Sequence[int]
    ) -> Iterator[Answer]:
        """As DeerModel.answers: computed as they are asked."""
        times, head_s, done = self._times, 0.0, 0
        carried, seconds = timed(
            lambda: self._model.head.carry(state), None if times is None else times.recurrent_s
        )
        head_s += seconds
        self._clock.advance(seconds)
        for layer in layers:
            features = self._features(prompt, latents, done, layer)
            done = layer
            output, seconds = timed(
                lambda features=features, layer=layer: self._model.head.step(
                    features, state, carried, layer
                ),
                None if times is None else times.head_s(layer),
            )
            head_s += seconds
            self._clock.advance(seconds)
            yield Answer.of(layer, output, head_s)

    def _features(self, prompt: Prompt, latents: Tensor, done: int, layer: int) -> Tensor:
        """Pooled output of a layer (N, d); time passes for those after `done`."""
        known = self._hidden.setdefault(id(prompt), [])
        for number in range(len(known), layer):
            before = known[-1][0] if known else prompt.embedding
            block = self._model.layers[number]
            hidden, seconds = timed(
                lambda block=block, before=before: block(before, latents, prompt),
                None if self._times is None else self._times.layer_s(number + 1),
            )
            known.append((hidden, self._model.head.hear(hidden, number + 1), seconds))
        self._clock.advance(sum(seconds for _, _, seconds in known[done:layer]))
        return known[layer - 1][1]


class SharedPreprocessor:
    """Stands in for a Preprocessor: each of the present pictures is prepared once."""

    def __init__(
        self,
        preprocess: Callable[[np.ndarray], np.ndarray],
        clock: VirtualClock,
        times: VirtualTimes | None,
    ) -> None:
        self._preprocess = preprocess
        self._clock = clock
        self._told_s = None if times is None else times.picture_s
        self.start()

    def start(self) -> None:
        """Other pictures follow."""
        self._done: dict[int, tuple[np.ndarray, np.ndarray, float]] = {}

    def __call__(self, picture: np.ndarray) -> np.ndarray:
        if id(picture) not in self._done:
            prepared, seconds = timed(lambda: self._preprocess(picture), self._told_s)
            # The picture is kept, too: another one may not get its id.
            self._done[id(picture)] = picture, prepared, seconds
        _, prepared, seconds = self._done[id(picture)]
        self._clock.advance(seconds)
        return prepared


def timed(call: Callable[[], object], told_s: float | None) -> tuple[object, float]:
    """What a call returns, and its seconds: as told, or as measured where nothing is told."""
    started = time.perf_counter()
    result = call()
    measured = time.perf_counter() - started
    return result, measured if told_s is None else told_s

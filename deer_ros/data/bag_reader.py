"""Reads episodes out of recordings, one in memory at a time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from deer_ros.control.sampler import Offer, Pair, Picture, Sampler
from deer_ros.data import images
from deer_ros.data.bag_format import BagError, find_recordings
from deer_ros.data.bag_inputs import AS_DELIVERED, BagInputs
from deer_ros.data.bag_said import Said
from deer_ros.data.bag_topics import check_instruction, find_topics, kinds_to_read
from deer_ros.data.episode import Episode
from deer_ros.data.frames import (
    Pictures,
    Resize,
    Seen,
    actions,
    proprioception,
    states,
    unbroken,
)
from deer_ros.data.recording import Recording
from deer_ros.data.stamps import stamp_ns
from deer_ros.data.units import ActionUnits, check_units


def read_episodes(
    path: str | Path, action: ActionUnits, inputs: BagInputs = AS_DELIVERED
) -> Iterator[Episode]:
    """The episodes of a recording, or of all recordings in a folder.

    Frames are the pairs of pictures that the node would make steps with; each is joined by the
    newest message of every other topic at the time of its static picture. Frames that lack one, as
    at the start of a recording, are left out. An episode begins with a new instruction, after a gap
    (of pictures, or of frames that were left out) and where the clock was set.

    Actions are the recorded velocities and openings, where there are both, or else what the node
    commanded.

    Args:
        path: a bag's folder, one of its files, or a folder of bags.
        action: the units that the episodes' actions shall have.

    Raises:
        FileNotFoundError, ValueError: at once, where there is no bag at `path`, or where actions
            are not in the frame 'world'.
        BagError (a ValueError): while iterating, naming the bag that is damaged, lacks a topic
            or holds something that is no episode.
    """
    return read_all_episodes([path], action, inputs=inputs)


def read_all_episodes(
    paths: Iterable[str | Path],
    action: ActionUnits,
    on_bad: Callable[[ValueError], None] | None = None,
    inputs: BagInputs = AS_DELIVERED,
    resize: Resize | None = None,
) -> Iterator[Episode]:
    """As `read_episodes`, for several bags or folders of bags, one after the other.

    on_bad: hears of every episode that cannot be used, which is left out then, and of everything
    else that is lost: what can be read of a damaged bag is used. None: they are refused.
    resize: what is kept of every picture, from when it is read; None: all of it.
    """
    check_units(action)
    found = [bag for path in paths for bag in find_recordings(path)]
    return (
        episode for bag in found
        for episode in _usable_episodes(bag, action, on_bad, inputs, resize)
    )


def _usable_episodes(
    path: Path, action: ActionUnits, on_bad: Callable[[ValueError], None] | None,
    inputs: BagInputs, resize: Resize | None,
) -> Iterator[Episode]:
    try:
        with Recording(path) as recording:
            yield from _Reader(recording, action, on_bad, inputs, resize).episodes()
    except BagError as error:
        if on_bad is None:
            raise
        on_bad(error)


@dataclass
class _Frames:
    """Frames in lists. numbers: of the pairs that they were made of."""

    static: Pictures
    gripper: Pictures
    numbers: list[int] = field(default_factory=list)
    stamps_ns: list[int] = field(default_factory=list)
    said: list[dict[str, Any]] = field(default_factory=list)


class _Reader:
    """Forms the episodes of one recording, message by message."""

    def __init__(
        self,
        recording: Recording,
        units: ActionUnits,
        on_bad: Callable[[ValueError], None] | None,
        inputs: BagInputs,
        resize: Resize | None,
    ) -> None:
        self._recording = recording
        self._on_bad = on_bad
        self._inputs = inputs
        self._resize = resize
        self._lost: Counter = Counter()
        if on_bad is None:
            self._refuse_losses()
        self._instruction = inputs.instruction or inputs.first_instruction
        topics = find_topics(recording, inputs.names, inputs.transport)
        check_instruction(recording, topics, self._instruction)
        self._cameras = {topic: camera for camera, topic in topics.cameras.items()}
        self._kinds = kinds_to_read(recording, topics)
        self._said = Said(self._kinds, units, inputs.frame_id)
        self._sampler = Sampler(
            1 / inputs.rate_hz if inputs.rate_hz else 0.0, inputs.max_skew_s, inputs.gap_s)
        self._pairs: list[Pair] = []
        self._late_ns = 0
        self._count = 0

    def episodes(self) -> Iterator[Episode]:
        """All of them, in the order of the recording."""
        wanted = {*self._cameras, *self._kinds}
        for topic, recorded_ns, data in self._recording.messages(wanted):
            yield from self._take(topic, recorded_ns, data)
        yield from self._finished()
        if self._on_bad is None:
            self._refuse_losses()
        if self._count == 0:
            self._lost[self._why_nothing()] += 1
        losses = [*self._recording.losses, *map(_counted, self._lost.items())]
        if losses:
            raise BagError(self._recording.path, "; ".join(losses))

    def _take(self, topic: str, recorded_ns: int, data: bytes) -> Iterator[Episode]:
        kind = self._kinds.get(topic)
        try:
            message = self._recording.decode(topic, data)
        except ValueError as error:
            self._lose(f"{topic}: {error}")
            if kind == "instruction":
                # What follows was done for words that nobody knows.
                yield from self._on_instruction("")
            elif kind is not None:
                self._said.lose(kind, recorded_ns)
            return
        if kind is None:
            yield from self._on_picture(self._cameras[topic], recorded_ns, message)
        elif kind == "instruction":
            yield from self._on_instruction(message.data)
        else:
            try:
                self._said.add(kind, recorded_ns, message)
            except ValueError as error:
                # It is no damage: all of the topic means something else than it is taken for.
                raise BagError(self._recording.path, f"{topic}: {error}") from error

    def _on_instruction(self, text: str) -> Iterator[Episode]:
        if self._inputs.instruction or text == self._instruction:
            return
        yield from self._finished()
        self._instruction = text
        # What was seen before belongs to what was wanted before.
        self._sampler.forget()

    def _on_picture(self, camera: str, recorded_ns: int, message: Any) -> Iterator[Episode]:
        if not self._instruction.strip():
            return
        time_ns = stamp_ns(message.header.stamp)
        if self._sampler.offer(camera, time_ns, message) is Offer.CLOCK_JUMPED:
            yield from self._finished()
            self._said.forget()
        while (pair := self._sampler.take()) is not None:
            if pair.new_episode is not None:
                yield from self._finished()
            if self._resize is not None:
                pair = replace(
                    pair, static=self._small(pair.static), gripper=self._small(pair.gripper))
            self._pairs.append(pair)
            self._late_ns = recorded_ns - time_ns

    def _small(self, picture: Picture) -> Picture:
        """At once, not with its episode: large pictures of a long one may not fit into memory."""
        try:
            return replace(picture, payload=self._seen(picture.payload))
        except ValueError:
            return picture  # said with its episode

    def _seen(self, message: Any) -> Seen:
        return Seen.of(images.to_rgb(message), self._resize)

    def _finished(self) -> Iterator[Episode]:
        """The episodes of the pairs so far: one, but for holes and what cannot be used."""
        pairs, self._pairs = self._pairs, []
        if not pairs:
            return
        last_ns = pairs[-1].static.stamp_ns
        try:
            frames = self._frames(pairs)
        except ValueError as error:
            self._refuse(error)
        else:
            for part in unbroken(frames.numbers, frames.stamps_ns, self._inputs.gap_s):
                try:
                    episode = self._episode(frames, part)
                except ValueError as error:
                    self._refuse(error)
                else:
                    self._count += 1
                    yield episode
        self._said.forget_before(last_ns)

    def _frames(self, pairs: list[Pair]) -> _Frames:
        """The frames that are whole, their pictures decoded."""
        stamps_ns = [pair.static.stamp_ns for pair in pairs]
        if not any(stamps_ns):
            raise ValueError("the stamps of its static pictures are all 0")
        said = self._said.at(stamps_ns, self._late_ns)
        frames = _Frames(static=Pictures(len(pairs)), gripper=Pictures(len(pairs)))
        for number, pair in enumerate(pairs):
            if said[number] is None or (pictures := self._pictures(pair)) is None:
                continue
            frames.numbers.append(number)
            frames.stamps_ns.append(stamps_ns[number])
            frames.said.append(said[number])
            frames.static.add(pictures[0])
            frames.gripper.add(pictures[1])
        if not frames.numbers:
            raise ValueError("none of its pictures can be read")
        return frames

    def _pictures(self, pair: Pair) -> list[Seen] | None:
        """The static and the gripper's, uint8 RGB; None where one cannot be read."""
        pictures = []
        for camera, picture in (("static", pair.static), ("gripper", pair.gripper)):
            try:
                held = picture.payload
                pictures.append(held if isinstance(held, Seen) else self._seen(held))
            except ValueError as error:
                if self._on_bad is None:
                    raise
                self._lose(f"camera/{camera}: {error}")
                return None
        return pictures

    def _episode(self, frames: _Frames, part: slice) -> Episode:
        said = frames.said[part]
        sensed, names = proprioception(said)
        return Episode(
            instruction=self._instruction,
            static=frames.static.array()[part],
            gripper=frames.gripper.array()[part],
            stamps_ns=np.array(frames.stamps_ns[part], np.int64),
            actions=actions(said),
            proprioception=sensed,
            proprioception_names=names,
            state=states(said),
            source=f"{self._recording.path}#{self._count}",
        )

    def _refuse(self, error: ValueError) -> None:
        """An episode that cannot be used."""
        bad = BagError(self._recording.path, f"episode {self._count} cannot be used: {error}")
        self._count += 1
        if self._on_bad is None:
            raise bad from error
        self._on_bad(bad)

    def _why_nothing(self) -> str:
        if self._sampler.seen == 0:
            return "it holds no picture that follows an instruction"
        for topic, camera in self._cameras.items():
            if self._sampler.newest_ns(camera) == 0:
                return f"the stamps of {topic} are all 0"
        return f"no two of its pictures are within {self._inputs.max_skew_s} s (image.max_skew)"

    def _lose(self, sentence: str) -> None:
        if self._on_bad is None:
            raise BagError(self._recording.path, f"it is damaged: {sentence}")
        self._lost[sentence] += 1

    def _refuse_losses(self) -> None:
        if self._recording.losses:
            raise BagError(
                self._recording.path,
                f"it is damaged or was not finished: {'; '.join(self._recording.losses)} "
                "(--skip-bad uses what can be read)",
            )


def _counted(lost: tuple[str, int]) -> str:
    sentence, times = lost
    return sentence if times == 1 else f"{sentence} ({times} times)"

"""Reads episodes out of recordings, one in memory at a time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from deer_ros.control.sampler import Offer, Pair, Sampler
from deer_ros.data import images
from deer_ros.data.bag_format import BagError, find_recordings
from deer_ros.data.bag_topics import Names, Topics, check_instruction, find_topics, has
from deer_ros.data.columns import Column
from deer_ros.data.episode import Episode
from deer_ros.data.frames import proprioception, stacked, states
from deer_ros.data.recorded import OLDEST_NS, Recorded
from deer_ros.data.recording import Recording
from deer_ros.data.stamps import stamp_ns
from deer_ros.data.units import ActionUnits, check_units

SENSED = ("pose", "joints", "state")
COMMANDS = ("twist", "opening", "action")


@dataclass(frozen=True)
class BagInputs:
    """What of a recording is what, and which pictures belong together: as the node has it.

    names: of the topics. transport: `raw` or `compressed` pictures; None: what is there.
    max_skew_s: of two pictures of a frame. gap_s: a longer time between pictures ends an episode.
    rate_hz: frames per second at most; 0: all. instruction: instead of those in the bags.
    first_instruction: until one comes. Empty texts are none.
    """

    names: Names = Names()
    transport: str | None = None
    max_skew_s: float = 0.05
    gap_s: float = 0.5
    rate_hz: float = 0.0
    instruction: str = ""
    first_instruction: str = ""


AS_DELIVERED = BagInputs()
"""Names and rules that nobody has changed."""


def read_episodes(
    path: str | Path, action: ActionUnits, inputs: BagInputs = AS_DELIVERED
) -> Iterator[Episode]:
    """The episodes of a recording, or of all recordings in a folder.

    Frames are the pairs of pictures that the node would make steps with; each is joined by the
    newest message of every other topic at the time of its static picture. Frames that lack one, as
    at the start of a recording, are left out. An episode begins with a new instruction, after a gap
    and where the clock was set.

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
) -> Iterator[Episode]:
    """As `read_episodes`, for several bags or folders of bags, one after the other.

    on_bad: hears of every episode that cannot be used, which is left out then, and of everything
    else that is lost: what can be read of a damaged bag is used. None: they are refused.
    """
    check_units(action)
    found = [bag for path in paths for bag in find_recordings(path)]
    return (episode for bag in found for episode in _usable_episodes(bag, action, on_bad, inputs))


def _usable_episodes(
    path: Path, action: ActionUnits, on_bad: Callable[[ValueError], None] | None, inputs: BagInputs
) -> Iterator[Episode]:
    try:
        with Recording(path) as recording:
            yield from _Reader(recording, action, on_bad, inputs).episodes()
    except BagError as error:
        if on_bad is None:
            raise
        on_bad(error)


class _Reader:
    """Forms the episodes of one recording, message by message."""

    def __init__(
        self,
        recording: Recording,
        units: ActionUnits,
        on_bad: Callable[[ValueError], None] | None,
        inputs: BagInputs,
    ) -> None:
        self._recording = recording
        self._on_bad = on_bad
        self._inputs = inputs
        self._lost: Counter = Counter()
        if on_bad is None:
            self._refuse_losses()
        self._instruction = inputs.instruction or inputs.first_instruction
        topics = find_topics(recording, inputs.names, inputs.transport)
        check_instruction(recording, topics, self._instruction)
        self._cameras = {topic: camera for camera, topic in topics.cameras.items()}
        self._kinds = _kinds_to_read(recording, topics)
        self._has_actions = not set(self._kinds.values()).isdisjoint(COMMANDS)
        self._columns: dict[str, Column] = {
            kind: Column() for kind in SENSED if kind in self._kinds.values()
        }
        self._recorded = Recorded(units)
        self._sampler = Sampler(
            1 / inputs.rate_hz if inputs.rate_hz else 0.0, inputs.max_skew_s, inputs.gap_s)
        self._pairs: list[Pair] = []
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
            self._lost["it holds no picture that follows an instruction"] += 1
        losses = [*self._recording.losses, *map(_counted, self._lost.items())]
        if losses:
            raise BagError(self._recording.path, "; ".join(losses))

    def _take(self, topic: str, recorded_ns: int, data: bytes) -> Iterator[Episode]:
        try:
            message = self._recording.decode(topic, data)
        except ValueError as error:
            self._lose(f"{topic}: {error}")
            self._hole(topic, recorded_ns)
            return
        if topic in self._cameras:
            yield from self._on_picture(self._cameras[topic], message)
            return
        kind = self._kinds[topic]
        if kind == "instruction":
            yield from self._on_instruction(message.data)
        elif kind in SENSED:
            header = getattr(message, "header", None)
            time_ns = recorded_ns if header is None else stamp_ns(header.stamp)
            self._columns[kind].add(time_ns, message)
        elif kind == "twist":
            self._recorded.twist(message)
        elif kind == "opening":
            self._recorded.opening(recorded_ns, message)
        elif message.commanded:
            self._recorded.action(message)

    def _on_instruction(self, text: str) -> Iterator[Episode]:
        if self._inputs.instruction or text == self._instruction:
            return
        yield from self._finished()
        self._instruction = text
        # What was seen before belongs to what was wanted before.
        self._sampler.forget()

    def _on_picture(self, camera: str, message: Any) -> Iterator[Episode]:
        if not self._instruction.strip():
            return
        time_ns = stamp_ns(message.header.stamp)
        if self._sampler.offer(camera, time_ns, message) is Offer.CLOCK_JUMPED:
            yield from self._finished()
            self._recorded.forget()
            for column in self._columns.values():
                column.clear()
        while (pair := self._sampler.take()) is not None:
            if pair.new_episode is not None:
                yield from self._finished()
            self._pairs.append(pair)

    def _finished(self) -> Iterator[Episode]:
        """The episode of the pairs so far, if there are any and it can be used."""
        pairs, self._pairs = self._pairs, []
        if not pairs:
            return
        source = f"{self._recording.path}#{self._count}"
        self._count += 1
        try:
            yield self._episode(pairs, source)
        except ValueError as error:
            number = self._count - 1
            bad = BagError(self._recording.path, f"episode {number} cannot be used: {error}")
            if self._on_bad is None:
                raise bad from error
            self._on_bad(bad)
        last_ns = pairs[-1].static.stamp_ns
        self._recorded.forget_before(last_ns)
        for column in self._columns.values():
            column.forget_before(last_ns)

    def _episode(self, pairs: list[Pair], source: str) -> Episode:
        frames = [frame for pair in pairs if (frame := self._frame(pair)) is not None]
        if not frames:
            needed = ", ".join(sorted({*self._cameras, *self._kinds}))
            raise ValueError(f"no static picture has all of {needed} at its time")
        columns = {name: [frame[name] for frame in frames] for name in frames[0]}
        sensed, names = proprioception(columns)
        return Episode(
            instruction=self._instruction,
            static=stacked(columns["static"]),
            gripper=stacked(columns["gripper"]),
            stamps_ns=np.array(columns["stamp_ns"], np.int64),
            actions=np.array(columns["action"], np.float32) if self._has_actions else None,
            proprioception=sensed,
            proprioception_names=names,
            state=states(columns),
            source=source,
        )

    def _frame(self, pair: Pair) -> dict[str, Any] | None:
        """All that was said when its static picture was taken; None where something lacks."""
        time_ns = pair.static.stamp_ns
        frame = {
            kind: column.newest(time_ns, OLDEST_NS) for kind, column in self._columns.items()
        }
        if self._has_actions:
            frame["action"] = self._recorded.whole_at(time_ns)
        if any(value is None for value in frame.values()):
            return None
        for camera, picture in (("static", pair.static), ("gripper", pair.gripper)):
            try:
                frame[camera] = images.to_rgb(picture.payload)
            except ValueError as error:
                if self._on_bad is None:
                    raise
                self._lose(f"camera/{camera}: {error}")
                return None
        return frame | {"stamp_ns": time_ns}

    def _hole(self, topic: str, recorded_ns: int) -> None:
        """Nobody knows what was said: what was said before does not stand for it."""
        kind = self._kinds.get(topic)
        if kind in self._columns:
            self._columns[kind].add(recorded_ns, None)
        elif kind == "twist":
            self._recorded.lost_twist(recorded_ns)
        elif kind == "opening":
            self._recorded.lost_opening(recorded_ns)

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


def _kinds_to_read(recording: Recording, topics: Topics) -> dict[str, str]:
    """What each topic that is there is for, the cameras' apart.

    What a demonstrator did goes before what a policy said at the same time.
    """
    kinds = {topic: kind for topic, (kind, _) in topics.kinds.items() if has(recording, topic)}
    if not {topics.twist, topics.opening} <= kinds.keys():
        for topic in (topics.twist, topics.opening):
            kinds.pop(topic, None)
        if has(recording, topics.action):
            kinds[topics.action] = "action"
    return kinds


def _counted(lost: tuple[str, int]) -> str:
    sentence, times = lost
    return sentence if times == 1 else f"{sentence} ({times} times)"

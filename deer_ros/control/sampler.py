"""When a step starts, and with which two pictures.

Used alike by the node, where messages arrive, and by replay, where a bag plays them. It never reads
a clock: all its times are the pictures' own stamps.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Any

STATIC = "static"
GRIPPER = "gripper"
CAMERAS = (STATIC, GRIPPER)

GAP = "gap in observations"
CLOCK_JUMPED = "clock jumped"

# Pictures kept per camera: enough to find the partner of one that came late, few enough to forget.
KEPT_PICTURES = 4
# A picture may come early by this share of a period: cameras do not stamp on the dot.
JITTER = 0.2
# A camera's clock may be faster than it says by this share; without it, one frame of a 20.1 Hz
# camera would be skipped every few seconds at a control rate of 20 Hz.
DRIFT = 0.02


class Offer(Enum):
    """What became of a picture that was offered."""

    KEPT = "kept"
    REPEATED = "repeated"
    LATE = "late"
    CLOCK_JUMPED = "clock jumped"


@dataclass(frozen=True, eq=False)
class Picture:
    """stamp_ns: of the message's header. payload: whatever the caller wants back."""

    stamp_ns: int
    payload: Any


@dataclass(frozen=True, eq=False)
class Pair:
    """The input of one step. new_episode: why the recurrent state must be cleared, or None."""

    static: Picture
    gripper: Picture
    new_episode: str | None

    @property
    def stamp_ns(self) -> int:
        """The newer of both stamps: the time of this step."""
        return max(self.static.stamp_ns, self.gripper.stamp_ns)

    @property
    def skew_s(self) -> float:
        """Difference of the two stamps, never negative."""
        return abs(self.static.stamp_ns - self.gripper.stamp_ns) / 1e9


@dataclass(eq=False)
class _Kept:
    picture: Picture
    has_partner: bool = False


@dataclass
class _Camera:
    newest_ns: int | None = None
    repeats: int = 0
    kept: list[_Kept] = field(default_factory=list)


class Sampler:
    """Pairs the newest pictures of two cameras, at most one pair per step.

    The pair: the newest picture of the camera that is behind, and the other camera's picture
    nearest to it in time. Both must be newer than what the last step used of their camera, and at
    most `max_skew_s` apart. No stamp is used twice; a picture that comes again, or that is older
    than its camera's newest, is ignored.

    The period: a step lasts one control period, or several where an action is carried out several
    times. A pair is due a step after the one before was due, or after its stamp if that was later.
    It may come early by JITTER of a period, so that a 20 Hz camera whose stamps tremble runs at a
    control rate of 20 Hz without losing every second frame; and as what came early is owed, steps
    that last n periods together take at least n (1 - DRIFT) - JITTER periods all the same.

    A new episode: a camera's stamps that jump forward by more than `gap_s` are a gap in what was
    seen. Stamps that fall back by more than that mean that the clock was set: everything kept is
    forgotten. Both are said with the next pair.
    """

    def __init__(
        self, period_s: float, max_skew_s: float, gap_s: float, periods_per_step: int = 1
    ) -> None:
        self.seen = 0
        self.used = 0
        self.refused = 0
        self.set_times(period_s, max_skew_s, gap_s, periods_per_step)
        self.forget()

    def set_times(
        self, period_s: float, max_skew_s: float, gap_s: float, periods_per_step: int = 1
    ) -> None:
        """Change the control period, what a step lasts, the largest skew and the gap."""
        self._jitter_ns = round(JITTER * period_s * 1e9)
        self._step_ns = round((1 - DRIFT) * periods_per_step * period_s * 1e9)
        self._max_skew_ns = round(max_skew_s * 1e9)
        self._gap_ns = round(gap_s * 1e9)

    def forget(self, new_episode: str | None = None) -> None:
        """Forget pictures and stamps, not the counters. new_episode: told with the next pair."""
        self._cameras = {name: _Camera() for name in CAMERAS}
        self._due_from_ns: int | None = None
        self._new_episode = new_episode

    def starts_episode(self) -> None:
        """The caller starts a new episode by itself: what was noted to say so is no news."""
        self._new_episode = None

    def newest_ns(self, camera: str) -> int | None:
        """Stamp of the newest picture that came from a camera, used or not."""
        return self._cameras[camera].newest_ns

    def repeats(self, camera: str) -> int:
        """Pictures that have come from a camera after its newest one, with no newer stamp."""
        return self._cameras[camera].repeats

    def count_unreadable(self) -> None:
        """Count a picture that was not offered, because it cannot be read."""
        self.seen += 1
        self.refused += 1

    def give_back(self, unreadable: int) -> None:
        """Count the last pair as not used; `unreadable` of its pictures turned out to be so."""
        self.used -= 2
        self.refused += unreadable

    def offer(self, camera: str, stamp_ns: int, payload: Any) -> Offer:
        """Take a picture in. The payload is only kept, never looked at."""
        self.seen += 1
        source = self._cameras[camera]
        result = self._judge(source, stamp_ns)
        if result is Offer.CLOCK_JUMPED:
            self.forget(CLOCK_JUMPED)
            source = self._cameras[camera]
        if result is Offer.LATE:
            self.refused += 1
        if result in (Offer.LATE, Offer.REPEATED):
            source.repeats += 1
            return result
        source.newest_ns, source.repeats = stamp_ns, 0
        source.kept.append(_Kept(Picture(stamp_ns, payload)))
        self._note_partners(camera)
        self._drop(source, source.kept[:-KEPT_PICTURES])
        return result

    def take(self) -> Pair | None:
        """The next step's pair, if one is due. Each pair is given once."""
        pair = self._candidate()
        if pair is None or pair.skew_s * 1e9 > self._max_skew_ns or not self._is_due(pair):
            return None
        if self._due_from_ns is None:
            self._due_from_ns = pair.stamp_ns
        else:
            self._due_from_ns = max(self._due_ns(), pair.stamp_ns)
        self.used += 2
        self._new_episode = None
        for name, picture in ((STATIC, pair.static), (GRIPPER, pair.gripper)):
            source = self._cameras[name]
            done = [kept for kept in source.kept if kept.picture.stamp_ns <= picture.stamp_ns]
            done[-1].has_partner = True
            self._drop(source, done)
        return pair

    def skew_s(self) -> float | None:
        """How far apart the best pair at hand is; None while a camera has nothing new."""
        pair = self._candidate()
        return None if pair is None else pair.skew_s

    def _judge(self, source: _Camera, stamp_ns: int) -> Offer:
        if source.newest_ns is None:
            return Offer.KEPT
        ahead_ns = stamp_ns - source.newest_ns
        if ahead_ns == 0:
            return Offer.REPEATED
        if ahead_ns < -self._gap_ns:
            return Offer.CLOCK_JUMPED
        if ahead_ns < 0:
            return Offer.LATE
        if ahead_ns > self._gap_ns:
            self._new_episode = self._new_episode or GAP
        return Offer.KEPT

    def _candidate(self) -> Pair | None:
        static, gripper = (
            [kept.picture for kept in self._cameras[name].kept] for name in CAMERAS
        )
        if not static or not gripper:
            return None
        behind = min(static[-1].stamp_ns, gripper[-1].stamp_ns)
        return Pair(_nearest(static, behind), _nearest(gripper, behind), self._new_episode)

    def _due_ns(self) -> int:
        return self._due_from_ns + self._step_ns

    def _is_due(self, pair: Pair) -> bool:
        if self._due_from_ns is None:
            return True
        return pair.stamp_ns >= self._due_ns() - self._jitter_ns

    def _note_partners(self, camera: str) -> None:
        new = self._cameras[camera].kept[-1]
        other = self._cameras[GRIPPER if camera == STATIC else STATIC]
        for kept in other.kept:
            if abs(kept.picture.stamp_ns - new.picture.stamp_ns) <= self._max_skew_ns:
                kept.has_partner = new.has_partner = True

    def _drop(self, source: _Camera, dropped: list[_Kept]) -> None:
        """One that a newer one replaced is no loss; one that never had a partner is counted."""
        self.refused += sum(not kept.has_partner for kept in dropped)
        source.kept = [kept for kept in source.kept if kept not in dropped]


def _nearest(pictures: list[Picture], stamp_ns: int) -> Picture:
    return min(pictures, key=lambda picture: abs(picture.stamp_ns - stamp_ns))

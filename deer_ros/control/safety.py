"""What keeps the robot from moving, and which cause came first.

Pure: no clock is read, nothing is sent. The node asks before every step, and tells what happened.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum


class State(IntEnum):
    """The STATE_ constants of PolicyStatus."""

    WAITING = 0
    RUNNING = 1
    STOPPED = 2
    PAUSED = 3
    INACTIVE = 4


class Reason(IntEnum):
    """The REASON_ constants of PolicyStatus."""

    NONE = 0
    INPUT_STALE = 1
    NOT_FINITE = 2
    MODEL_ERROR = 3
    EPISODE_OVER = 4
    PAUSED = 5
    DRY_RUN = 6
    DEACTIVATED = 7
    SHUTDOWN = 8
    NO_INSTRUCTION = 9
    CLOCK_JUMPED = 10
    STAMPS_FROZEN = 11
    STAMPS_AHEAD = 12
    CAMERAS_APART = 13
    IMAGE_FROZEN = 14
    OVER_LIMIT = 15
    DEADLINE_OVERRUN = 16
    SIGINT = 17
    SIGTERM = 18
    CANCELLED = 19
    PREEMPTED = 20


@dataclass(frozen=True)
class Stop:
    """One cause. detail: a sentence for people, with what to do about it where that helps."""

    reason: Reason
    detail: str


DEACTIVATED = Stop(Reason.DEACTIVATED, "the node is not active.")
PAUSED = Stop(Reason.PAUSED, "paused; call ~/pause with false to go on.")
NO_INSTRUCTION = Stop(
    Reason.NO_INSTRUCTION, "no instruction; publish one, or set the parameter `instruction`."
)


# What is wrong with what comes in.
OF_INPUTS = frozenset({
    Reason.INPUT_STALE,
    Reason.STAMPS_FROZEN,
    Reason.STAMPS_AHEAD,
    Reason.CAMERAS_APART,
    Reason.IMAGE_FROZEN,
})  # fmt: skip
# What is wrong at all; everything else somebody asked for.
FAULTS = OF_INPUTS | {
    Reason.NOT_FINITE,
    Reason.OVER_LIMIT,
    Reason.MODEL_ERROR,
    Reason.DEADLINE_OVERRUN,
    Reason.CLOCK_JUMPED,
}
# Causes that last; the others are events, which only the next good step puts behind.
STANDING = OF_INPUTS | {
    Reason.DEACTIVATED,
    Reason.PAUSED,
    Reason.NO_INSTRUCTION,
    Reason.EPISODE_OVER,
}
# Nothing of this counts as a fault before the first step.
WAITED_FOR = OF_INPUTS | {Reason.NO_INSTRUCTION, Reason.CLOCK_JUMPED}


class Safety:
    """The state, the present cause of a stop, and the first one since the robot last moved.

    Standing causes are attributes, set by whoever knows: `active`, `paused`, `has_instruction`,
    `shutdown`. What depends on time is asked with `hindrance`. Events (a model that failed, a
    clock that jumped) are told with `stop`. latches: a fault forbids every step until `release`,
    whatever becomes of it, and even if it no longer latches by then. last: the newest stop of all.
    """

    def __init__(self) -> None:
        self.active = False
        self.paused = False
        self.latches = False
        self.latched: Stop | None = None
        self.last: Stop | None = None
        self.has_instruction = False
        self.shutdown: Stop | None = None
        self.state = State.INACTIVE
        self.reason = Reason.NONE
        self.detail = ""
        self._present: Reason | None = None
        self._has_run = False

    def activate(self) -> None:
        """Start afresh: what stopped the robot before no longer matters, unless it is latched."""
        self.active = True
        self.state = State.WAITING
        self.reason = Reason.NONE
        self.detail = ""
        self._present = None
        self._has_run = False

    def hindrance(self, over: Stop | None = None, stale: Stop | None = None) -> Stop | None:
        """The standing cause that forbids a step now, the gravest first.

        over: set if the episode has lasted its time. stale: set if an input is missing or old.
        """
        if self.shutdown is not None:
            return self.shutdown
        if not self.active:
            return DEACTIVATED
        if self.paused:
            return PAUSED
        if self.latched is not None:
            return self.latched
        if not self.has_instruction:
            return NO_INSTRUCTION
        return over or stale

    def stop(self, stop: Stop) -> bool:
        """Note a cause. True if it is not the one that stands already: then zero must go out."""
        is_new = stop.reason is not self._present
        if is_new:
            self.last = stop
        self._present = stop.reason
        self.detail = stop.detail
        self.state = self._state_of(stop.reason)
        if self.reason in (Reason.NONE, Reason.DRY_RUN):
            self.reason = stop.reason
        self._latch(stop)
        return is_new

    def release(self) -> None:
        """What was latched no longer matters."""
        self.latched = None

    def clear(self) -> None:
        """No standing cause is left; the next step will tell. The first reason stays."""
        if self._present in STANDING:
            self._present = None
            self.state = State.WAITING
            self.detail = ""

    def moved(self, dry: str | None = None) -> None:
        """A step was commanded; or, with `dry` saying why not, it would have been."""
        self._present = None
        self._has_run = True
        self.state = State.RUNNING
        self.reason = Reason.NONE if dry is None else Reason.DRY_RUN
        self.detail = dry or ""

    def _latch(self, stop: Stop) -> None:
        is_fault = stop.reason in FAULTS and self.state is State.STOPPED
        if self.latches and is_fault and self.latched is None:
            detail = f"{stop.detail} It is latched (safety.recovery): call ~/reset to go on."
            self.latched = Stop(stop.reason, detail)
            self.detail = detail

    def _state_of(self, reason: Reason) -> State:
        if reason in (Reason.DEACTIVATED, Reason.SHUTDOWN):
            return State.INACTIVE
        if reason is Reason.PAUSED:
            return State.PAUSED
        waits = reason in WAITED_FOR and not self._has_run
        return State.WAITING if waits else State.STOPPED


@dataclass(frozen=True)
class Input:
    """An input and its age. age_s: from its stamp to now; None if nothing ever came.

    repeats: messages that have come since, without a newer stamp. is_needed: no step is made
    without it. part: what in its messages this is about, where several share a topic.
    """

    name: str
    age_s: float | None
    repeats: int = 0
    is_needed: bool = True
    part: str = ""

    @property
    def where(self) -> str:
        """For people."""
        return f"{self.name} with {self.part}" if self.part else self.name


def age_s(now_ns: int, stamp_ns: int | None) -> float | None:
    """Seconds from the stamp to now; None where there is no stamp."""
    return None if stamp_ns is None else (now_ns - stamp_ns) / 1e9


# So many messages without a newer stamp are no chance.
FROZEN_REPEATS = 3


def stale(inputs: list[Input], timeout_s: float) -> Stop | None:
    """The first input that is older than `timeout_s`, or further than that in the future."""
    for source in inputs:
        if source.age_s is None:
            return Stop(Reason.INPUT_STALE, f"nothing has come on {source.where} yet.")
        if source.age_s > timeout_s and source.repeats >= FROZEN_REPEATS:
            return Stop(
                Reason.STAMPS_FROZEN,
                f"messages come on {source.where}, but their stamps have stood still for "
                f"{source.age_s:.2f} s (safety.input_timeout is {timeout_s:g} s).",
            )
        if source.age_s > timeout_s:
            return Stop(
                Reason.INPUT_STALE,
                f"the newest message on {source.where} is {source.age_s:.2f} s old "
                f"(safety.input_timeout is {timeout_s:g} s); if it comes at its rate, the clocks "
                "differ, or use_sim_time is not set as it should be.",
            )
        if source.age_s < -timeout_s:
            return Stop(
                Reason.STAMPS_AHEAD,
                f"the newest message on {source.where} is stamped {-source.age_s:.2f} s in the "
                "future: the clocks differ, or use_sim_time is not set as it should be.",
            )
    return None

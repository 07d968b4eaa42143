"""What a task of the simulated robot is."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass


@dataclass(frozen=True)
class Request:
    """What the robot is told; in the scene of `THREE_BALLS`, `choice` is the ball that it means."""

    instruction: str
    choice: str = ""

    @property
    def meaning(self) -> str:
        """The same text for all requests of a scene that ask for the same."""
        return self.choice or self.instruction


@dataclass(frozen=True)
class Task:
    """One task: its name, the environment it runs in and what the robot may be told.

    environment: of Meta-World, or `THREE_BALLS`.
    requests: one, or several of which the layout's seed draws one.
    noise_factor: how much of the usual noise the expert bears in demonstrations.
    other: the task whose words may be said instead, as nothing in the scene rules it out and none
    of its layouts has it done along with this one; or empty.
    """

    name: str
    environment: str
    requests: tuple[Request, ...]
    noise_factor: float = 1.0
    other: str = ""

    @property
    def instruction(self) -> str:
        """The first of what the robot may be told."""
        return self.requests[0].instruction

    def request(self, seed: int) -> Request:
        """What the robot is told in the layout of `seed`.

        Tasks with equally many requests draw the same one of them, so that what they say can be
        made to differ.
        """
        return self.requests[digest(str(seed)) % len(self.requests)]


def digest(text: str) -> int:
    """A number of 64 bits drawn from `text`, the same on every machine and in every Python."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")

"""A closed loop that keeps the mean cost of steps where it was asked to be, whatever they are like.

An integrator on one knob, as in budget pacing and adaptive conformal inference (Gibbs & Candes
2021): its bound needs no assumption about the steps, only that the knob's ends do what they say.
"""

from __future__ import annotations

import math

GAIN = 0.1


class Tracker:
    """Says after every step at which mean cost the next one should aim.

    aim = start + gain * deficit, deficit = sum of (asked - spent) over the steps so far; a rule for
    that aim is the caller's. From `highest` on it must be the dearest rule there is, down from
    `lowest` the cheapest one.

    Bound: let at most n steps go by one aim: the one that decides, and cheaper ones that keep its
    exit or a shallower one. Let none cost less than `lowest`, and their mean be at most `highest`,
    by the dearest rule at least `asked`, by the cheapest at most `asked`. Then after T steps, for
    every sequence of costs, however they were chosen,

        |mean cost - asked| <= (highest - lowest) * (1 / gain + n) / T.

    Proof: where gain * deficit >= highest - lowest, the aim is at least `highest` wherever it
    started from, and what is decided then cannot let the deficit grow; what is decided below that
    adds at most n * (highest - lowest) to it. So it never exceeds (highest - lowest) * (1 / gain +
    n); likewise downwards; and the mean misses `asked` by deficit / T. Moving `start` (a new
    prompt, a better guess) keeps the bound.
    Over any stretch of T steps it holds twice over, as the deficit goes from one end to the other
    at most.

    Anti-windup: where an end does not do what it says (asked beyond what is possible, a deadline
    that cuts steps short), what it decided is not added up, so that the loop is at once free again.
    One step on the wrong side of `asked` does not show that, where costs scatter, as milliseconds
    do: it is set against those on the right side at that end, and added up as far as they make up
    for it; what they make up for is kept up to (highest - lowest) / gain, the way of the aim from
    one end to the other.
    """

    def __init__(
        self, asked: float, lowest: float, highest: float, start: float, gain: float = GAIN
    ) -> None:
        """All in one unit. start: the cost that is expected to give a mean of `asked`.

        gain: of the deficit, per step; the larger, the sooner a mean is held, and the more the
        knob's motion and not the step's own difficulty decides how deep it goes.
        Raises ValueError for numbers that are not finite, lowest above highest, or gain outside
        0 .. 1.
        """
        if not all(map(math.isfinite, (asked, lowest, highest, start))) or lowest > highest:
            raise ValueError(
                f"asked is {asked}, lowest {lowest}, highest {highest} and start {start}; they "
                "must be finite, and lowest not above highest."
            )
        if not 0 < gain <= 1:
            raise ValueError(f"gain is {gain}; it must be above 0 and at most 1.")
        self.asked = asked
        self.gain = gain
        self.steps = 0
        self._spent = 0.0
        self._deficit = 0.0
        self._latest = 0.0
        self._made_up_low = self._made_up_high = 0.0
        self.aim_from(lowest, highest, start)
        self._decided_by = self._start

    @property
    def aim(self) -> float:
        """Mean cost that the next step's rule should have, in lowest .. highest."""
        return min(max(self._aim, self.lowest), self.highest)

    @property
    def mean(self) -> float | None:
        """Mean of what was spent; None before the first step."""
        return self._spent / self.steps if self.steps else None

    def aim_from(self, lowest: float, highest: float, start: float) -> None:
        """Take other ends and another start, with what was added up so far."""
        self.lowest, self.highest = lowest, highest
        self._start = min(max(start, lowest), highest)

    def update(self, spent: float, decides: bool = True) -> None:
        """Take in what a step cost. ValueError if that is not finite; nothing has changed then.

        decides: False where the step went by what an earlier one had decided, whatever the aim is
        by now.
        """
        if not math.isfinite(spent):
            raise ValueError(f"a step cannot have cost {spent}.")
        self.steps += 1
        self._spent += spent
        if decides:
            decided_by = self._aim
            self._add_up()
            self._decided_by, self._latest = decided_by, 0.0
        self._latest += self.asked - spent

    def _add_up(self) -> None:
        """Add up what the latest decision came to, also for the end that decided it."""
        self._deficit += self._counted
        kept = (self.highest - self.lowest) / self.gain
        if self._decided_by >= self.highest:
            self._made_up_high = min(max(self._made_up_high - self._latest, 0.0), kept)
        if self._decided_by <= self.lowest:
            self._made_up_low = min(max(self._made_up_low + self._latest, 0.0), kept)

    @property
    def _counted(self) -> float:
        """What the latest decision adds: all of it, unless an end did not do what it says."""
        most = self._made_up_high if self._decided_by >= self.highest else math.inf
        least = -self._made_up_low if self._decided_by <= self.lowest else -math.inf
        return min(max(self._latest, least), most)

    @property
    def _aim(self) -> float:
        return self._start + self.gain * (self._deficit + self._counted)

"""What steps cost, and how often they come: sums, for status and diagnostics."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from deer_ros.policy import Step


@dataclass
class Totals:
    """Sums over steps; the means of none are 0. worst_ms: of one step. exits: steps by layer."""

    steps: int = 0
    layers: int = 0
    llm_gflops: float = 0.0
    step_gflops: float = 0.0
    step_ms: float = 0.0
    worst_ms: float = 0.0
    exits: Counter[int] = field(default_factory=Counter)

    def add(self, step: Step) -> None:
        """One more step."""
        self.steps += 1
        self.exits[step.exit_layer] += 1
        self.worst_ms = max(self.worst_ms, step.cost.step_ms)
        self.layers += step.exit_layer
        self.llm_gflops += step.cost.llm_gflops
        self.step_gflops += step.cost.step_gflops
        self.step_ms += step.cost.step_ms

    def mean(self, name: str) -> float:
        """Mean per step of one of the sums."""
        return getattr(self, name) / self.steps if self.steps else 0.0


@dataclass
class Cadence:
    """Whether steps came as often as was asked: of those that followed another without a stop."""

    steps: int = 0
    following: int = 0
    elapsed_s: float = 0.0
    total_ms: float = 0.0
    worst_ms: float = 0.0

    def add(self, step_ms: float, since_last_s: float | None) -> None:
        """One more step. since_last_s: None after a stop, or for the first step of all."""
        self.steps += 1
        self.total_ms += step_ms
        self.worst_ms = max(self.worst_ms, step_ms)
        if since_last_s is not None:
            self.following += 1
            self.elapsed_s += since_last_s

    def sentence(self, asked_hz: float) -> str:
        """For people."""
        if not self.following or self.elapsed_s <= 0:
            return f"cadence: {self.steps} steps, too few to tell their rate."
        mean_ms = self.total_ms / self.steps
        return (
            f"cadence: {self.following / self.elapsed_s:.2f} steps per second of {asked_hz:g} "
            f"asked, in {self.steps} steps; the model took {mean_ms:.1f} ms on average, "
            f"{self.worst_ms:.1f} ms at worst; headroom "
            f"{100 * (1 - mean_ms * asked_hz / 1e3):.0f} % of a period on average, "
            f"{100 * (1 - self.worst_ms * asked_hz / 1e3):.0f} % at worst."
        )


class Record:
    """since_change: since the budget or the rule changed. since_report: since `take_report`.
    cadence: since `take_cadence`. steps: all of them; last_exit_layer: of the last one, 0 before.
    """

    def __init__(self) -> None:
        self.since_change = Totals()
        self.since_report = Totals()
        self.cadence = Cadence()
        self.steps = 0
        self.last_exit_layer = 0
        self.last_step_ns: int | None = None

    def count(
        self, step: Step, now_ns: int, follows: bool = False, is_of_before: bool = False
    ) -> None:
        """A step was made. follows: there was no stop since the one before. is_of_before: it still
        went by the budget and the rule of before the change."""
        if not is_of_before:
            self.since_change.add(step)
        self.since_report.add(step)
        since_last_s = None
        if follows and self.last_step_ns is not None:
            since_last_s = (now_ns - self.last_step_ns) / 1e9
        self.cadence.add(step.cost.step_ms, since_last_s)
        self.steps += 1
        self.last_exit_layer = step.exit_layer
        self.last_step_ns = now_ns

    def restart_averages(self) -> None:
        """The budget or the rule changed."""
        self.since_change = Totals()

    def take_report(self) -> Totals:
        """The totals since the last report."""
        totals, self.since_report = self.since_report, Totals()
        return totals

    def take_cadence(self) -> Cadence:
        """The cadence since the last call."""
        cadence, self.cadence = self.cadence, Cadence()
        return cadence

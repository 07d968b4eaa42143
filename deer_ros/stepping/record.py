"""What steps cost, and how often they come: sums, for status and diagnostics."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from deer_ros.policy import Step


@dataclass
class Totals:
    """Sums over steps; the means of none are 0."""

    steps: int = 0
    layers: int = 0
    llm_gflops: float = 0.0
    step_gflops: float = 0.0
    step_ms: float = 0.0

    def add(self, step: Step) -> None:
        """One more step."""
        self.steps += 1
        self.layers += step.exit_layer
        self.llm_gflops += step.cost.llm_gflops
        self.step_gflops += step.cost.step_gflops
        self.step_ms += step.cost.step_ms

    def mean(self, name: str) -> float:
        """Mean per step of one of the sums."""
        return getattr(self, name) / self.steps if self.steps else 0.0


class Record:
    """since_change: since the settings changed. since_report: since `take_report`."""

    def __init__(self) -> None:
        self.since_change = Totals()
        self.since_report = Totals()
        self.last_step_ns: int | None = None

    def count(self, step: Step, now_ns: int) -> None:
        """A step was made."""
        self.since_change.add(step)
        self.since_report.add(step)
        self.last_step_ns = now_ns

    def restart_averages(self) -> None:
        """The settings changed."""
        self.since_change = Totals()

    def take_report(self) -> Totals:
        """The totals since the last report."""
        totals, self.since_report = self.since_report, Totals()
        return totals

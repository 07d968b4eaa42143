"""What a run says on its way: a line of JSON for every report, and the same for TensorBoard."""

from __future__ import annotations

import os
import time
from pathlib import Path

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event
from tensorboardX.proto.summary_pb2 import Summary

from deer_ros.report.json_lines import append_line

KINDS = ("validation", "evaluation")


class TrainingLog:
    """Appends to `log.jsonl` and `tensorboard/` in a run's folder. Whole after a kill at any time.

    A resumed run repeats the steps since its checkpoint, with the same figures.
    """

    def __init__(self, folder: Path) -> None:
        self._file = folder / "log.jsonl"
        events = folder / "tensorboard"
        events.mkdir(parents=True, exist_ok=True)
        # Not SummaryWriter: its thread holds back what a kill takes away, even after a flush.
        self._writer = EventsWriter(str(events / "events"), f".{os.getpid()}")

    def report(self, phase: str, step: int, steps: int, figures: dict[str, float]) -> None:
        """Figures after a step; see `deer_ros.training.run.Report`."""
        append_line(self._file, {"phase": phase, "step": step, **figures})
        values = [
            Summary.Value(tag=_tag(phase, name), simple_value=value)
            for name, value in figures.items()
        ]
        now = Event(wall_time=time.time(), step=step, summary=Summary(value=values))
        self._writer.write_event(now)
        self._writer.flush()

    def close(self) -> None:
        """Finish the TensorBoard file."""
        self._writer.close()


def _tag(phase: str, name: str) -> str:
    """`policy/loss/auxiliary_2_pose`, `policy/validation/total`, `policy/learning_rate`."""
    for kind in KINDS:
        if name.startswith(f"{kind}_"):
            return f"{phase}/{kind}/{name.removeprefix(f'{kind}_')}"
    is_loss = name not in ("gradient_norm", "learning_rate")
    return f"{phase}/loss/{name}" if is_loss else f"{phase}/{name}"

"""Evaluations between training steps: when, of which weights, and which were the best.

What is run is not known here: `Evaluate` comes from outside. Nothing of the training is changed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from deer_ros.report.json_lines import append_line, read_lines
from deer_ros.training.config import EvaluationHook

Evaluate = Callable[[Path], dict[str, float]]
"""Model directory -> figures by name, of which `success` (0..1) decides what is best."""
Save = Callable[[Path], None]
"""Write the present model into a model directory."""


class Evaluations:
    """The evaluations of a run in `folder`; their figures go to `evaluation.jsonl` there."""

    def __init__(
        self, hook: EvaluationHook, exits: Sequence[int], folder: Path, evaluate: Evaluate | None
    ) -> None:
        """exits: those of the model; ValueError where the hook asks for another."""
        unknown = set(hook.exits) - set(exits)
        if unknown:
            raise ValueError(
                f"evaluation.exits has {min(unknown)}; the exits are after layers {list(exits)}."
            )
        self.hook, self.folder = hook, folder
        self._evaluate = evaluate if hook.every_steps else None
        self._file = folder / "evaluation.jsonl"

    def due(self, step: int, steps: int) -> bool:
        """Whether there is one after `step` of `steps`: every so many, and after the last."""
        return self._evaluate is not None and (step % self.hook.every_steps == 0 or step == steps)

    def run(self, phase: str, step: int, save: Save) -> dict[str, float]:
        """Evaluate the present model and keep it if it is the best so far."""
        present = self.folder / "evaluated"
        save(present)
        figures = self._evaluate(present)
        line = {"phase": phase, "step": step, **figures}
        if self.hook.keep_best and self._is_best(figures["success"]):
            save(self.folder / "best")
            line["kept"] = True
        append_line(self._file, line)
        return figures

    def _is_best(self, success: float) -> bool:
        # As good is better: it has learned longer, and a gate changes no exit's success.
        kept = [line["success"] for line in read_lines(self._file) if "kept" in line]
        return not kept or not (self.folder / "best").exists() or success >= kept[-1]

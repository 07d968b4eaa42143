"""What the exits answered on demonstrations, and what follows from it; a file beside the model."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from deer_ros.budget import criterion
from deer_ros.budget.frontier import Frontier
from deer_ros.model.config import LEARNED

VERSION = 1
FACTS = "deer_calibration"
METHODS = ("run-time", "original")
OPTIONAL = ("reference_poses", "expected_losses")


@dataclass(frozen=True)
class Calibration:
    """Answers of E exits in n steps of demonstrations, those that decide.

    exit_layers: the model's exits, counted from 1. poses: float32 (n, E, 6). gripper: float32
    (n, E), probability of "open". reference_poses: float32 (n, 6), the pseudo action that the first
    exit is compared with, or None where there is none. expected_losses: float32 (n, E), what the
    head's gate guessed, or None where it has none. episode: int32 (n,), which episode a step is of.
    taken: int32 (n,), number of the exit whose state was carried on. fingerprint: of the model's
    weights. metric: the one that `frontiers` were computed for. method: `run-time` or `original`.
    thresholds: by which exits were taken. frontiers: by the number of permitted exits, from which
    `solve` answers. guesses_success: whether `expected_losses` are of success, not of exactness.
    dtype: of the weights that answered, such as `float32`; None where the file does not tell.
    notes: where it comes from, for people.
    """

    exit_layers: tuple[int, ...]
    poses: np.ndarray
    gripper: np.ndarray
    reference_poses: np.ndarray | None
    episode: np.ndarray
    taken: np.ndarray
    fingerprint: str
    metric: str = "l2"
    method: str = "run-time"
    thresholds: tuple[float, ...] = ()
    frontiers: dict[int, Frontier] = field(default_factory=dict)
    expected_losses: np.ndarray | None = None
    guesses_success: bool = False
    dtype: str | None = None
    notes: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        criterion.check_metric(self.metric)
        if self.method not in METHODS:
            raise ValueError(f"method is {self.method!r}; allowed are {', '.join(METHODS)}.")
        steps, exits = self.gripper.shape if self.gripper.ndim == 2 else (0, 0)
        if not steps or exits != len(self.exit_layers):
            raise ValueError(
                f"gripper has shape {self.gripper.shape}; it must be (steps, exits), with one "
                f"exit for each of the layers {list(self.exit_layers)}, and not empty."
            )
        shapes = {
            "poses": (steps, exits, 6), "reference_poses": (steps, 6), "episode": (steps,),
            "taken": (steps,), "expected_losses": (steps, exits),
        }
        for name, shape in shapes.items():
            array = getattr(self, name)
            if name in OPTIONAL and array is None:
                continue
            if array.shape != shape:
                raise ValueError(f"{name} has shape {array.shape}; it must be {shape}.")
            if not np.isfinite(array).all():
                raise ValueError(f"{name} holds NaN or infinity.")
        if self.guesses_success and self.expected_losses is None:
            raise ValueError("guesses_success is true, and there are no expected_losses.")
        for number, frontier in self.frontiers.items():
            _check_frontier(number, frontier, exits)

    def __len__(self) -> int:
        return len(self.poses)

    def deltas(self, metric: str | None = None) -> np.ndarray:
        """The criterion's value at every exit: float32 (E, n); None is this calibration's metric.

        NaN at a first exit that nothing comes before. ValueError for `learned` without guesses.
        """
        metric = self.metric if metric is None else metric
        return np.ascontiguousarray(
            criterion.values(self.poses, self.reference_poses, self.expected_losses, metric).T
        )

    def errors(self) -> np.ndarray:
        """Root mean square difference of every exit's pose to the deepest's: float32 (E, n)."""
        return criterion.delta(self.poses, self.poses[:, -1:], "l2").T

    def losses(self, metric: str | None = None) -> np.ndarray:
        """What thresholds for `metric` keep small: float32 (E, n), of every exit against the last.

        The success that the gate guesses to be lost, where it guesses that and `metric` is its;
        else `errors`. None is this calibration's metric.
        """
        if not self.success_counts(metric):
            return self.errors()
        lost = self.expected_losses.T.copy()
        lost[-1] = 0  # full depth loses nothing against itself, and no gate was taught about it
        return lost

    def success_counts(self, metric: str | None = None) -> bool:
        """Whether `losses` are of success, and not action errors."""
        return self.guesses_success and (metric or self.metric) == LEARNED

    def check_fits(self, exit_layers: tuple[int, ...], fingerprint: str, file: str | Path) -> None:
        """ValueError where this is another model's calibration."""
        if self.exit_layers != tuple(exit_layers):
            raise ValueError(
                f"{file} is the calibration of a model with exits after layers "
                f"{list(self.exit_layers)}; this model's are {list(exit_layers)}. Run "
                "`deer calibrate` for it."
            )
        if self.fingerprint != fingerprint:
            raise ValueError(
                f"{file} is the calibration of other weights (fingerprint "
                f"{self.fingerprint[:12]}..., this model's is {fingerprint[:12]}...). Run "
                "`deer calibrate` again."
            )

    def save(self, path: str | Path) -> None:
        """Write the file; it is there whole or not at all."""
        path = Path(path)
        tensors = {
            "poses": self.poses, "gripper": self.gripper, "episode": self.episode,
            "taken": self.taken,
        }
        tensors |= {n: getattr(self, n) for n in OPTIONAL if getattr(self, n) is not None}
        for exits, frontier in self.frontiers.items():
            for name, value in vars(frontier).items():
                if value is not None:
                    tensors[f"frontier.{exits}.{name}"] = value
        facts = {
            "version": VERSION,
            "exit_layers": list(self.exit_layers),
            "fingerprint": self.fingerprint,
            "metric": self.metric,
            "method": self.method,
            "guesses_success": self.guesses_success,
            "dtype": self.dtype,
            "thresholds": list(self.thresholds),
            "notes": self.notes,
        }
        # One entry: the library writes several in an order that changes from run to run.
        metadata = {FACTS: json.dumps(facts)}
        content = save({n: np.ascontiguousarray(t) for n, t in tensors.items()}, metadata)
        beside = path.with_name(f".{path.name}.{os.getpid()}.part")
        try:
            beside.write_bytes(content)
            os.replace(beside, path)
        finally:
            beside.unlink(missing_ok=True)

    @classmethod
    def load(cls, path: str | Path) -> Calibration:
        """Read a file. FileNotFoundError, or a ValueError that names the file and what is wrong."""
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"there is no calibration {path}; `deer calibrate` makes one.")
        try:
            with safe_open(str(path), framework="numpy") as file:
                facts = json.loads((file.metadata() or {}).get(FACTS, "{}"))
                tensors = {name: file.get_tensor(name) for name in file.keys()}
            if facts.get("version") != VERSION:
                raise ValueError(
                    f"its version is {facts.get('version')!r}; this package reads {VERSION}"
                )
            return cls(
                exit_layers=tuple(facts["exit_layers"]),
                poses=tensors["poses"],
                gripper=tensors["gripper"],
                **{name: tensors.get(name) for name in OPTIONAL},
                episode=tensors["episode"],
                taken=tensors["taken"],
                fingerprint=facts["fingerprint"],
                metric=facts["metric"],
                method=facts["method"],
                thresholds=tuple(map(float, facts["thresholds"])),
                frontiers=_frontiers(tensors),
                guesses_success=facts.get("guesses_success", False),
                # It was a note at first.
                dtype=facts.get("dtype", facts["notes"].get("dtype")),
                notes=facts["notes"],
            )
        except (
            SafetensorError, OSError, ValueError, KeyError, TypeError, AttributeError,
            OverflowError, RecursionError,
        ) as error:
            what = f"it has no {error}" if isinstance(error, KeyError) else error
            raise ValueError(f"{path} is no calibration that can be read: {what}.") from error


def _check_frontier(number: int, frontier: Frontier, exits: int) -> None:
    """ValueError where it is none of so many of the exits, or what it holds is no number."""
    rows = len(frontier.cost) if frontier.cost.ndim == 1 else 0
    shapes = {"thresholds": (rows, number), "shares": (rows, number), "error": (rows,)}
    wrong = [name for name, shape in shapes.items() if getattr(frontier, name).shape != shape]
    losses = frontier.losses
    if losses is not None and (losses.ndim != 2 or len(losses) != rows):
        wrong.append("losses")
    if not 1 <= number <= exits or not rows or wrong:
        raise ValueError(
            f"the frontier of {number} of {exits} exits has {rows} rows, and its "
            f"{' and '.join(wrong) or 'number of exits'} does not fit."
        )
    for name, array in vars(frontier).items():
        if array is not None and not np.isfinite(array).all():
            raise ValueError(f"{name} of the frontier of {number} exits holds NaN or infinity.")


def _frontiers(tensors: dict[str, np.ndarray]) -> dict[int, Frontier]:
    parts: dict[int, dict[str, np.ndarray]] = {}
    for name, tensor in tensors.items():
        if name.startswith("frontier."):
            _, exits, field_name = name.split(".")
            parts.setdefault(int(exits), {})[field_name] = tensor
    return {exits: Frontier(**fields) for exits, fields in parts.items()}

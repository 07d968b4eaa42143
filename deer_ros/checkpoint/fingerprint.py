"""Whether a calibration was made for the weights that lie beside it."""

from __future__ import annotations

from pathlib import Path

from deer_ros.budget.calibration import Calibration
from deer_ros.checkpoint.directory import CALIBRATION, CONFIG
from deer_ros.checkpoint.source import WeightSource
from deer_ros.checkpoint.weights import weights_fingerprint
from deer_ros.model.config import DeerConfig

__all__ = ["calibration_of", "find_calibration", "weights_fingerprint"]


def find_calibration(folder: str | Path, file: str | Path | None = None) -> Calibration | None:
    """The calibration of a model directory, checked to be of its weights; None where it has none.

    file: where it lies, if not in the directory; then it must be there. Raises FileNotFoundError,
    or ValueError with the reason where it cannot be read or is another model's.
    """
    path = Path(folder) / CALIBRATION if file is None else Path(file)
    if file is None and not path.is_file():
        return None
    calibration = Calibration.load(path)
    exit_layers = DeerConfig.load(Path(folder) / CONFIG).exit_layers
    calibration.check_fits(exit_layers, weights_fingerprint(folder), path)
    return calibration


def calibration_of(source: WeightSource) -> Calibration | None:
    """The calibration of weights that were read from `source`; None where the directory has none.

    Raises as `find_calibration`, and ValueError where the weights beside it are others by now.
    """
    calibration = find_calibration(source.folder)
    if calibration is not None:
        source.check_unchanged()
    return calibration

"""Whether a calibration was made for the weights that lie beside it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from deer_ros.budget.calibration import Calibration
from deer_ros.checkpoint.directory import CALIBRATION, CONFIG
from deer_ros.checkpoint.weights import StoredTensor, find_tensor, read_header, weight_files
from deer_ros.model.config import DeerConfig

WHOLE_BYTES = 1 << 20
PIECES = 16


def weights_fingerprint(folder: str | Path) -> str:
    """SHA-256 over every tensor's name, type, shape and bytes; the same however files are split.

    Of a tensor of more than 1 MiB, 16 evenly spaced pieces of 64 KiB stand for all of it, so that
    gigabytes take a moment. Training changes all of a tensor; for a change of single numbers in a
    large one, see `weights_sha256`. Raises FileNotFoundError or ValueError as loading would.
    """
    files = weight_files(Path(folder))
    headers = {file: read_header(file) for file in sorted(set(files.values()))}
    digest = hashlib.sha256()
    for name in sorted(files):
        file = files[name]
        tensor = find_tensor(headers[file], name, file)
        digest.update(json.dumps([name, tensor.dtype, tensor.shape]).encode())
        with file.open("rb") as stream:
            for start, length in _pieces(tensor):
                stream.seek(start)
                digest.update(stream.read(length))
    return digest.hexdigest()


def _pieces(tensor: StoredTensor) -> list[tuple[int, int]]:
    """Start and length of what is read of a tensor's values."""
    if tensor.bytes <= WHOLE_BYTES:
        return [(tensor.start, tensor.bytes)]
    length = WHOLE_BYTES // PIECES
    last = tensor.bytes - length
    return [(tensor.start + last * piece // (PIECES - 1), length) for piece in range(PIECES)]


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

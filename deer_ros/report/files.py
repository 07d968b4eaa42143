"""Files that are whole or absent: written beside their place, then moved into it."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import cv2
import numpy as np


def write_json(path: str | Path, content: dict) -> None:
    """Indented JSON. ValueError for NaN or infinity, which JSON has no word for."""
    text = json.dumps(content, indent=2, allow_nan=False) + "\n"
    write_bytes(path, text.encode())


def write_text(path: str | Path, text: str) -> None:
    """UTF-8."""
    write_bytes(path, text.encode())


def write_png(path: str | Path, image: np.ndarray) -> None:
    """image: uint8 (H, W, 3) RGB."""
    done, encoded = cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    if not done:
        raise ValueError(f"an image of shape {image.shape} and type {image.dtype} is no picture")
    write_bytes(path, encoded.tobytes())


def write_bytes(path: str | Path, content: bytes) -> None:
    """Any content. Raises ValueError as `destination`."""
    path = destination(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # A name of its own: several processes may write the same file.
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        beside.write_bytes(content)
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def destination(path: str | Path) -> Path:
    """The file that is written where `path` is named: a link stays, and what it points to changes.

    ValueError where something lies there that no file may take the place of, as a device.
    """
    try:
        kind = stat.S_IFMT(os.stat(path).st_mode)
    except FileNotFoundError:
        kind = stat.S_IFREG
    if kind != stat.S_IFREG:
        raise ValueError(f"{path} is {_KINDS.get(kind, 'no file')}; name a file.")
    return Path(os.path.realpath(path))


_KINDS = {
    stat.S_IFDIR: "a folder", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device",
    stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket",
}  # fmt: skip

"""Folders and files that one process at a time writes into."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LOCK = ".lock"


@contextmanager
def locked(folder: Path, doing: str) -> Iterator[None]:
    """Nobody else does so in `folder` meanwhile; ValueError where somebody does.

    doing: in words, as "trains". The lock is the kernel's: whatever way a process ends, it is gone
    with it.
    """
    with locked_file(folder / LOCK, f"{doing} in {folder}"):
        yield


@contextmanager
def locked_file(file: Path, doing: str) -> Iterator[None]:
    """As `locked`, of a file, which is made where there is none. doing: as "trains in FOLDER"."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("ab") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ValueError(
                f"another process {doing}; wait for it, end it, or name another --out."
            ) from error
        yield

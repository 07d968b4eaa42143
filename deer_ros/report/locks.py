"""Folders and files that one process at a time writes into."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO

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
def locked_beside(path: Path, doing: str) -> Iterator[None]:
    """As `locked`, of a folder or file that comes into being at the end: its lock lies beside it,
    and goes with the block. doing: as "replays into"."""
    file = path.with_name(f".{path.name}{LOCK}")
    with locked_file(file, f"{doing} {path}"):
        try:
            yield
        finally:
            file.unlink(missing_ok=True)


@contextmanager
def locked_file(file: Path, doing: str) -> Iterator[None]:
    """As `locked`, of a file, which is made where there is none. doing: as "trains in FOLDER"."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with _taken(file, doing):
        yield


def _taken(file: Path, doing: str) -> BinaryIO:
    while True:
        with ExitStack() as stack:
            held = stack.enter_context(file.open("ab"))
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise ValueError(
                    f"another process {doing}; wait for it, end it, or name another --out."
                ) from error
            # Whoever had the lock may just have removed the file: then others lock a new one.
            if _is_at(held, file):
                stack.pop_all()
                return held


def _is_at(held: BinaryIO, file: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(held.fileno()), file.stat())
    except FileNotFoundError:
        return False

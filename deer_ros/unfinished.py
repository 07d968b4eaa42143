"""Folders that appear whole or not at all, and leave nothing behind for ever."""

from __future__ import annotations

import fcntl
import glob
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

MARK = ".unfinished-"
LOCKED_WITHIN_S = 5.0
"""A folder that is older and not locked has no process that writes it."""


@contextmanager
def unfinished_beside(folder: Path) -> Iterator[Path]:
    """A new hidden folder beside `folder`, to write into and to rename; else it goes at the end.

    What killed processes left of earlier ones goes first: a kill leaves nobody who could tidy up,
    and a published model has gigabytes.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    prefix = f".{folder.name}{MARK}"
    for left in folder.parent.glob(f"{glob.escape(prefix)}*"):
        if _is_abandoned(left):
            shutil.rmtree(left, ignore_errors=True)
    unfinished = Path(tempfile.mkdtemp(prefix=prefix, dir=folder.parent))
    handle = os.open(unfinished, os.O_RDONLY)
    try:
        with suppress(OSError):  # A file system without locks: then nobody takes it for abandoned.
            fcntl.flock(handle, fcntl.LOCK_EX)
        unfinished.chmod(0o755)
        yield unfinished
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
        os.close(handle)


def is_unfinished(folder: Path) -> bool:
    """Whether it is one that somebody writes into, or was killed in."""
    return folder.name.startswith(".") and MARK in folder.name


def take_place(new: Path, folder: Path) -> None:
    """Give `new` the name of `folder`. A folder that has it goes once that is done, and stays where
    it cannot be."""
    if not folder.exists():
        new.rename(folder)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{folder.name}-old-", dir=folder.parent)) / folder.name
    try:
        folder.rename(old)
        new.rename(folder)
    except BaseException:  # also where somebody interrupts
        if not folder.exists():
            old.rename(folder)
        shutil.rmtree(old.parent, ignore_errors=True)
        raise
    shutil.rmtree(old.parent)


def _is_abandoned(unfinished: Path) -> bool:
    try:
        handle = os.open(unfinished, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return time.time() - os.fstat(handle).st_mtime > LOCKED_WITHIN_S
    except OSError:
        return False
    finally:
        os.close(handle)

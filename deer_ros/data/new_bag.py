"""A bag that appears under its name only when it is complete."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rosbags.rosbag2 import StoragePlugin, Writer

from deer_ros.unfinished import take_place, unfinished_beside


@contextmanager
def new_bag(path: str | Path, replaces: bool = False) -> Iterator[Writer]:
    """A rosbags Writer of an MCAP bag, into a folder of its own beside `path` until the block ends.

    path: folder of the new bag; its parents are made. replaces: a bag that is there makes way once
    this one is complete; otherwise none may be there, at the end neither, as another process may
    have written it meanwhile. An exception inside the `with` block removes what was written, and
    nothing else.
    """
    path = Path(path)
    _check_free(path, replaces)
    with unfinished_beside(path) as unfinished:
        # The bag gets its name inside a temporary folder: its file and metadata bear it.
        new = unfinished / path.name
        writer = Writer(new, version=Writer.VERSION_LATEST, storage_plugin=StoragePlugin.MCAP)
        writer.open()
        try:
            yield writer
        except BaseException:
            writer.abort()
            raise
        writer.close()
        _check_free(path, replaces)
        take_place(new, path)


def _check_free(path: Path, replaces: bool) -> None:
    if path.is_symlink():
        raise FileExistsError(f"{path} is a symbolic link; name the bag that it points to")
    if path.exists() and not replaces:
        raise FileExistsError(f"{path} exists already; delete it or choose another name")

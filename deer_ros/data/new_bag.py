"""A bag that appears under its name only when it is complete."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from types import TracebackType

from rosbags.rosbag2 import StoragePlugin, Writer

from deer_ros.data.bag_format import PARTIAL


class NewBag:
    """A context manager that gives a rosbags Writer of an MCAP bag.

    An exception inside the `with` block removes what was written, and nothing else.
    """

    def __init__(self, path: str | Path, replaces: bool = False) -> None:
        """path: folder of the new bag; its parents are made. replaces: a bag that is there makes
        way once this one is complete; otherwise none may be there."""
        self.path = Path(path)
        self._replaces = replaces
        # The bag gets its name inside a temporary folder: its file and metadata bear it.
        self._temporary = self.path.with_name(self.path.name + PARTIAL)
        self._writer: Writer | None = None

    def __enter__(self) -> Writer:
        if self.path.exists() and not self._replaces:
            raise FileExistsError(f"{self.path} exists already; delete it or choose another name")
        shutil.rmtree(self._temporary, ignore_errors=True)
        self._writer = Writer(
            self._temporary / self.path.name,
            version=Writer.VERSION_LATEST,
            storage_plugin=StoragePlugin.MCAP,
        )
        self._writer.open()
        return self._writer

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                self._writer.close()
                if self._replaces and self.path.exists():
                    shutil.rmtree(self.path)
                os.replace(self._temporary / self.path.name, self.path)
            else:
                self._writer.abort()
        finally:
            shutil.rmtree(self._temporary, ignore_errors=True)

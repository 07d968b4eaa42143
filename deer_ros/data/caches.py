"""Files that can be made anew: what is said where one was cut or damaged."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def reading(file: Path, made_of: Path | None = None) -> Iterator[None]:
    """Around what reads `file`: whatever damage makes loaders raise is a ValueError that names it.

    made_of: the folder that is to be deleted with it; None: the file alone.
    """
    try:
        yield
    except (OSError, ValueError, EOFError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"{file} cannot be read ({error}); delete {made_of or 'it'}, and it is made anew."
        ) from error

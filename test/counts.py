"""How often a fault is injected: `make test-robot` asks for the full counts."""

from __future__ import annotations

import os

IS_FULL = os.environ.get("DEER_TEST_COUNTS") == "full"


def count(full: float, quick: float = 2) -> float:
    """The full count, or the quick one of `make test`."""
    return full if IS_FULL else quick

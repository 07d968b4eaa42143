"""Files of one JSON object a line, which survive that their writer is killed."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any


def append_line(file: Path, values: dict[str, Any]) -> None:
    """Append `values`; half a line that a killed writer left is taken away first."""
    with file.open("ab+") as stream:
        end = stream.seek(0, os.SEEK_END)
        stream.seek(max(0, end - 1))
        if end and stream.read() != b"\n":
            stream.seek(0)
            stream.truncate(stream.read().rfind(b"\n") + 1)
        stream.write(json.dumps(values).encode() + b"\n")


def read_lines(file: Path) -> list[dict[str, Any]]:
    """All whole lines; none where there is no file."""
    if not file.exists():
        return []
    text = file.read_text(encoding="utf-8")
    return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]

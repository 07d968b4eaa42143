"""Files of one JSON object a line, which survive that their writer is killed."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any


def append_line(file: Path, values: dict[str, Any]) -> None:
    """Append `values`; half a line that a killed writer left is taken away first.

    NaN and infinity, for which JSON has no word, become null.
    """
    line = json.dumps(_standard(values), allow_nan=False).encode() + b"\n"
    with file.open("ab+") as stream:
        end = stream.seek(0, os.SEEK_END)
        stream.seek(max(0, end - 1))
        if end and stream.read() != b"\n":
            stream.seek(0)
            stream.truncate(stream.read().rfind(b"\n") + 1)
        stream.write(line)


def read_lines(file: Path, mend: Callable[[Any], Any] = lambda line: line) -> list[Any]:
    """All whole lines; none where there is no file.

    ValueError names a line that is no JSON, or has a number that is not finite once `mend` has made
    of it what is written now.
    """
    if not file.exists():
        return []
    content = file.read_bytes()
    found = []
    for number, line in enumerate(content[: content.rfind(b"\n") + 1].splitlines(), start=1):
        try:
            values = mend(json.loads(line.decode()))
        except ValueError as error:
            raise ValueError(f"line {number} of {file} is no JSON: {error}.") from error
        if _standard(values) != values:
            raise ValueError(
                f"line {number} of {file} has NaN or infinity; numbers must be finite. Take that "
                "line out."
            )
        found.append(values)
    return found


def _standard(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _standard(member) for key, member in value.items()}
    if isinstance(value, (list, tuple)):
        return [_standard(member) for member in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value

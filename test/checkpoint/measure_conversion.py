"""Convert the files that a JSON file names, and print by how much the process grew at most."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from transformers import CLIPVisionModel  # noqa: F401 - code that a CLIP tower loads on first use

from deer_ros.checkpoint import convert_official


def peak_bytes() -> int:
    """Largest resident size since the last reset, mapped pages included."""
    line = next(x for x in Path("/proc/self/status").read_text().splitlines() if x[:5] == "VmHWM")
    return 1024 * int(line.split()[1])


arguments = json.loads(Path(sys.argv[1]).read_text())
Path("/proc/self/clear_refs").write_text("5")  # reset the peak
before = peak_bytes()
convert_official(sys.argv[2], **arguments)
print(json.dumps({"grown_bytes": peak_bytes() - before}))

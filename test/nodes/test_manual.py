"""docs/recording_and_playing.md names the parameters of both nodes, with their defaults."""

from __future__ import annotations

from pathlib import Path

import pytest

from deer_ros.nodes import player_node, recorder_node

MANUAL = Path(__file__).parents[2] / "docs" / "recording_and_playing.md"


@pytest.mark.parametrize("row", [*player_node.TABLE, *recorder_node.TABLE], ids=lambda r: r.name)
def test_the_manual_names_every_parameter_and_its_default(row):
    default = f"{row.default:g}" if row.kind is float else str(row.default)
    default = default.lower() if row.kind is bool else default
    lines = [line for line in MANUAL.read_text().splitlines() if line.startswith(f"| `{row.name}`")]
    assert len(lines) == 1 and lines[0].split("|")[2].strip() == default

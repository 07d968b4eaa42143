from __future__ import annotations

from pathlib import Path

import pytest

from deer_ros.nodes.simulator.parameters import ROWS, TABLE
from deer_ros.sim.tasks import TASKS


def test_the_manual_names_every_parameter_and_its_default():
    manual = (Path(__file__).parents[2] / "docs" / "simulated_robot.md").read_text()
    lines = [line for line in manual.splitlines() if line.startswith("| `")]
    for row in TABLE:
        default = f"{row.default:g}" if row.kind in (int, float) else str(row.default).lower()
        assert any(f"`{row.name}`" in line and f"| {default} | {row.change} |" in line
                   for line in lines), row.name


@pytest.mark.parametrize("task", TASKS)
def test_every_task_can_be_chosen(task):
    assert ROWS["task"].convert(task) == task


def test_every_default_is_allowed():
    for row in TABLE:
        assert row.convert(row.default) == row.default

"""The milliseconds of a model's parts, where they are stored beside it."""

from __future__ import annotations

from pathlib import Path

from deer_ros.budget.timing import CostTable
from deer_ros.model.config import DeerConfig

COST_TABLE = "cost_table.json"
"""In a model directory: what `deer bench --out` wrote."""


def find_cost_table(
    folder: str | Path, config: DeerConfig, file: str | Path | None = None
) -> CostTable | None:
    """The cost table of a model directory with all exits; None where it has none.

    file: where it lies, if not in the directory; then it must be there. Raises OSError, or
    ValueError where it cannot be read or is of a model with other exits.
    """
    path = Path(folder) / COST_TABLE if file is None else Path(file)
    if file is None and not path.is_file():
        return None
    table = CostTable.load(path)
    if table.exit_layers != config.exit_layers:
        raise ValueError(
            f"{path} is of a model with exits after layers {list(table.exit_layers)}; this one has "
            f"{list(config.exit_layers)}. deer bench makes one."
        )
    return table

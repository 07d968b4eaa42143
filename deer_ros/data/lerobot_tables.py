"""The tables of a LeRobot dataset: its tasks, and where the frames of an episode are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib import import_module
from itertools import groupby
from pathlib import Path
from typing import Any

from deer_ros.data.lerobot_info import INFO

LATEST_S = 4e9
"""Later than now in Unix time; fits 64 bits in nanoseconds and in the ticks of a video."""
FILE = "file"
"""Of a row: which of the tables it is in."""
_EPISODES = Path("meta", "episodes")
_NUMBER = "episode_index"
_NEEDED = ("data/chunk_index", "data/file_index", "dataset_from_index", "dataset_to_index")
_OF_VIDEO = ("chunk_index", "file_index", "from_timestamp")
_MOST_NAMED = 10


def read_table(file: Path) -> Any:
    """A pyarrow.Table. ValueError names the file, or the library that is missing."""
    parquet = _parquet()
    try:
        return parquet.read_table(file)
    except FileNotFoundError as error:
        raise ValueError(f"{file} is missing.") from error
    except Exception as error:  # pyarrow's own, of several kinds
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"{file} cannot be read: {reason}.") from error


def read_tasks(folder: Path) -> dict[int, Any]:
    """By number: the texts, and what is none, which no episode accepts."""
    file = folder / "meta" / "tasks.parquet"
    table = read_table(file).to_pydict()
    # The text is the index of a pandas table, whose column has one of several names.
    texts = [values for name, values in table.items() if name != "task_index"]
    if "task_index" not in table or len(texts) != 1:
        raise ValueError(f"{file} has the columns {', '.join(table)}; a text and task_index "
                         "are needed.")
    check_numbers("task_index", table["task_index"], str(file))
    stripped = (text.strip() if isinstance(text, str) else text for text in texts[0])
    return dict(zip(table["task_index"], stripped))


def read_rows(folder: Path, videos: Sequence[str]) -> list[dict[str, Any]]:
    """A row per episode, by episode: its number, where its frames are, and which FILE says so.

    What is in a row is for `check_row` to say. videos: keys of cameras whose pictures are videos.
    """
    files = sorted((folder / _EPISODES).glob("chunk-*/file-*.parquet"))
    if not files:
        raise ValueError(f"{folder / _EPISODES} has no chunk-000/file-000.parquet.")
    columns = [_NUMBER, *_NEEDED, *(f"videos/{key}/{name}" for key in videos for name in _OF_VIDEO)]
    rows: list[dict[str, Any]] = []
    for file in files:
        table = read_table(file)
        missing = [name for name in columns if name not in table.column_names]
        if missing:
            raise ValueError(f"{file} lacks the column {missing[0]}.")
        rows += ({**row, FILE: file} for row in table.select(columns).to_pylist())
    return sorted(rows, key=_place)


def check_row(row: dict[str, Any]) -> None:
    """ValueError where something in it finds nothing; it names the table and the episode."""
    for name, value in row.items():
        found = is_time(value) if name.endswith("timestamp") else isinstance(value, int)
        if name != FILE and not found:
            raise ValueError(
                f"{row[FILE]}: {name} of episode {row[_NUMBER]} is {value!r}, by which nothing can "
                "be found."
            )


def told_once(rows: list[dict[str, Any]]) -> Iterator[dict[str, Any] | ValueError]:
    """The rows of `read_rows`; instead of those that tell of one episode, an error naming them."""
    for number, members in groupby(rows, key=lambda row: row[_NUMBER]):
        row, *others = members
        if others and isinstance(number, int):
            files = sorted({str(one[FILE]) for one in (row, *others)})
            yield ValueError(
                f"{' and '.join(files)}: episode {number} has {1 + len(others)} rows; one is "
                "needed. Take away the others."
            )
        else:
            yield from (row, *others)


def why_not_whole(folder: Path, rows: list[dict[str, Any]], total: Any) -> str | None:
    """Which episodes the tables lack or have beyond `total`, as meta/info.json counts them."""
    if type(total) is not int:
        return None
    found = {row[_NUMBER] for row in rows if isinstance(row[_NUMBER], int)}
    wanted = set(range(total))
    if found == wanted:
        return None
    lacking, beyond = wanted - found, found - wanted
    told = [f"lacks {_listed(lacking)}"] * bool(lacking)
    told += [f"has {_listed(beyond)} too many"] * bool(beyond)
    return (
        f"{folder / _EPISODES} {' and '.join(told)}, and {INFO} tells of {total} episodes: a part "
        "was lost or comes from elsewhere (--skip-bad uses what is there)."
    )


def check_numbers(name: str, values: Sequence[Any], where: str) -> None:
    """ValueError for what is not even a number: pyarrow gives whatever a column holds."""
    wrong = [value for value in values if not isinstance(value, (int, float))]
    if wrong:
        raise ValueError(f"{where}: {name} is {wrong[0]!r}; it must be a whole number")


def is_time(value: object) -> bool:
    """Whether it is one, in seconds."""
    return isinstance(value, (int, float)) and abs(value) <= LATEST_S


def _place(row: dict[str, Any]) -> tuple[bool, int]:
    """Rows without a number come last."""
    number = row[_NUMBER]
    is_number = isinstance(number, int)
    return not is_number, number if is_number else 0


def _listed(numbers: set[int]) -> str:
    first = sorted(numbers)[:_MOST_NAMED]
    rest = f" and {len(numbers) - len(first)} more" if len(numbers) > len(first) else ""
    return f"episode {', '.join(map(str, first))}{rest}"


def _parquet() -> Any:
    try:
        return import_module("pyarrow.parquet")
    except ModuleNotFoundError as error:
        raise ValueError(
            "LeRobot datasets are read with the Python module pyarrow, which is not installed: pip "
            "install -r requirements/lerobot.txt."
        ) from error

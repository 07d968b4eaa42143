"""The file of an evaluation: what was evaluated, and every episode as it ended.

One JSON object a line. Each has a `kind`: first `evaluation` (which environment, whose weights),
then `setting` before the first episode of each, and `episode`. A killed run goes on where it was:
episodes that are there are not run again, and half a line at the end is dropped.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deer_ros.budget.solver import ALWAYS
from deer_ros.report.json_lines import append_line, read_lines

LATER = ("config", "simulator", "dataset", "demonstrations")
"""Facts of an evaluation that files of before do not tell, and are taken to have alike."""


@dataclass(frozen=True)
class Results:
    """What a file holds. about: environment, weights and what else changes every episode.

    definitions: by setting's name.
    """

    about: dict[str, Any]
    definitions: dict[str, dict[str, Any]]
    episodes: list[dict[str, Any]]


def read_results(file: str | Path) -> Results:
    """Raises FileNotFoundError, or ValueError where the file is of another kind."""
    file = Path(file)
    if not file.is_file():
        raise FileNotFoundError(f"there is no file of results {file}.")
    try:
        lines = read_lines(file, _mended)
    except ValueError as error:
        raise ValueError(
            f"{file} is no file of `deer evaluate --out`, or damaged: {error}"
        ) from error
    kinds = [line.get("kind") if isinstance(line, dict) else None for line in lines]
    if kinds[:1] != ["evaluation"] or not set(map(str, kinds[1:])) <= {"setting", "episode"}:
        raise ValueError(f"{file} is no file of `deer evaluate --out`.")
    bare = [{key: value for key, value in line.items() if key != "kind"} for line in lines]
    settings = [line for kind, line in zip(kinds, bare) if kind == "setting"]
    for line in settings:
        name, definition = line.get("setting"), line.get("definition")
        if not (isinstance(name, str) and isinstance(definition, dict)):
            raise ValueError(
                f"{file} is damaged: the setting {name!r} is {definition!r}; it must be a name "
                "and its definition."
            )
    return Results(
        about=bare[0],
        definitions={line["setting"]: line["definition"] for line in settings},
        episodes=[line for kind, line in zip(kinds, bare) if kind == "episode"],
    )


def _mended(line: Any) -> Any:
    """Files of before say Infinity for a threshold that every step keeps, as JSON does not."""
    definition = line.get("definition") if isinstance(line, dict) else None
    thresholds = definition.get("thresholds") if isinstance(definition, dict) else None
    if isinstance(thresholds, list):
        infinite = (math.inf, -math.inf)
        definition["thresholds"] = [
            math.copysign(ALWAYS, t) if t in infinite else t for t in thresholds
        ]
    return line


class ResultsFile:
    """A file of results that is being written, by one process at a time."""

    def __init__(self, file: str | Path, about: dict[str, Any]) -> None:
        """Go on with the file that is there, or begin it.

        Raises ValueError where it is of another model or environment, or no file of results.
        """
        self.file = Path(file)
        about = json.loads(json.dumps(about))
        if _is_begun(self.file):
            found = read_results(self.file)
        else:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            append_line(self.file, {"kind": "evaluation", **about})
            found = Results(about, {}, [])
        for key in sorted(about.keys() | found.about.keys()):
            is_untold = key in LATER and key not in found.about
            if not is_untold and about.get(key) != found.about.get(key):
                raise ValueError(
                    f"{self.file} has results of another evaluation: its {key} is "
                    f"{found.about.get(key)!r}, not {about.get(key)!r}. Name another --out."
                )
        self.episodes = found.episodes
        self._definitions = found.definitions

    def define(self, setting: str, definition: dict[str, Any]) -> None:
        """Say what a setting is. ValueError where the file has another one of that name."""
        definition = json.loads(json.dumps(definition))
        known = self._definitions.get(setting)
        if known is None:
            append_line(
                self.file, {"kind": "setting", "setting": setting, "definition": definition}
            )
            self._definitions[setting] = definition
        elif known != definition:
            raise ValueError(
                f"{self.file} has episodes of {setting!r} as {known}; now it is {definition}. "
                "Name another --out."
            )

    def add(self, episode: dict[str, Any]) -> None:
        """Keep an episode."""
        append_line(self.file, {"kind": "episode", **episode})


def _is_begun(file: Path) -> bool:
    """Whether there is something that must not be written over: all but half a first line."""
    if not file.exists():
        return False
    text = file.read_bytes()
    return b"\n" in text or not b'{"kind": "evaluation"'.startswith(text[:21])

"""What a replay leaves: a folder with a bag for each recording, and what is told of them."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from deer_ros.data.bag_inputs import BagInputs
from deer_ros.data.bag_topics import check_instruction, find_topics
from deer_ros.data.new_bag import new_bag
from deer_ros.data.recording import Recording
from deer_ros.replay.compare import Comparison
from deer_ros.replay.one_run import Asked
from deer_ros.replay.output import Output, labelled
from deer_ros.replay.results import BagResult
from deer_ros.replay.summary import summary
from deer_ros.report.files import write_json
from deer_ros.report.locks import locked_beside
from deer_ros.stepping.settings import Settings
from deer_ros.unfinished import take_place, unfinished_beside

if TYPE_CHECKING:
    from deer_ros.budget.timing import CostTable
    from deer_ros.replay.run import Lockstep

FIGURES = "replay.json"
PAGE = "report.html"


class ReplayFolder:
    """A context manager: the folder is there complete, once `finish` was called, or not at all.

    An earlier replay stays until then, and no other process replays into the folder meanwhile.
    """

    def __init__(self, out: Path, replace: bool) -> None:
        """replace: an earlier replay's folder. On entering, FileExistsError where something else
        is there, and ValueError where another process replays into it."""
        self.out = Path(os.path.abspath(out))  # `.` has no name that others could stand beside
        self._replace = replace
        self._stack = ExitStack()

    def __enter__(self) -> ReplayFolder:
        _check_free(self.out, self._replace)
        with ExitStack() as stack:
            stack.enter_context(locked_beside(self.out, "replays into"))
            # Whoever had the lock before may have finished in between.
            _check_free(self.out, self._replace)
            self._building = stack.enter_context(unfinished_beside(self.out))
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stack.__exit__(kind, error, traceback)

    def replay(
        self,
        lockstep: Lockstep,
        recording: Recording,
        inputs: BagInputs,
        runs: Sequence[tuple[str, Settings]],
        on_message: Callable[[int], None] = lambda count: None,
    ) -> BagResult:
        """Run over one recording, and write its bag. runs: each with its name."""
        topics = find_topics(recording, inputs.names, inputs.transport)
        asked = [Asked(label, settings, labelled(topics, label)) for label, settings in runs]
        place = self._free_place(recording.path)
        with new_bag(place) as writer:
            output = Output(writer, recording, [run.topics for run in asked])
            result = lockstep.replay(
                recording, topics, asked, output, inputs.instruction or None, on_message)
        # Recordings may share a name; their replays do not, and are compared by it.
        result.name = place.name
        return result

    def finish(
        self, content: dict[str, Any], results: Sequence[BagResult], with_page: bool
    ) -> None:
        """Write the figures and the page, and give the folder its name."""
        if with_page:
            from deer_ros.replay.page import write_page

            write_page(self._building / PAGE, content, results)
        write_json(self._building / FIGURES, content)
        take_place(self._building, self.out)

    def _free_place(self, bag: Path) -> Path:
        name = bag.stem if bag.suffix in (".mcap", ".db3") else bag.name
        place, number = self._building / name, 1
        while place.exists():
            number += 1
            place = self._building / f"{name}_{number}"
        return place


def _check_free(out: Path, replace: bool) -> None:
    if out.is_symlink():
        raise FileExistsError(
            f"{out} is a symbolic link, to {out.readlink()}; name a folder as --out"
        )
    if out.exists() and not replace:
        raise FileExistsError(f"{out} exists already; choose another --out, or say --force")
    if out.exists() and not (out / FIGURES).is_file():
        raise FileExistsError(f"{out} is no earlier replay; --force does not replace it")


def check_bag(bag: Path, inputs: BagInputs) -> None:
    """Raises BagError where a bag has not what the node needs."""
    with Recording(bag) as recording:
        topics = find_topics(recording, inputs.names, inputs.transport)
        check_instruction(recording, topics, inputs.instruction or inputs.first_instruction)


def figures(
    results: Sequence[BagResult], instruction: str | None, table: CostTable | None,
    comparison: Comparison | None,
) -> dict[str, Any]:
    """replay.json: everything that the report says in numbers."""
    return {
        "model": results[0].runs[0].plan.settings.model,
        "times": "virtual" if table is not None else "measured",
        "cost_table": None if table is None else {
            "machine": table.machine, "device": table.device, "dtype": table.dtype},
        "instruction": instruction,
        "bags": [
            {"bag": bag.name, "duration_s": bag.duration_s, "lost": bag.losses,
             "refused": dict(bag.refused), "moved": bag.moved, "notes": bag.notes,
             "steps": len(bag.runs[0].steps)}
            for bag in results
        ],
        "runs": [summary(results, run) for run in range(len(results[0].runs))],
        "compared": None if comparison is None else comparison.to_json(),
    }

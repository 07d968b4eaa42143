"""Arguments that say what is what in a recording: as the node is told, in its own words."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from deer_ros.data.bag_inputs import BagInputs

# Of the node's parameters those that say which frames and episodes there are in a bag.
OF_BAGS = (
    "instruction", "control_rate", "image.transport", "image.max_skew", "safety.input_timeout",
    "action.frame_id",
)  # fmt: skip


def add_bag_arguments(parser: argparse.ArgumentParser) -> None:
    """--params, --param, --remap and --instruction."""
    add = parser.add_argument
    add("--params", type=Path, metavar="FILE", help="the node's parameter file")
    add("--param", action="append", default=[], metavar="NAME:=VALUE",
        help="one of the node's parameters; may be given several times")
    add("--remap", action="append", default=[], metavar="FROM:=TO",
        help="another topic of bags, such as camera/static/image:=/front/image_raw; may be given "
        "several times")
    add("--instruction", metavar="TEXT", help="to be used instead of the instructions in the data")


def node_parameters(
    arguments: argparse.Namespace, used: Collection[str] | None = None
) -> dict[str, Any]:
    """What the arguments change of the node's parameters, by name. Raises ValueError, OSError.

    used: those that the command heeds; None: all. A parameter file is the node's and may have any
    of them; a single one that would change nothing is refused.
    """
    from deer_ros.replay.parameters import checked, read_assignment, read_file

    changes = read_file(arguments.params) if arguments.params else {}
    single = dict(read_assignment(text) for text in arguments.param)
    unused = next((name for name in single if used is not None and name not in used), None)
    if unused is not None:
        raise ValueError(
            f"--param is {unused}:={single[unused]}, which changes nothing here; of the node's "
            f"parameters it may be one of {', '.join(used)}."
        )
    return checked(changes | single)


def check_heeded(arguments: argparse.Namespace, data: Sequence[Path]) -> None:
    """ValueError for options that are about another kind of data than any of what is named."""
    from deer_ros.data.readers import BAG, LEROBOT, kind_of

    kinds = {kind_of(path) for path in data}
    of_bags = [text for text in arguments.param if not text.startswith("model:=")]
    for option, values, kind in (
        ("--lerobot", arguments.lerobot, LEROBOT),
        ("--remap", arguments.remap, BAG),
        ("--param", of_bags, BAG),
    ):
        if values and kind not in kinds:
            raise ValueError(
                f"{option} {values[0]} is about {kind}, and there are none in "
                f"{', '.join(map(str, data))}; leave it out."
            )


def check_one_model(arguments: argparse.Namespace, model: object) -> None:
    """ValueError where MODEL, None for none, is not the only one that the command line names."""
    other = [text for text in arguments.param if text.startswith("model:=")]
    if model is not None and other:
        raise ValueError(f"--param {other[0]} names a model beside {model}; leave one out.")


def bag_inputs(arguments: argparse.Namespace, changes: Mapping[str, Any]) -> BagInputs:
    """How bags are read, with these parameters of the node. Raises ValueError."""
    from deer_ros.data.bag_inputs import BagInputs
    from deer_ros.data.bag_topics import Names
    from deer_ros.replay.parameters import settings_of

    settings = settings_of(changes)
    return BagInputs(
        names=Names(arguments.remap),
        # Where nobody says how pictures come, they come as they were recorded.
        transport=changes.get("image.transport"),
        max_skew_s=settings.image_max_skew,
        gap_s=settings.safety_input_timeout,
        rate_hz=settings.control_rate,
        frame_id=settings.action_frame_id,
        instruction=arguments.instruction or "",
        first_instruction=settings.instruction,
    )


def as_said(arguments: argparse.Namespace, inputs: BagInputs) -> dict[str, Any]:
    """How bags are read, as JSON takes it: equal wherever episodes come out equal."""
    said = vars(inputs) | {"names": sorted(arguments.remap)}
    del said["frame_id"]  # it refuses a bag, and changes no episode
    return said


def name_bad(error: ValueError) -> None:
    """Say what --skip-bad leaves out."""
    print(f"skipped: {error}", file=sys.stderr, flush=True)


def as_arguments(arguments: argparse.Namespace) -> list[str]:
    """The same on a command line."""
    words = [word for value in arguments.param for word in ("--param", value)]
    words += [word for value in arguments.remap for word in ("--remap", value)]
    if arguments.params:
        words += ["--params", str(arguments.params)]
    if arguments.instruction:
        words += ["--instruction", arguments.instruction]
    return words

"""`deer convert`: official files to a model directory."""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from deer_ros.checkpoint.convert import Conversion, FileReport

HELP = "official DeeR, OpenFlamingo, MPT and CLIP files to a model directory"

FILES = "a .pt, .pth, .bin or .safetensors file, an index of several, or their folder"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument("out", type=Path, help="model directory to write; it must not exist")
    parser.add_argument("--deer", required=True, type=Path, help=f"DeeR's checkpoint: {FILES}")
    parser.add_argument("--clip", required=True, type=Path,
                        help=f"CLIP ViT-L/14 of OpenAI, from open_clip or transformers: {FILES}")
    parser.add_argument("--tokenizer", type=Path,
                        help="the language model's tokenizer.json, or the folder it is in")
    parser.add_argument("--mpt", type=Path,
                        help=f"the language model, if the DeeR file lacks its blocks: {FILES}")
    parser.add_argument("--openflamingo", type=Path, help=f"OpenFlamingo's checkpoint: {FILES}")
    parser.add_argument("--config", type=Path,
                        help="JSON with sizes and flags of a model that is not a published one")
    parser.add_argument("--preset", help="published thresholds to store: calvin-d, calvin-abc, "
                                         "calvin-abcd")
    parser.add_argument("--json", action="store_true",
                        help="print what became of every tensor as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Convert; 0 when the directory is written. Interrupted or refused, it leaves nothing."""
    from deer_ros.checkpoint import convert_official

    with _bar() as bar:
        task = bar.add_task("writing", total=None)
        conversion = convert_official(
            arguments.out,
            deer=arguments.deer,
            clip=arguments.clip,
            tokenizer=arguments.tokenizer,
            mpt=arguments.mpt,
            openflamingo=arguments.openflamingo,
            config=arguments.config,
            preset=arguments.preset,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    if arguments.json:
        print(json.dumps(_facts(conversion), indent=2))
    else:
        _print(conversion)
    return 0


def _bar() -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    return Progress(
        TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn(),
        console=Console(stderr=True), disable=not sys.stderr.isatty(),
    )


def _facts(conversion: Conversion) -> dict[str, Any]:
    return {
        "model": str(conversion.folder),
        "files": [
            {
                "role": file.role,
                "path": str(file.path),
                "used": list(file.used),
                "superseded": list(file.superseded),
                "dropped": dict(file.dropped),
                "dropped_values": dict(file.dropped_values),
            }
            for file in conversion.files
        ],
    }


def _print(conversion: Conversion) -> None:
    for file in conversion.files:
        print(f"{file.role}: {file.path}")
        for line in _lines(file):
            print(f"  {line}")
    print(f"model directory: {conversion.folder}")


def _lines(file: FileReport) -> list[str]:
    lines = [f"{len(file.used)} tensors used"]
    if file.superseded:
        lines.append(f"{len(file.superseded)} replaced by a file that is loaded later")
    reasons = Counter(file.dropped.values())
    lines += [f"{count} dropped: {reason}" for reason, count in reasons.most_common()]
    return lines + [f"{name} dropped: {reason}" for name, reason in file.dropped_values.items()]

"""Writes a model directory with the shapes of the published 3B model and random weights.

For measurements that need the sizes and not the skill: 6.2 GB, written tensor by tensor.

    python benchmarks/random_model.py FOLDER
"""
from __future__ import annotations

import argparse
import sys
import zlib
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TimeElapsedColumn

from deer_ros.checkpoint.directory import CONFIG, PREPROCESSOR
from deer_ros.checkpoint.shards import tensor_bytes, write_shards
from deer_ros.model.config import DeerConfig
from deer_ros.model.deer import DeerModel
from deer_ros.model.preprocessing import Preprocessor
from deer_ros.model.prompt import PromptEncoder, word_tokenizer

# With the three tokens around it a prompt of 13, as in the paper's costs.
INSTRUCTION = "open the drawer then put the red block into it"
SCALE = 0.02


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="the model directory to make")
    arguments = parser.parse_args()
    try:
        write_random_model(arguments.folder)
    except OSError as error:
        parser.error(str(error))
    return 0


def write_random_model(folder: Path) -> None:
    """Make `folder`; FileExistsError if it is there. It is complete once it has a config.json."""
    tokenizer, prompt = word_tokenizer([INSTRUCTION])
    config = DeerConfig(prompt=prompt)
    with torch.device("meta"):
        model = DeerModel(config)
    shapes = [(name, tuple(value.shape)) for name, value in model.state_dict().items()]
    folder.mkdir(parents=True)
    Preprocessor(config.vision.image_size).save(folder / PREPROCESSOR)
    PromptEncoder(tokenizer, prompt).save(folder)
    stderr = Console(file=sys.stderr)
    columns = (BarColumn(), DownloadColumn(), TimeElapsedColumn())
    with Progress(*columns, console=stderr, disable=not stderr.is_terminal) as progress:
        bar = progress.add_task("", total=sum(tensor_bytes(shape) for _, shape in shapes))
        of_name = dict(shapes)
        write_shards(folder, shapes, lambda name: random_tensor(name, of_name[name]),
                     lambda size: progress.advance(bar, size))
    config.save(folder / CONFIG)


def random_tensor(name: str, shape: tuple[int, ...]) -> torch.Tensor:
    """The same values for the same name, float32."""
    generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    return torch.randn(shape, generator=generator) * SCALE


if __name__ == "__main__":
    sys.exit(main())

"""Official DeeR, CLIP, MPT and OpenFlamingo files to a model directory.

First every file's names and shapes are read, and a plan says which tensor comes from where. Then
the tensors are copied one by one, so that memory never holds a whole file; but for those that older
versions of PyTorch wrote, which can only be read whole: of them it holds one at a time.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from deer_ros.budget.presets import find_preset
from deer_ros.checkpoint.directory import CONFIG, PREPROCESSOR, inspect_model, layer_index
from deer_ros.checkpoint.official_config import (
    IGNORED_VALUES,
    official_config,
    read_description,
)
from deer_ros.checkpoint.official_files import OfficialFile, official_paths, open_official
from deer_ros.checkpoint.official_names import Dropped, head_mlp_names, live_name, translate
from deer_ros.checkpoint.official_tokenizer import official_prompts
from deer_ros.checkpoint.shards import SHARD_BYTES, tensor_bytes, write_shards
from deer_ros.checkpoint.torch_archive import CLIP_HINT
from deer_ros.model.config import DeerConfig, ExitConfig
from deer_ros.model.deer import DeerModel
from deer_ros.model.preprocessing import Preprocessor
from deer_ros.unfinished import unfinished_beside

Shape = tuple[int, ...]
Progress = Callable[[int, int], None]

EMBEDDING = "embedding.weight"
ALIAS = "another name of a tensor that is used"
LATER_LAYER = "of a layer past those kept"


@dataclass(frozen=True)
class FileReport:
    """What became of every tensor of a file.

    used: written. superseded: replaced by a file that the authors load later. dropped: known and
    not needed, with the reason. dropped_values: likewise of what the file holds beside its tensors;
    the others made the configuration.
    """

    role: str
    path: Path
    used: tuple[str, ...]
    superseded: tuple[str, ...]
    dropped: Mapping[str, str]
    dropped_values: Mapping[str, str]


@dataclass(frozen=True)
class Conversion:
    """A finished conversion."""

    folder: Path
    config: DeerConfig
    files: tuple[FileReport, ...]


def convert_official(
    out: str | Path,
    *,
    deer: str | Path,
    clip: str | Path,
    tokenizer: str | Path | None = None,
    mpt: str | Path | None = None,
    openflamingo: str | Path | None = None,
    config: Mapping[str, Any] | str | Path | None = None,
    preset: str | None = None,
    progress: Progress | None = None,
    shard_bytes: int = SHARD_BYTES,
) -> Conversion:
    """Write the model directory `out` from official files.

    deer, clip, mpt, openflamingo: a .pt, .pth, .bin or .safetensors file, the index of several, or
    a folder of them. The DeeR file and CLIP's visual weights are enough; where more files hold a
    tensor, the one loaded last by the authors (mpt, clip, openflamingo, deer) is taken.
    tokenizer: the language model's tokenizer.json or its folder. config: a dictionary or JSON file
    with the sizes and flags that no file tells; None: the published 3B and 9B models are
    recognised. preset: name of published thresholds to make the model's own.
    progress(bytes written, bytes in all) is called after every tensor.

    `out` appears whole or not at all; it must not exist, or be empty. Raises FileNotFoundError,
    FileExistsError, OSError or ValueError with a sentence: a tensor that is unknown, missing or of
    a wrong shape, a pickle that would run a program, a description that does not fit.
    """
    target = _target(Path(out))
    description = read_description(config)
    given = {"mpt": mpt, "clip": clip, "openflamingo": openflamingo, "deer": deer}
    surveys = [
        _survey(role, path)
        for role, paths in given.items() if paths is not None
        for path in official_paths(paths)
    ]
    values = {k: v for s in surveys if s.role == "deer" for k, v in s.file.values.items()}
    deer_config = official_config(description, values, _language_width(surveys))
    if preset is not None:
        deer_config = _with_preset(deer_config, preset)
    prompts = official_prompts(tokenizer, description, deer_config)
    plan = _Plan(deer_config, surveys)

    with unfinished_beside(target) as unfinished:
        _check_room(unfinished, plan.bytes)
        deer_config.save(unfinished / CONFIG)
        Preprocessor(deer_config.vision.image_size).save(unfinished / PREPROCESSOR)
        prompts.save(unfinished)
        plan.write(unfinished, progress, shard_bytes)
        inspect_model(unfinished)
        if target.exists():
            target.rmdir()
        unfinished.rename(target)
    return Conversion(Path(out), deer_config, plan.reports())


def _target(out: Path) -> Path:
    """The folder itself, where a link leads to it. Raises where a model cannot appear there."""
    target = Path(os.path.realpath(out))
    if target.is_symlink():
        raise FileExistsError(f"{out} is a link that leads nowhere; name a new folder.")
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise FileExistsError(f"{out} exists already; name a new folder, or remove it first.")
    if target == Path.cwd():
        raise FileExistsError(f"{out} is the folder that this runs in; name another.")
    return target


@dataclass
class _Survey:
    """One file before it is converted. here: what each tensor is called in this package."""

    role: str
    file: OfficialFile
    here: dict[str, tuple[str, ...]] = field(default_factory=dict)
    dropped: dict[str, str] = field(default_factory=dict)

    def shape(self, name: str) -> Shape:
        return self.file.tensors[name].shape


def _survey(role: str, path: Path) -> _Survey:
    survey = _Survey(role, open_official(path))
    live = {name: live_name(role, name) for name in survey.file.tensors}
    mlps = head_mlp_names({live[name]: survey.shape(name) for name in live})
    unknown = []
    taken: dict[tuple[str, ...], str] = {}
    for name in live:
        here = (mlps[live[name]],) if live[name] in mlps else translate(live[name])
        if here is None:
            unknown.append(name)
        elif isinstance(here, Dropped):
            survey.dropped[name] = here.reason
        elif here in taken:
            _check_alias(survey.file, taken[here], name)
            survey.dropped[name] = ALIAS
        else:
            taken[here] = name
            survey.here[name] = here
    if unknown:
        raise ValueError(_unknown(role, path, unknown))
    survey.file.release()
    return survey


def _check_alias(file: OfficialFile, one: str, other: str) -> None:
    if not file.same(one, other):
        raise ValueError(
            f"{file.path} has {one!r} and {other!r}, two names of one tensor, with values that "
            "differ."
        )


def _unknown(role: str, path: Path, names: Sequence[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    hint = f" {CLIP_HINT}." if role == "clip" else ""
    return (
        f"{path}, given as {role}, has tensors that are not known: {', '.join(names[:3])}{more}; "
        f"nothing was converted.{hint}"
    )


def _language_width(surveys: Sequence[_Survey]) -> int | None:
    """Width of the language model, by the last embedding that is loaded."""
    for survey in reversed(surveys):
        for name, here in survey.here.items():
            if here == (EMBEDDING,):
                return survey.shape(name)[-1]
    return None


def _with_preset(config: DeerConfig, name: str) -> DeerConfig:
    preset = find_preset(name)
    if preset.thresholds is None:
        raise ValueError(f"preset {name!r} has no thresholds to store; choose it when running.")
    return config.replace(
        exits=ExitConfig(config.exits.interval, preset.metric, preset.thresholds)
    )


def _check_room(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise OSError(
            f"{folder.parent} has {free / 1e9:.1f} GB free; the model needs {needed / 1e9:.1f} GB."
        )


@dataclass(frozen=True)
class _Source:
    """Where a tensor comes from: rows of a tensor in a file."""

    survey: _Survey
    name: str
    start: int
    stop: int

    def read(self) -> Tensor:
        return self.survey.file.read(self.name, self.start, self.stop)


class _Plan:
    """Which tensor of the model is read from where. Building it checks every name and shape."""

    def __init__(self, config: DeerConfig, surveys: Sequence[_Survey]) -> None:
        with torch.device("meta"):
            model = DeerModel(config)
        self.shapes: dict[str, Shape] = {n: tuple(t.shape) for n, t in model.state_dict().items()}
        self.bytes = sum(map(tensor_bytes, self.shapes.values()))
        self.layers = config.language.layers
        self.surveys = surveys
        self.sources: dict[str, _Source] = {}
        for survey in surveys:  # in the authors' order of loading: the last one counts
            for name, here in list(survey.here.items()):
                self._add(survey, name, here)
        missing = [name for name in self.shapes if name not in self.sources]
        if missing:
            raise ValueError(self._missing(missing))

    def write(self, folder: Path, progress: Progress | None, shard_bytes: int) -> None:
        """Write all tensors, those of one file after the other."""
        order = [name for survey in self.surveys for name in self.shapes
                 if self.sources[name].survey is survey]
        done = 0

        def report(written: int) -> None:
            nonlocal done
            done += written
            if progress is not None:
                progress(done, self.bytes)

        shapes = [(name, self.shapes[name]) for name in order]
        write_shards(folder, shapes, self._read, report, shard_bytes)

    def reports(self) -> tuple[FileReport, ...]:
        """What became of every tensor of every file."""
        used = {(id(s.survey), s.name) for s in self.sources.values()}
        return tuple(
            FileReport(
                survey.role,
                survey.file.path,
                tuple(n for n in survey.here if (id(survey), n) in used),
                tuple(n for n in survey.here if (id(survey), n) not in used),
                dict(survey.dropped),
                {n: IGNORED_VALUES[n] for n in survey.file.values if n in IGNORED_VALUES},
            )
            for survey in self.surveys
        )

    def _read(self, name: str) -> Tensor:
        source = self.sources[name]
        for survey in self.surveys:
            if survey is not source.survey:
                survey.file.release()
        tensor = source.read()
        # A finite sum shows that all of it is, without a mask beside it in memory.
        if not (tensor.sum().isfinite() or tensor.isfinite().all()):
            raise ValueError(
                f"tensor {source.name!r} in {source.survey.file.path} holds NaN or infinity; "
                "weights must be finite."
            )
        return tensor

    def _add(self, survey: _Survey, name: str, here: tuple[str, ...]) -> None:
        layer = layer_index(here[0])
        if layer is not None and layer >= self.layers:
            del survey.here[name]
            survey.dropped[name] = LATER_LAYER
            return
        if here[0] not in self.shapes:
            raise ValueError(
                f"tensor {name!r} in {survey.file.path} belongs to a part ({here[0]}) that the "
                "model of this configuration does not have."
            )
        self._check_shape(survey, name, here)
        rows = self.shapes[here[0]][0]
        for index, part in enumerate(here):
            self.sources[part] = _Source(survey, name, index * rows, (index + 1) * rows)

    def _check_shape(self, survey: _Survey, name: str, here: tuple[str, ...]) -> None:
        rows, *rest = self.shapes[here[0]]
        found, expected = survey.shape(name), (rows * len(here), *rest)
        # The language model's own vocabulary is larger: its embedding is cut to the one in use.
        cut = survey.role == "mpt" and here == (EMBEDDING,)
        if cut and len(found) == 2 and found[0] >= rows:
            found = (rows, *found[1:])
        if found != expected:
            raise ValueError(
                f"tensor {name!r} in {survey.file.path} has shape {survey.shape(name)}; the model "
                f"of this configuration needs {expected}."
            )

    def _missing(self, names: Sequence[str]) -> str:
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        roles = ", ".join(dict.fromkeys(survey.role for survey in self.surveys))
        return (
            f"the files given ({roles}) have nothing for {', '.join(names[:3])}{more}; name the "
            "files that hold them, or correct the configuration."
        )

"""Settings as a command line names them."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from deer_ros.budget.budget import Budget, BudgetError
from deer_ros.budget.cadence import Cadence
from deer_ros.budget.presets import find_preset
from deer_ros.checkpoint.directory import CALIBRATION
from deer_ros.checkpoint.fingerprint import find_calibration
from deer_ros.evaluation.episode import Setting
from deer_ros.exit_rule import ExitRule
from deer_ros.model.config import DeerConfig
from deer_ros.model.prompt import PromptEncoder
from deer_ros.pacing import Facts
from deer_ros.policy import BY_CALIBRATION

FULL_DEPTH = "full depth"
OWN_THRESHOLDS = "own thresholds"

_SWITCH = {"yes": True, "true": True, "no": False, "false": False}


def full_depth(config: DeerConfig) -> Setting:
    """The deepest exit, always: what others are compared to."""
    return Setting(FULL_DEPTH, exit_layer=config.exit_layers[-1])


def own_thresholds(config: DeerConfig) -> list[Setting]:
    """The thresholds that the model directory names; none where it names none."""
    if config.exits.thresholds is None:
        return []
    return [Setting(OWN_THRESHOLDS, thresholds=config.thresholds)]


def fixed_exits(config: DeerConfig, listed: str) -> list[Setting]:
    """Of comma-separated layers, or `all`. ValueError for a layer that has no exit."""
    exits = config.exit_layers
    texts = map(str, exits) if listed == "all" else filter(None, listed.split(","))
    settings = []
    for text in texts:
        layer = int(text) if text.strip().isdecimal() else text
        if layer not in exits:
            raise ValueError(f"--exits has {layer}; the exits are after layers {list(exits)}.")
        settings.append(Setting(f"exit {layer}", exit_layer=layer))
    return settings


def thresholds(config: DeerConfig, listed: str) -> list[Setting]:
    """Of comma-separated numbers, each for every exit, or one number per exit joined by slashes."""
    settings = []
    for text in filter(None, listed.split(",")):
        try:
            values = tuple(float(part) for part in text.split("/"))
        except ValueError as error:
            raise ValueError(
                f"--threshold has {text!r}; it must be a number, or one per exit joined by slashes."
            ) from error
        values = values * len(config.exit_layers) if len(values) == 1 else values
        ExitRule.of(config, config.exit_layers[-1], values)
        settings.append(Setting(f"threshold {text}", thresholds=values))
    return settings


def presets(config: DeerConfig, listed: str) -> list[Setting]:
    """Of comma-separated names. ValueError for one that there is not or that does not fit."""
    settings = []
    for name in filter(None, listed.split(",")):
        preset = find_preset(name)
        ExitRule.of(
            config, config.exit_layers[-1], preset.thresholds, preset.metric, preset.max_layer
        )
        settings.append(Setting(f"preset {name}", preset=name))
    return settings


def budgets(texts: Iterable[str]) -> list[Setting]:
    """Of texts like `average_gflops=0.01,scope=step,tracking=no`."""
    return [Setting(text, budget=_budget(text, "--budget")) for text in texts]


def average_gflops(listed: str) -> list[Setting]:
    """Of comma-separated figures for the language model."""
    named = (f"average_gflops={text}" for text in filter(None, listed.split(",")))
    return [Setting(text, budget=_budget(text, "--average-gflops")) for text in named]


def check_names(settings: Sequence[Setting]) -> None:
    """ValueError where two settings have one name."""
    names = [setting.name for setting in settings]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"the setting {twice[0]!r} was asked for twice.")


def definitions(
    settings: Sequence[Setting], folder: Path, config: DeerConfig
) -> dict[str, dict[str, Any]]:
    """By setting's name, all that decides how deep it goes, JSON-ready: what makes it the same."""
    file = folder / CALIBRATION
    calibration = hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else None
    cadence = Cadence.of(config)
    found = {}
    for setting in settings:
        found[setting.name] = definition = setting.definition
        if setting.exit_layer is None:
            definition["metric"] = config.metric
            if cadence.steps_per_decision > 1:
                definition |= cadence.arguments
        if setting.budget is not None and calibration is not None:
            # Its thresholds are solved from that.
            definition["calibration"] = calibration
    return found


def check_budgets(
    settings: Iterable[Setting], folder: Path, config: DeerConfig,
    words: Mapping[str, Sequence[str]],
) -> None:
    """BudgetError that names the task where what is said for it costs more than a budget permits.

    words: by task. Tells of budgets in GFLOPs, which a longer prompt may break; time, memory and
    the weights' type are for the machine to say.
    """
    asked = {setting.name: setting.budget for setting in settings if setting.budget is not None}
    if not asked:
        return
    prompts = PromptEncoder.load(folder, config.prompt)
    tokens, task = max(
        (len(prompts.encode(text)), task) for task, texts in words.items() for text in texts
    )
    for name, budget in asked.items():
        counted = budget.replace(memory_mib=None, latency_ms=None, average_ms=None)
        needed = counted.limits.keys() & BY_CALIBRATION
        calibration = find_calibration(folder) if needed else None
        dtype = (calibration and calibration.dtype) or "float32"
        facts = Facts(
            config, dtype, config.exit_layers[-1], tokens=tokens, calibration=calibration
        )
        try:
            facts.solve(counted)
        except BudgetError as error:
            raise BudgetError(
                f"{name!r} cannot be kept in the task {task}, whose prompt has {tokens} tokens: "
                f"{error}"
            ) from error


def _budget(text: str, option: str) -> Budget:
    kinds = {field.name: field.type for field in dataclasses.fields(Budget)}
    values: dict[str, object] = {}
    for part in text.split(","):
        name, equals, value = part.partition("=")
        if not equals or name not in kinds:
            raise ValueError(
                f"{option} has {part!r}; it must be NAME=VALUE with one of {', '.join(kinds)}."
            )
        values[name] = _value(name, value, kinds[name], option)
    budget = Budget(**values)
    if not budget.limits:
        raise ValueError(f"{option} {text} limits nothing; name one, such as average_gflops.")
    return budget


def _value(name: str, text: str, kind: str, option: str) -> object:
    if kind == "bool":
        if text not in _SWITCH:
            raise ValueError(f"{option} has {name}={text}; it must be yes or no.")
        return _SWITCH[text]
    if kind == "str":
        return text
    try:
        return float(text)
    except ValueError as error:
        raise ValueError(f"{option} has {name}={text}; it must be a number.") from error

"""`deer info`: what a model directory holds, and what its exits cost. No weight is read."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from deer_ros.budget.cost import CostModel
    from deer_ros.checkpoint.weights import StoredTensor
    from deer_ros.model.config import DeerConfig

HELP = "architecture, exits, cost and memory per exit, calibration of a model"

PAPERS_PROMPT_TOKENS = 13
MIB = 1 << 20
INFINITE = {float("inf"): "always", float("-inf"): "never"}  # JSON has no infinity


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument("model", nargs="?", help="model directory, or owner/name on the Hugging "
                        "Face hub (default: the bundled model)")
    parser.add_argument("--instruction", help="text whose prompt the costs are for "
                        f"(default: any of {PAPERS_PROMPT_TOKENS} tokens)")
    parser.add_argument("--sha256", action="store_true",
                        help="also the fingerprint of the weights, for the parameter model_sha256")
    parser.add_argument("--json", action="store_true", help="print the answer as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Print the facts; 0 unless the directory cannot be read."""
    from deer_ros.resources import find_model

    folder = find_model(arguments.model)
    facts = describe(folder, arguments.instruction)
    if arguments.sha256:
        from deer_ros.checkpoint import weights_sha256

        facts["sha256"] = weights_sha256(folder)
    if arguments.json:
        print(json.dumps(facts, indent=2))
    else:
        _print(facts)
    return 0


def describe(folder: Any, instruction: str | None = None) -> dict[str, Any]:
    """All that `deer info --json` prints. Raises ValueError or OSError as loading would."""
    from pathlib import Path

    from deer_ros.budget.cost import CostModel
    from deer_ros.checkpoint.directory import CALIBRATION, inspect_model
    from deer_ros.checkpoint.thresholds import find_searched_thresholds
    from deer_ros.model.prompt import PromptEncoder
    from deer_ros.model.schema import to_dict

    config, stored = inspect_model(folder)
    tokens = min(PAPERS_PROMPT_TOKENS, config.prompt.max_tokens)
    if instruction is not None:
        tokens = len(PromptEncoder.load(folder, config.prompt).encode(instruction))
    cost = CostModel(config, tokens)
    searched = find_searched_thresholds(folder, config)
    return {
        "model": str(folder),
        "trained_in": config.trained_in,
        "calibrated": (Path(folder) / CALIBRATION).is_file(),
        "action": to_dict(config.action),
        "max_episode_steps": config.max_episode_steps,
        "architecture": {
            part: to_dict(getattr(config, part))
            for part in ("vision", "resampler", "language", "head")
        },
        "parts": _parts(config, stored, cost),
        "parameters": sum(t.parameters for t in stored.values()),
        "bytes": sum(t.bytes for t in stored.values()),
        "dtypes": sorted({t.dtype for t in stored.values()}),
        "prompt_tokens": tokens,
        "fixed_step_gflops": cost.fixed_gflops,
        "metric": config.metric,
        "steps_per_decision": config.exits.steps_per_decision,
        "max_layer_between": config.exits.max_layer_between,
        "searched": None if searched is None else searched.made,
        "exits": _exits(config, stored, cost),
    }


def _parts(
    config: DeerConfig, stored: Mapping[str, StoredTensor], cost: CostModel
) -> list[dict[str, Any]]:
    """Size and cost of every part; the layers one by one, the head with one answer."""
    from deer_ros.budget.cost import (
        CAMERAS,
        GIGA,
        layer_macs,
        proprioception_macs,
        resampler_macs,
        tower_macs,
    )

    reads_state = config.proprioception is not None
    layers = {
        f"layers.{n - 1}.": layer_macs(config, n, cost.prompt_tokens) / GIGA
        for n in range(1, config.language.layers + 1)
    }
    gflops = {
        "tower.": CAMERAS * tower_macs(config.vision) / GIGA,
        "resampler.": CAMERAS * resampler_macs(config) / GIGA,
        **({"proprioception.": proprioception_macs(config) / GIGA} if reads_state else {}),
        "embedding.": 0.0,
        **layers,
        "head.": cost.head_gflops(1),
    }
    parts = []
    for prefix, part_gflops in gflops.items():
        held = [tensor for name, tensor in stored.items() if name.startswith(prefix)]
        number = prefix.removeprefix("layers.")[:-1]
        parts.append({
            "part": f"layer {int(number) + 1}" if prefix in layers else number,
            "parameters": sum(t.parameters for t in held),
            "bytes": sum(t.bytes for t in held),
            "gflops": part_gflops,
        })
    return parts


def _exits(
    config: DeerConfig, stored: Mapping[str, StoredTensor], cost: CostModel
) -> list[dict[str, Any]]:
    """Every exit's default threshold, cost when all before it were asked, and weights to hold."""
    from deer_ros.checkpoint.directory import layer_index

    exits = []
    for index, (layer, threshold) in enumerate(zip(config.exit_layers, config.thresholds)):
        held = [t for name, t in stored.items() if (layer_index(name) or 0) < layer]
        exits.append({
            "exit": index,
            "layer": layer,
            "threshold": INFINITE.get(threshold, threshold),
            "llm_gflops": cost.language_gflops(layer),
            "step_gflops": cost.step_gflops(index),
            "weights_mib": sum(t.bytes for t in held) / MIB,
        })
    return exits


def _origin(searched: Mapping[str, Any] | None) -> str:
    """Where a model's own thresholds come from, from how `thresholds.json` was made."""
    if searched is None:
        return "of config.json"
    return f"of thresholds.json, {searched.get('trials')} trials with {searched.get('scorer')}"


def _print(facts: dict[str, Any]) -> None:
    from deer_ros.budget.cadence import Cadence
    from deer_ros.report.tables import console, number, table

    out, action = console(), facts["action"]
    linear_m_s, angular_rad_s = (
        action[scale] * action["rate_hz"] for scale in ("linear_scale", "angular_scale")
    )
    lines = {
        "model": facts["model"],
        "sha256": facts.get("sha256"),
        "trained in": facts["trained_in"],
        "calibrated": "yes" if facts["calibrated"] else "no",
        "thresholds": _origin(facts["searched"]),
        "decided": str(Cadence(facts["steps_per_decision"], facts["max_layer_between"])),
        "vision": "{type} tower, pictures of {image_size} pixels".format(
            **facts["architecture"]["vision"]
        ),
        "weights": f"{facts['parameters']:,} parameters, "
                   f"{facts['bytes'] / MIB:.1f} MiB, {' '.join(facts['dtypes'])}",
        "action": f"{action['rate_hz']:g} Hz, {action['frame']} frame, {action['rotation']} from "
                  f"the {action['reference']} pose, {_times(action['executions_per_step'])}",
        "speed of a full action": f"{linear_m_s:g} m/s, {angular_rad_s:g} rad/s",
        "episode": f"{facts['max_episode_steps']} control periods, "
                   f"{facts['max_episode_steps'] / action['rate_hz']:g} s",
    }
    lines["GFLOPs"] = (
        f"1e9 multiply-adds; both cameras, a prompt of {facts['prompt_tokens']} tokens; a step "
        f"that asks the criterion costs at least {number(facts['fixed_step_gflops'])}"
    )
    for name, value in lines.items():
        if value is not None:
            print(f"{name + ':':<24}{value}")
    out.print(table(
        "parts",
        ("part", "parameters", "MiB", "GFLOPs"),
        [(p["part"], f"{p['parameters']:,}", number(p["bytes"] / MIB), number(p["gflops"]))
         for p in facts["parts"]],
    ))
    out.print(table(
        "exits",
        ("exit", "after layer", f"threshold {facts['metric']}", "GFLOPs llm", "GFLOPs step",
         "weights MiB"),
        [(str(e["exit"]), str(e["layer"]), str(e["threshold"]), number(e["llm_gflops"]),
          number(e["step_gflops"]), number(e["weights_mib"])) for e in facts["exits"]],
    ))


def _times(executions: int) -> str:
    return "once a step" if executions == 1 else f"{executions} times a step"

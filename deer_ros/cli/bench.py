"""`deer bench`: what a model takes on this machine: milliseconds, memory, loading."""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from deer_ros.policy import DeerPolicy

HELP = "latency per part and exit, memory and load time of a model on this machine"

MIB = 1 << 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument("model", nargs="?", help="model directory, or owner/name on the Hugging "
                        "Face hub (default: the bundled model)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N")
    parser.add_argument("--dtype", default="auto", help="auto, float32, bfloat16, float16")
    parser.add_argument("--max-layer", type=int, metavar="N", help="load and measure that many")
    parser.add_argument("--threads", type=int, metavar="N",
                        help="of torch (default: OMP_NUM_THREADS, or as the node: all cores but "
                        "one)")
    parser.add_argument("--steps", type=int, default=100, help="to measure (default: 100)")
    parser.add_argument("--instruction", help="text that is read (default: as long a one as the "
                        "paper's)")
    parser.add_argument("--out", type=Path, metavar="FILE",
                        help="write the answer as JSON there too, for --timing and --cost-table")
    parser.add_argument("--json", action="store_true", help="print the answer as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Measure and print; 0 unless the model cannot be loaded."""
    from deer_ros.inputs import check_threads
    from deer_ros.report.files import destination, write_json

    if arguments.steps < 1:
        raise ValueError(f"--steps is {arguments.steps}; it must be at least 1.")
    if arguments.threads is not None:
        check_threads(arguments.threads)
    if arguments.out is not None:
        destination(arguments.out)  # Not when all is measured and would be lost.
    facts = measure(arguments)
    if arguments.out is not None:
        write_json(arguments.out, facts)
    if arguments.json:
        print(json.dumps(facts, indent=2))
    else:
        _print(facts)
    return 0


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """All that `deer bench --json` prints."""
    import torch

    from deer_ros.measuring import take_threads
    from deer_ros.policy import DeerPolicy
    from deer_ros.resources import find_model

    if arguments.threads is None:
        take_threads()
    else:
        torch.set_num_threads(arguments.threads)
    folder = find_model(arguments.model)
    resident_mib = _resident_mib()
    started_s = time.perf_counter()
    policy = DeerPolicy.from_pretrained(
        folder, arguments.device, arguments.dtype, arguments.max_layer
    )
    load_s = time.perf_counter() - started_s
    first_step_s = _first_step_s(policy, arguments.instruction)
    resident_mib = None if resident_mib is None else _resident_mib() - resident_mib
    table = _measured(policy, arguments.steps)
    return {
        "model": str(folder),
        "load_s": load_s,
        "first_step_s": first_step_s,
        "weights_mib": _weights_mib(policy.model),
        "resident_mib": resident_mib,
        "cost_table": table.to_json(),
        "parts": _parts(policy, table),
        "exits": _exits(policy, table),
        "fixed": {
            "step_gflops": _cost(policy, table).fixed_gflops,
            "p50_ms": table.fixed_ms("p50"),
            "p99_ms": table.fixed_ms("p99"),
        },
    }


def _first_step_s(policy: DeerPolicy, instruction: str | None) -> float:
    """Seconds of the first step, which brings pages and libraries into memory."""
    import numpy as np

    from deer_ros.observation import Observation

    picture = np.zeros((200, 200, 3), np.uint8)
    read = policy.usual_ids() if instruction is None else instruction
    started_s = time.perf_counter()
    policy.step(Observation(picture, picture, _at_rest(policy)), read,
                exit_layer=policy.model.max_layer, commit=False)
    return time.perf_counter() - started_s


def _at_rest(policy: DeerPolicy) -> Any:
    sensed = policy.config.proprioception
    return None if sensed is None else list(sensed.mean)


def _measured(policy: DeerPolicy, steps: int) -> Any:
    """The cost table, with a bar on a terminal."""
    from rich.console import Console
    from rich.progress import Progress

    stderr = Console(stderr=True)
    with Progress(console=stderr, disable=not stderr.is_terminal) as progress:
        bar = progress.add_task("measuring", total=steps)
        return policy.measure(steps, on_step=lambda: progress.advance(bar))


def _cost(policy: DeerPolicy, table: Any) -> Any:
    from deer_ros.budget.cost import CostModel

    return CostModel(policy.config, table.prompt_tokens)


def _parts(policy: DeerPolicy, table: Any) -> list[dict[str, Any]]:
    """GFLOPs, bytes and milliseconds of every part; the head with one answer."""
    from deer_ros.budget import cost as macs
    from deer_ros.budget import memory
    from deer_ros.budget.cost import CAMERAS, GIGA

    config, tokens = policy.config, table.prompt_tokens
    recurrent, answer = macs.head_macs(config)
    size = memory.BYTES[table.dtype]
    rows = [
        ("preprocessing", 0, 0, table.preprocessing),
        ("vision", CAMERAS * macs.tower_macs(config.vision), memory.tower_parameters(config),
         table.vision),
        ("resampler", CAMERAS * macs.resampler_macs(config),
         memory.resampler_parameters(config), table.resampler),
        ("embedding", 0, config.language.vocabulary * config.language.width, None),
        ("recurrent update", recurrent, None, table.recurrent),
        ("head, an answer", answer, memory.head_parameters(config), table.head),
        *((f"layer {n}", macs.layer_macs(config, n, tokens), memory.layer_parameters(config, n),
           ms) for n, ms in enumerate(table.layers, start=1)),
    ]
    return [
        {
            "part": name,
            "gflops": part_macs / GIGA,
            "bytes": None if parameters is None else parameters * size,
            "p50_ms": ms and ms.p50,
            "p99_ms": ms and ms.p99,
        }
        for name, part_macs, parameters, ms in rows
    ]


def _exits(policy: DeerPolicy, table: Any) -> list[dict[str, Any]]:
    """Steps that ask every exit up to this one and leave there."""
    from deer_ros.budget.memory import weights_mib

    cost = _cost(policy, table)
    return [
        {
            "exit": index,
            "layer": layer,
            "llm_gflops": cost.language_gflops(layer),
            "step_gflops": cost.step_gflops(index),
            "llm_ms": table.llm_ms(index),
            "p50_ms": table.step_ms(index, "p50"),
            "p99_ms": table.step_ms(index, "p99"),
            "weights_mib": weights_mib(policy.config, layer, table.dtype),
        }
        for index, layer in enumerate(table.exit_layers)
    ]


def _weights_mib(model: Any) -> float:
    return sum(p.numel() * p.element_size() for p in model.parameters()) / MIB


def _resident_mib() -> float | None:
    """Memory that this process holds; None where the system does not tell."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return None
    return pages * os.sysconf("SC_PAGE_SIZE") / MIB


def _print(facts: dict[str, Any]) -> None:
    from deer_ros.report.tables import console, number, table

    out, measured, fixed = console(), facts["cost_table"], facts["fixed"]
    lines = {
        "model": facts["model"],
        "machine": f"{measured['machine']}; {measured['device']}, {measured['dtype']}, "
                   f"{measured['threads']} threads of torch",
        "loading": f"{number(facts['load_s'])} s, first step {number(facts['first_step_s'])} s",
        "memory": f"{number(facts['weights_mib'])} MiB of weights; the process grew by "
                  f"{number(facts['resident_mib'])} MiB with them and a first step",
        "measured": f"{measured['steps']} steps, a prompt of {measured['prompt_tokens']} tokens; "
                    "p50 is the median, p99 the 99th percentile",
        "fixed part": f"{number(fixed['step_gflops'])} GFLOPs, {number(fixed['p50_ms'])} ms "
                      f"(p99 {number(fixed['p99_ms'])} ms): no budget below it can be met",
    }
    for name, value in lines.items():
        print(f"{name + ':':<12}{value}")
    out.print(table(
        "parts", ("part", "GFLOPs", "MiB", "ms p50", "ms p99"),
        [(p["part"], number(p["gflops"]),
          "" if p["bytes"] is None else number(p["bytes"] / MIB),
          number(p["p50_ms"]), number(p["p99_ms"])) for p in facts["parts"]],
    ))
    out.print(table(
        "exits, having asked all before",
        ("exit", "after layer", "GFLOPs llm", "GFLOPs step", "ms llm p50", "ms step p50",
         "ms step p99", "weights MiB"),
        [(str(e["exit"]), str(e["layer"]), number(e["llm_gflops"]), number(e["step_gflops"]),
          number(e["llm_ms"]), number(e["p50_ms"]), number(e["p99_ms"]),
          number(e["weights_mib"])) for e in facts["exits"]],
    ))

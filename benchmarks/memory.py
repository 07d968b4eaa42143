"""What a policy of the published 3B model's size holds in memory, against what was said of it.

Each depth is loaded in a process of its own, which steps once: by `max_layer`, and by the budget
`memory_mib` that just permits it. Another process raises and lowers the depth of a living policy.
Resident memory counts the pages that are mapped from the weights' file.

    python benchmarks/random_model.py /tmp/random-3b
    python benchmarks/memory.py /tmp/random-3b
    python benchmarks/memory.py /tmp/random-3b --dtype bfloat16 --json
"""
from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import time
from pathlib import Path

from random_model import INSTRUCTION

DEPTHS = (2, 4, 6, 8, 10, 12)
LIVE_DEPTHS = (2, 12, 4)
BUDGET_TOLERANCE = 0.05  # of what was predicted
STORED = "float32"  # by random_model.py
GROWTH_TOLERANCE = 0.05  # of the parameters' bytes
PEAK_TOLERANCE = 1.1  # times the steady state
MIB = 1 << 20


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="model directory, as random_model.py writes it")
    parser.add_argument("--dtype", default="auto", help="as DeerPolicy.from_pretrained takes it")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.add_argument("--budgets-only", type=int, nargs="+", metavar="LAYERS",
                        help="only the budgets for these depths")
    parser.add_argument("--depths", type=int, nargs="+", help=argparse.SUPPRESS)
    parser.add_argument("--budget-for", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.depths:  # one measuring process
        print(json.dumps(measure(arguments.model, arguments.dtype, arguments.depths)))
        return 0
    if arguments.budget_for:  # another one
        print(json.dumps(measure_budget(arguments.model, arguments.dtype, arguments.budget_for)))
        return 0
    if not (arguments.model / "config.json").is_file():
        parser.error(f"{arguments.model} is no model directory; write one with random_model.py.")

    alone = arguments.budgets_only
    fresh = [in_own_process(arguments, "--depths", d)[0] for d in DEPTHS if not alone]
    live = [] if alone else in_own_process(arguments, "--depths", *LIVE_DEPTHS)
    budgeted = [in_own_process(arguments, "--budget-for", depth) for depth in alone or DEPTHS]
    checks = check_budgets(budgeted)
    if not alone:
        checks = check_fresh(fresh) + check_live(live, fresh) + checks
    if arguments.json:
        print(json.dumps({"dtype": arguments.dtype, "fresh": fresh, "live": live,
                          "budgeted": budgeted,
                          "checks": [{"check": text, "held": held} for text, held in checks]}))
    else:
        print_tables(fresh, live, budgeted, checks)
    return 0 if all(held for _, held in checks) else 1


def in_own_process(arguments: argparse.Namespace, what: str, *depths: int) -> list[dict] | dict:
    command = [sys.executable, __file__, str(arguments.model), "--dtype", arguments.dtype,
               what, *map(str, depths)]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def measure(model: Path, dtype: str, depths: list[int]) -> list[dict]:
    """Load at the first depth, then change to each of the others; a step and its memory at each."""
    from deer_ros import DeerPolicy

    observation, baseline = picture(), status("VmRSS")
    policy, results = None, []
    for depth in depths:
        forget_peak()
        started = time.perf_counter()
        if policy is None:
            policy = DeerPolicy.from_pretrained(model, "cpu", dtype, depth)
        else:
            policy.adopt(policy.load_layers(depth))
        loaded = time.perf_counter()
        policy.step(observation, INSTRUCTION, exit_layer=policy.max_layer)
        stepped = time.perf_counter()
        results.append({
            "max_layer": depth,
            "layers": len(policy.model.layers),
            "parameters_mib": size(policy.model) / MIB,
            "layers_mib": size(policy.model.layers) / MIB,
            "resident_mib": (status("VmRSS") - baseline) / MIB,
            "peak_mib": (status("VmHWM") - baseline) / MIB,
            "load_s": loaded - started,
            "first_step_s": stepped - loaded,
        })
    return results


def measure_budget(model: Path, dtype: str, depth: int) -> dict:
    """Load what fits into a little more than that depth is said to need; memory after a step.

    expected_mib: what was predicted, without the embedding where its rows are read on demand.
    """
    from deer_ros import Budget, DeerPolicy
    from deer_ros.budget.memory import weights_mib
    from deer_ros.checkpoint.directory import read_config
    from deer_ros.depth import dtype_of

    observation, config = picture(), read_config(model)
    asked = weights_mib(config, depth, STORED if dtype == "auto" else dtype) + 1
    baseline = status("VmRSS")
    policy = DeerPolicy.from_pretrained(model, "cpu", dtype, budget=Budget(memory_mib=asked))
    policy.step(observation, INSTRUCTION)
    predicted = weights_mib(config, len(policy.model.layers), dtype_of(policy.model))
    mapped = dtype_of(policy.model) == STORED
    return {
        "permitted": depth,
        "asked_mib": asked,
        "layers": len(policy.model.layers),
        "predicted_mib": predicted,
        "expected_mib": predicted - mapped * size(policy.model.embedding) / MIB,
        "resident_mib": (status("VmRSS") - baseline) / MIB,
    }


def picture():
    """What a policy sees; with the code loaded that a step would load first."""
    import numpy as np
    from transformers import CLIPVisionModel  # noqa: F401 - a CLIP tower loads it on first use

    from deer_ros import DeerPolicy, Observation  # noqa: F401

    pixels = np.random.default_rng(0).integers(0, 256, (200, 200, 3), np.uint8)
    return Observation(pixels, pixels)


def size(module) -> int:
    """Bytes of a module's parameters."""
    return sum(p.numel() * p.element_size() for p in module.parameters())


def status(field: str) -> int:
    """A figure of /proc/self/status in bytes."""
    text = Path("/proc/self/status").read_text()
    return int(re.search(rf"{field}:\s+(\d+) kB", text)[1]) * 1024


def forget_peak() -> None:
    """Let VmHWM start anew from what is resident now."""
    Path("/proc/self/clear_refs").write_text("5")


def check_fresh(results: list[dict]) -> list[tuple[str, bool]]:
    """Layers as asked, growth as the parameters', peaks near the steady state."""
    checks = [("max_layer layers exist", all(r["layers"] == r["max_layer"] for r in results))]
    growths = [(b["resident_mib"] - a["resident_mib"]) / (b["layers_mib"] - a["layers_mib"])
               for a, b in zip(results, results[1:])]
    worst = max(growths, key=lambda growth: abs(growth - 1))
    checks.append((f"memory grows as the parameters do, at worst {worst:.3f} times",
                   abs(worst - 1) <= GROWTH_TOLERANCE))
    highest = max(r["peak_mib"] / r["resident_mib"] for r in results)
    checks.append((f"the peak is at most {highest:.3f} times the steady state",
                   highest <= PEAK_TOLERANCE))
    return checks


def check_live(live: list[dict], fresh: list[dict]) -> list[tuple[str, bool]]:
    """A policy of changed depth holds what a fresh one of that depth does."""
    of_depth = {r["max_layer"]: r for r in fresh}
    checks = []
    for before, now in zip(live, live[1:]):
        alike = of_depth[now["max_layer"]]
        excess = (now["resident_mib"] - alike["resident_mib"]) / alike["parameters_mib"]
        checks.append((
            f"{before['layers']} to {now['layers']} layers live: {excess:+.3f} of the parameters "
            "from a fresh policy",
            now["layers"] == now["max_layer"] and abs(excess) <= GROWTH_TOLERANCE))
        highest = now["peak_mib"] / max(now["resident_mib"], before["resident_mib"])
        checks.append((f"{before['layers']} to {now['layers']} layers live: the peak is "
                       f"{highest:.3f} times the steady state", highest <= PEAK_TOLERANCE))
    return checks


def check_budgets(budgeted: list[dict]) -> list[tuple[str, bool]]:
    """The depth that fits, and as much memory as was said."""
    misses = [r["resident_mib"] / r["expected_mib"] - 1 for r in budgeted]
    worst = max(misses, key=abs)
    return [
        ("memory_mib loads the layers that fit",
         all(r["layers"] == r["permitted"] for r in budgeted)),
        (f"resident is what was predicted, less an embedding on demand, at worst {worst:+.3f}",
         abs(worst) <= BUDGET_TOLERANCE),
    ]


def print_tables(fresh: list[dict], live: list[dict], budgeted: list[dict],
                 checks: list[tuple[str, bool]]) -> None:
    from deer_ros.report.tables import console, number, table

    header = ("max_layer", "layers", "parameters\nMiB", "resident\nMiB", "peak\nMiB", "load s",
              "first\nstep s")
    out = console()
    for title, results in (("fresh processes", fresh), ("one process, live", live)):
        if not results:
            continue
        out.print(table(f"Resident memory above the imports', {title}", header, [
            (str(r["max_layer"]), str(r["layers"]), number(r["parameters_mib"], 0),
             number(r["resident_mib"], 0), number(r["peak_mib"], 0), number(r["load_s"]),
             number(r["first_step_s"])) for r in results]))
    out.print(table("Layers by a budget of memory", (
        "memory_mib", "layers", "predicted\nMiB", "embedding on\ndemand MiB", "resident\nMiB",
        "resident /\nexpected"), [
        (number(r["asked_mib"], 0), str(r["layers"]), number(r["predicted_mib"], 0),
         number(r["predicted_mib"] - r["expected_mib"], 0), number(r["resident_mib"], 0),
         number(r["resident_mib"] / r["expected_mib"], 3))
        for r in budgeted]))
    for text, held in checks:
        out.print(f"{'ok  ' if held else 'FAIL'} {text}", soft_wrap=True)


if __name__ == "__main__":
    sys.exit(main())

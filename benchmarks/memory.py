"""What a policy of the published 3B model's size holds in memory, against `max_layer`.

Each depth is loaded in a process of its own, which steps once; another one raises and lowers the
depth of a living policy. Resident memory counts the pages that are mapped from the weights' file.

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
GROWTH_TOLERANCE = 0.05  # of the parameters' bytes
PEAK_TOLERANCE = 1.1  # times the steady state
MIB = 1 << 20


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="model directory, as random_model.py writes it")
    parser.add_argument("--dtype", default="auto", help="as DeerPolicy.from_pretrained takes it")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.add_argument("--depths", type=int, nargs="+", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.depths:  # one measuring process
        print(json.dumps(measure(arguments.model, arguments.dtype, arguments.depths)))
        return 0
    if not (arguments.model / "config.json").is_file():
        parser.error(f"{arguments.model} is no model directory; write one with random_model.py.")

    fresh = [in_own_process(arguments, [depth])[0] for depth in DEPTHS]
    live = in_own_process(arguments, LIVE_DEPTHS)
    checks = check_fresh(fresh) + check_live(live, fresh)
    if arguments.json:
        print(json.dumps({"dtype": arguments.dtype, "fresh": fresh, "live": live,
                          "checks": [{"check": text, "held": held} for text, held in checks]}))
    else:
        print_tables(fresh, live, checks)
    return 0 if all(held for _, held in checks) else 1


def in_own_process(arguments: argparse.Namespace, depths: list[int]) -> list[dict]:
    command = [sys.executable, __file__, str(arguments.model), "--dtype", arguments.dtype,
               "--depths", *map(str, depths)]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def measure(model: Path, dtype: str, depths: list[int]) -> list[dict]:
    """Load at the first depth, then change to each of the others; a step and its memory at each."""
    import numpy as np
    from transformers import CLIPVisionModel  # noqa: F401 - code that a CLIP tower loads on first use

    from deer_ros import DeerPolicy, Observation

    picture = np.random.default_rng(0).integers(0, 256, (200, 200, 3), np.uint8)
    observation = Observation(picture, picture)
    baseline = status("VmRSS")
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


def print_tables(fresh: list[dict], live: list[dict], checks: list[tuple[str, bool]]) -> None:
    from deer_ros.report.tables import console, number, table

    header = ("max_layer", "layers", "parameters\nMiB", "resident\nMiB", "peak\nMiB", "load s",
              "first\nstep s")
    out = console()
    for title, results in (("fresh processes", fresh), ("one process, live", live)):
        out.print(table(f"Resident memory above the imports', {title}", header, [
            (str(r["max_layer"]), str(r["layers"]), number(r["parameters_mib"], 0),
             number(r["resident_mib"], 0), number(r["peak_mib"], 0), number(r["load_s"]),
             number(r["first_step_s"])) for r in results]))
    for text, held in checks:
        out.print(f"{'ok  ' if held else 'FAIL'} {text}", soft_wrap=True)


if __name__ == "__main__":
    sys.exit(main())

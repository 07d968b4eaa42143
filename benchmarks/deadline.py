"""Whether steps keep `latency_ms` on the real clock while other processes want the machine, too.

A neighbour process per core computes without end, part of the time. The policy steps on pictures of
noise under several deadlines, in turns, and without one; what a step took counts from its start to
its answer.

    python benchmarks/deadline.py
    python benchmarks/deadline.py --steps 1000 --neighbours 4 --json
"""
from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
import time
from collections import Counter

import numpy as np
import torch

from deer_ros import Budget, DeerPolicy, Observation
from deer_ros.report.tables import console, number, table

NEIGHBOUR_BUSY_S, NEIGHBOUR_IDLE_S = 0.3, 0.3
# Of what lies between the fixed part's high percentile and full depth's.
SHARES = (0.0, 0.25, 0.5, 1.0)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="model directory (default: the bundled model)")
    parser.add_argument("--steps", type=int, default=300, help="per deadline")
    parser.add_argument("--neighbours", type=int, default=os.cpu_count(),
                        help="busy processes (default: one per core)")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    arguments = parser.parse_args()
    if arguments.steps < 1 or arguments.neighbours < 0:
        parser.error("--steps must be at least 1, --neighbours at least 0.")
    torch.set_num_threads(1)
    policy = DeerPolicy.from_pretrained(arguments.model, device="cpu")
    neighbours = [multiprocessing.Process(target=compute, daemon=True)
                  for _ in range(arguments.neighbours)]
    for neighbour in neighbours:
        neighbour.start()
    try:
        measured = policy.measure()
        lowest, highest = measured.fixed_ms("p99"), measured.exits_ms("p99")[-1]
        # Rounded up: the fixed part's high percentile must fit.
        asked = [None, *(float(np.ceil(lowest + s * (highest - lowest))) for s in SHARES)]
        results = [run(policy, latency_ms, arguments.steps) for latency_ms in asked]
    finally:
        for neighbour in neighbours:
            neighbour.terminate()
    if arguments.json:
        print(json.dumps({"cost_table": measured.to_json(), "results": results}))
    else:
        print_table(results, arguments, measured)
    return 0


def compute() -> None:
    """Want a core, with pauses."""
    while True:
        until_s = time.perf_counter() + NEIGHBOUR_BUSY_S
        while time.perf_counter() < until_s:
            np.linalg.norm(np.ones((200, 200)) @ np.ones((200, 200)))
        time.sleep(NEIGHBOUR_IDLE_S)


def run(policy: DeerPolicy, latency_ms: float | None, steps: int) -> dict:
    """Milliseconds of every step under one deadline, and why steps ended."""
    policy.set_budget(Budget(latency_ms=latency_ms))
    policy.reset()
    random = np.random.default_rng(0)
    ids = policy.usual_ids()
    taken_ms, layers, reasons = [], [], Counter()
    for _ in range(steps):
        seen = Observation(*random.integers(0, 256, (2, 200, 200, 3), np.uint8), at_rest(policy))
        started_s = time.perf_counter()
        step = policy.step(seen, ids)
        taken_ms.append(1e3 * (time.perf_counter() - started_s))
        layers.append(step.exit_layer)
        reasons[step.stopped_by] += 1
    late = [ms for ms in taken_ms if latency_ms is not None and ms > latency_ms]
    return {
        "latency_ms": latency_ms, "steps": steps, "mean_exit_layer": float(np.mean(layers)),
        **{f"p{p}_ms": float(np.percentile(taken_ms, p)) for p in (50, 99)},
        "worst_ms": max(taken_ms), "late": len(late) / steps, "stopped_by": dict(reasons),
    }


def at_rest(policy: DeerPolicy) -> np.ndarray | None:
    """Proprioception for models that read it."""
    sensed = policy.config.proprioception
    return None if sensed is None else np.array(sensed.mean, np.float32)


def print_table(results: list[dict], arguments: argparse.Namespace, measured) -> None:
    rows = [(f"{r['latency_ms']:g}" if r["latency_ms"] else "none", number(r["p50_ms"]),
             number(r["p99_ms"]), number(r["worst_ms"]),
             "-" if r["latency_ms"] is None else number(100 * r["late"], 1),
             number(r["mean_exit_layer"], 2),
             str(r["stopped_by"].get("deadline", 0))) for r in results]
    out = console()
    out.print(table(
        f"{arguments.steps} steps per deadline, {arguments.neighbours} busy neighbours",
        ("deadline ms", "ms p50", "ms p99", "ms worst", "late, %", "mean exit\nlayer",
         "stopped by\ndeadline"), rows))
    out.print(f"fixed part {number(measured.fixed_ms('p50'))} ms (p99 "
              f"{number(measured.fixed_ms('p99'))} ms), full depth "
              f"{number(measured.exits_ms()[-1])} ms (p99 "
              f"{number(measured.exits_ms('p99')[-1])} ms) on {measured.machine}")


if __name__ == "__main__":
    sys.exit(main())

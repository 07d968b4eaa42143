"""How long a budget takes to solve: the authors' families, and the frontier of the optimum.

CPU time on one thread, for made-up answers of as many exits and samples as asked for.

    OMP_NUM_THREADS=1 python benchmarks/solver.py
    OMP_NUM_THREADS=1 python benchmarks/solver.py --exits 8 --samples 20000 --json
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable

import numpy as np

from deer_ros.budget.families import family_ladder, with_families
from deer_ros.budget.frontier import Samples
from deer_ros.budget.optimal import optimal_frontier
from deer_ros.budget.solver import FAMILIES


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--exits", type=int, default=6)
    parser.add_argument("--samples", type=int, default=6000)
    parser.add_argument("--repeats", type=int, default=50)
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    arguments = parser.parse_args()
    samples = made_up(arguments.exits, arguments.samples)
    asked = float(samples.costs.mean())
    figures = {
        f"{family}, solved for an average": cpu_ms(
            lambda family=family: family_ladder(samples, family, asked), arguments.repeats
        )
        for family in FAMILIES
    }
    frontier = optimal_frontier(samples)
    figures["optimal, the frontier, once at calibration"] = cpu_ms(
        lambda: optimal_frontier(samples), 3
    )
    figures["optimal, a budget looked up on it"] = cpu_ms(
        lambda: with_families(frontier, samples, asked).knob_for(asked), arguments.repeats
    )
    if arguments.json:
        print(json.dumps({"exits": arguments.exits, "samples": arguments.samples,
                          "cpu_ms": figures}, indent=2))
        return 0
    print(f"{arguments.exits} exits, {arguments.samples} samples; CPU ms, median and worst")
    for name, (median, worst) in figures.items():
        print(f"  {name:<45}{median:10.4f}{worst:10.4f}")
    return 0


def made_up(exits: int, count: int) -> Samples:
    """Some samples harder than others; deeper exits nearer to the last."""
    rng = np.random.default_rng(0)
    difficulty = np.exp(rng.normal(size=(1, count, 1)))
    shrink = 1 / np.arange(1, exits + 2)[:, None, None]
    poses = 0.1 * difficulty * shrink * rng.normal(size=(exits + 1, count, 6))

    def rms(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.sqrt(np.mean((a - b) ** 2, axis=-1)).astype(np.float32)

    return Samples(rms(poses[1:], poses[:-1]), rms(poses[1:], poses[-1:]),
                   np.arange(1.0, exits + 1))


def cpu_ms(run: Callable[[], object], repeats: int) -> tuple[float, float]:
    """Median and worst of so many runs."""
    run()
    taken = []
    for _ in range(repeats):
        started = time.process_time()
        run()
        taken.append(1e3 * (time.process_time() - started))
    return float(np.median(taken)), float(max(taken))


if __name__ == "__main__":
    raise SystemExit(main())

"""How often a certified action error holds on episodes that it was not certified on.

The held-out episodes of a calibration are split again and again: rows of the frontier are tested on
one part, as `max_action_error` does it, and the chosen row's mean loss is taken on the other.

    python benchmarks/risk_coverage.py                     # the bundled model's calibration
    python benchmarks/risk_coverage.py --calibration FILE --confidence 0.9 --limits 0.1 0.2
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from deer_ros.budget.calibration import Calibration
from deer_ros.budget.frontier import Frontier
from deer_ros.budget.risk import cheapest_row
from deer_ros.resources import bundled_model


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calibration", type=Path, help="(default: the bundled model's)")
    parser.add_argument("--confidence", type=float, default=0.9)
    parser.add_argument("--limits", type=float, nargs="+",
                        default=[0.06, 0.08, 0.1, 0.12, 0.15, 0.2])
    parser.add_argument("--share", type=float, default=0.7, help="of the episodes, to test on")
    parser.add_argument("--splits", type=int, default=500)
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    arguments = parser.parse_args()
    file = arguments.calibration or bundled_model() / "calibration.safetensors"
    calibration = Calibration.load(file)
    frontier = calibration.frontiers[len(calibration.exit_layers)]
    if frontier.losses is None:
        raise SystemExit(f"{file} has no held-out episodes.")
    rows = [measure(frontier, limit, arguments) for limit in arguments.limits]
    if arguments.json:
        print(json.dumps(rows, indent=2))
        return 0
    print(f"{frontier.losses.shape[1]} episodes, {arguments.splits} splits, "
          f"confidence {arguments.confidence:g}")
    print("    limit   held in   mean error   cost beyond the cheapest exit's")
    for row in rows:
        print(f"{row['limit']:9.3f}{100 * row['held']:8.1f} %{row['mean_error']:13.4f}"
              f"{100 * row['cost']:10.1f} % of full depth's")
    return 0


def measure(frontier: Frontier, limit: float, arguments: argparse.Namespace) -> dict:
    """Over the splits: how often the limit held, the mean loss, and the mean cost, 0 to 1."""
    rng = np.random.default_rng(0)
    episodes = frontier.losses.shape[1]
    tested = round(arguments.share * episodes)
    scale = (frontier.cost - frontier.cost[0]) / (frontier.cost[-1] - frontier.cost[0])
    errors, costs = [], []
    for _ in range(arguments.splits):
        order = rng.permutation(episodes)
        row = cheapest_row(frontier.thresholds, frontier.losses[:, order[:tested]], limit,
                           arguments.confidence, full_depth=True)
        errors.append(frontier.losses[row, order[tested:]].mean())
        costs.append(scale[row])
    errors = np.array(errors)
    return {"limit": limit, "held": float((errors <= limit).mean()),
            "mean_error": float(errors.mean()), "cost": float(np.mean(costs))}


if __name__ == "__main__":
    raise SystemExit(main())

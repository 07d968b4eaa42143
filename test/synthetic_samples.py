"""Made-up answers of exits: some steps harder than others, deeper exits nearer to the last."""

from __future__ import annotations

import dataclasses

import numpy as np

from deer_ros.budget.calibration import Calibration
from deer_ros.budget.frontier import Samples
from deer_ros.budget.optimal import optimal_frontier


def make_calibration(
    seed: int = 0, steps: int = 400, layers: tuple[int, ...] = (2, 4, 6), **changes
) -> Calibration:
    """No frontiers: `with_frontiers` adds them."""
    rng = np.random.default_rng(seed)
    exits = len(layers)
    difficulty = np.exp(rng.normal(size=(steps, 1, 1)))
    shrink = 1 / np.arange(1, exits + 2)[None, :, None]
    noise = rng.normal(size=(steps, exits + 1, 6))
    poses = rng.normal(size=(steps, 1, 6)) * 0.3 + 0.1 * difficulty * shrink * noise
    poses = np.tanh(poses).astype(np.float32)
    parts = {
        "exit_layers": layers,
        "poses": poses[:, 1:].copy(),
        "gripper": rng.random((steps, exits), dtype=np.float32),
        "reference_poses": None if layers[0] == 1 else poses[:, 0].copy(),
        "episode": (np.arange(steps) // 20).astype(np.int32),
        "taken": rng.integers(exits, size=steps).astype(np.int32),
        "fingerprint": "made up",
    }
    return Calibration(**{**parts, **changes})


def make_samples(
    seed: int = 0, steps: int = 400, exits: int = 4, costs: np.ndarray | None = None
) -> Samples:
    """As a calibration has them, every exit one unit dearer unless `costs` say otherwise."""
    calibration = make_calibration(seed, steps, tuple(range(2, 2 * exits + 1, 2)))
    costs = np.arange(1.0, exits + 1) if costs is None else costs
    return Samples(calibration.deltas(), calibration.errors(), costs)


def with_frontiers(calibration: Calibration, costs: np.ndarray, losses: int = 0) -> Calibration:
    """Every depth's frontier; with `losses` episodes, each about as far off as the row's mean."""
    deltas, lost = calibration.deltas(), calibration.losses()
    rng = np.random.default_rng(0)
    frontiers = {}
    for exits in range(1, len(costs) + 1):
        frontier = optimal_frontier(Samples(deltas[:exits], lost[:exits], costs[:exits]))
        if losses:
            noise = rng.uniform(0.5, 1.5, (len(frontier), losses))
            measured = (frontier.error[:, None] * noise).astype(np.float32)
            frontier = dataclasses.replace(frontier, losses=measured)
        frontiers[exits] = frontier
    return dataclasses.replace(calibration, frontiers=frontiers)

"""A scorer without a model: how often it succeeds and what it costs is known for any thresholds.

Two thresholds matter. Success is likeliest, 0.9, at `BEST`, which costs as much as the `START`.
Episodes are in pairs: with a seed they are as easy for all thresholds.
"""

from __future__ import annotations

import math

import numpy as np

START = (0.01, 0.01)
BEST = (0.02, 0.005)
EPISODES = 20  # of a seed


def chance(thresholds) -> float:
    first, second = (math.log(t / best) for t, best in zip(thresholds, BEST))
    return max(0.0, 0.9 - 0.1 * (first**2 + 2 * second**2))


def cost(thresholds) -> float:
    return 8.0 - sum(math.log(t / start) for t, start in zip(thresholds, START))


def score(model, thresholds, metric, max_layer, seeds):
    assert len(thresholds) == 3 and thresholds[2] == 1e8 and all(t > 0 for t in thresholds)
    ease = np.concatenate([np.random.default_rng(seed).random(EPISODES) for seed in seeds])
    return ease < chance(thresholds), cost(thresholds)


def luck(model, thresholds, metric, max_layer, seeds):
    """Thresholds change which episodes succeed, and make none likelier."""
    drawn = np.float64(thresholds).view(np.uint64) % 2**32
    ease = [np.random.default_rng([*drawn, seed]).random(EPISODES) for seed in seeds]
    return np.concatenate(ease) < 0.5, cost(thresholds)


def luck_of_any(model, thresholds, metric, max_layer, seeds):
    """As `luck`, for thresholds that are never or always taken too."""
    return luck(model, [max(t, 1e-6) for t in thresholds], metric, max_layer, seeds)


def luck_in_gflops(model, thresholds, metric, max_layer, seeds):
    """As `luck_of_any`; a step costs as much as one of the tiny model, to full depth."""
    return luck_of_any(model, thresholds, metric, max_layer, seeds)[0], 3.6e-4

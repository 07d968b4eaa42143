"""A tiny model with a calibration beside it, of episodes of noise."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from tiny_model import INSTRUCTIONS, write_tiny_model

from deer_ros import DeerPolicy, Observation
from deer_ros.calibration.calibrate import Settings, calibrate, needed_layers
from deer_ros.calibration.features import Features
from deer_ros.checkpoint.directory import CALIBRATION
from deer_ros.checkpoint.fingerprint import weights_fingerprint


def noise(seed: int) -> Observation:
    """Two pictures, some of them dark: steps differ in how soon exits agree."""
    random = np.random.default_rng(seed)
    pictures = random.integers(0, random.integers(2, 257), (2, 40, 50, 3), dtype=np.uint8)
    return Observation(pictures[0], pictures[1])


def write_calibrated_model(
    folder: str | Path, seed: int = 0, episodes: int = 6, steps: int = 8, **changes
) -> Path:
    """As `write_tiny_model`, with `calibration.safetensors`."""
    folder = write_tiny_model(folder, seed, **changes)
    policy = DeerPolicy.from_pretrained(folder, device="cpu")
    layers = needed_layers(policy.config, "run-time")
    values = [
        policy.features(noise(1000 * episode + step), INSTRUCTIONS[episode % 3], layers)
        for episode in range(episodes) for step in range(steps)
    ]
    features = Features(torch.stack(values), layers, np.arange(episodes + 1) * steps)
    calibrate(
        policy.model.head, policy.config, features, weights_fingerprint(folder), Settings(rows=8)
    ).save(folder / CALIBRATION)
    return folder

"""Which weights a calibration belongs to."""

from __future__ import annotations

import json

import numpy as np
import pytest
from safetensors.numpy import save_file
from tiny_model import write_tiny_model

from deer_ros.checkpoint.weights import WHOLE_BYTES, weights_fingerprint

RNG = np.random.default_rng(0)
WEIGHTS = {
    "small": RNG.normal(size=(7, 5)).astype(np.float32),
    "large": RNG.normal(size=(2 * WHOLE_BYTES // 4,)).astype(np.float32),
}


def written(folder, weights: dict[str, np.ndarray]) -> str:
    folder.mkdir(exist_ok=True)
    save_file(weights, str(folder / "model.safetensors"))
    return weights_fingerprint(folder)


def test_the_same_weights_have_the_same_fingerprint_in_one_file_or_several(tmp_path):
    whole = written(tmp_path / "whole", WEIGHTS)
    shards = tmp_path / "shards"
    shards.mkdir()
    mapping = {}
    for number, (name, tensor) in enumerate(WEIGHTS.items()):
        save_file({name: tensor}, str(shards / f"{number}.safetensors"))
        mapping[name] = f"{number}.safetensors"
    (shards / "model.safetensors.index.json").write_text(json.dumps({"weight_map": mapping}))
    assert weights_fingerprint(shards) == whole and len(whole) == 64


def test_any_number_of_a_small_tensor_counts_and_names_types_and_shapes(tmp_path):
    before = written(tmp_path / "m", WEIGHTS)
    small = WEIGHTS["small"]
    seen = {before}
    for place in range(small.size):
        changed = small.copy()
        changed.reshape(-1)[place] += 1e-6 + abs(changed.reshape(-1)[place]) * 1e-3
        seen.add(written(tmp_path / "m", {**WEIGHTS, "small": changed}))
    for other in (
        {**WEIGHTS, "small": small.reshape(5, 7)},
        {**WEIGHTS, "small": small.view(np.int32)},
        {"other": small, "large": WEIGHTS["large"]},
        {"small": small},
    ):
        seen.add(written(tmp_path / "m", other))
    assert len(seen) == 1 + small.size + 4


def test_a_large_tensor_is_told_by_its_ends_and_by_training_all_of_it(tmp_path):
    before = written(tmp_path / "m", WEIGHTS)
    for place in (0, -1):
        changed = WEIGHTS["large"].copy()
        changed[place] += 1
        assert written(tmp_path / "m", {**WEIGHTS, "large": changed}) != before
    trained = WEIGHTS["large"] * np.float32(1.0001)
    assert written(tmp_path / "m", {**WEIGHTS, "large": trained}) != before


def test_two_models_differ_and_missing_weights_are_told(tmp_path):
    first, second = (write_tiny_model(tmp_path / str(seed), seed) for seed in (0, 1))
    assert weights_fingerprint(first) != weights_fingerprint(second)
    (first / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="model.safetensors"):
        weights_fingerprint(first)

"""The authors' implementation's answers (see data/golden/README.md), and the model that gave them.

Everything is built from `config.json`, so that data of another model fit as well: set DEER_GOLDEN
to a folder of the same layout.
"""

from __future__ import annotations

import json
import os
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import load_file

from deer_ros.checkpoint import LoadedModel
from deer_ros.checkpoint.official_config import official_config
from deer_ros.checkpoint.official_names import Dropped, head_mlp_names, translate
from deer_ros.model.deer import DeerModel
from deer_ros.model.preprocessing import Preprocessor
from deer_ros.model.prompt import PromptEncoder, word_tokenizer
from deer_ros.policy import DeerPolicy

FOLDER = Path(os.environ.get("DEER_GOLDEN", Path(__file__).parent / "data" / "golden"))


@cache
def text(name: str) -> Any:
    """The content of `name`.json."""
    return json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))


@cache
def arrays(name: str) -> dict[str, np.ndarray]:
    """All arrays of `name`.npz."""
    with np.load(FOLDER / f"{name}.npz") as file:
        return dict(file)


def merged_weights() -> dict[str, Any]:
    """The merged weights under this package's names."""
    merged = load_file(FOLDER / "merged.safetensors")
    mlps = head_mlp_names({name: tuple(tensor.shape) for name, tensor in merged.items()})
    weights = {}
    for name, tensor in merged.items():
        here = (mlps[name],) if name in mlps else translate(name)
        assert here is not None, name
        if not isinstance(here, Dropped):
            weights.update(zip(here, tensor.chunk(len(here)), strict=True))
    return weights


def golden_policy() -> DeerPolicy:
    """A policy of the merged weights."""
    config = official_config(text("config"))
    model = DeerModel(config).eval().requires_grad_(False)
    model.load_state_dict(merged_weights())
    # The tokenizer is not used: prompts of the golden data are token ids.
    prompts = PromptEncoder(word_tokenizer([])[0], config.prompt)
    return DeerPolicy(LoadedModel(model, Preprocessor(config.vision.image_size), prompts))


def token_ids(instruction: str) -> np.ndarray:
    """The recorded ids of an instruction's prompt."""
    tokens = next(t for t in text("rollout")["tokens"] if t["instruction"] == instruction)
    return np.array(tokens["input_ids"], dtype=np.int64)


def assert_close(ours: Any, golden: np.ndarray, what: str) -> None:
    """1e-4 relative plus 1e-5 absolute, and the same shape."""
    ours = np.asarray(ours, dtype=np.float32)
    assert ours.shape == golden.shape, f"{what}: shape {ours.shape}, golden {golden.shape}"
    np.testing.assert_allclose(ours, golden, rtol=1e-4, atol=1e-5, err_msg=what)

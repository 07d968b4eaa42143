"""Converted, the authors' files are the model that the authors' loading makes of them."""

from __future__ import annotations

import golden_data as golden
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from deer_ros import DeerPolicy, Observation
from deer_ros.checkpoint import convert_official, load_model
from deer_ros.checkpoint.official_config import official_config


def file(name: str):
    return golden.FOLDER / f"{name}.safetensors"


def as_checkpoint(folder):
    """The DeeR weights as the authors' training stores them: in a pickle, with their values."""
    path = folder / "deer.pth"
    scalars = golden.text("config")["checkpoint_scalars"]
    torch.save({**scalars, "model_state_dict": load_file(file("deer"))}, path)
    return path


@pytest.mark.parametrize("pickled", [False, True])
@pytest.mark.parametrize("roles", [("clip",), ("mpt", "clip", "openflamingo")])
def test_the_converted_weights_are_the_merged_ones_to_the_bit(tmp_path, roles, pickled):
    convert_official(
        tmp_path / "model",
        deer=as_checkpoint(tmp_path) if pickled else file("deer"),
        config=golden.text("config"),
        **{role: file(role) for role in roles},
    )
    loaded = load_model(tmp_path / "model").model
    ours, merged = loaded.state_dict(), golden.merged_weights()
    assert ours.keys() == merged.keys()
    for name, weight in merged.items():
        assert torch.equal(ours[name], weight), name
    assert loaded.config == official_config(golden.text("config"))


def test_the_blocks_of_the_language_model_come_from_mpt_where_deer_has_none(tmp_path):
    deer = {n: t for n, t in load_file(file("deer")).items() if "old_decoder_blocks" not in n}
    torch.save(deer, tmp_path / "deer.pt")
    config = golden.text("config")
    arguments = {"deer": tmp_path / "deer.pt", "clip": file("clip"), "config": config}
    with pytest.raises(ValueError, match="have nothing for layers.0.block"):
        convert_official(tmp_path / "no", **arguments)
    convert_official(tmp_path / "model", **arguments, mpt=file("mpt"))
    ours, merged = load_model(tmp_path / "model").model.state_dict(), golden.merged_weights()
    assert all(torch.equal(ours[name], weight) for name, weight in merged.items())


def test_openflamingo_comes_after_mpt_and_before_deer(tmp_path):
    """Without what DeeR trained, a tensor is OpenFlamingo's, and MPT's own where that has none."""
    deer = load_file(file("deer"))
    for name in ("perceiver.latents", "lang_encoder.transformer.wte.weight"):
        del deer[f"module.{name}"]
    torch.save(deer, tmp_path / "deer.pt")
    convert_official(
        tmp_path / "model", deer=tmp_path / "deer.pt", clip=file("clip"), mpt=file("mpt"),
        openflamingo=file("openflamingo"), config=golden.text("config"),
    )
    ours, flamingo = load_model(tmp_path / "model").model, load_file(file("openflamingo"))
    assert torch.equal(ours.resampler.latents, flamingo["perceiver.latents"])
    assert torch.equal(ours.embedding.weight, flamingo["lang_encoder.transformer.wte.weight"])


def test_a_converted_model_reads_instructions_and_answers_as_recorded(tmp_path):
    convert_official(
        tmp_path / "model", deer=file("deer"), clip=file("clip"),
        config=golden.FOLDER / "config.json",
    )
    policy, pictures = DeerPolicy.from_pretrained(tmp_path / "model"), golden.arrays("inputs")
    for tokens in golden.text("rollout")["tokens"]:
        np.testing.assert_array_equal(
            policy.prompts.encode(tokens["instruction"]), tokens["input_ids"]
        )
    run, arrays = golden.text("rollout")["runs"]["fixed_last"], golden.arrays("rollout")
    for episode in run["episodes"]:
        policy.reset()
        for t in range(episode["first_step"], episode["end_step"]):
            seen = Observation(pictures["static_u8"][t], pictures["gripper_u8"][t])
            step = policy.step(seen, episode["instruction"])
            golden.assert_close(step.action, arrays["fixed_last.pose"][t], f"pose {t}")

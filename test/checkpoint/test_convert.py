from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from official_model import (
    PUBLISHED_3B,
    PUBLISHED_9B,
    TINY_9B,
    Official,
    random_tensors,
    write_files,
    write_hollow,
)
from safetensors.torch import load_file, save_file

from deer_ros import DeerPolicy, Observation
from deer_ros.checkpoint import convert_official, load_model
from deer_ros.checkpoint.convert import ALIAS, LATER_LAYER, _Plan, _survey
from deer_ros.checkpoint.official_config import official_config

OFFICIAL = Official()


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_model(folder).model.state_dict()


def changed_checkpoint(files: dict, change) -> dict:
    """Rewrite the DeeR file after `change(checkpoint)`."""
    checkpoint = torch.load(files["deer"], weights_only=True)
    change(checkpoint)
    torch.save(checkpoint, files["deer"])
    return files


def changed_clip(files: dict, change) -> dict:
    tensors = load_file(files["clip"])
    change(tensors)
    save_file(tensors, files["clip"])
    return files


def assert_nothing_left(folder: Path, *expected: str) -> None:
    assert sorted(p.name for p in folder.iterdir()) == sorted(expected)


# What comes out


@pytest.mark.parametrize("official", [
    OFFICIAL, TINY_9B, Official(lstm_norm=False, mlp_norm=False),
    Official(mlp_widths=(1024, 512, 256), dropout_mode="wo_last"),
    Official(mlp_widths=(1024, 512, 256), mlp_norm=False, dropout_mode="wo_last"),
    Official(mlp_widths=(1024, 512, 256), mlp_norm=False, dropout_mode="wo_last", dropout=0.0),
    Official(dropout_mode="last"), Official(dropout_mode="last", mlp_norm=False),
    Official(interval=3, layers=5, cross_every=2, llm_heads=4),
    Official(interval=1, lstm_layers=6, image=24, latents=5),
    dataclasses.replace(TINY_9B, interval=3, layers=7, mlp_ratio=2, lstm_layers=1),
])
def test_every_arrangement_of_the_authors_becomes_a_policy_that_runs(tmp_path, official):
    conversion = convert_official(tmp_path / "model", **write_files(tmp_path, official))
    policy = DeerPolicy.from_pretrained(tmp_path / "model")
    picture = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    step = policy.step(Observation(picture, picture), "word2 word3")
    assert step.exit_layer == official.layers == policy.config.language.layers
    assert np.isfinite(step.action).all()
    used = [name for file in conversion.files for name in file.used]
    assert len(used) == len(set(used))


def head_tensors(files: dict) -> dict[str, torch.Tensor]:
    tensors = torch.load(files["deer"], weights_only=True)["model_state_dict"]
    return {name.removeprefix("module.extra_exit."): t for name, t in tensors.items()
            if "extra_exit" in name}


@pytest.mark.parametrize(("official", "linear", "norms"), [
    (OFFICIAL, (1, 5, 9), (2, 6)),
    (Official(mlp_norm=False), (1, 5, 9), ()),
    (Official(dropout_mode="last"), (0, 3, 7), (1, 4)),
    (Official(mlp_widths=(10, 6, 4), mlp_norm=False, dropout_mode="wo_last"), (1, 4, 7, 9), ()),
    (Official(mlp_widths=(10, 6, 4), mlp_norm=False, dropout_mode="wo_last", dropout=0.0),
     (0, 2, 4, 6), ()),
    (Official(mlp_widths=(10, 6, 4), dropout_mode="wo_last"), (1, 5, 9, 12), (2, 6, 10)),
])
def test_the_heads_layers_keep_their_order_however_they_are_numbered(
    tmp_path, official, linear, norms
):
    files = write_files(tmp_path, official)
    convert_official(tmp_path / "model", **files)
    head, theirs = load_model(tmp_path / "model").model.head, head_tensors(files)
    ours = [m for m in head.pose if isinstance(m, torch.nn.Linear)]
    assert len(ours) == len(linear)
    for module, index in zip(ours, linear):
        assert torch.equal(module.weight, theirs[f"actions.mlp.{index}.weight"])
        assert torch.equal(module.bias, theirs[f"actions.mlp.{index}.bias"])
    ours = [m for m in head.gripper if isinstance(m, torch.nn.LayerNorm)]
    assert len(ours) == len(norms)
    for module, index in zip(ours, norms):
        assert torch.equal(module.weight, theirs[f"gripper.mlp.{index}.weight"])


def test_a_plain_lstm_of_several_layers_is_taken_apart(tmp_path):
    files = write_files(tmp_path, Official(lstm_norm=False))
    convert_official(tmp_path / "model", **files)
    head, theirs = load_model(tmp_path / "model").model.head, head_tensors(files)
    for layer in range(4):
        assert torch.equal(head.lstm[layer].weight_ih_l0, theirs[f"rnn.weight_ih_l{layer}"])
        assert torch.equal(head.lstm[layer].bias_hh_l0, theirs[f"rnn.bias_hh_l{layer}"])


def test_the_9b_kind_has_cross_attention_before_every_fourth_layer_and_no_qk_norm(tmp_path):
    files = write_files(tmp_path, TINY_9B)
    convert_official(tmp_path / "model", **files)
    model = load_model(tmp_path / "model").model
    theirs = torch.load(files["deer"], weights_only=True)["model_state_dict"]
    block = "module.lang_encoder.old_decoder_blocks.6"
    assert torch.equal(model.layers[6].block.up.weight, theirs[f"{block}.ffn.up_proj.weight"])
    assert torch.equal(model.layers[6].block.norm_1.weight, theirs[f"{block}.norm_1.weight"])
    has = [layer.cross_attention is not None for layer in model.layers]
    assert has == [False, False, False, True] * 2
    gated = "module.lang_encoder.gated_cross_attn_layers.7"
    assert torch.equal(
        model.layers[7].cross_attention.to_kv.weight, theirs[f"{gated}.attn.to_kv.weight"]
    )
    assert not any("norm_q" in name for name in model.state_dict())


def test_clip_from_open_clip_and_from_transformers_is_the_same_tower(tmp_path):
    """As the vision transformer of transformers itself says."""
    torch.manual_seed(0)
    files = write_files(tmp_path, OFFICIAL)
    convert_official(tmp_path / "a", **files)
    tower = load_model(tmp_path / "a").model.tower
    tensors = random_tensors(OFFICIAL.transformers_clip(), 5)
    tensors |= {
        f"vision_model.{name.removeprefix('clip.')}": tensor.clone()
        for name, tensor in tower.state_dict().items()
    }
    torch.save(tensors, tmp_path / "clip.bin")
    convert_official(tmp_path / "b", **(files | {"clip": tmp_path / "clip.bin"}))
    ours, theirs = weights(tmp_path / "a"), weights(tmp_path / "b")
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_the_fused_attention_of_open_clip_is_split_in_query_key_and_value(tmp_path):
    files = write_files(tmp_path, OFFICIAL)
    convert_official(tmp_path / "model", **files)
    fused = load_file(files["clip"])["visual.transformer.resblocks.1.attn.in_proj_weight"]
    ours = weights(tmp_path / "model")
    parts = [ours[f"tower.clip.encoder.layers.1.self_attn.{p}_proj.weight"] for p in "qkv"]
    assert torch.equal(torch.cat(parts), fused)


def test_the_file_that_is_loaded_last_counts_and_missing_blocks_come_from_mpt(tmp_path):
    files = write_files(tmp_path, OFFICIAL, blocks=False)
    save_file(random_tensors(OFFICIAL.mpt(), 7), tmp_path / "mpt.safetensors")
    torch.save(random_tensors(OFFICIAL.openflamingo(), 8), tmp_path / "flamingo.pt")
    conversion = convert_official(
        tmp_path / "model", **files, mpt=tmp_path / "mpt.safetensors",
        openflamingo=tmp_path / "flamingo.pt",
    )
    ours, mpt = weights(tmp_path / "model"), load_file(tmp_path / "mpt.safetensors")
    deer = torch.load(files["deer"], weights_only=True)["model_state_dict"]
    assert torch.equal(
        ours["layers.2.block.to_qkv.weight"], mpt["transformer.blocks.2.attn.Wqkv.weight"]
    )
    assert torch.equal(ours["embedding.weight"], deer["module.lang_encoder.transformer.wte.weight"])
    assert torch.equal(ours["resampler.latents"], deer["module.perceiver.latents"])
    reports = {file.role: file for file in conversion.files}
    assert list(reports) == ["mpt", "clip", "openflamingo", "deer"]
    assert reports["mpt"].superseded == ("transformer.wte.weight",)
    assert len(reports["mpt"].used) == 8 * OFFICIAL.layers
    assert reports["openflamingo"].used == ()
    assert LATER_LAYER in reports["mpt"].dropped.values()


def test_the_embedding_of_the_language_model_is_cut_to_the_vocabulary(tmp_path):
    """The authors' order of loading, of files that do not hold what later ones bring."""
    files = write_files(tmp_path, OFFICIAL)
    changed_checkpoint(
        files, lambda c: c["model_state_dict"].pop("module.lang_encoder.transformer.wte.weight")
    )
    save_file(random_tensors(OFFICIAL.mpt(), 7), tmp_path / "mpt.safetensors")
    convert_official(tmp_path / "model", **files, mpt=tmp_path / "mpt.safetensors")
    mpt = load_file(tmp_path / "mpt.safetensors")["transformer.wte.weight"]
    assert torch.equal(weights(tmp_path / "model")["embedding.weight"], mpt[: OFFICIAL.vocab])


def test_every_tensor_is_accounted_for(tmp_path):
    files = write_files(tmp_path, OFFICIAL)
    for file in convert_official(tmp_path / "model", **files).files:
        names = torch.load(files["deer"], weights_only=True)["model_state_dict"] \
            if file.role == "deer" else load_file(files["clip"])
        accounted = [*file.used, *file.superseded, *file.dropped]
        assert sorted(accounted) == sorted(names)
        assert all(file.dropped.values())
    dropped = file.dropped
    assert dropped["module.lm_head.rnn.layers.0.weight_ih_l0"] == "a head of training only"
    assert ALIAS in dropped.values()


def test_what_lies_beside_the_tensors_is_accounted_for_too(tmp_path):
    files = changed_checkpoint(write_files(tmp_path, OFFICIAL), lambda c: c.update(
        optimizer_state_dict={"state": {}}, values=torch.zeros(3, 4)))
    clip, deer = convert_official(tmp_path / "model", **files).files
    assert clip.dropped_values == {}
    assert deer.dropped_values["optimizer_state_dict"] == "of training only"
    assert "calibrate the model anew" in deer.dropped_values["values"]
    given = torch.load(files["deer"], weights_only=True)
    obeyed = set(given) - set(deer.dropped_values) - {"model_state_dict"}
    assert obeyed == {"head_type", "early_exit_layer", "exit_interval", "exit_dropout",
                      "lstm_dropout", "mlp_layernorm", "lstm_layernorm", "mlp_num_hidden_layers",
                      "lstm_num_layers", "pooling"}


@pytest.mark.parametrize("style", ["live", "alias", "both"])
def test_gated_blocks_are_found_under_either_name(tmp_path, style):
    files = write_files(tmp_path, OFFICIAL)
    convert_official(tmp_path / "both", **files)
    needle = {"live": ".gated_cross_attn_layers.", "alias": ".gated_cross_attn_layer."}.get(style)

    def thin(checkpoint):
        tensors = checkpoint["model_state_dict"]
        for name in [n for n in tensors if needle and needle in n]:
            del tensors[name]

    convert_official(tmp_path / "one", **changed_checkpoint(files, thin))
    ours, theirs = weights(tmp_path / "one"), weights(tmp_path / "both")
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_a_checkpoint_without_the_data_parallel_prefix_is_the_same(tmp_path):
    files = write_files(tmp_path, OFFICIAL)
    convert_official(tmp_path / "with", **files)

    def strip(checkpoint):
        checkpoint["model_state_dict"] = {
            name.removeprefix("module."): t for name, t in checkpoint["model_state_dict"].items()
        }

    convert_official(tmp_path / "without", **changed_checkpoint(files, strip))
    ours, theirs = weights(tmp_path / "without"), weights(tmp_path / "with")
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_half_precision_is_widened(tmp_path):
    files = changed_clip(write_files(tmp_path, OFFICIAL),
                         lambda tensors: tensors.update({n: t.half() for n, t in tensors.items()}))
    convert_official(tmp_path / "model", **files)
    assert {t.dtype for t in weights(tmp_path / "model").values()} == {torch.float32}


def test_shards_and_indices_are_read_and_written(tmp_path):
    files = write_files(tmp_path, OFFICIAL)
    convert_official(tmp_path / "one", **files)
    tensors = load_file(files["clip"])
    (tmp_path / "clip").mkdir()
    mapping = {}
    for part, name in enumerate(tensors):
        file = f"model-{part % 2}.safetensors"
        mapping[name] = file
    for file in set(mapping.values()):
        part = {name: tensor for name, tensor in tensors.items() if mapping[name] == file}
        save_file(part, tmp_path / "clip" / file)
    index = tmp_path / "clip" / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": mapping}))
    for clip in (index, tmp_path / "clip"):
        out = tmp_path / f"many{clip.suffix}"
        convert_official(out, **(files | {"clip": clip}), shard_bytes=20_000)
        shards = sorted(out.glob("model-*.safetensors"))
        assert len(shards) > 3 and not (out / "model.safetensors").exists()
        ours, theirs = weights(out), weights(tmp_path / "one")
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
        # Hugging Face's own reader agrees about the format.
        read = {n: t for shard in shards for n, t in load_file(shard).items()}
        assert all(torch.equal(read[name], theirs[name]) for name in theirs)


def test_progress_reaches_the_whole(tmp_path):
    heard: list[tuple[int, int]] = []
    convert_official(tmp_path / "model", **write_files(tmp_path, OFFICIAL),
                     progress=lambda done, total: heard.append((done, total)))
    assert heard == sorted(heard)
    size = sum(t.nbytes for t in weights(tmp_path / "model").values())
    assert heard[-1] == (size, size)


# The published models


@pytest.mark.parametrize(("official", "million"), [(PUBLISHED_3B, 1556), (PUBLISHED_9B, None)])
def test_a_published_model_is_recognised_by_its_shapes(tmp_path, official, million):
    """Names and shapes of the real size, in files that take no room."""
    deer = write_hollow(tmp_path / "d.safetensors", official.deer())
    clip = write_hollow(tmp_path / "c.safetensors", official.open_clip())
    surveys = [_survey("clip", clip), _survey("deer", deer)]
    config = official_config({}, official.values(), width=official.d_model)
    plan = _Plan(config, surveys)
    if million:
        assert plan.bytes == pytest.approx(4 * million * 1e6, rel=0.001)
    assert config.language.layers == official.layers
    assert config.exit_layers == tuple(range(2, official.layers + 1, 2))
    assert config.head.mlp_widths == (1024, 512)
    assert all(report.superseded == () for report in plan.reports())


def test_the_original_order_of_loading_fits_the_published_sizes(tmp_path):
    official = PUBLISHED_9B
    parts = {"mpt": official.mpt(), "clip": official.transformers_clip(),
             "openflamingo": official.openflamingo(), "deer": official.deer(blocks=False)}
    surveys = [
        _survey(role, write_hollow(tmp_path / f"{role}.safetensors", shapes))
        for role, shapes in parts.items()
    ]
    plan = _Plan(official_config({}, official.values(), width=official.d_model), surveys)
    used = {report.role: len(report.used) for report in plan.reports()}
    assert used["mpt"] == 6 * official.layers
    assert used["openflamingo"] == 0


# What is refused


def tensors_of(checkpoint: dict) -> dict:
    return checkpoint["model_state_dict"]


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda c: tensors_of(c).update({"module.novel.weight": torch.zeros(2)}),
         "given as deer, has tensors that are not known: module.novel.weight"),
        (lambda c: tensors_of(c).update({"module.extra_exit.embed_state.weight": torch.zeros(2)}),
         "extra_exit.embed_state.weight"),
        (lambda c: tensors_of(c).pop("module.extra_exit.rnn.layers.3.weight_hh_l0"),
         r"the files given \(clip, deer\) have nothing for head.lstm.1.weight_hh_l0"),
        (lambda c: tensors_of(c).pop("module.lang_encoder.old_decoder_blocks.1.ln_1.weight"),
         "have nothing for layers.1.block.norm_1.weight"),
        (lambda c: tensors_of(c).update({"module.perceiver.latents": torch.zeros(4, 8)}),
         r"'module.perceiver.latents' in .*deer.pth has shape \(4, 8\); .* needs \(3, 8\)"),
        (lambda c: tensors_of(c).update(
            {"module.lang_encoder.transformer.wte.weight": torch.zeros(20, 16)}),
         r"has shape \(20, 16\); .* needs \(12, 16\)"),
        (lambda c: tensors_of(c).update(
            {"module.lang_encoder.gated_cross_attn_layers.0.attn_gate": torch.ones(1) * 9}),
         "two names of one tensor, with values that differ"),
        (lambda c: tensors_of(c).update({"module.perceiver.latents": torch.zeros(3, 8).long()}),
         "is of type torch.int64; weights are floats"),
        (lambda c: tensors_of(c).update({"module.perceiver.latents": 3.0}),
         "'module.perceiver.latents' of type float among its weights"),
        (lambda c: c.update(novel_flag=1), "the checkpoint holds 'novel_flag'"),
        (lambda c: c.update(pooling="mean"), "head.pooling is 'mean'"),
        (lambda c: c.update(head_type="gaussian"), "head_type is 'gaussian'"),
        (lambda c: c.update(use_layerwise_projection=True), "use_layerwise_projection is True"),
        (lambda c: c.update(early_exit_layer=5), "have nothing for layers.4"),
        (lambda c: c.update(lstm_layernorm=False), "belongs to a part .head.norms.0.weight. that"),
        (lambda c: c.update(mlp_num_hidden_layers=3), "head.mlp_hidden is"),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_refused_and_leaves_nothing(tmp_path, change, complaint):
    files = changed_checkpoint(write_files(tmp_path, OFFICIAL), change)
    with pytest.raises(ValueError, match=complaint):
        convert_official(tmp_path / "model", **files)
    assert_nothing_left(tmp_path, "deer.pth", "clip.safetensors")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_refused_with_their_names(tmp_path, value):
    def spoil(checkpoint):
        tensors_of(checkpoint)["module.perceiver.latents"][1, 2] = value

    files = changed_checkpoint(write_files(tmp_path, OFFICIAL), spoil)
    with pytest.raises(ValueError, match="'module.perceiver.latents' in .*deer.pth holds NaN or"):
        convert_official(tmp_path / "model", **files)
    assert_nothing_left(tmp_path, "deer.pth", "clip.safetensors")


def test_finite_weights_whose_sum_is_not_are_taken(tmp_path):
    files = changed_checkpoint(
        write_files(tmp_path, OFFICIAL),
        lambda c: tensors_of(c)["module.perceiver.latents"].fill_(3e38),
    )
    convert_official(tmp_path / "model", **files)


def test_a_wrong_clip_says_what_is_taken(tmp_path):
    files = changed_clip(write_files(tmp_path, OFFICIAL), lambda t: t.update(x=torch.zeros(1)))
    with pytest.raises(ValueError, match=r"not known: x;.*visual\.\* .*vision_model\.\*"):
        convert_official(tmp_path / "model", **files)


def test_a_torchscript_archive_is_refused_with_the_two_kinds_that_are_taken(tmp_path):
    files = write_files(tmp_path, OFFICIAL)
    torch.jit.script(torch.nn.Linear(2, 2)).save(tmp_path / "ViT-L-14.pt")
    with pytest.raises(ValueError, match=r"TorchScript.*visual\.\* .*vision_model\.\*"):
        convert_official(tmp_path / "model", **(files | {"clip": tmp_path / "ViT-L-14.pt"}))


@pytest.mark.parametrize("role", ["mpt", "openflamingo"])
def test_files_of_another_width_are_refused(tmp_path, role):
    other = dataclasses.replace(OFFICIAL, d_model=32)
    save_file(random_tensors(getattr(other, role)()), tmp_path / "other.safetensors")
    files = write_files(tmp_path, OFFICIAL)
    with pytest.raises(ValueError, match=r"other.safetensors has shape .* needs"):
        convert_official(tmp_path / "model", **files, **{role: tmp_path / "other.safetensors"})


def test_a_model_that_is_no_published_one_needs_a_description(tmp_path):
    files = write_files(tmp_path, OFFICIAL)
    with pytest.raises(ValueError, match="it is not one of the published ones. Give it in config"):
        convert_official(tmp_path / "model", **(files | {"config": None}))


def test_tensors_alone_do_not_get_the_defaults_of_a_checkpoint(tmp_path):
    files = write_files(tmp_path, OFFICIAL)
    bare = torch.load(files["deer"], weights_only=True)["model_state_dict"]
    save_file({n: t.clone() for n, t in bare.items()}, tmp_path / "deer.safetensors")
    files["deer"] = tmp_path / "deer.safetensors"
    with pytest.raises(ValueError, match="nothing says what the model's"):
        convert_official(tmp_path / "model", **files)
    files["config"] |= {"checkpoint_scalars": OFFICIAL.values()}
    convert_official(tmp_path / "model", **files)


def test_a_folder_that_is_there_is_never_touched(tmp_path):
    files = write_files(tmp_path, OFFICIAL)
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "precious").write_text("data")
    with pytest.raises(FileExistsError, match="exists already; name a new folder"):
        convert_official(tmp_path / "home", **files)
    assert (tmp_path / "home" / "precious").read_text() == "data"
    with pytest.raises(FileExistsError):
        convert_official(files["deer"], **files)
    (tmp_path / "empty").mkdir()
    convert_official(tmp_path / "empty", **files)


@pytest.mark.parametrize("is_there", [True, False])
def test_a_link_to_a_folder_stays_a_link_to_the_model(tmp_path, is_there):
    files = write_files(tmp_path, OFFICIAL)
    disk, link = tmp_path / "disk" / "model", tmp_path / "link"
    if is_there:
        disk.mkdir(parents=True)
    link.symlink_to(disk)
    assert convert_official(link, **files).folder == link
    assert link.is_symlink() and load_model(link)
    assert_nothing_left(disk.parent, "model")


def test_a_place_where_no_folder_can_appear_is_told_at_once(tmp_path, monkeypatch):
    link = tmp_path / "link"
    link.symlink_to(link)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    for out, complaint in ((link, "leads nowhere"), (".", "is the folder that this runs in")):
        with pytest.raises(FileExistsError, match=complaint):
            convert_official(out, deer=tmp_path / "none.pt", clip=tmp_path / "none.pt")


def test_a_full_disk_is_said_before_anything_is_written(tmp_path, monkeypatch):
    files = write_files(tmp_path, OFFICIAL)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(OSError, match=r"GB free; the model needs"):
        convert_official(tmp_path / "model", **files)
    assert_nothing_left(tmp_path, "deer.pth", "clip.safetensors")


# Tokenizer, preset


def test_a_tokenizer_gets_the_tokens_that_the_model_was_trained_with(tmp_path):
    files = write_files(tmp_path, OFFICIAL)
    convert_official(tmp_path / "model", **files)
    tokenizer = tmp_path / "model" / "tokenizer.json"
    description = {k: v for k, v in OFFICIAL.description().items() if k != "vocabulary"}
    arguments = files | {"config": description}
    for given in (tokenizer, tokenizer.parent):
        out = tmp_path / f"with-{given.name}"
        convert_official(out, **arguments, tokenizer=given)
        prompts = load_model(out).prompts
        assert list(prompts.encode("word2")) == [10, 2, 9, 0]
    with pytest.raises(ValueError, match="no tokenizer is given"):
        convert_official(tmp_path / "no", **arguments)
    with pytest.raises(ValueError, match="is no tokenizer.json"):
        convert_official(tmp_path / "no", **arguments, tokenizer=files["deer"])


def test_a_tokenizer_of_another_model_is_refused(tmp_path):
    files = write_files(tmp_path, OFFICIAL)
    files["config"]["vocabulary"] = {"<unk>": 0, "<|endoftext|>": 1}
    with pytest.raises(ValueError, match="It is not the tokenizer of this model"):
        convert_official(tmp_path / "model", **files)


def test_published_thresholds_can_be_made_the_models_own(tmp_path):
    official = Official(layers=12, mpt_layers=12)
    files = write_files(tmp_path, official)
    convert_official(tmp_path / "model", **files, preset="calvin-d")
    policy = DeerPolicy.from_pretrained(tmp_path / "model")
    assert policy.thresholds[0] == 0.024131965307197703
    refused = {"calvin-x": "there are deer-s-3b", "deer-s-3b": "has no thresholds"}
    for name, complaint in refused.items():
        with pytest.raises(ValueError, match=complaint):
            convert_official(tmp_path / "no", **files, preset=name)


def test_published_thresholds_do_not_fit_another_number_of_exits(tmp_path):
    with pytest.raises(ValueError, match="exits.thresholds has 6 numbers; the model has 2 exits"):
        convert_official(tmp_path / "no", **write_files(tmp_path, OFFICIAL), preset="calvin-d")


# Interruptions and memory


class Stop(BaseException):
    """As sudden as KeyboardInterrupt."""


@pytest.mark.parametrize("share", [0.01, 0.5, 0.99])
def test_an_interrupted_conversion_leaves_nothing(tmp_path, share):
    def stop(done, total):
        if done >= share * total:
            raise Stop

    files = write_files(tmp_path, OFFICIAL)
    with pytest.raises(Stop):
        convert_official(tmp_path / "model", **files, progress=stop)
    assert_nothing_left(tmp_path, "deer.pth", "clip.safetensors")


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux's /proc")
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_memory_stays_below_the_larger_of_output_and_largest_input(tmp_path, suffix):
    official = Official(d_model=384, llm_heads=4, layers=6, mpt_layers=6)
    files = write_files(tmp_path, official)
    if suffix == ".safetensors":
        checkpoint = torch.load(files["deer"], weights_only=True)
        save_file({n: t.clone() for n, t in tensors_of(checkpoint).items()},
                  tmp_path / "deer.safetensors")
        files["deer"] = tmp_path / "deer.safetensors"
        files["config"]["checkpoint_scalars"] = official.values()
    assert_memory_stays_below(tmp_path, files)


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux's /proc")
def test_of_files_that_can_only_be_read_whole_memory_holds_one_at_a_time(tmp_path):
    official = Official(d_model=384, llm_heads=4, layers=6, mpt_layers=6)
    files = write_files(tmp_path, official)
    contents = {
        "deer": torch.load(files["deer"], weights_only=True),
        "mpt": random_tensors(official.mpt(), 7),
        "openflamingo": random_tensors(official.openflamingo(), 8),
    }
    for role, content in contents.items():
        files[role] = tmp_path / f"{role}.pth"
        torch.save(content, files[role], _use_new_zipfile_serialization=False)
    assert_memory_stays_below(tmp_path, files)


def assert_memory_stays_below(tmp_path: Path, files: dict) -> None:
    (tmp_path / "files.json").write_text(json.dumps(files, default=str))
    run = subprocess.run(
        [sys.executable, Path(__file__).with_name("measure_conversion.py"),
         tmp_path / "files.json", tmp_path / "model"],
        stdout=subprocess.PIPE, text=True, check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    grown = json.loads(run.stdout)["grown_bytes"]
    largest = max(
        files["deer"].stat().st_size, (tmp_path / "model" / "model.safetensors").stat().st_size
    )
    assert largest > 50e6
    assert grown < 1.3 * largest

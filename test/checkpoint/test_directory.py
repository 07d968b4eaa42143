from __future__ import annotations

import json
import pickle
import shutil
import struct
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_model import tiny_config, write_tiny_model

from deer_ros.checkpoint import load_model, save_model, weights_sha256
from deer_ros.checkpoint.weights import map_tensors, read_tensors, stored_tensors
from deer_ros.model.config import VisionConfig

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"


@pytest.fixture(scope="module")
def original(tmp_path_factory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def folder(original, tmp_path) -> Path:
    """A copy to break."""
    return Path(shutil.copytree(original, tmp_path / "tiny"))


def change_weights(folder: Path, change) -> None:
    weights = load_file(folder / WEIGHTS)
    change(weights)
    save_file(weights, folder / WEIGHTS)


def shard(folder: Path, parts: int = 3) -> dict[str, str]:
    """Spread the weights over several files with an index; which file holds each tensor."""
    weights = load_file(folder / WEIGHTS)
    (folder / WEIGHTS).unlink()
    names = sorted(weights)
    mapping = {}
    for part in range(parts):
        file = f"model-{part + 1:05d}-of-{parts:05d}.safetensors"
        chosen = names[part::parts]
        save_file({name: weights[name] for name in chosen}, folder / file)
        mapping.update(dict.fromkeys(chosen, file))
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": mapping}))
    return mapping


def assert_same_weights(ours: torch.nn.Module, theirs: torch.nn.Module) -> None:
    ours, theirs = ours.state_dict(), theirs.state_dict()
    assert ours.keys() == theirs.keys()
    for name, weight in ours.items():
        assert weight.dtype == theirs[name].dtype
        assert torch.equal(weight, theirs[name]), name


def save_again(loaded, folder: Path) -> Path:
    save_model(folder, loaded.model, loaded.preprocessor, loaded.prompts)
    return folder


# Round trips


@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
@pytest.mark.parametrize("vision", [
    tiny_config().vision,
    VisionConfig("clip", image_size=32, width=16, patch_size=8, layers=2, heads=2),
])
def test_saving_and_loading_again_is_the_same_to_the_bit(tmp_path, vision, dtype):
    first = load_model(write_tiny_model(tmp_path / "a", vision=vision), dtype=dtype)
    second = load_model(save_again(first, tmp_path / "b"))
    assert_same_weights(first.model, second.model)
    assert second.model.config == first.model.config
    assert second.preprocessor == first.preprocessor
    again = save_again(second, tmp_path / "c")
    for file in (WEIGHTS, "config.json", "preprocessor_config.json", "tokenizer.json"):
        assert (again / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
    assert weights_sha256(again) == weights_sha256(tmp_path / "b")


def test_a_loaded_model_is_frozen_whole_and_on_no_meta_device(original):
    model = load_model(original).model
    assert not model.training
    assert not any(p.requires_grad or p.is_meta for p in model.parameters())
    assert not any(b.is_meta for b in model.buffers())


def test_weights_in_shards_are_the_same_model(original, folder):
    shard(folder)
    assert_same_weights(load_model(folder).model, load_model(original).model)


def test_the_fingerprint_is_of_the_weights_alone(original, folder):
    assert weights_sha256(folder) == weights_sha256(original)
    (folder / "README.md").write_text("a card")
    assert weights_sha256(folder) == weights_sha256(original)
    change_weights(folder, lambda w: w["resampler.latents"].add_(1e-3))
    assert weights_sha256(folder) != weights_sha256(original)


def test_saving_replaces_an_earlier_directory_and_leaves_nothing_else(original, tmp_path):
    loaded = load_model(original)
    target = tmp_path / "model"
    target.mkdir()
    (target / "stale").write_text("from before")
    save_again(loaded, target)
    assert not (target / "stale").exists()
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


def test_a_save_that_fails_leaves_the_earlier_directory_as_it_was(original, tmp_path, monkeypatch):
    loaded = load_model(original)
    target = save_again(loaded, tmp_path / "model")
    before = {p.name: p.read_bytes() for p in target.iterdir()}

    def fail(*_, **__):
        raise OSError("no space left on device")

    monkeypatch.setattr("deer_ros.checkpoint.directory.save_file", fail)
    with pytest.raises(OSError, match="no space left"):
        save_again(loaded, target)
    assert {p.name: p.read_bytes() for p in target.iterdir()} == before
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


def test_a_model_of_which_layers_are_missing_replaces_no_whole_one(original, tmp_path):
    target = save_again(load_model(original), tmp_path / "model")
    with pytest.raises(ValueError, match="has 4 of its 6 layers"):
        save_again(load_model(target, max_layer=4), target)
    assert load_model(target).model.max_layer == 6


# Only what is needed


@pytest.mark.parametrize("how", [map_tensors, read_tensors])
def test_only_the_tensors_of_the_permitted_layers_are_read(original, monkeypatch, how):
    read: list[int] = []

    def spy(file, tensors):
        read.extend(t.start for t in tensors.values())
        return how(file, tensors)

    if how is map_tensors:
        monkeypatch.setattr("deer_ros.checkpoint.source.COPIED_BYTES", 0)
    monkeypatch.setattr(f"deer_ros.checkpoint.source.{how.__name__}", spy)
    model = load_model(original, max_layer=4).model
    stored = stored_tensors(original)
    assert sorted(read) == sorted(stored[name].start for name in model.state_dict())
    left_out = [name for name in stored if name.startswith(("layers.4.", "layers.5."))]
    assert left_out and not {stored[name].start for name in left_out} & set(read)


def test_a_shard_of_layers_that_are_not_asked_for_may_be_absent_in_memory(folder):
    weights = load_file(folder / WEIGHTS)
    late = {n: w for n, w in weights.items() if n.startswith(("layers.4.", "layers.5."))}
    early = {n: w for n, w in weights.items() if n not in late}
    (folder / WEIGHTS).unlink()
    save_file(early, folder / "a.safetensors")
    (folder / "b.safetensors").write_bytes(b"never opened")
    mapping = dict.fromkeys(early, "a.safetensors") | dict.fromkeys(late, "b.safetensors")
    (folder / INDEX).write_text(json.dumps({"weight_map": mapping}))
    assert load_model(folder, max_layer=4).model.max_layer == 4
    with pytest.raises(ValueError, match="b.safetensors cannot be read"):
        load_model(folder)


@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_mapped_weights_are_the_same_as_copied_ones(original, monkeypatch, dtype):
    copied = load_model(original, dtype=dtype).model
    monkeypatch.setattr("deer_ros.checkpoint.source.COPIED_BYTES", 0)
    assert_same_weights(load_model(original, dtype=dtype).model, copied)


def test_a_small_file_that_is_overwritten_or_cut_short_changes_no_model_that_runs(
    original, folder
):
    """As `cp` and `rsync --inplace` do it."""
    model = load_model(folder).model
    with (folder / WEIGHTS).open("r+b") as stream:
        stream.seek(-10_000, 2)
        stream.write(bytes(10_000))
    assert_same_weights(model, load_model(original).model)
    (folder / WEIGHTS).write_bytes(b"")
    assert_same_weights(model, load_model(original).model)


def test_weights_that_end_too_soon_are_told_and_end_nothing(folder):
    tensors = stored_tensors(folder)
    with (folder / WEIGHTS).open("r+b") as stream:
        stream.truncate(max(t.start for t in tensors.values()))
    with pytest.raises(ValueError, match="ends within tensor .*; it was cut short"):
        read_tensors(folder / WEIGHTS, tensors)


def test_weights_that_do_not_fit_on_the_device_are_told_with_what_to_do(original, monkeypatch):
    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")

    monkeypatch.setattr(torch.Tensor, "to", full)
    with pytest.raises(ValueError, match="do not fit into the free memory of cpu; load fewer lay"):
        load_model(original, dtype=torch.bfloat16)


def test_loaded_tensors_are_in_the_dtype_asked_for(original):
    model = load_model(original, dtype=torch.float16).model
    assert {p.dtype for p in model.parameters()} == {torch.float16}


# Directories that are broken


def drop(name):
    return lambda weights: weights.pop(name)


def put(name, tensor):
    return lambda weights: weights.update({name: tensor})


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (drop("head.pose.1.weight"), "missing head.pose.1.weight"),
        (drop("layers.5.block.up.weight"), "missing layers.5.block.up.weight"),
        (put("extra.weight", torch.zeros(2)), "unknown extra.weight"),
        (put("layers.6.block.up.weight", torch.zeros(2)), "unknown layers.6.block.up.weight"),
        (
            put("embedding.weight", torch.zeros(16, 17)),
            r"'embedding.weight' in .* has shape \(16, 17\); the configuration asks for \(16, 16\)",
        ),
        (put("embedding.weight", torch.zeros(16, 16, dtype=torch.int64)), "weights are floats"),
        (put("embedding.weight", torch.zeros(16, 16, dtype=torch.float16)), "they must be of one"),
    ],
)
def test_weights_that_do_not_fit_are_named(folder, change, complaint):
    change_weights(folder, change)
    with pytest.raises(ValueError, match=complaint):
        load_model(folder)


def test_many_misfits_are_counted_not_listed(folder):
    change_weights(folder, lambda w: [w.pop(n) for n in list(w) if n.startswith("layers.2")])
    with pytest.raises(ValueError, match=r"missing layers\.2\S+, .* and \d+ more\.") as error:
        load_model(folder)
    assert len(str(error.value)) < 600


@pytest.mark.parametrize("keep", [0, 4, 8, 100, 3000, -1])
def test_a_truncated_file_is_named(folder, keep):
    file = folder / WEIGHTS
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(ValueError, match=r"model\.safetensors cannot be read as safetensors"):
        load_model(folder)


@pytest.mark.parametrize("header", [b"{", b"[]", b'{"a": 1}', b"\xff" * 20])
def test_a_broken_header_is_named(folder, header):
    (folder / WEIGHTS).write_bytes(struct.pack("<Q", len(header)) + header)
    with pytest.raises(ValueError, match=r"model\.safetensors cannot be read as safetensors"):
        load_model(folder)


def test_a_header_that_claims_to_be_huge_is_refused(folder):
    (folder / WEIGHTS).write_bytes(struct.pack("<Q", 1 << 60) + b"{}")
    with pytest.raises(ValueError, match="cannot be read as safetensors"):
        load_model(folder)


@pytest.mark.parametrize(
    "name", ["config.json", "preprocessor_config.json", "tokenizer.json", WEIGHTS]
)
def test_a_missing_file_is_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(FileNotFoundError, match=f"has n.*{name}"):
        load_model(folder)


@pytest.mark.parametrize("index", [
    "", "{", "[]", "{}", '{"weight_map": []}', '{"weight_map": {"a": 1}}',
])
def test_a_broken_index_is_named(folder, index):
    (folder / INDEX).write_text(index)
    with pytest.raises(ValueError, match=r"index\.json cannot be read"):
        load_model(folder)


def test_an_index_that_names_an_absent_shard_is_refused(folder):
    mapping = shard(folder)
    (folder / mapping["embedding.weight"]).unlink()
    with pytest.raises(FileNotFoundError, match="names model-0000.-of-00003.safetensors"):
        load_model(folder)


def test_an_index_that_names_the_wrong_shard_is_refused(folder):
    mapping = shard(folder)
    other = next(file for file in mapping.values() if file != mapping["embedding.weight"])
    (folder / INDEX).write_text(json.dumps({"weight_map": mapping | {"embedding.weight": other}}))
    with pytest.raises(ValueError, match="'embedding.weight' cannot be read from"):
        load_model(folder)


def test_an_index_cannot_lead_out_of_the_directory(folder):
    mapping = shard(folder)
    outside = {name: f"../{file}" for name, file in mapping.items()}
    (folder / INDEX).write_text(json.dumps({"weight_map": outside}))
    for file in set(mapping.values()):
        shutil.move(folder / file, folder.parent / file)
    with pytest.raises(FileNotFoundError, match="which is not there"):
        load_model(folder)


def test_special_tokens_outside_the_vocabulary_are_refused(folder):
    values = json.loads((folder / "config.json").read_text())
    values["prompt"]["image_token"] = 16
    (folder / "config.json").write_text(json.dumps(values))
    with pytest.raises(ValueError, match="this model's vocabulary has 0 to 15"):
        load_model(folder)


@pytest.mark.parametrize(("change", "complaint"), [
    (lambda prompt: prompt.update(image_token=prompt["end_of_chunk_token"]), "they must differ"),
    (lambda prompt: prompt.update(image_token=3), "that <image> is the token 3; the tokenizer.jso"),
    (lambda prompt: prompt.update(end_of_text_token=1), r"that <\|endoftext\|> is the token 1"),
    (lambda prompt: prompt.update(padding_token=0), "that <PAD> is the token 0; the tokenizer"),
])
def test_special_tokens_that_are_not_the_tokenizers_are_refused(folder, change, complaint):
    values = json.loads((folder / "config.json").read_text())
    change(values["prompt"])
    (folder / "config.json").write_text(json.dumps(values))
    with pytest.raises(ValueError, match=complaint):
        load_model(folder)


def test_a_tokenizer_of_more_words_than_the_model_knows_is_refused(folder):
    tokenizer = load_model(folder).prompts.tokenizer
    tokenizer.add_tokens(["fridge", "lamp", "door", "shelf"])
    tokenizer.save_pretrained(folder)
    with pytest.raises(ValueError, match=r"tokens up to \d\d; this model's vocabulary has 0 to 15"):
        load_model(folder)


def test_pictures_of_another_size_than_the_towers_are_refused(folder):
    values = json.loads((folder / "preprocessor_config.json").read_text())
    values["size"]["shortest_edge"] = 48
    (folder / "preprocessor_config.json").write_text(json.dumps(values))
    with pytest.raises(ValueError, match="makes pictures of 48 pixels; the model's tower takes 32"):
        load_model(folder)


# Pickles


class Bomb:
    """Writes a file when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self):
        return Path.write_text, (self.trace, "unpickled")


@pytest.mark.parametrize(
    "name", ["pytorch_model.bin", "model.pt", "calibration.pkl", "tokenizer.pkl"]
)
def test_a_pickle_in_the_directory_is_never_read(folder, tmp_path, name):
    (folder / name).write_bytes(pickle.dumps(Bomb(tmp_path / "trace")))
    load_model(folder)
    assert not (tmp_path / "trace").exists()


@pytest.mark.parametrize(
    "name", [WEIGHTS, "config.json", "preprocessor_config.json", "tokenizer.json", INDEX]
)
def test_a_pickle_in_the_place_of_a_file_is_refused_unread(folder, tmp_path, name):
    (folder / name).write_bytes(pickle.dumps(Bomb(tmp_path / "trace")))
    with pytest.raises(ValueError, match=name):
        load_model(folder)
    assert not (tmp_path / "trace").exists()


def test_the_bomb_of_these_tests_does_go_off(tmp_path):
    pickle.loads(pickle.dumps(Bomb(tmp_path / "trace")))
    assert (tmp_path / "trace").exists()

"""The depth of a policy changes while it runs."""

from __future__ import annotations

import gc
import math
import shutil
import threading
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_model import INSTRUCTIONS, write_tiny_model

from deer_ros import DeerPolicy, Observation
from deer_ros.checkpoint import LoadedModel

NEVER = -1.0
TEXT = INSTRUCTIONS[0]
WEIGHTS = "model.safetensors"


@pytest.fixture(scope="module")
def original(tmp_path_factory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def folder(original, tmp_path) -> Path:
    """A copy to break."""
    return Path(shutil.copytree(original, tmp_path / "tiny"))


def observation(seed: int = 0) -> Observation:
    pictures = np.random.default_rng(seed).integers(0, 256, (2, 40, 50, 3), dtype=np.uint8)
    return Observation(pictures[0], pictures[1])


def change_depth(policy: DeerPolicy, max_layer: int | None) -> None:
    policy.adopt(policy.load_layers(max_layer))


def assert_same_step(ours, theirs) -> None:
    np.testing.assert_array_equal(ours.action, theirs.action)
    assert ours.gripper_probability == theirs.gripper_probability
    assert ours.exit_layer == theirs.exit_layer


@pytest.mark.parametrize("dtype", ["auto", "bfloat16"])
@pytest.mark.parametrize(("before", "after"), [(2, 4), (2, 6), (4, 6), (6, 2), (6, 4), (4, 4)])
def test_a_changed_policy_is_the_one_loaded_at_that_depth(original, dtype, before, after):
    policy = DeerPolicy.from_pretrained(original, dtype=dtype, max_layer=before)
    change_depth(policy, after)
    fresh = DeerPolicy.from_pretrained(original, dtype=dtype, max_layer=after)
    assert len(policy.model.layers) == len(fresh.model.layers) == policy.max_layer == after
    assert policy.model.state_dict().keys() == fresh.model.state_dict().keys()
    assert policy.rule == fresh.rule
    for thresholds in ([NEVER] * 3, [math.inf] * 3):
        policy.set_thresholds(thresholds)
        fresh.set_thresholds(thresholds)
        for seed in range(3):
            ours, theirs = (p.step(observation(seed), TEXT) for p in (policy, fresh))
            assert_same_step(ours, theirs)


@pytest.mark.parametrize(
    ("asked", "held"), [(2, 2), (3, 2), (5, 4), (6, 6), (7, 6), (99, 6), (None, 6)]
)
def test_the_depth_is_rounded_down_to_an_exit(original, asked, held):
    policy = DeerPolicy.from_pretrained(original, max_layer=4)
    change_depth(policy, asked)
    assert len(policy.model.layers) == policy.max_layer == held


def test_loaded_layers_are_frozen_and_in_the_policys_dtype(original):
    policy = DeerPolicy.from_pretrained(original, dtype="float16", max_layer=2)
    change_depth(policy, 6)
    parameters = list(policy.model.parameters())
    assert {p.dtype for p in parameters} == {torch.float16}
    assert not any(p.requires_grad or p.is_meta for p in parameters)
    assert not any(module.training for module in policy.model.modules())


def test_layers_past_the_depth_are_freed(original):
    policy = DeerPolicy.from_pretrained(original)
    policy.step(observation(), TEXT, exit_layer=6)
    gone = [weakref.ref(p) for layer in policy.model.layers[2:] for p in layer.parameters()]
    kept = [weakref.ref(p) for layer in policy.model.layers[:2] for p in layer.parameters()]
    gc.disable()  # what reference counting alone does not free stays for long
    try:
        change_depth(policy, 2)
        assert not any(reference() is not None for reference in gone)
    finally:
        gc.enable()
    assert all(reference() is not None for reference in kept)


def test_loading_alone_changes_nothing(original):
    policy = DeerPolicy.from_pretrained(original, max_layer=2)
    rule = policy.rule
    expected = policy.step(observation(), TEXT, commit=False)
    change = policy.load_layers(6)
    assert (change.before, change.after, len(change.layers)) == (2, 6, 4)
    assert len(policy.model.layers) == 2 and policy.rule is rule
    assert_same_step(policy.step(observation(), TEXT, commit=False), expected)


def test_the_recurrent_state_outlives_a_change_of_depth(original):
    changed, whole = (DeerPolicy.from_pretrained(original) for _ in range(2))
    for policy in (changed, whole):
        policy.step(observation(0), TEXT, exit_layer=2)
    change_depth(changed, 2)
    assert_same_step(*(p.step(observation(1), TEXT, exit_layer=2) for p in (changed, whole)))
    change_depth(changed, 6)
    assert_same_step(*(p.step(observation(2), TEXT, exit_layer=6) for p in (changed, whole)))


def test_thresholds_out_of_reach_hold_again_once_they_are_in_reach(original):
    policy = DeerPolicy.from_pretrained(original)
    policy.set_thresholds([0.3, 0.2, 0.1], "max", steps_per_decision=2)
    whole = policy.rule
    change_depth(policy, 2)
    assert policy.thresholds == (math.inf,) * 3
    change_depth(policy, 4)
    assert policy.thresholds == (0.3, math.inf, math.inf)
    change_depth(policy, 6)
    assert policy.rule == whole and policy.thresholds == (0.3, 0.2, math.inf)


def test_exits_that_were_given_no_threshold_take_the_models_own(original):
    policy = DeerPolicy.from_pretrained(original, max_layer=4)
    policy.set_thresholds([0.3, 1e5])
    change_depth(policy, 6)
    assert policy.thresholds == (0.3, 0.01, math.inf)


def test_an_exit_kept_for_several_steps_is_decided_anew_where_it_is_gone(original):
    policy = DeerPolicy.from_pretrained(original)
    policy.set_thresholds([NEVER] * 3, steps_per_decision=10)
    assert policy.step(observation(), TEXT).exit_layer == 6
    change_depth(policy, 4)
    assert policy.step(observation(), TEXT).exit_layer == 4


def test_layers_loaded_for_another_depth_are_refused(original):
    policy = DeerPolicy.from_pretrained(original, max_layer=2)
    late = policy.load_layers(6)
    change_depth(policy, 4)
    rule = policy.rule
    with pytest.raises(ValueError, match="for a policy of 2 layers; it has 4 now. Load them again"):
        policy.adopt(late)
    assert len(policy.model.layers) == 4 and policy.rule is rule
    change_depth(policy, 6)


def test_steps_go_on_while_layers_are_loaded(original, monkeypatch):
    """Loading is held up until steps were made meanwhile; both threads must get on."""
    policy = DeerPolicy.from_pretrained(original, max_layer=2)
    expected = policy.step(observation(), TEXT, commit=False)
    stepped = threading.Event()
    read = policy._source._read

    def slow(*arguments):
        assert stepped.wait(60)
        return read(*arguments)

    monkeypatch.setattr(policy._source, "_read", slow)
    changes = []
    thread = threading.Thread(target=lambda: changes.append(policy.load_layers(6)))
    thread.start()
    for _ in range(5):
        assert_same_step(policy.step(observation(), TEXT, commit=False), expected)
    assert thread.is_alive() and not changes
    stepped.set()
    while thread.is_alive():
        assert_same_step(policy.step(observation(), TEXT, commit=False), expected)
    policy.adopt(changes[0])
    whole = DeerPolicy.from_pretrained(original)
    assert_same_step(policy.step(observation(), TEXT), whole.step(observation(), TEXT))


# What cannot be


def vanish(file: Path) -> None:
    file.unlink()


def replace(file: Path) -> None:
    other = file.with_suffix(".new")
    save_file({n: w * 2 for n, w in load_file(file).items()}, other)
    other.replace(file)


def truncate(file: Path) -> None:
    shorter = file.with_suffix(".new")
    shorter.write_bytes(file.read_bytes()[:-4])
    shorter.replace(file)


@pytest.mark.parametrize(
    ("harm", "kind", "complaint"),
    [
        (vanish, FileNotFoundError, "model.safetensors is not there any more"),
        (replace, ValueError, "model.safetensors has changed since the policy was loaded"),
        (truncate, ValueError, "model.safetensors has changed since the policy was loaded"),
        (lambda file: shutil.rmtree(file.parent), FileNotFoundError, "is not there any more"),
    ],
)
def test_a_file_that_is_not_the_same_any_more_leaves_the_old_depth(folder, harm, kind, complaint):
    policy = DeerPolicy.from_pretrained(folder, max_layer=4)
    policy.set_thresholds([NEVER] * 3)
    expected = policy.step(observation(), TEXT, commit=False)
    harm(folder / WEIGHTS)
    with pytest.raises(kind, match=complaint):
        policy.load_layers(6)
    assert len(policy.model.layers) == policy.max_layer == 4
    assert_same_step(policy.step(observation(), TEXT, commit=False), expected)
    change_depth(policy, 2)
    assert policy.max_layer == 2


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda w: w.update({"layers.5.block.up.weight": torch.zeros(2, 2)}),
         r"'layers.5.block.up.weight' in .* has shape \(2, 2\)"),
        (lambda w: w.update({n: t.half() for n, t in w.items() if n.startswith("layers.5.")}),
         "are of types F32 and F16; they must be of one"),
    ],
)
def test_layers_that_do_not_fit_are_refused_when_they_are_asked_for(folder, change, complaint):
    weights = load_file(folder / WEIGHTS)
    change(weights)
    save_file(weights, folder / WEIGHTS)
    policy = DeerPolicy.from_pretrained(folder, max_layer=4)
    with pytest.raises(ValueError, match=complaint):
        policy.load_layers(6)
    assert len(policy.model.layers) == 4


def test_a_depth_before_the_first_exit_is_refused(original):
    policy = DeerPolicy.from_pretrained(original, max_layer=4)
    with pytest.raises(ValueError, match="max_layer is 1; the first exit of this model is after"):
        policy.load_layers(1)


def test_a_policy_without_a_directory_can_lose_layers_and_get_none(original):
    whole = DeerPolicy.from_pretrained(original)
    policy = DeerPolicy(LoadedModel(whole.model, whole.preprocessor, whole.prompts))
    change_depth(policy, 4)
    with pytest.raises(ValueError, match="was not loaded from a model directory"):
        policy.load_layers(6)
    assert policy.max_layer == 4


def test_a_relative_directory_is_found_after_the_working_directory_changed(folder, monkeypatch):
    monkeypatch.chdir(folder.parent)
    policy = DeerPolicy.from_pretrained(folder.name, max_layer=2)
    monkeypatch.chdir("/")
    change_depth(policy, 6)
    assert policy.max_layer == 6


def test_writing_to_loaded_weights_does_not_reach_the_file(folder):
    before = (folder / WEIGHTS).read_bytes()
    policy = DeerPolicy.from_pretrained(folder, max_layer=2)
    change_depth(policy, 6)
    for parameter in policy.model.parameters():
        parameter.data.fill_(7.0)
    assert (folder / WEIGHTS).read_bytes() == before


def test_few_files_are_held_open(original):
    """Each part of a model is one mapping; a mapping of Python's keeps a file open."""
    fds = Path("/proc/self/fd")
    before = len(list(fds.iterdir()))
    policy = DeerPolicy.from_pretrained(original)
    assert len(list(fds.iterdir())) - before <= len(policy.model.layers) + 4
    change_depth(policy, 2)
    assert len(list(fds.iterdir())) - before <= 2 + 4

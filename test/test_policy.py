from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from tiny_model import INSTRUCTIONS, write_tiny_model

from deer_ros import DeerPolicy, Observation
from deer_ros.budget import criterion
from deer_ros.budget.cost import CostModel
from deer_ros.inputs import find_device
from deer_ros.model.config import ExitConfig
from deer_ros.policy import NonFiniteActionError

NEVER, ALWAYS = -1.0, 1e8
TEXT = INSTRUCTIONS[0]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def policy(folder) -> DeerPolicy:
    return DeerPolicy.from_pretrained(folder)


def observation(seed: int = 0, height: int = 40, width: int = 50) -> Observation:
    random = np.random.default_rng(seed)
    pictures = random.integers(0, 256, (2, height, width, 3), dtype=np.uint8)
    return Observation(pictures[0], pictures[1])


def layers_run(policy: DeerPolicy) -> list[int]:
    """Fills with the number of each layer (from 1) as it runs."""
    run: list[int] = []
    for number, layer in enumerate(policy.model.layers, start=1):
        layer.register_forward_hook(lambda *_, number=number: run.append(number))
    return run


def state_of(policy: DeerPolicy) -> np.ndarray:
    return torch.cat(list(policy.state)).numpy().copy()


def assert_same_answer(ours, theirs) -> None:
    np.testing.assert_array_equal(ours.action, theirs.action)
    assert ours.gripper_probability == theirs.gripper_probability
    assert ours.exit_layer == theirs.exit_layer


# Where a step stops


@pytest.mark.parametrize(
    ("thresholds", "deepest"),
    [((ALWAYS, 0, 0), 2), ((NEVER, ALWAYS, 0), 4), ((NEVER, NEVER, 0), 6)],
)
def test_layers_past_the_taken_exit_are_not_computed(policy, thresholds, deepest):
    run = layers_run(policy)
    policy.set_thresholds(thresholds)
    step = policy.step(observation(), TEXT)
    assert run == list(range(1, deepest + 1))
    assert step.exit_layer == deepest


@pytest.mark.parametrize("layer", [2, 4, 6])
def test_a_fixed_exit_runs_to_it_and_asks_nothing(policy, layer):
    run = layers_run(policy)
    policy.set_thresholds([ALWAYS] * 3)
    step = policy.step(observation(), TEXT, exit_layer=layer)
    assert run == list(range(1, layer + 1))
    assert step.exit_layer == layer
    assert np.isnan(step.deltas).all()
    assert step.cost.head_gflops == CostModel(policy.config, 6).head_gflops(1)


@pytest.mark.parametrize(
    ("max_layer", "deepest"), [(2, 2), (3, 2), (4, 4), (5, 4), (6, 6), (99, 6)]
)
def test_max_layer_is_the_deepest_layer_that_runs(policy, max_layer, deepest):
    run = layers_run(policy)
    policy.set_thresholds([NEVER] * 3, max_layer=max_layer)
    assert policy.max_layer == deepest
    assert policy.step(observation(), TEXT).exit_layer == deepest
    assert max(run) == deepest


def test_the_exit_is_the_first_whose_delta_is_within_its_threshold(policy):
    for seed in range(5):
        told = policy.explain(observation(seed), TEXT)
        for thresholds in ([d * f for d in told.deltas] for f in (0.999, 1.001)):
            policy.set_thresholds(thresholds)
            agreed = [layer for layer, d, t in zip(told.layers, told.deltas, thresholds) if d <= t]
            step = policy.step(observation(seed), TEXT, commit=False)
            assert step.exit_layer == (agreed or [6])[0]
            met = ~np.isnan(step.deltas)
            np.testing.assert_allclose(step.deltas[met], told.deltas[met], rtol=1e-5)


def test_exits_that_can_never_be_taken_cost_no_call_of_the_head(policy):
    calls: list[str] = []
    policy.model.head.pose.register_forward_hook(lambda *_: calls.append("pose"))
    policy.set_thresholds([NEVER] * 3)
    policy.step(observation(), TEXT)
    assert len(calls) == 1
    calls.clear()
    policy.set_thresholds([0.0, 0.0, 0.0])
    step = policy.step(observation(), TEXT)
    assert len(calls) == 4
    assert step.cost.head_gflops == CostModel(policy.config, 6).head_gflops(4)


def test_an_exit_holds_for_the_steps_of_a_decision_and_is_then_decided_anew(policy):
    policy.set_thresholds([ALWAYS, 0, 0], steps_per_decision=3)
    first = [policy.step(observation(i), TEXT) for i in range(3)]
    assert [s.exit_layer for s in first] == [2, 2, 2]
    assert [np.isnan(s.deltas).all() for s in first] == [False, True, True]
    policy.set_thresholds([NEVER, ALWAYS, 0], steps_per_decision=3)
    assert [policy.step(observation(i), TEXT).exit_layer for i in range(3)] == [4, 4, 4]


def test_a_step_between_two_decisions_is_no_deeper_than_is_permitted(policy):
    policy.set_thresholds([NEVER] * 3, steps_per_decision=3, max_layer_between=5)
    taken = [policy.step(observation(i), TEXT) for i in range(5)]
    assert [s.exit_layer for s in taken] == [6, 4, 4, 6, 4]
    assert [s.stopped_by for s in taken] == ["deepest", "fixed", "fixed", "deepest", "fixed"]
    policy.reset()
    policy.set_thresholds([ALWAYS, 0, 0], steps_per_decision=2, max_layer_between=4)
    assert [policy.step(observation(i), TEXT).exit_layer for i in range(4)] == [2] * 4
    policy.set_thresholds([NEVER] * 3, steps_per_decision=2, max_layer_between=0)
    assert [policy.step(observation(i), TEXT).exit_layer for i in range(4)] == [6] * 4


def test_a_model_steps_by_its_own_cadence_unless_another_is_set(tmp_path):
    exits = ExitConfig(thresholds=(-1e8, -1e8, 1e8), steps_per_decision=2, max_layer_between=2)
    policy = DeerPolicy.from_pretrained(write_tiny_model(tmp_path / "m", exits=exits))
    assert [policy.step(observation(i), TEXT).exit_layer for i in range(4)] == [6, 2, 6, 2]
    policy.reset()
    policy.set_thresholds([NEVER, ALWAYS, 0], steps_per_decision=None, max_layer_between=None)
    assert [policy.step(observation(i), TEXT).exit_layer for i in range(4)] == [4, 2, 4, 2]
    policy.reset()
    policy.set_thresholds([NEVER, ALWAYS, 0], steps_per_decision=2)
    assert [policy.step(observation(i), TEXT).exit_layer for i in range(4)] == [4] * 4
    policy.reset()
    policy.set_thresholds([NEVER, ALWAYS, 0])
    assert [policy.step(observation(i), TEXT).exit_layer for i in range(4)] == [4] * 4


def test_a_new_episode_decides_anew(policy):
    policy.set_thresholds([ALWAYS, 0, 0], steps_per_decision=10)
    policy.step(observation(), TEXT)
    policy.reset()
    policy.set_thresholds([NEVER, ALWAYS, 0], steps_per_decision=10)
    assert policy.step(observation(), TEXT).exit_layer == 4


def test_an_exit_after_layer_one_has_no_delta_and_is_taken_only_when_fixed(tmp_path):
    folder = write_tiny_model(tmp_path / "m", exits=ExitConfig(interval=1))
    policy = DeerPolicy.from_pretrained(folder)
    policy.set_thresholds([ALWAYS, NEVER, ALWAYS, 0, 0, 0])
    step = policy.step(observation(), TEXT, commit=False)
    assert step.exit_layer == 3
    assert np.isnan(step.deltas[0]) and np.isfinite(step.deltas[2])
    assert policy.step(observation(), TEXT, exit_layer=1).exit_layer == 1
    told = policy.explain(observation(), TEXT)
    assert np.isnan(told.deltas[0]) and np.isfinite(told.deltas[1:]).all()
    assert told.reference_action is None


def test_an_ensemble_is_the_mean_of_the_taken_exit_and_the_one_before(policy):
    told = policy.explain(observation(), TEXT)
    for thresholds, taken in (((ALWAYS, 0, 0), 0), ((NEVER, ALWAYS, 0), 1), ((NEVER, NEVER, 0), 2)):
        policy.set_thresholds(thresholds, ensemble=True)
        step = policy.step(observation(), TEXT, commit=False)
        chosen = slice(max(taken - 1, 0), taken + 1)
        np.testing.assert_allclose(step.action, told.actions[chosen].mean(axis=0), atol=1e-6)
        probability = told.gripper_probabilities[chosen].mean()
        assert step.gripper_probability == pytest.approx(probability, abs=1e-6)
        assert step.gripper == (1.0 if probability > 0.5 else -1.0)
        assert step.exit_layer == told.layers[taken]
        torch.testing.assert_close(step._state, told.states[taken])
    assert policy.step(observation(), TEXT, exit_layer=4).action == pytest.approx(
        told.actions[1], abs=1e-6
    )


def test_a_preset_is_a_whole_rule_or_changes_nothing(tmp_path, policy):
    before = policy.rule
    refused = {"nothing": "there is no preset", "calvin-d": "6 thresholds were given"}
    for name, complaint in refused.items():
        with pytest.raises(ValueError, match=complaint):
            policy.set_preset(name)
        assert policy.rule is before
    policy.set_preset("deer-s-3b")
    assert policy.max_layer == 4
    assert policy.thresholds == (0.01, math.inf, math.inf)
    language = dataclasses.replace(policy.config.language, layers=12)
    folder = write_tiny_model(tmp_path / "m", language=language, exits=ExitConfig(interval=2))
    deep = DeerPolicy.from_pretrained(folder)
    deep.set_preset("calvin-d")
    assert deep.thresholds[1] == 0.0034394217427938887 and deep.max_layer == 12


# What a step says


def test_an_answer_has_the_promised_types_and_ranges(policy):
    step = policy.step(observation(), TEXT)
    assert step.action.dtype == np.float32 and step.action.shape == (6,)
    assert (np.abs(step.action) <= 1).all()
    assert step.gripper in (-1.0, 1.0) and isinstance(step.gripper, float)
    assert step.gripper == (1.0 if step.gripper_probability > 0.5 else -1.0)
    assert step.deltas.dtype == np.float32 and step.deltas.shape == (3,)
    cost = step.cost
    assert cost.llm_gflops == CostModel(policy.config, 6).language_gflops(step.exit_layer)
    assert cost.step_gflops == cost.vision_gflops + cost.language_gflops + cost.head_gflops
    parts = (cost.preprocessing_ms, cost.vision_ms, cost.language_ms, cost.head_ms)
    assert all(part > 0 for part in parts)
    assert cost.step_ms == pytest.approx(sum(parts))


@pytest.mark.parametrize("layer", [2, 4, 6])
def test_explain_says_what_each_exit_would_have_answered(policy, layer):
    policy.step(observation(1), TEXT)
    before = state_of(policy)
    told = policy.explain(observation(), TEXT)
    np.testing.assert_array_equal(state_of(policy), before)
    index = told.layers.index(layer)
    step = policy.step(observation(), TEXT, exit_layer=layer)
    np.testing.assert_allclose(step.action, told.actions[index], atol=1e-6)
    assert step.gripper_probability == pytest.approx(told.gripper_probabilities[index], abs=1e-6)
    torch.testing.assert_close(policy.state, told.states[index])


@pytest.mark.parametrize("metric", ["l2", "mean", "max", "cosine"])
def test_deltas_compare_each_exit_with_the_one_before(policy, metric):
    policy.set_thresholds([0.0] * 3, metric)
    told = policy.explain(observation(), TEXT)
    poses = [told.reference_action, *told.actions]
    expected = [criterion.delta(a, b, metric) for a, b in zip(poses[1:], poses)]
    np.testing.assert_allclose(told.deltas, expected, rtol=1e-6)
    step = policy.step(observation(), TEXT)
    np.testing.assert_allclose(step.deltas, expected, rtol=1e-4, atol=1e-7)


def test_the_same_words_as_ids_give_the_same_answer(policy):
    ids = policy.prompts.encode(TEXT)
    by_text = policy.step(observation(), TEXT, commit=False)
    by_ids = policy.step(observation(), ids, commit=False)
    assert_same_answer(by_text, by_ids)


def test_the_instruction_matters(policy):
    ours, theirs = (policy.step(observation(), t, commit=False) for t in INSTRUCTIONS[:2])
    assert not np.array_equal(ours.action, theirs.action)


# The recurrent state


def test_a_step_advances_the_state_and_reset_clears_it(policy):
    fresh = policy.step(observation(), TEXT)
    assert state_of(policy).any()
    later = policy.step(observation(), TEXT)
    assert not np.array_equal(fresh.action, later.action)
    policy.reset()
    assert not state_of(policy).any()
    assert_same_answer(policy.step(observation(), TEXT), fresh)


def test_a_step_that_is_not_committed_leaves_no_trace_until_it_is(policy):
    policy.set_thresholds([ALWAYS, 0, 0], steps_per_decision=2)
    before = state_of(policy)
    step = policy.step(observation(), TEXT, commit=False)
    np.testing.assert_array_equal(state_of(policy), before)
    again = policy.step(observation(), TEXT, commit=False)
    assert_same_answer(step, again)
    assert np.isfinite(again.deltas[0]), "an uncommitted step must not count as a decision"
    policy.commit(step)
    after = state_of(policy)
    policy.reset()
    policy.step(observation(), TEXT)
    np.testing.assert_array_equal(state_of(policy), after)


def test_the_state_is_the_taken_exits_alone(policy):
    policy.set_thresholds([NEVER, ALWAYS, 0])
    policy.step(observation(), TEXT)
    asked = state_of(policy)
    policy.reset()
    policy.step(observation(), TEXT, exit_layer=4)
    np.testing.assert_allclose(state_of(policy), asked, atol=1e-6)


def poison(policy: DeerPolicy, part) -> torch.Tensor:
    """Turn a part's weights to NaN; the weights as they were."""
    before = part.weight.data.clone()
    part.weight.data.fill_(math.nan)
    return before


def test_a_non_finite_answer_is_refused_and_leaves_the_state(policy):
    policy.step(observation(1), TEXT)
    expected = policy.step(observation(2), TEXT, commit=False)
    before = state_of(policy)
    for part in (policy.model.head.pose[-1], policy.model.head.gripper[-1],
                 policy.model.layers[3].block.down):
        weights = poison(policy, part)
        with pytest.raises(NonFiniteActionError, match="is not finite"):
            policy.step(observation(2), TEXT, exit_layer=6)
        np.testing.assert_array_equal(state_of(policy), before)
        part.weight.data.copy_(weights)
    assert_same_answer(policy.step(observation(2), TEXT), expected)


def test_poison_past_the_taken_exit_is_never_met(policy):
    policy.set_thresholds([ALWAYS, 0, 0])
    poison(policy, policy.model.layers[2].block.down)
    assert policy.step(observation(), TEXT).exit_layer == 2


# Input that cannot be


@pytest.mark.parametrize(
    ("instruction", "complaint"),
    [
        ("", "the instruction is empty"),
        (" \n", "the instruction is empty"),
        ("open " * 60, "makes 63 tokens; this model takes 32"),
        ("open the <image> drawer", "one of the model's own tokens"),
        (None, "must be text or a 1-D int64 array"),
        (7, "must be text or a 1-D int64 array"),
        ([1, 2], "must be text or a 1-D int64 array"),
        (np.array([1, 2], np.int32), "must be text or a 1-D int64 array"),
        (np.array([[1, 2]], np.int64), "must be text or a 1-D int64 array"),
        (np.array([], np.int64), "must be text or a 1-D int64 array"),
        (np.array([1, 2], np.int64), "has \\[0\\] <image> tokens"),
        (np.array([12, -1], np.int64), "vocabulary has 0 to 15"),
        (np.array([12, 16], np.int64), "vocabulary has 0 to 15"),
        (np.full(33, 3, np.int64), "has 33 token ids; this model takes 32"),
    ],
)
def test_an_instruction_that_cannot_be_is_refused_and_changes_nothing(
    policy, instruction, complaint
):
    policy.step(observation(), TEXT)
    before = state_of(policy)
    expected = policy.step(observation(1), TEXT, commit=False)
    with pytest.raises(ValueError, match=complaint):
        policy.step(observation(), instruction)
    np.testing.assert_array_equal(state_of(policy), before)
    assert_same_answer(policy.step(observation(1), TEXT, commit=False), expected)


@pytest.mark.parametrize("field", ["static", "gripper"])
@pytest.mark.parametrize(
    ("picture", "complaint"),
    [
        (None, "a picture is of type NoneType"),
        (np.zeros((8, 8, 3), np.float32), "a picture is of type float32"),
        (np.zeros((8, 8), np.uint8), "a picture has shape"),
        (np.zeros((8, 8, 4), np.uint8), "a picture has shape"),
        (np.zeros((8, 0, 3), np.uint8), "a picture has shape"),
    ],
)
def test_a_picture_that_is_none_is_refused_and_nothing_changes(policy, field, picture, complaint):
    before = state_of(policy)
    with pytest.raises(ValueError, match=complaint):
        policy.step(dataclasses.replace(observation(), **{field: picture}), TEXT)
    np.testing.assert_array_equal(state_of(policy), before)


def test_cameras_of_different_sizes_are_taken(policy):
    static, gripper = observation(0, 60, 80).static, observation(1, 33, 20).gripper
    assert np.isfinite(policy.step(Observation(static, gripper), TEXT).action).all()


@pytest.mark.parametrize("arguments", [
    {"thresholds": [0.1]}, {"thresholds": [math.nan] * 3}, {"thresholds": [1] * 3, "metric": "x"},
    {"thresholds": [1] * 3, "max_layer": 1}, {"thresholds": [1] * 3, "steps_per_decision": 0},
    {"thresholds": [1] * 3, "max_layer_between": 1},
])
def test_thresholds_that_cannot_be_change_nothing(policy, arguments):
    policy.set_thresholds([0.3, 0.2, 0.1], "max", max_layer=4, steps_per_decision=2)
    before = policy.rule
    with pytest.raises(ValueError):
        policy.set_thresholds(**arguments)
    assert policy.rule is before
    assert (policy.thresholds, policy.max_layer) == ((0.3, math.inf, math.inf), 4)


def test_an_exit_that_is_not_permitted_is_refused(policy):
    policy.set_thresholds([1] * 3, max_layer=4)
    for layer in (3, 6):
        with pytest.raises(ValueError, match=f"exit_layer is {layer}; the permitted exits"):
            policy.step(observation(), TEXT, exit_layer=layer)


# Loading


def test_a_loaded_policy_has_its_models_own_thresholds_and_metric(policy):
    assert policy.thresholds == (0.01, 0.01, math.inf)
    assert policy.rule.metric == policy.config.metric == "l2"
    assert policy.max_layer == 6


def test_a_policy_of_fewer_layers_answers_as_the_whole_one_capped_to_them(folder, policy):
    cut = DeerPolicy.from_pretrained(folder, max_layer=4)
    assert cut.max_layer == 4 and len(cut.model.layers) == 4
    policy.set_thresholds([NEVER] * 3, max_layer=4)
    cut.set_thresholds([NEVER] * 3)
    assert_same_answer(cut.step(observation(), TEXT), policy.step(observation(), TEXT))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_a_policy_runs_in_the_dtype_it_is_asked_for(folder, policy, dtype):
    other = DeerPolicy.from_pretrained(folder, device="cpu", dtype=dtype)
    assert next(other.model.parameters()).dtype == getattr(torch, dtype)
    ours = other.step(observation(), TEXT, exit_layer=6)
    theirs = policy.step(observation(), TEXT, exit_layer=6)
    np.testing.assert_allclose(ours.action, theirs.action, atol=0.05)
    assert ours.action.dtype == np.float32


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"dtype": "int4"}, "dtype is 'int4'; allowed are auto, float32"),
        ({"device": "tpu"}, "device is 'tpu'; allowed are auto, cpu, cuda"),
        ({"device": "mps"}, "device is 'mps'; allowed are auto, cpu, cuda"),
        ({"max_layer": 1}, "max_layer is 1; the first exit of this model is after layer 2"),
    ],
)
def test_a_policy_that_cannot_be_loaded_says_why(folder, arguments, complaint):
    with pytest.raises(ValueError, match=complaint):
        DeerPolicy.from_pretrained(folder, **arguments)


def test_a_gpu_beyond_the_last_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [str(find_device(name)) for name in ("cuda", "cuda:1")] == ["cuda", "cuda:1"]
    with pytest.raises(ValueError, match="device is 'cuda:2', but the last GPU here is cuda:1"):
        find_device("cuda:2")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_missing_gpu_is_said(folder):
    with pytest.raises(ValueError, match="torch finds no GPU here; use cpu or auto"):
        DeerPolicy.from_pretrained(folder, device="cuda")


def test_a_missing_directory_is_said(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no model directory"):
        DeerPolicy.from_pretrained(tmp_path / "nothing")

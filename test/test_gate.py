"""The metric `learned`: the head's own guess decides, and nothing is compared."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from episodes import make_episode
from tiny_model import INSTRUCTIONS, tiny_config, write_tiny_model

from deer_ros import Budget, DeerPolicy, Observation
from deer_ros.budget.budget import BudgetError
from deer_ros.budget.calibration import Calibration
from deer_ros.budget.cost import CostModel
from deer_ros.calibration.calibrate import Settings, calibrate, needed_layers
from deer_ros.calibration.features import gather_features
from deer_ros.calibration.rollout import roll_out
from deer_ros.decision import NonFiniteActionError
from deer_ros.measuring import WARM_UP_STEPS
from deer_ros.model.config import ExitConfig
from deer_ros.search.start import find_start

NEVER, ALWAYS = -1.0, 1e8
TEXT = INSTRUCTIONS[0]
GATED = dataclasses.replace(tiny_config().head, gate_width=8)


@pytest.fixture(
    scope="module", params=[(1, "distance"), (2, "distance"), (1, "success"), (2, "success")],
    ids=lambda param: f"every_{param[0]}_{param[1]}",
)
def folder(request, tmp_path_factory):
    interval, guesses = request.param
    folder = tmp_path_factory.mktemp("models") / "gated"
    exits = ExitConfig(interval=interval, metric="learned")
    head = dataclasses.replace(GATED, gate_guesses=guesses)
    return write_tiny_model(folder, head=head, exits=exits)


@pytest.fixture
def policy(folder) -> DeerPolicy:
    return DeerPolicy.from_pretrained(folder, device="cpu")


def observation(seed: int = 0) -> Observation:
    pictures = np.random.default_rng(seed).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    return Observation(*pictures)


def test_the_first_exit_whose_guess_is_within_its_threshold_is_taken(policy):
    exits = policy.config.exit_layers
    guesses = policy.explain(observation(), TEXT).deltas
    assert np.isfinite(guesses).all() and (guesses > 0).all()
    for number, guess in enumerate(guesses[:-1]):
        for threshold, taken in ((guess * 1.01, number), (guess * 0.99, len(exits) - 1)):
            policy.reset()
            thresholds = [NEVER] * len(exits)
            thresholds[number] = float(threshold)
            policy.set_thresholds(thresholds, metric="learned")
            step = policy.step(observation(), TEXT)
            assert step.exit_layer == exits[taken]
            assert step.deltas[number] == pytest.approx(guess, rel=1e-5)


def test_the_first_exit_is_asked_without_an_answer_before_it(policy):
    """Even one after layer 1, which no comparison can take."""
    policy.set_thresholds([ALWAYS] * len(policy.config.exit_layers), metric="learned")
    calls = []
    policy.model.head.pose.register_forward_hook(lambda *_: calls.append(1))
    step = policy.step(observation(), TEXT)
    assert step.exit_layer == policy.config.exit_layers[0] and len(calls) == 1
    cost = CostModel(policy.config, policy._prompt.tokens)
    assert cost.first_exit == 0
    assert step.cost.step_gflops == pytest.approx(cost.fixed_gflops)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_guess_that_is_not_finite_is_a_fault_and_no_reason_to_go_deeper(policy, value):
    policy.set_thresholds([ALWAYS] * len(policy.config.exit_layers), metric="learned")
    before = [part.clone() for part in policy.state]
    torch.nn.init.constant_(policy.model.head.gate.out.bias, value)
    with pytest.raises(NonFiniteActionError, match="the gate's guess after layer"):
        policy.step(observation(), TEXT)
    assert all(torch.equal(a, b) for a, b in zip(before, policy.state))
    policy.set_thresholds([ALWAYS] * len(policy.config.exit_layers), metric="l2")
    policy.step(observation(), TEXT)  # which asks no gate


def test_a_gate_changes_no_action(folder, policy):
    ungated = DeerPolicy.from_pretrained(folder, device="cpu")
    ungated.model.head.gate = None
    step = policy.step(observation(), TEXT)
    plain = ungated.step(observation(), TEXT, exit_layer=step.exit_layer)
    np.testing.assert_array_equal(step.action, plain.action)


def test_a_model_without_a_gate_refuses_the_metric_and_keeps_its_rule(tmp_path):
    policy = DeerPolicy.from_pretrained(write_tiny_model(tmp_path / "plain"), device="cpu")
    before = policy.rule
    with pytest.raises(ValueError, match="learned needs a model whose head has a gate"):
        policy.set_thresholds([0.1] * 3, metric="learned")
    assert policy.rule == before
    with pytest.raises(ValueError, match="learned needs a model whose head has a gate"):
        tiny_config(exits=ExitConfig(2, "learned"))


def episodes():
    return [
        make_episode(frames=n, seed=i, instruction=INSTRUCTIONS[i % 3])
        for i, n in enumerate([6, 1, 9, 7, 8, 5])
    ]


def calibrated(policy: DeerPolicy, **settings) -> Calibration:
    layers = needed_layers(policy.config, "run-time")
    features = gather_features(policy, episodes(), layers)
    found = Settings(**{"holdout": 0.3, **settings})
    return calibrate(policy.model.head, policy.config, features, "made up", found)


def test_a_rollout_guesses_and_takes_what_the_policy_does(policy):
    layers = needed_layers(policy.config, "run-time")
    features = gather_features(policy, episodes(), layers)
    exits = policy.config.exit_layers
    never = np.full(len(exits), NEVER, np.float32)
    head = policy.model.head
    middle = float(np.median(roll_out(head, features, exits, never, "learned").expected_losses))
    thresholds = [middle] * len(exits)
    rollout = roll_out(head, features, exits, np.float32(thresholds), "learned")
    policy.set_thresholds(thresholds, metric="learned")
    row = 0
    for episode in episodes():
        policy.reset()
        for seen in map(Observation, episode.static, episode.gripper):
            explained = policy.explain(seen, episode.instruction)
            np.testing.assert_allclose(rollout.expected_losses[row], explained.deltas, atol=1e-5)
            step = policy.step(seen, episode.instruction)
            assert exits[rollout.taken[row]] == step.exit_layer
            row += 1


@pytest.mark.parametrize("method", ["run-time", "original"])
def test_a_calibration_keeps_the_guesses_and_budgets_are_solved_from_them(
    policy, tmp_path, method
):
    if method == "original":
        layers = needed_layers(policy.config, method)
        long = [make_episode(frames=14, instruction=TEXT)] * 2
        features = gather_features(policy, long, layers)
        settings = Settings(method=method, holdout=0)
        found = calibrate(policy.model.head, policy.config, features, "made up", settings)
    else:
        found = calibrated(policy)
    assert found.metric == "learned"
    found.save(tmp_path / "calibration.safetensors")
    loaded = Calibration.load(tmp_path / "calibration.safetensors")
    np.testing.assert_array_equal(loaded.deltas(), found.expected_losses.T)
    policy.calibration = loaded
    costs = CostModel(policy.config, policy.config.prompt.usual_tokens).exit_gflops("llm")
    solution = policy.set_budget(Budget(average_gflops=float(costs[[0, -1]].mean())))
    assert solution.metric == policy.rule.metric == "learned"
    assert policy.step(observation(), TEXT).exit_layer in policy.config.exit_layers


def test_guesses_of_nan_are_no_calibration(policy):
    found = calibrated(policy)
    broken = np.full_like(found.expected_losses, np.nan)
    with pytest.raises(ValueError, match="expected_losses holds NaN"):
        dataclasses.replace(found, expected_losses=broken)


def test_a_calibration_without_guesses_solves_nothing_for_the_metric(policy):
    found = dataclasses.replace(
        calibrated(policy, metric="l2"), expected_losses=None, guesses_success=False)
    with pytest.raises(ValueError, match="no guesses of a head's gate"):
        found.deltas("learned")


def test_what_is_measured_is_what_a_step_asks(policy):
    """No answer before the first exit's: it would be measured, and never be spent."""
    calls = []
    policy.model.head.pose.register_forward_hook(lambda *_: calls.append(1))
    policy.measure(steps=1)
    exits = len(policy.config.exit_layers)
    rounds = 1 + WARM_UP_STEPS
    assert len(calls) == rounds * (exits + 1)  # a whole step's, and one by itself


@pytest.mark.parametrize(("own", "asked"), [("l2", "learned"), ("learned", "l2")])
@pytest.mark.parametrize("interval", [1, 2])
def test_a_budget_is_kept_under_the_metric_in_force_not_the_models_own(
    tmp_path, own, asked, interval
):
    """A comparison costs one more answer; a guess can take an exit after layer 1, too."""
    exits = ExitConfig(interval=interval, metric=own)
    model = write_tiny_model(tmp_path, head=GATED, exits=exits)
    policy = DeerPolicy.from_pretrained(model, device="cpu")
    policy.calibration = calibrated(policy, metric=asked)
    policy.expect(TEXT)
    cost = CostModel(policy.config, policy._prompt.tokens, asked)
    for peak in cost.exit_gflops("step")[1:]:
        # A deadline has every exit asked on the way.
        budget = Budget(peak_gflops=peak, average_gflops=peak, latency_ms=1e6, scope="step")
        assert policy.set_budget(budget, metric=asked).max_layer > policy.config.exit_layers[0]
        assert policy.step(observation(), TEXT).cost.step_gflops <= peak * (1 + 1e-9)
    least = cost.fixed_gflops
    policy.set_budget(Budget(average_gflops=least, scope="step"), metric=asked)
    steps = [policy.step(observation(seed), TEXT).cost.step_gflops for seed in range(5)]
    assert steps == pytest.approx([least] * 5)
    with pytest.raises(BudgetError, match="before the first exit can be taken"):
        policy.set_budget(Budget(average_gflops=0.99 * least, scope="step"), metric=asked)
    assert policy.budget.average_gflops == least


@pytest.mark.parametrize("metric", ["learned", "manhattan"])
@pytest.mark.parametrize("budget", [Budget(average_gflops=1e6), Budget(peak_gflops=1e6)])
def test_a_budget_under_a_metric_that_the_model_lacks_is_refused_before_any_step(
    tmp_path, metric, budget
):
    policy = DeerPolicy.from_pretrained(write_tiny_model(tmp_path), device="cpu")
    with pytest.raises(ValueError, match=metric):
        policy.set_budget(budget, metric=metric)
    assert policy.budget is None
    policy.step(observation(), TEXT)


def test_a_search_of_a_calibrated_gate_starts_under_its_metric(tmp_path):
    """Where the model's own one could not take the first exit, and so refused the budget."""
    exits = ExitConfig(interval=1, metric="l2")
    model = write_tiny_model(tmp_path, head=GATED, exits=exits)
    policy = DeerPolicy.from_pretrained(model, device="cpu")
    calibration = calibrated(policy, metric="learned")
    tokens = policy.config.prompt.usual_tokens
    least = CostModel(policy.config, tokens, "learned").exit_gflops("llm")[0]
    start = find_start(policy.config, Budget(average_gflops=least), tokens, 6, calibration)
    assert (start.metric, start.solved, start.thresholds[0]) == ("learned", True, ALWAYS)

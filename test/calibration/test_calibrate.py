"""A calibration holds what the policy itself would say, step by step."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from episodes import make_episode
from tiny_model import INSTRUCTIONS, tiny_config, write_tiny_model

from deer_ros import DeerPolicy, Observation
from deer_ros.budget import criterion
from deer_ros.budget.cadence import Cadence
from deer_ros.calibration.calibrate import (
    Settings,
    calibrate,
    check_fits,
    needed_layers,
    split,
)
from deer_ros.calibration.features import Features, gather_features
from deer_ros.calibration.original import draw_windows, window_answers
from deer_ros.calibration.rollout import roll_out
from deer_ros.model.config import ExitConfig

METRICS = ("l2", "mean", "max", "cosine")


@pytest.fixture(scope="module", params=[1, 2, 3])
def policy(request, tmp_path_factory) -> DeerPolicy:
    folder = tmp_path_factory.mktemp("model") / "tiny"
    write_tiny_model(folder, seed=request.param, exits=ExitConfig(interval=request.param))
    return DeerPolicy.from_pretrained(folder, device="cpu")


def episodes_of(lengths: list[int]) -> list:
    return [
        make_episode(frames=n, seed=i, instruction=INSTRUCTIONS[i % 3])
        for i, n in enumerate(lengths)
    ]


def features_of(policy: DeerPolicy, lengths: list[int], method: str = "run-time") -> Features:
    return gather_features(policy, episodes_of(lengths), needed_layers(policy.config, method))


def pictures_of(episode, step: int) -> Observation:
    return Observation(episode.static[step], episode.gripper[step])


@pytest.mark.parametrize("metric", METRICS)
def test_a_rollout_says_and_takes_what_the_policy_does_step_by_step(policy, metric):
    lengths = [5, 1, 8]
    features = features_of(policy, lengths)
    exits = policy.config.exit_layers
    never = np.full(len(exits), -1, np.float32)
    said = roll_out(policy.model.head, features, exits, never, metric)
    middle = np.median(criterion.delta(said.poses[:, 1:], said.poses[:, :-1], metric))
    rollout = roll_out(
        policy.model.head, features, exits, np.full(len(exits), middle), metric
    )
    policy.set_thresholds([float(middle)] * len(exits), metric=metric)
    row = 0
    for episode in episodes_of(lengths):
        policy.reset()
        for step in range(len(episode)):
            explained = policy.explain(pictures_of(episode, step), episode.instruction)
            np.testing.assert_allclose(rollout.poses[row], explained.actions, atol=1e-5)
            np.testing.assert_allclose(
                rollout.gripper[row], explained.gripper_probabilities, atol=1e-5
            )
            if rollout.reference_poses is None:
                assert exits[0] == 1 and explained.reference_action is None
            else:
                np.testing.assert_allclose(
                    rollout.reference_poses[row], explained.reference_action, atol=1e-5
                )
            taken = policy.step(pictures_of(episode, step), episode.instruction)
            assert exits[rollout.taken[row]] == taken.exit_layer
            np.testing.assert_allclose(rollout.actions[row], taken.action, atol=1e-5)
            row += 1
    assert row == sum(lengths) and len(set(rollout.taken)) > 1


@pytest.mark.parametrize("between", [None, 3])
def test_a_rollout_decides_when_the_policy_does_and_samples_are_its_decisions(policy, between):
    lengths, exits = [5, 1, 8], policy.config.exit_layers
    own = dataclasses.replace(
        policy.config.exits, steps_per_decision=2, max_layer_between=between)
    config = policy.config.replace(exits=own)
    features, cadence = features_of(policy, lengths), Cadence.of(config)
    never = np.full(len(exits), -1, np.float32)
    rollout = roll_out(policy.model.head, features, exits, never, "l2", cadence)
    policy.set_thresholds([-1.0] * len(exits), **cadence.arguments)
    row = 0
    for episode in episodes_of(lengths):
        policy.reset()
        for step in range(len(episode)):
            taken = policy.step(pictures_of(episode, step), episode.instruction)
            assert exits[rollout.taken[row]] == taken.exit_layer
            np.testing.assert_allclose(rollout.actions[row], taken.action, atol=1e-5)
            row += 1
    settings = Settings(holdout=0, second_pass=1)
    calibration = calibrate(policy.model.head, config, features, "made up", settings)
    assert np.bincount(calibration.episode).tolist() == [3, 1, 4]


def test_every_episode_may_have_thresholds_of_its_own_and_fewer_exits(policy):
    features = features_of(policy, [4, 6])
    exits = policy.config.exit_layers[:2]
    rows = np.array([[-1, 0], [1e8, 0]], np.float32)
    together = roll_out(policy.model.head, features, exits, rows, "l2")
    assert set(together.taken[:4]) == {1}
    assert set(together.taken[4:]) == ({1} if exits[0] == 1 else {0})
    for episode, row in enumerate(rows):
        alone = roll_out(policy.model.head, features.chosen(np.array([episode])), exits, row, "l2")
        part = slice(*features.starts[episode : episode + 2])
        np.testing.assert_allclose(together.poses[part], alone.poses, atol=1e-6)


def calibrated(policy: DeerPolicy, lengths: list[int], **settings):
    features = features_of(policy, lengths, settings.get("method", "run-time"))
    return features, calibrate(
        policy.model.head, policy.config, features, "weights", Settings(**settings)
    )


def test_the_second_pass_carries_the_state_that_its_thresholds_take(policy):
    lengths = [6, 7, 5, 8]
    features, calibration = calibrated(policy, lengths, holdout=0)
    assert len(calibration) == sum(lengths)
    assert calibration.episode.tolist() == np.repeat(range(4), lengths).tolist()
    exits = policy.config.exit_layers
    assert len(calibration.thresholds) == len(exits)
    again = roll_out(
        policy.model.head, features, exits, np.array(calibration.thresholds), calibration.metric
    )
    assert np.array_equal(again.taken, calibration.taken)
    np.testing.assert_array_equal(again.poses, calibration.poses)
    deltas = calibration.deltas()
    agrees = deltas <= np.array(calibration.thresholds, np.float32)[:, None]
    agrees[-1] = True
    assert np.array_equal(agrees.argmax(axis=0), calibration.taken)
    assert len(set(calibration.taken)) > 1, "the thresholds are to spend half of what they can"


def test_held_out_episodes_say_how_far_each_row_is_from_full_depth(policy):
    lengths = [6, 7, 5, 8, 4, 6]
    features, calibration = calibrated(policy, lengths, holdout=0.5, seed=3)
    solving, held_out = split(6, 0.5, 3)
    assert sorted([*solving, *held_out]) == list(range(6)) and len(held_out) == 3
    assert set(calibration.episode) == set(solving)
    exits = policy.config.exit_layers
    assert sorted(calibration.frontiers) == list(range(1, len(exits) + 1))
    episodes = episodes_of(lengths)
    policy.set_thresholds([-1.0] * len(exits))
    full = {e: actions(policy, episodes[e]) for e in held_out}
    for count, frontier in calibration.frontiers.items():
        assert frontier.losses.shape == (len(frontier), 3)
        for row in (0, len(frontier) // 2, len(frontier) - 1):
            policy.set_thresholds(
                frontier.thresholds[row].tolist(), calibration.metric, exits[count - 1]
            )
            for column, e in enumerate(held_out):
                errors = criterion.delta(actions(policy, episodes[e]), full[e], "l2")
                assert frontier.losses[row, column] == pytest.approx(errors.mean(), abs=1e-5)


def actions(policy: DeerPolicy, episode) -> np.ndarray:
    policy.reset()
    return np.stack([
        policy.step(pictures_of(episode, step), episode.instruction).action
        for step in range(len(episode))
    ])


@pytest.mark.parametrize("policy", [2, 3], indirect=True)
def test_the_original_method_feeds_drawn_exits_from_zero(policy):
    features, calibration = calibrated(
        policy, [12, 14, 5], holdout=0, method="original", windows=3
    )
    # Windows start in the two long episodes only; six steps of each are kept.
    assert len(calibration) == 18 and set(calibration.episode) <= {0, 1}
    assert calibration.method == "original" and calibration.thresholds == ()
    head = policy.model.head
    drawn = torch.from_numpy(np.random.default_rng(1).integers(len(features.layers), size=(1, 12)))
    exits = [features.layers.index(layer) for layer in policy.config.exit_layers]
    window = features.values[None, :12]
    answers = window_answers(head, window, drawn, features.layers.index(1), exits, features.layers)
    for row, step in enumerate(range(5, 11)):
        past = [window[0, s, drawn[0, s]] for s in range(step)]
        for number, layer in enumerate(exits):
            sequence = torch.stack([*past, window[0, step, layer]])[None]
            pose = head(sequence).pose[0, -1]
            np.testing.assert_allclose(answers.poses[row, number], pose, atol=1e-5)


def test_the_original_method_needs_a_layer_before_the_first_exit():
    config = tiny_config(exits=ExitConfig(interval=1))
    with pytest.raises(ValueError, match="this model's first exit itself; use the method run-time"):
        check_fits(Settings(method="original"), config)
    check_fits(Settings(), config)
    check_fits(Settings(method="original"), tiny_config())


def test_windows_are_drawn_by_the_seed(policy):
    features = features_of(policy, [20, 20], "original")
    arguments = (policy.model.head, features, policy.config.exit_layers, 4)
    first, again, other = (draw_windows(*arguments, seed)[0] for seed in (0, 0, 1))
    np.testing.assert_array_equal(first.poses, again.poses)
    assert not np.array_equal(first.poses, other.poses)


def test_episodes_of_any_source_will_do_and_none_will_not(policy):
    generated = (episode for episode in episodes_of([3, 4]))
    heard: list[int] = []
    layers = needed_layers(policy.config, "run-time")
    assert gather_features(policy, generated, layers, heard.append).lengths.tolist() == [3, 4]
    assert heard == [3, 4]
    with pytest.raises(ValueError, match="no episodes"):
        gather_features(policy, [], layers)


def test_one_episode_is_enough_and_is_not_held_out(policy):
    _, calibration = calibrated(policy, [6])
    assert len(calibration) == 6
    assert all(f.losses is None for f in calibration.frontiers.values())


def test_features_that_are_not_finite_name_their_episode(policy):
    layers = needed_layers(policy.config, "run-time")
    weight = next(policy.model.layers.parameters())
    kept = weight.detach().clone()
    with torch.no_grad():
        weight.fill_(float("nan"))
    try:
        with pytest.raises(ValueError, match="frame 0 hold NaN"):
            gather_features(policy, episodes_of([2]), layers)
    finally:
        with torch.no_grad():
            weight.copy_(kept)


@pytest.mark.parametrize("changes", [
    {"method": "guess"}, {"metric": "l3"}, {"holdout": 1.0}, {"holdout": -0.1},
    {"holdout": float("nan")}, {"second_pass": 1.5}, {"rows": 1}, {"windows": 0}, {"seed": -1},
])
def test_settings_that_make_no_sense_are_refused(changes):
    with pytest.raises(ValueError, match=f"^{next(iter(changes))} is "):
        Settings(**changes)
    assert dataclasses.replace(Settings(), rows=2).rows == 2

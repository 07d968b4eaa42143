"""A model that reads the robot's own state: learned from a bag, replayed, and refused without."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch
from episodes import Units, make_episode
from made_up_runs import Recorder, config
from tiny_model import tiny_config

from deer_ros.budget.cost import CostModel, proprioception_macs
from deer_ros.budget.memory import fixed_parameters
from deer_ros.data.bags import EpisodeBagWriter, read_episodes
from deer_ros.model.config import DeerConfig, ProprioceptionConfig
from deer_ros.model.deer import DeerModel
from deer_ros.observation import Observation
from deer_ros.policy import DeerPolicy
from deer_ros.training.run import TrainingRun

LAYOUT = ("joint.two", "end_effector.y")
STEPS = 8


@pytest.fixture(scope="module")
def bag(tmp_path_factory):
    """Two episodes of one grey picture: only the second joint and y tell what to do."""
    folder = tmp_path_factory.mktemp("demos") / "bag"
    with EpisodeBagWriter(folder, Units(), joint_names=("one", "two")) as writer:
        for seed in range(2):
            rng = np.random.default_rng(seed)
            values = rng.normal(size=(STEPS, 9)).astype(np.float32)
            values[:, 8] = 5 + 2 * rng.choice([-1, 1], STEPS)
            values[:, 1] = 0.3 + 0.1 * rng.choice([-1, 1], STEPS)
            actions = np.zeros((STEPS, 7), np.float32)
            actions[:, 0] = 0.4 * np.sign(values[:, 8] - 5)
            actions[:, 2] = 0.4 * np.sign(values[:, 1] - 0.3)
            actions[:, 6] = 1
            grey = np.full((STEPS, 32, 32, 3), 128, np.uint8)
            writer.write(make_episode(
                STEPS, seed, static=grey, gripper=grey, actions=actions, proprioception=values
            ))
    return folder


def run(bag, out, layout=LAYOUT, **settings) -> TrainingRun:
    whole = config(0, **settings)
    model = tiny_config(proprioception=ProprioceptionConfig(layout))
    whole = dataclasses.replace(whole, model=model)
    return TrainingRun(whole, read_episodes(bag, Units()), out, Recorder())


@pytest.fixture(scope="module")
def model(bag, tmp_path_factory):
    settings = {"policy_steps": 150, "head_steps": 0, "log_every_steps": 150, "batch_windows": 8,
                "learning_rate": 3e-3, "head_learning_rate": 3e-3}  # fmt: skip
    return run(bag, tmp_path_factory.mktemp("run"), **settings)()


def mean_error(policy: DeerPolicy, episodes, sign: float) -> float:
    """Of the two values that move, with the layout's values turned about their mean by `sign`."""
    errors = []
    mean = np.array(policy.config.proprioception.mean)
    for episode in episodes:
        policy.reset()
        for t, sensed in enumerate(episode.proprioception_in(LAYOUT)):
            turned = mean + sign * (sensed - mean)
            seen = Observation(episode.static[t], episode.gripper[t], turned)
            step = policy.step(seen, episode.instruction)
            errors.append(np.abs(step.action[[0, 2]] - episode.actions[t, [0, 2]]).mean())
    return float(np.mean(errors))


def test_an_episode_is_replayed_by_what_the_robot_feels_alone(bag, model):
    policy = DeerPolicy.from_pretrained(model, device="cpu")
    # One of the two episodes was kept aside; what it asks for is the same.
    episodes = list(read_episodes(bag, Units()))
    assert mean_error(policy, episodes, 1.0) < 0.15  # zeros would be wrong by 0.4
    assert mean_error(policy, episodes, -1.0) > 0.5


def test_the_configuration_says_how_it_is_normalised(bag, model):
    values = json.loads((model / "config.json").read_text())["proprioception"]
    assert values["layout"] == list(LAYOUT)
    found = DeerConfig.load(model / "config.json").proprioception
    stacked = [episode.proprioception_in(LAYOUT) for episode in read_episodes(bag, Units())]
    of_one = [np.allclose(found.mean, s.mean(axis=0), atol=1e-5) for s in stacked]
    assert sum(of_one) == 1  # of the one that was learned from, not of the one kept aside
    assert all(std > 0 for std in found.std)


@pytest.mark.parametrize(("sensed", "sentence"), [
    (None, r"reads proprioception \(joint\.two, end_effector\.y\); the observation has none"),
    (np.zeros(3, np.float32), r"shape \(3,\); this model takes 2 numbers"),
    (np.zeros((1, 2), np.float32), r"shape \(1, 2\)"),
    (np.array([0, np.nan], np.float32), r"end_effector\.y that is not finite"),
    (np.array([np.inf, 0]), r"joint\.two that is not finite"),
    (np.array(["0", "1"]), "takes 2 numbers"),
    (np.float32(1), "takes 2 numbers"),
])  # fmt: skip
def test_what_is_no_proprioception_is_refused_and_changes_nothing(model, sensed, sentence):
    policy = DeerPolicy.from_pretrained(model, device="cpu")
    picture = np.zeros((32, 32, 3), np.uint8)
    before = [t.clone() for t in policy.state]
    for ask in (policy.step, policy.explain):
        with pytest.raises(ValueError, match=sentence):
            ask(Observation(picture, picture, sensed), "open the drawer")
    assert all(torch.equal(a, b) for a, b in zip(before, policy.state))
    assert np.isfinite(
        policy.step(Observation(picture, picture, [5, 0.3]), "open the drawer").action
    ).all()


def test_an_episode_without_the_value_is_named(bag, tmp_path):
    with pytest.raises(ValueError, match=r"bag#0: the proprioception lacks joint\.three; it has"):
        run(bag, tmp_path, ("joint.three",))
    assert not (tmp_path / "frames").exists()


@pytest.mark.parametrize(("changes", "sentence"), [
    ({"layout": ()}, "must have a name"),
    ({"layout": ("a", "a")}, "none twice"),
    ({"layout": ("a",), "mean": (1.0, 2.0)}, r"mean has 2 numbers; the layout has 1"),
    ({"layout": ("a",), "std": (0.0,)}, "above zero"),
    ({"layout": ("a",), "mean": (float("inf"),)}, "must be finite"),
])  # fmt: skip
def test_a_layout_that_cannot_be_is_refused(changes, sentence):
    with pytest.raises(ValueError, match=sentence):
        ProprioceptionConfig(**changes)


def test_a_model_is_not_built_without_its_normalisation():
    with pytest.raises(ValueError, match=r"mean and proprioception\.std are not given"):
        DeerModel(tiny_config(proprioception=ProprioceptionConfig(("a",))))


def test_its_cost_and_its_weights_are_counted():
    blind = tiny_config()
    felt = tiny_config(proprioception=ProprioceptionConfig(("a", "b"), (0.0, 0.0), (1.0, 1.0)))
    model, other = DeerModel(felt), DeerModel(blind)
    added = sum(p.numel() for p in model.parameters()) - sum(p.numel() for p in other.parameters())
    assert fixed_parameters(felt) - fixed_parameters(blind) == added
    weights = [p for p in model.proprioception.parameters() if p.ndim == 2]
    assert proprioception_macs(felt) == sum(p.numel() for p in weights)
    # One more latent for every layer's cross-attention.
    more = CostModel(felt, 5).language_gflops(6) - CostModel(blind, 5).language_gflops(6)
    inner = 2 * 8
    assert more * 1e9 == pytest.approx(6 * (2 * 16 * inner + 2 * 5 * inner))

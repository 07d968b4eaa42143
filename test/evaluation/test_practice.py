"""Practice in the real simulator: plans as they are meant, answers as they were given."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from tiny_model import tiny_config, write_tiny_model

from deer_ros.evaluation.metaworld import MetaWorld
from deer_ros.evaluation.practice import Plan, plan_generator, practise, run_episode
from deer_ros.model.config import ExitConfig
from deer_ros.policy import DeerPolicy

HEAD = dataclasses.replace(tiny_config().head, gate_width=8, gate_guesses="success")
TASKS = ("button-press-topdown", "ball-red")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "gated"
    return write_tiny_model(folder, head=HEAD, max_episode_steps=10)


def test_plans_change_from_any_exit_to_any_and_mostly_to_shallow_ones():
    exits, steps = (1, 2, 3, 6), 60
    plans = [Plan.drawn(np.random.default_rng(n), exits, steps) for n in range(2000)]
    assert {plan.before for plan in plans} == {plan.then for plan in plans} == set(exits)
    assert min(plan.switch for plan in plans) == 0
    assert max(plan.switch for plan in plans) == 24
    for part, full in (("then", 0.2), ("before", 1 / 3)):
        shares = [np.mean([getattr(plan, part) == layer for plan in plans]) for layer in exits]
        assert shares[0] > shares[1] > shares[2], part
        assert shares[3] == pytest.approx(full, abs=0.03), part


def test_a_model_with_two_exits_practises_too():
    plan = Plan.drawn(np.random.default_rng(0), (1, 2), 1)
    assert plan.before in (1, 2) and plan.then in (1, 2) and plan.switch in (0, 1)


def test_where_not_every_step_decides_plans_change_at_decisions():
    plans = [Plan.drawn(np.random.default_rng(n), (1, 2, 6), 60, 4) for n in range(500)]
    assert {plan.switch for plan in plans} == set(range(0, 25, 4))


def test_practice_goes_by_the_models_own_cadence_and_learns_of_decisions(tmp_path):
    exits = ExitConfig(steps_per_decision=2, max_layer_between=2)
    folder = write_tiny_model(tmp_path / "m", head=HEAD, max_episode_steps=10, exits=exits)
    policy = DeerPolicy.from_pretrained(folder, device="cpu")
    world, taken = MetaWorld(policy.config), []
    commit = policy.commit
    policy.commit = lambda step: (taken.append(step.exit_layer), commit(step))
    for seed in range(6):
        world.reset(TASKS[0], seed)
        taken.clear()
        plan = Plan.drawn(np.random.default_rng(seed), policy.config.exit_layers, 10, 2)
        outcomes = run_episode(policy, world, np.random.default_rng(seed))
        decided = [plan.before if n < plan.switch else plan.then for n in range(len(taken))]
        assert taken == [min(layer, 2) if n % 2 else layer for n, layer in enumerate(decided)]
        decisions = len(range(plan.switch, len(taken), 2))
        assert len(outcomes) == decisions * (2 if outcomes.at_full_depth[0] else 1)


def test_exits_do_not_follow_from_where_things_lie():
    """The simulator's own generator has the layout's number, and draws places by it."""
    layouts, skipped = range(2000), 6
    ours = np.array([plan_generator(layout).random(4) for layout in layouts])
    theirs = np.array([np.random.default_rng(layout).random(4 + skipped) for layout in layouts])
    for first in range(skipped):
        for column in range(4):
            shared = np.corrcoef(ours[:, column], theirs[:, first + column])[0, 1]
            assert abs(shared) < 0.1


def test_an_episode_lasts_no_longer_where_each_step_is_carried_out_several_times(tmp_path):
    action = dataclasses.replace(tiny_config().action, executions_per_step=3)
    folder = write_tiny_model(tmp_path / "m", head=HEAD, max_episode_steps=12, action=action)
    policy = DeerPolicy.from_pretrained(folder, device="cpu")
    world, periods = MetaWorld(policy.config), []
    step = world.step
    world.step = lambda *action: (periods.append(action), step(*action))
    lengths = []
    for seed in range(8):
        world.reset(TASKS[0], seed)
        periods.clear()
        run_episode(policy, world, np.random.default_rng(seed))
        lengths.append(len(periods))
    assert max(lengths) <= 12 and min(lengths) >= 6


def test_answers_are_those_that_the_gate_is_asked_about(model):
    """From what was written down, the gate guesses what it guesses in a step."""
    policy = DeerPolicy.from_pretrained(model, device="cpu")
    guessed: list[tuple[int, float]] = []
    gate = policy.model.head.gate
    gate.register_forward_hook(lambda _, given, guess: guessed.append((given[2], float(guess))))
    world, kinds = MetaWorld(policy.config), set()
    for seed in range(12):
        world.reset(TASKS[0], seed)
        guessed.clear()
        outcomes = run_episode(policy, world, np.random.default_rng(seed))
        kinds.add(bool(outcomes.at_full_depth.all()))
        assert set(outcomes.layers) <= set(policy.config.exit_layers[:-1])
        assert len(outcomes) and outcomes.failed.all()
        with torch.no_grad():
            lost, spoiled = gate.scores(
                *map(torch.from_numpy, (outcomes.read, outcomes.poses, outcomes.layers))
            ).sigmoid().unbind(-1)
        in_steps = {(layer, round(guess, 5)) for layer, guess in guessed}
        for layer, guess in zip(outcomes.layers, ((1 - lost) * spoiled).tolist()):
            assert any(
                asked == layer and abs(said - guess) < 2e-5 for asked, said in in_steps
            )
    assert kinds == {True, False}


@pytest.mark.long
def test_practice_goes_on_where_it_was_and_with_any_number_of_processes(model, tmp_path):
    whole = practise(model, tmp_path / "whole", TASKS, 3, seed=0, processes=2)
    heard: list[tuple[int, int]] = []

    def stop(done: int, all: int) -> None:
        heard.append((done, all))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        practise(model, tmp_path / "cut", TASKS, 3, 0, 1, stop)
    written = {path: path.stat().st_mtime_ns for path in (tmp_path / "cut").iterdir()}
    assert len(written) == 1 and heard == [(1, 2)]
    resumed = practise(model, tmp_path / "cut", TASKS, 3, 0, 1)
    assert all(path.stat().st_mtime_ns == time for path, time in written.items())
    for name, values in vars(whole).items():
        np.testing.assert_array_equal(getattr(resumed, name), values, err_msg=name)
    assert whole.failed.all(), "this policy knows nothing"

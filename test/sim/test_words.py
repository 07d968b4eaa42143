"""Exchanged words: the scene of one task, the words and the success of another."""

from __future__ import annotations

import numpy as np
import pytest

from deer_ros.sim.ball_tasks import THREE_BALLS
from deer_ros.sim.balls import CHOICES
from deer_ros.sim.robot import SimulatedRobot
from deer_ros.sim.tasks import EVALUATION_SEED_START, TASKS

SEEDS = range(EVALUATION_SEED_START + 40, EVALUATION_SEED_START + 42)
PAIRS = [(name, task.other) for name, task in TASKS.items() if task.other]
FAUCETS = [pair for pair in PAIRS if pair[0].startswith("faucet")]


@pytest.fixture(scope="module")
def robot():
    robot = SimulatedRobot(height=64, width=64)
    yield robot
    robot.close()


def run_expert(robot: SimulatedRobot) -> bool:
    while not robot.success and robot.steps < 60:
        robot.step(*robot.expert_action())
    return robot.success


def test_three_pairs_of_tasks_and_more_can_exchange_their_words():
    assert len(FAUCETS) == 2 and len(PAIRS) == 13
    for name, other in PAIRS:
        assert other != name and TASKS[other].other
        assert not set(TASKS[name].requests) & set(TASKS[other].requests)


@pytest.mark.parametrize(
    ("task", "said"),
    [*FAUCETS, ("ball-next", "ball-red")],
)
def test_other_words_leave_the_scene_as_it_is(robot, task, said):
    robot.reset(task, SEEDS[0])
    seen, state = robot.pictures(), robot.state()
    robot.reset(task, SEEDS[0], said)
    np.testing.assert_array_equal(robot.pictures(), seen)
    np.testing.assert_array_equal(robot.state(), state)
    assert (robot.task, robot.instruction) == (task, TASKS[said].request(SEEDS[0]).instruction)


@pytest.mark.parametrize(("task", "said"), FAUCETS)
@pytest.mark.parametrize("seed", SEEDS)
def test_the_faucets_scene_is_judged_by_what_was_said(robot, task, said, seed):
    """Each expert does what was said, and not what was not."""
    robot.reset(task, seed, said)
    assert not robot.success and run_expert(robot)
    robot.reset(task, seed)
    moves = []
    while not robot.success:
        moves.append(robot.expert_action())
        robot.step(*moves[-1])
    robot.reset(task, seed, said)
    for move in moves:
        robot.step(*move)
    assert not robot.success


def test_a_faucet_that_turns_the_other_way_is_judged_where_it_stands(robot):
    """The two tasks draw its place from different ranges: the seed alone would put it elsewhere."""
    places = []
    for task in ("faucet-open", "faucet-close"):
        robot.reset(task, SEEDS[0])
        places.append(robot.state()[4:7])
    assert np.abs(places[0] - places[1])[0] > 0.03 + 1e-3  # the two handles' sites are 0.03 apart


def test_the_judges_own_layouts_do_not_add_up(robot):
    """An episode with other words is the same whatever was run before it."""
    outcomes = []
    for before in ("faucet-open", "drawer-open"):
        robot.reset(before, 3)
        robot.step(np.ones(6), 1.0)
        robot.reset("faucet-open", SEEDS[1], "faucet-close")
        run_expert(robot)
        outcomes.append((robot.steps, robot.end_effector_position().tolist()))
    assert outcomes[0] == outcomes[1]


def test_balls_with_exchanged_words_are_the_other_tasks_episode(robot):
    """Their scene is the same for all words, so the exchange is in every plain episode already."""
    robot.reset("ball-left", SEEDS[0], "ball-middle")
    assert run_expert(robot)
    exchanged = robot.steps, robot.state().tolist()
    robot.reset("ball-middle", SEEDS[0])
    assert run_expert(robot)
    assert (robot.steps, robot.state().tolist()) == exchanged


def test_other_words_never_mean_the_same_ball(robot):
    for seed in range(EVALUATION_SEED_START, EVALUATION_SEED_START + 20):
        robot.reset("ball-red", seed)
        state = robot.state()
        scene = np.stack([state[4:7], state[11:14], state[18:21]])
        for task, said in PAIRS:
            if TASKS[task].environment == THREE_BALLS:
                requests = TASKS[task].request(seed), TASKS[said].request(seed)
                meant = [CHOICES[request.choice](scene) for request in requests]
                assert meant[0] != meant[1], (task, said, seed)


@pytest.mark.parametrize(
    ("task", "said"),
    [("drawer-open", "drawer-close"), ("ball-red", "faucet-open"), ("ball-red", "ball-left")],
)
def test_words_that_the_scene_cannot_serve_are_refused(robot, task, said):
    robot.reset("ball-blue", 1)
    with pytest.raises(ValueError, match=f"words of {said} cannot be said in the scene of {task}"):
        robot.reset(task, 0, said)
    assert robot.task == "ball-blue"

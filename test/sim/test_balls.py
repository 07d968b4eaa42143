from __future__ import annotations

import numpy as np
import pytest

from deer_ros.sim.ball_tasks import THREE_BALLS
from deer_ros.sim.balls import CHOICES
from deer_ros.sim.robot import SimulatedRobot
from deer_ros.sim.task import Request
from deer_ros.sim.tasks import TASKS

BALL_TASKS = [name for name, task in TASKS.items() if task.environment == THREE_BALLS]


@pytest.fixture(scope="module")
def robot():
    robot = SimulatedRobot(height=96, width=96)
    yield robot
    robot.close()


def balls(robot: SimulatedRobot) -> np.ndarray:
    state = robot.state()
    return np.stack([state[4:7], state[11:14], state[18:21]])


def test_every_choice_has_its_task():
    requests = [request for name in BALL_TASKS for request in TASKS[name].requests]
    assert {request.choice for request in requests} == set(CHOICES)


def test_nothing_is_said_that_could_mean_two_balls():
    meant: dict[str, set[str]] = {}
    for name in BALL_TASKS:
        for request in TASKS[name].requests:
            meant.setdefault(request.instruction, set()).add(request.choice)
    assert all(len(choices) == 1 for choices in meant.values())


@pytest.mark.parametrize(
    ("task", "instruction", "choice"),
    [
        ("ball-owned", "red is mine blue is yours green is his touch mine", "red"),
        ("ball-owned", "blue is ours red is his green is hers touch ours", "blue"),
        ("ball-owner", "his is blue mine is red hers is green touch hers", "green"),
        ("ball-placed", "middle is mine right is yours left is his touch his", "leftmost"),
        ("ball-placed", "middle is hers right is ours left is his touch hers", "middle"),
        ("ball-swapped", "red is mine blue is yours green is his swap mine and yours touch mine",
         "blue"),
        ("ball-swapped", "red is mine blue is hers green is yours swap hers and yours touch mine",
         "red"),
        ("ball-swapped-next", "blue is his red is hers green is ours swap his and ours touch the "
         "ball next to his", "next to green"),
        ("ball-owned-next", "green is yours red is mine blue is his touch the ball next to mine",
         "next to red"),
        ("ball-swapped-twice", "red is mine green is yours blue is hers swap mine and yours swap "
         "yours and hers touch yours", "blue"),
        ("ball-swapped-twice", "red is mine green is yours blue is hers swap mine and yours swap "
         "mine and yours touch yours", "green"),
    ],
)
def test_what_is_said_of_whose_ball_is_whose_decides(task, instruction, choice):
    assert Request(instruction, choice) in TASKS[task].requests


@pytest.mark.parametrize(
    ("task", "count"),
    [("ball-owned", 1080), ("ball-owner", 1080), ("ball-placed", 1080), ("ball-owned-next", 1080),
     ("ball-swapped", 3240),
     ("ball-swapped-next", 3240), ("ball-swapped-twice", 9720)],
)
def test_layouts_draw_from_all_requests_of_a_task_and_always_the_same(task, count):
    requests = TASKS[task].requests
    drawn = [TASKS[task].request(seed) for seed in range(5000)]
    assert len(set(requests)) == len(requests) == count
    # As many different ones as 5,000 fair draws give, within a twentieth.
    assert len(set(drawn)) == pytest.approx(count * (1 - (1 - 1 / count) ** 5000), rel=0.05)
    assert drawn == [TASKS[task].request(seed) for seed in range(5000)]


def test_all_tasks_of_the_scene_show_the_same_pictures_and_state_for_a_seed(robot):
    seen = []
    for name in BALL_TASKS:
        robot.reset(name, 5)
        seen.append((*robot.pictures(), robot.state()))
    for pictures in zip(*seen):
        for other in pictures[1:]:
            np.testing.assert_array_equal(other, pictures[0])


def expert_moves(robot: SimulatedRobot) -> list:
    """What the expert does until it has succeeded."""
    moves = []
    while not robot.success and robot.steps < 20:
        moves.append(robot.expert_action())
        robot.step(*moves[-1])
    assert robot.success
    return moves


@pytest.mark.parametrize("seed", range(2))
def test_every_expert_touches_the_ball_that_is_meant(robot, seed):
    robot.reset("ball-red", seed)
    scene = balls(robot)
    for said in BALL_TASKS:
        robot.reset(said, seed)
        expert_moves(robot)
        fingertips = robot.end_effector_position() - [0, 0, 0.045]
        distances = np.linalg.norm(scene - fingertips, axis=1)
        assert distances.argmin() == CHOICES[TASKS[said].request(seed).choice](scene), said


@pytest.mark.parametrize("seed", range(2))
def test_only_the_ball_that_is_meant_counts(robot, seed):
    """The expert of one ball succeeds at exactly those tasks that mean this ball."""
    robot.reset("ball-red", seed)
    scene = balls(robot)
    to_red, red = expert_moves(robot), CHOICES["red"](scene)
    outcomes = set()
    for said in BALL_TASKS:
        robot.reset(said, seed)
        for move in to_red:
            robot.step(*move)
        meant = CHOICES[TASKS[said].request(seed).choice](scene)
        assert robot.success == (meant == red), said
        outcomes.add(robot.success)
    assert outcomes == {True, False}


@pytest.mark.parametrize("seed", range(20))
def test_the_balls_are_told_apart_with_a_margin(robot, seed):
    robot.reset("ball-next", seed)
    scene = balls(robot)
    x = np.sort(scene[:, 0])
    between = np.sort(np.linalg.norm(scene - np.roll(scene, 1, axis=0), axis=1))
    assert np.diff(x).min() >= 0.06 and between[0] >= 0.12 and np.diff(between).min() >= 0.06


def test_the_choices_name_the_balls_as_the_robot_sees_them():
    scene = np.array([[0.2, 0.6, 0.03], [-0.2, 0.6, 0.03], [0.1, 0.8, 0.03]])
    meant = {name: choose(scene) for name, choose in CHOICES.items()}
    assert meant == {
        "red": 0, "green": 1, "blue": 2, "leftmost": 1, "middle": 2, "rightmost": 0,
        "next to red": 2, "next to green": 2, "next to blue": 0, "next to leftmost": 2,
        "next to rightmost": 2,
    }  # fmt: skip


def test_the_balls_can_be_seen(robot):
    robot.reset("ball-red", 3)
    picture, _ = robot.pictures()
    red, green, blue = picture.astype(int).transpose(2, 0, 1)
    assert ((green > 150) & (red < 60) & (blue < 60)).sum() > 20
    assert ((blue > 150) & (red < 60) & (green < 60)).sum() > 20

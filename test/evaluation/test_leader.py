"""A policy that leads a demonstration does there what it does by itself."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from tiny_model import tiny_config, write_tiny_model

from deer_ros.evaluation.leader import PolicyLeader
from deer_ros.evaluation.metaworld import MetaWorld
from deer_ros.model.config import ProprioceptionConfig
from deer_ros.policy import DeerPolicy
from deer_ros.sim.robot import SimulatedRobot

TASK, SEED = "ball-red", 5


@pytest.fixture(scope="module")
def robot():
    robot = SimulatedRobot()
    yield robot
    robot.close()


def led(leader: PolicyLeader, robot: SimulatedRobot, steps: int) -> list[tuple[np.ndarray, float]]:
    actions = []
    for _ in range(steps):
        actions.append(leader.action(robot, robot.pictures()))
        robot.step(*actions[-1])
    return actions


def alone(model, exit_layer: int, steps: int) -> list[tuple[np.ndarray, float]]:
    policy = DeerPolicy.from_pretrained(model, device="cpu")
    world = MetaWorld(policy.config)
    world.reset(TASK, SEED)
    actions = []
    for _ in range(steps):
        said = policy.step(world.observation(), world.instruction, exit_layer)
        for _ in range(policy.config.action.executions_per_step):
            actions.append((said.action, said.gripper))
            world.step(said.action, said.gripper)
    return actions


@pytest.mark.parametrize("executions, senses", [(1, False), (2, False), (1, True)])
def test_it_leads_along_one_exit_as_the_policy_goes_by_itself(
    tmp_path, robot, executions, senses
):
    config = tiny_config()
    action = dataclasses.replace(config.action, executions_per_step=executions)
    layout = ("end_effector.x", "end_effector.z")
    sensed = ProprioceptionConfig(layout, (0.0, 0.2), (0.1, 0.1)) if senses else None
    model = write_tiny_model(tmp_path / "model", action=action, proprioception=sensed)
    leader = PolicyLeader(model)
    by_exit = {layer: alone(model, layer, 6) for layer in config.exit_layers}
    seen = set()
    for number in range(12):
        robot.reset(TASK, SEED)
        leader.begin(robot, np.random.default_rng(number))
        found = led(leader, robot, 6)
        agrees = [
            layer for layer, actions in by_exit.items()
            if all(
                np.allclose(a, b, atol=1e-5) and c == d
                for (a, c), (b, d) in zip(found, actions)
            )
        ]
        assert len(agrees) == 1
        seen.add(agrees[0])
    assert seen == set(config.exit_layers)


def test_it_leads_from_one_step_to_two_thirds_of_a_longest_episode(tmp_path, robot):
    leader = PolicyLeader(write_tiny_model(tmp_path / "model", max_episode_steps=9))
    robot.reset(TASK, SEED)
    steps = {leader.begin(robot, np.random.default_rng(number)) for number in range(100)}
    assert steps == {1, 2, 3, 4, 5, 6}

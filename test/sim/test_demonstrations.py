from __future__ import annotations

import numpy as np
import pytest

from deer_ros.sim.demonstrations import (
    NOISE_CORRELATION,
    Disturbance,
    _SmoothNoise,
    record_demonstration,
)
from deer_ros.sim.robot import MAX_EPISODE_STEPS, STATE_SIZE, SimulatedRobot

SEED = 11


@pytest.fixture(scope="module")
def robot():
    robot = SimulatedRobot(height=32, width=32)
    yield robot
    robot.close()


def record(robot, disturbance, noise=0.25, task="drawer-open"):
    return record_demonstration(robot, task, SEED, disturbance, noise)


@pytest.mark.parametrize("disturbance", Disturbance)
def test_a_demonstration_ends_with_success_and_is_reproducible(robot, disturbance):
    episode = record(robot, disturbance)
    assert robot.success
    assert episode.instruction == "open the drawer"
    assert 5 < len(episode) < MAX_EPISODE_STEPS
    assert episode.static.shape[1:] == (32, 32, 3)
    assert episode.state.shape[1] == STATE_SIZE
    assert episode.proprioception.shape[1] == 7 + len(robot.joint_names)
    np.testing.assert_array_equal(np.diff(episode.stamps_ns), 50_000_000)
    record(robot, Disturbance.NOISE, task="reach")
    again = record(robot, disturbance)
    for name in ("static", "gripper", "actions", "proprioception", "state"):
        np.testing.assert_array_equal(getattr(again, name), getattr(episode, name))


def test_the_labels_are_the_experts_own_actions_in_the_state_that_noise_led_to(robot):
    episode = record(robot, Disturbance.NOISE)
    robot.reset("drawer-open", SEED)
    strays = 0
    for label, state in zip(episode.actions, episode.state):
        action, gripper = robot.expert_action()
        if np.allclose(robot.state(), state, atol=1e-6):
            np.testing.assert_allclose(label, np.append(action, gripper), atol=1e-6)
        else:
            strays += 1
        robot.step(label[:6], label[6])
    # Following the labels alone does not lead where the noise led: it was executed, not recorded.
    assert strays > len(episode) / 2


def test_without_noise_the_labels_are_what_was_executed(robot):
    episode = record(robot, Disturbance.NOISE, noise=0.0)
    robot.reset("drawer-open", SEED)
    for label, state in zip(episode.actions, episode.state):
        np.testing.assert_allclose(robot.state(), state, atol=1e-6)
        robot.step(label[:6], label[6])
    assert robot.success


def test_a_displaced_start_is_elsewhere_and_its_way_there_is_not_recorded(robot):
    usual = record(robot, Disturbance.NOISE).proprioception[0, :3]
    start = record(robot, Disturbance.DISPLACED_START).proprioception[0, :3]
    assert 0.02 < np.linalg.norm(start - usual) < 0.25


def test_a_failed_attempt_is_no_demonstration(robot):
    assert record(robot, Disturbance.NOISE, noise=5.0, task="pick-place") is None


def test_noise_has_the_deviation_asked_for_and_is_smooth():
    noise = _SmoothNoise(0.25, np.random.default_rng(0))
    values = np.array([noise.next() for _ in range(20_000)])
    assert values.std() == pytest.approx(0.25, rel=0.05)
    correlation = np.corrcoef(values[:-1, 0], values[1:, 0])[0, 1]
    assert correlation == pytest.approx(NOISE_CORRELATION, abs=0.03)

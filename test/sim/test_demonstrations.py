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


class Lifts:
    """Leads for so many steps, straight up; it notes what it was shown."""

    def __init__(self, steps: int) -> None:
        self.steps, self.shown = steps, []

    def begin(self, robot, rng):
        self.shown.clear()
        return self.steps

    def action(self, robot, pictures):
        self.shown.append(pictures)
        return np.array([0.0, 0.0, 1.0, 0.0, 0.0, 0.0]), 1.0


def test_who_leads_drives_and_the_expert_says_all_along_what_it_would_do_and_ends_it(robot):
    leader = Lifts(4)
    episode = record_demonstration(robot, "drawer-open", SEED, leader, 0.25)
    assert len(leader.shown) == 4 < len(episode)
    for step, (static, gripper) in enumerate(leader.shown):
        np.testing.assert_array_equal(static, episode.static[step])
        np.testing.assert_array_equal(gripper, episode.gripper[step])
    robot.reset("drawer-open", SEED)
    for step, label in enumerate(episode.actions):
        np.testing.assert_allclose(robot.state(), episode.state[step], atol=1e-6)
        action, gripper = robot.expert_action()
        np.testing.assert_allclose(label, np.append(action, gripper), atol=1e-6)
        robot.step(*((label[:6], label[6]) if step >= 4 else leader.action(robot, None)))
    assert robot.success


def test_what_the_leader_ends_by_itself_or_spoils_for_good_is_no_demonstration(robot):
    class Expert(Lifts):
        def action(self, robot, pictures):
            return robot.expert_action()

    needed = len(record(robot, Disturbance.NOISE, noise=0.0))
    for steps, kept in ((needed - 1, True), (needed, False), (MAX_EPISODE_STEPS, False)):
        episode = record_demonstration(robot, "drawer-open", SEED, Expert(steps), 0.25)
        assert (episode is not None) == kept, steps
    lifts = Lifts(MAX_EPISODE_STEPS)
    assert record_demonstration(robot, "drawer-open", SEED, lifts, 0.25) is None


def test_noise_has_the_deviation_asked_for_and_is_smooth():
    noise = _SmoothNoise(0.25, np.random.default_rng(0))
    values = np.array([noise.next() for _ in range(20_000)])
    assert values.std() == pytest.approx(0.25, rel=0.05)
    correlation = np.corrcoef(values[:-1, 0], values[1:, 0])[0, 1]
    assert correlation == pytest.approx(NOISE_CORRELATION, abs=0.03)

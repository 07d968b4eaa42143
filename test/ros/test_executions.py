"""A model whose every action is carried out three times: the node on simulated time, over DDS."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from geometry_msgs.msg import PoseStamped
from policy_client import moves, running_policy
from rosgraph_msgs.msg import Clock
from std_msgs.msg import String
from tiny_model import tiny_config, write_tiny_model

from deer_ros.nodes.stamps import to_nanoseconds, to_time

pytestmark = pytest.mark.clock

EXECUTIONS = 3
PERIOD_NS = 50_000_000
START_NS = 10_000_000_000


@pytest.fixture(scope="module")
def node(tmp_path_factory):
    folder = tmp_path_factory.mktemp("policy")
    action = dataclasses.replace(tiny_config().action, executions_per_step=EXECUTIONS)
    model = write_tiny_model(folder / "model", action=action)
    # The clock stands still while a test looks what has come, which must not stop the robot.
    with running_policy(folder, model=str(model), allow_simulation_model=True, use_sim_time=True,
                        safety__input_timeout=60.0, instruction="open the drawer") as client:
        client.wait_until(lambda: client.state() == "active")
        client.wait_until(lambda: client.static.get_subscription_count() == 1
                          and client.gripper.get_subscription_count() == 1
                          and client.pose.get_subscription_count() == 1
                          and client.clock.get_subscription_count() == 1)
        pose = PoseStamped()
        pose.header.frame_id, pose.header.stamp = "base_link", to_time(START_NS)
        pose.pose.orientation.w = 1.0
        client.pose.publish(pose)
        client.drain()
        client.now = START_NS
        yield client


def pass_period(node) -> None:
    """One control period later."""
    node.now += PERIOD_NS
    node.show_at(node.now)


def pass_period_with_answer(node):
    """One control period later, and an answer to its pictures; returns the answer."""
    node.now += PERIOD_NS

    def answers() -> list:
        """Pictures are sent again: best effort may lose some."""
        if node._is_due():
            node.show_at(node.now)
        return node.answers_to(node.now)

    node.wait_until(answers)
    return answers()[-1]


def positions(node) -> np.ndarray:
    return np.array([[t.pose.position.x, t.pose.position.y, t.pose.position.z]
                     for t in node.targets])


def start_step(node) -> None:
    """Begin a new episode whose action has been carried out once so far."""
    assert node.reset().success
    node.drain()
    targets = len(node.targets)
    # What is left of the periods of the action before is waited for.
    node.now += EXECUTIONS * PERIOD_NS
    pass_period_with_answer(node)
    node.wait_until(lambda: len(node.targets) == targets + 1)


def test_one_answer_moves_the_target_in_three_periods_and_then_comes_the_next(node):
    start_step(node)
    for _ in range(3):
        stamp_ns = to_nanoseconds(node.actions[-1].static_stamp)
        action, count, sent = node.actions[-1], len(node.actions), len(node.targets)
        assert action.commanded and action.executions == EXECUTIONS
        for execution in range(1, EXECUTIONS):
            pass_period(node)
            node.wait_until(lambda n=sent + execution: len(node.targets) == n)
            node.drain()
            assert len(node.actions) == count, "no answer while the last one is carried out"
            assert moves(node.twists[-1])
        advance = np.array(action.action[:3]) * tiny_config().action.linear_scale
        np.testing.assert_allclose(
            np.diff(positions(node)[sent - 1:], axis=0), [advance] * (EXECUTIONS - 1), atol=1e-7)
        answer = pass_period_with_answer(node)
        node.wait_until(lambda n=sent + EXECUTIONS: len(node.targets) == n)
        assert len(node.actions) == count + 1
        assert to_nanoseconds(answer.static_stamp) == stamp_ns + EXECUTIONS * PERIOD_NS
        assert answer.step == action.step + 1


def test_after_the_last_execution_zero_follows_if_no_answer_comes(node):
    start_step(node)
    sent = len(node.targets)
    for execution in range(1, EXECUTIONS):
        pass_period(node)
        node.wait_until(lambda n=sent + execution: len(node.targets) == n)
    node.drain()
    assert moves(node.twists[-1]) and len(node.targets) == sent + EXECUTIONS - 1
    # Time goes on, and no picture comes.
    node.now += PERIOD_NS
    node.clock.publish(Clock(clock=to_time(node.now)))
    node.wait_until(lambda: not moves(node.twists[-1]))
    assert len(node.targets) == sent + EXECUTIONS - 1


@pytest.mark.parametrize("event", ["pause", "instruction"])
def test_what_is_left_of_an_action_is_dropped(node, event):
    start_step(node)
    sent = len(node.targets)
    if event == "pause":
        assert node.pause(True).success
    else:
        node.instruction.publish(String(data="close the drawer"))
        node.wait_until(lambda: "close the drawer" in node.said())
    for _ in range(EXECUTIONS - 1):
        pass_period(node)
        node.wait_until(lambda: not moves(node.twists[-1]))
        node.drain()
        assert not moves(node.twists[-1])
    assert len(node.targets) == sent
    assert node.pause(False).success

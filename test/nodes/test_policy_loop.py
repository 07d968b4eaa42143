"""The heart of the policy node without its executor: what lasts shorter than it is asked for."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from rclpy.clock import ROSClock
from rclpy.logging import get_logger

from deer_ros.control.safety import Reason, Stop
from deer_ros.nodes.policy.loop import PolicyLoop
from deer_ros.stepping.robot import RobotState
from deer_ros.stepping.settings import Settings

OPEN = "open the drawer"


@pytest.fixture
def loop():
    """Active, with a goal; what it publishes is not looked at."""
    outputs = SimpleNamespace(now_ns=lambda: 0, status=lambda _message: None,
                              twist=lambda _command: None, frame_id="base_link")
    loop = PolicyLoop(ROSClock(), get_logger("loop"), outputs, Settings())
    loop.inputs = SimpleNamespace(state=RobotState())
    loop.activate()
    loop.begin_goal(OPEN)
    assert loop.goal_end() is None
    yield loop
    assert loop.close(10.0)


def latch(loop) -> None:
    loop.stepper.safety.latches = True
    loop.stepper.stop(Stop(Reason.MODEL_ERROR, "as was asked."))


def end_episode(loop) -> None:
    loop.stepper.episode.over = Stop(Reason.EPISODE_OVER, "it has lasted its time.")


@pytest.mark.parametrize("ends, goes_on, reason", [
    (PolicyLoop.deactivate, PolicyLoop.activate, Reason.DEACTIVATED),
    (latch, PolicyLoop.reset, Reason.MODEL_ERROR),
    (end_episode, PolicyLoop.reset, Reason.EPISODE_OVER),
])
def test_a_goal_has_ended_even_where_its_end_is_over_before_somebody_looks(
    loop, ends, goes_on, reason
):
    ends(loop)
    goes_on(loop)
    assert loop.stepper.instruction == "", "nothing of the goal is obeyed any more"
    stop = loop.goal_end()
    assert stop is not None and stop.reason is reason
    loop.set_instruction("another")
    loop.end_goal(stop)
    assert loop.stepper.instruction == "another", "which is not the goal's"
    loop.begin_goal(OPEN)
    assert loop.goal_end() is None and loop.stepper.instruction == OPEN


def test_a_reset_alone_ends_no_goal(loop):
    assert loop.reset() is None
    assert loop.goal_end() is None and loop.stepper.instruction == OPEN

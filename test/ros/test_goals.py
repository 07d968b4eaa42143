"""~/execute_instruction, as a task planner uses it."""

from __future__ import annotations

import math
import signal

import pytest
from action_msgs.msg import GoalStatus
from deer_ros.action import ExecuteInstruction
from policy_client import PATIENT, moves, running_policy
from rclpy.action import ActionClient
from std_msgs.msg import String
from tiny_model import write_tiny_model

from deer_ros.control.safety import Reason, State

pytestmark = pytest.mark.clock

OPEN, CLOSE = "open the drawer", "close the drawer"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return str(write_tiny_model(tmp_path_factory.mktemp("model")))


@pytest.fixture(scope="module", params=["single_threaded", "events"])
def node(request, model, tmp_path_factory):
    with running_policy(tmp_path_factory.mktemp("policy"), model=model, executor=request.param,
                        allow_simulation_model=True, episode__max_duration=3600.0,
                        **PATIENT) as client:
        client.wait_until(lambda: client.state() == "active")
        client.feeding = True
        client.planner = Planner(client)
        yield client


class Planner:
    """Sends goals, and keeps what comes back."""

    def __init__(self, node):
        self._node = node
        self._client = ActionClient(node.node, ExecuteInstruction, "deer/execute_instruction")
        node.wait_until(self._client.server_is_ready)

    def send(self, instruction: str = OPEN, **fields):
        """The handle of a goal; its feedback is in `.feedback`, its result in `.answer`."""
        feedback = []
        goal = ExecuteInstruction.Goal(instruction=instruction, **fields)
        future = self._client.send_goal_async(
            goal, feedback_callback=lambda message: feedback.append(message.feedback))
        self._node.wait_until(future.done)
        handle = future.result()
        handle.feedback = feedback
        if handle.accepted:
            handle.answer = handle.get_result_async()
        return handle

    def wait(self, handle):
        """Status and result of a goal that ends."""
        self._node.wait_until(handle.answer.done)
        answer = handle.answer.result()
        return answer.status, answer.result

    def cancel(self, handle) -> None:
        future = handle.cancel_goal_async()
        self._node.wait_until(future.done)


def test_a_goal_lasts_its_time_and_the_robot_stands_afterwards(node):
    handle = node.planner.send(duration=3.0)
    status, result = node.planner.wait(handle)
    ended_ns = node.shown_ns
    assert status == GoalStatus.STATUS_SUCCEEDED and result.success
    assert result.reason == Reason.EPISODE_OVER and "3 s" in result.detail
    # Feedback and result come in any order.
    node.wait_until(lambda: handle.feedback and handle.feedback[-1].steps >= 3)
    steps = [feedback.steps for feedback in handle.feedback]
    assert steps == sorted(steps) and steps[-1] <= result.steps
    assert handle.feedback[-1].exit_layer == 6
    node.wait_until(lambda: not moves(node.twists[-1]))
    seen = node.diagnosed("images seen")
    node.wait_until(lambda: node.diagnosed("images seen") > seen + 10)
    assert not moves(node.twists[-1])
    assert not node.answers_after(ended_ns), "nothing is done after the goal"


def test_a_cancelled_goal_stops_the_robot(node):
    handle = node.planner.send()
    node.wait_until(lambda: handle.feedback and handle.feedback[-1].steps > 3)
    node.planner.cancel(handle)
    status, result = node.planner.wait(handle)
    assert status == GoalStatus.STATUS_CANCELED
    assert result.success and result.reason == Reason.CANCELLED and result.steps > 3
    node.wait_until(lambda: not moves(node.twists[-1])
                    and any(s.reason == Reason.CANCELLED for s in node.statuses))
    stops = [s for s in node.statuses if s.reason == Reason.CANCELLED]
    assert stops[0].state == State.STOPPED


def test_a_new_goal_takes_the_place_of_the_present_one(node):
    first = node.planner.send(OPEN)
    node.wait_for_status(lambda s: s.state == State.RUNNING and s.instruction == OPEN)
    # The same text is another goal all the same.
    second = node.planner.send(OPEN, duration=2.0)
    status, result = node.planner.wait(first)
    assert status == GoalStatus.STATUS_ABORTED
    assert not result.success and result.reason == Reason.PREEMPTED
    node.wait_until(lambda: any(s.reason == Reason.PREEMPTED for s in node.statuses))
    status, result = node.planner.wait(second)
    assert status == GoalStatus.STATUS_SUCCEEDED and result.steps > 0
    assert node.statuses[-1].reset_reason == "new instruction"


def test_an_instruction_from_the_topic_takes_the_place_of_a_goal_and_is_obeyed(node):
    handle = node.planner.send(OPEN)
    node.wait_for_status(lambda s: s.state == State.RUNNING and s.instruction == OPEN)
    node.instruction.publish(String(data=CLOSE))
    status, result = node.planner.wait(handle)
    assert status == GoalStatus.STATUS_ABORTED and result.reason == Reason.PREEMPTED
    node.wait_for_status(lambda s: s.state == State.RUNNING and s.instruction == CLOSE)


def test_the_end_of_the_episode_is_the_end_of_a_goal_without_a_duration(node):
    assert node.set(episode__max_duration=0.5).successful
    status, result = node.planner.wait(node.planner.send())
    assert status == GoalStatus.STATUS_SUCCEEDED and result.reason == Reason.EPISODE_OVER
    assert node.set(episode__max_duration=3600.0).successful


def test_a_goals_budget_holds_for_the_goal_alone(node):
    assert node.get("budget.tracking") is True and node.get("budget.scope") == "llm"
    handle = node.planner.send(budget=["scope=step", "budget.tracking=false"])
    assert node.get("budget.scope") == "step" and node.get("budget.tracking") is False
    # What somebody sets meanwhile is not set back.
    assert node.set(budget__solver="gaussian").successful
    other = node.planner.send(CLOSE, budget=["solver=gamma"])
    assert node.planner.wait(handle)[1].reason == Reason.PREEMPTED
    assert (node.get("budget.scope"), node.get("budget.solver")) == ("llm", "gamma")
    assert node.get("budget.tracking") is True
    node.planner.cancel(other)
    node.planner.wait(other)
    node.wait_until(lambda: node.get("budget.solver") == "gaussian")
    assert node.set(budget__solver="optimal").successful


@pytest.mark.parametrize("fields, words", [
    ({"instruction": "  "}, "its instruction is empty"),
    ({"duration": -1.0}, "its duration is -1.0 s"),
    ({"duration": math.nan}, "its duration is nan s"),
    ({"duration": math.inf}, "its duration is inf s"),
    ({"budget": ["average_gflops"]}, "'average_gflops' is no budget"),
    ({"budget": ["speed=3"]}, "'speed=3' is no budget"),
    ({"budget": ["average_gflops=many"]}, "budget.average_gflops is 'many'"),
    ({"budget": ["average_gflops=.nan"]}, "budget.average_gflops is nan"),
    ({"budget": ["average_gflops=1e-9"]}, "budget.average_gflops"),
    ({"budget": ["tracking=[1"]}, "budget.tracking"),
])
def test_a_wrong_goal_is_refused_with_a_sentence_and_the_present_one_goes_on(node, fields, words):
    present = node.planner.send(CLOSE)
    assert not node.planner.send(**fields).accepted
    refusals = [line for line in node.said().splitlines() if "a goal was refused" in line]
    assert words in refusals[-1]
    count = len(node.actions)
    node.wait_until(lambda: len(node.actions) > count + 3)
    node.planner.cancel(present)
    node.planner.wait(present)


def test_a_goal_outlasts_a_pause_and_ends_with_deactivation(node):
    handle = node.planner.send()
    node.wait_until(lambda: handle.feedback)
    node.wait_for_status(lambda s: s.state == State.PAUSED, lambda: node.pause(True))
    steps = handle.feedback[-1].steps
    node.wait_until(lambda: handle.feedback[-1].state == State.PAUSED)
    assert node.pause(False).success
    node.wait_until(lambda: handle.feedback[-1].steps > steps + 3)
    assert node.change_state("deactivate")
    status, result = node.planner.wait(handle)
    assert status == GoalStatus.STATUS_ABORTED and result.reason == Reason.DEACTIVATED
    assert not node.planner.send().accepted, "an inactive node takes no goal"
    assert node.change_state("activate")


def test_a_fault_that_is_latched_ends_a_goal_and_refuses_others(node):
    assert node.set(safety__recovery="latched").successful
    status, result = node.planner.wait(node.planner.send("fail"))
    assert status == GoalStatus.STATUS_ABORTED and result.reason == Reason.MODEL_ERROR
    assert "~/reset" in result.detail
    assert not node.planner.send().accepted
    assert node.set(safety__recovery="auto").successful
    assert not node.planner.send().accepted, "only a reset releases it"
    assert node.reset().success
    status, result = node.planner.wait(node.planner.send(duration=0.5))
    assert result.success


@pytest.mark.parametrize(
    "goal_ends_first", [pytest.param(False, marks=pytest.mark.long), True]
)
def test_a_planner_is_told_that_the_node_ends(tmp_path, model, monkeypatch, goal_ends_first):
    """Also where the goal ends, for that reason, before the node begins to end."""
    if goal_ends_first:
        monkeypatch.setenv("END_AFTER_GOAL", "1")
    with running_policy(tmp_path, model=model, allow_simulation_model=True, **PATIENT) as client:
        client.wait_until(lambda: client.state() == "active")
        client.feeding = True
        planner = Planner(client)
        handle = planner.send()
        client.wait_until(lambda: handle.feedback and handle.feedback[-1].steps > 3)
        client.process.send_signal(signal.SIGTERM)
        status, result = planner.wait(handle)
        assert client.process.wait(60.0) == 0
        assert status == GoalStatus.STATUS_ABORTED and result.reason == Reason.SIGTERM
        assert "Traceback" not in client.said()

"""~/execute_instruction: an instruction for some time, for task planners."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from rclpy.action import ActionServer, CancelResponse, GoalResponse
from rclpy.action.server import ServerGoalHandle
from rclpy.executors import Executor
from rclpy.node import Node
from rclpy.parameter import Parameter

from deer_ros.action import ExecuteInstruction
from deer_ros.control.safety import Reason, Stop
from deer_ros.nodes.policy.loop import PREEMPTED, PolicyLoop
from deer_ros.parameter_file import load_yaml
from deer_ros.stepping.budgets import PREFIX
from deer_ros.stepping.settings import ROWS

CANCELLED = Stop(Reason.CANCELLED, "the goal was cancelled.")
# Enough to send a result to whoever asks for it, on a busy machine too; a stopped node lasts 2 s.
LAST_WORDS_S = 0.4
# A policy has no end of its own: these are the ends that were asked for.
_SUCCESS = (Reason.EPISODE_OVER, Reason.CANCELLED)


class _Server(ActionServer):
    """Keeps what executes a goal until the goal has ended, so that nothing waits for it."""

    def notify_execute(self, goal_handle: ServerGoalHandle, execute_callback: Any) -> None:
        """The goal goes on; `finish` calls what rclpy would call now."""

    def finish(self, handle: ServerGoalHandle, result: ExecuteInstruction.Result) -> None:
        """Send the result to whoever asks for it."""
        super().notify_execute(handle, lambda _handle: result)


@dataclass(eq=False)
class _Goal:
    handle: ServerGoalHandle
    started_ns: int
    first_step: int
    told: tuple = field(default=())


class Goals:
    """At most one goal at a time: a new one takes the place of the present one.

    All methods run in the executor's thread; `watch` is to be called often.
    """

    def __init__(self, node: Node, loop: PolicyLoop, now_ns: Callable[[], int]) -> None:
        self._node = node
        self._loop = loop
        self._now_ns = now_ns
        self._goal: _Goal | None = None
        # When a result was last handed over, to be sent: on the monotonic clock.
        self._finished_s = -math.inf
        # Budgets to go back to, and those of the goal, by parameter.
        self._before: dict[str, Any] = {}
        self._own: dict[str, Any] = {}
        self._server = _Server(
            node, ExecuteInstruction, "~/execute_instruction", execute_callback=lambda _goal: None,
            goal_callback=self._on_request, handle_accepted_callback=self._on_accepted,
            cancel_callback=self._on_cancel)

    def watch(self) -> None:
        """Tell how the goal goes on, and end it when its time has come."""
        goal = self._goal
        if goal is None:
            return
        stop = self._end_of(goal)
        if stop is not None:
            self._end(stop)
            return
        record, safety = self._loop.stepper.record, self._loop.stepper.safety
        steps = record.steps - goal.first_step
        told = (steps, int(safety.state), int(safety.reason))
        if told != goal.told:
            goal.told = told
            goal.handle.publish_feedback(ExecuteInstruction.Feedback(
                steps=steps, exit_layer=record.last_exit_layer if steps else 0,
                state=told[1], reason=told[2]))

    def end(self, executor: Executor) -> None:
        """The node ends: tell whoever waits for the goal, if there is one, or was just now."""
        self.watch()
        while time.monotonic() < self._finished_s + LAST_WORDS_S:
            executor.spin_once(timeout_sec=0.01)

    def _on_request(self, request: ExecuteInstruction.Goal) -> GoalResponse:
        try:
            self._check(request)
            self._take_budget(budget_parameters(request.budget))
        except ValueError as error:
            self._node.get_logger().warning(f"a goal was refused: {error}")
            return GoalResponse.REJECT
        return GoalResponse.ACCEPT

    def _check(self, request: ExecuteInstruction.Goal) -> None:
        safety = self._loop.stepper.safety
        if not safety.active:
            raise ValueError("the node is not active.")
        if safety.latched is not None:
            raise ValueError(safety.latched.detail)
        if not request.instruction.strip():
            raise ValueError("its instruction is empty.")
        if not (math.isfinite(request.duration) and request.duration >= 0):
            raise ValueError(f"its duration is {request.duration} s; allowed: 0 and more.")

    def _take_budget(self, own: dict[str, Any]) -> None:
        """Budgets of the goal, instead of those of the goal that it replaces, or none of them."""
        back = self._remaining()
        before = {name: back.get(name, value) for name, value in self._values(own).items()}
        self._set(back | own)
        self._before, self._own = before, own

    def _remaining(self) -> dict[str, Any]:
        """What to set back: budgets that somebody has set since are left as they are."""
        now = self._values(self._own)
        return {name: self._before[name] for name in self._own if now[name] == self._own[name]}

    def _values(self, names: dict[str, Any]) -> dict[str, Any]:
        return {name: self._node.get_parameter(name).value for name in names}

    def _set(self, values: dict[str, Any]) -> None:
        if not values:
            return
        result = self._node.set_parameters_atomically(
            [Parameter(name, value=value) for name, value in values.items()])
        if not result.successful:
            raise ValueError(result.reason)

    def _on_accepted(self, handle: ServerGoalHandle) -> None:
        if self._goal is not None:
            self._finish(PREEMPTED)
        self._loop.begin_goal(handle.request.instruction)
        self._goal = _Goal(handle, self._now_ns(), self._loop.stepper.record.steps)
        handle.execute()
        self.watch()

    def _on_cancel(self, handle: ServerGoalHandle) -> CancelResponse:
        if self._goal is None or handle.goal_id != self._goal.handle.goal_id:
            return CancelResponse.REJECT
        # At once; the goal itself ends when rclpy has noted that it is to.
        self._loop.end_goal(CANCELLED)
        return CancelResponse.ACCEPT

    def _end_of(self, goal: _Goal) -> Stop | None:
        if goal.handle.is_cancel_requested:
            return CANCELLED
        stop = self._loop.goal_end()
        # The clock may have been set back.
        goal.started_ns = min(goal.started_ns, self._now_ns())
        duration_s = goal.handle.request.duration
        if stop is None and duration_s and self._now_ns() - goal.started_ns >= duration_s * 1e9:
            return Stop(Reason.EPISODE_OVER, f"the goal has lasted its {duration_s:g} s.")
        return stop

    def _end(self, stop: Stop) -> None:
        self._loop.end_goal(stop)
        self._finish(stop)
        try:
            self._set(self._remaining())
        except ValueError as error:
            self._node.get_logger().error(f"the budgets before the goal are not set again: {error}")
        self._own = self._before = {}

    def _finish(self, stop: Stop) -> None:
        goal, self._goal = self._goal, None
        handle = goal.handle
        if handle.is_cancel_requested:
            handle.canceled()
        elif stop.reason in _SUCCESS:
            handle.succeed()
        else:
            handle.abort()
        self._server.finish(handle, ExecuteInstruction.Result(
            success=stop.reason in _SUCCESS, reason=int(stop.reason), detail=stop.detail,
            steps=self._loop.stepper.record.steps - goal.first_step))
        self._finished_s = time.monotonic()


def budget_parameters(words: Sequence[str]) -> dict[str, Any]:
    """Parameters by name from words such as `average_gflops=8`, with or without `budget.`.

    Raises ValueError for what is no budget, or not of its type.
    """
    values = {}
    for word in words:
        name, is_given, text = word.partition("=")
        name = PREFIX + name.strip().removeprefix(PREFIX)
        if not is_given or name not in ROWS:
            names = ", ".join(row.removeprefix(PREFIX) for row in ROWS if row.startswith(PREFIX))
            raise ValueError(f"{word!r} is no budget; allowed: NAME=VALUE, with one of {names}.")
        row = ROWS[name]
        values[name] = row.convert(text.strip() if row.kind is str else _value_in(text))
    return values


def _value_in(text: str) -> Any:
    try:
        return load_yaml(text)
    except ValueError:
        return text

"""Node `deer`: an early-exit policy as a managed (lifecycle) ROS 2 node.

The executor's thread takes messages, services and parameters; a worker's thread runs the model; a
third one sends commands on time; a fourth waits for signals.
"""

from __future__ import annotations

import gc
import os
import sys
import threading
import traceback
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotYet
from typing import TYPE_CHECKING, TypeVar

import rclpy
from rclpy.clock import Clock, JumpThreshold, TimeJump
from rclpy.clock_type import ClockType
from rclpy.duration import Duration
from rclpy.executors import Executor, ExternalShutdownException, SingleThreadedExecutor
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.signals import SignalHandlerOptions
from rclpy.timer import Timer
from std_srvs.srv import SetBool, Trigger

from deer_ros.control.safety import DEACTIVATED, Reason, Stop
from deer_ros.nodes.policy.diagnostics import Diagnostics
from deer_ros.nodes.policy.goals import Goals
from deer_ros.nodes.policy.inputs import Inputs
from deer_ros.nodes.policy.loop import PolicyLoop
from deer_ros.nodes.policy.outputs import Outputs
from deer_ros.nodes.policy.parameters import NodeParameters
from deer_ros.nodes.policy.stop_signals import catch_stop_signals, on_stop_signal
from deer_ros.stepping import budgets
from deer_ros.stepping.loading import load_policy, what_is_loaded
from deer_ros.stepping.plan import Plan
from deer_ros.stepping.settings import Settings

if TYPE_CHECKING:
    from deer_ros.policy import DeerPolicy

WATCH_PERIOD_S = 0.05
DIAGNOSTICS_PERIOD_S = 1.0
MEASURING_S = 2.0
OF_BUDGETS = ("budget.", "exit.")
# Together below the two seconds in which a stopped node promises to be gone.
FLUSH_S = 0.2
LAST_STEP_S = 1.0

Result = TypeVar("Result")
SUCCESS = TransitionCallbackReturn.SUCCESS
FAILURE = TransitionCallbackReturn.FAILURE


class ShuttingDown(Exception):
    """A transition was cut short by the end of the node."""


class PolicyNode(LifecycleNode):
    """Wires the parts together, and takes them through the states of a managed node."""

    def __init__(self, load: Callable[[Settings], DeerPolicy] = load_policy) -> None:
        """load: makes the policy that the settings ask for; called in the worker's thread."""
        super().__init__("deer")
        self.stopping = threading.Event()
        self._load = load
        self._policy: DeerPolicy | None = None
        self._loading: tuple[tuple, Future[DeerPolicy]] | None = None
        self._autostart_timer: Timer | None = None
        self._node_parameters = NodeParameters(
            self, self._check_settings, self._on_settings)
        settings = self._node_parameters.settings
        self._outputs = Outputs(self, settings.action_frame_id)
        self._loop = PolicyLoop(self.get_clock(), self.get_logger(), self._outputs, settings)
        self._inputs = Inputs(self, self._loop, lambda: self._outputs.frame_id)
        self._loop.inputs = self._inputs
        self._loop.set_instruction(settings.instruction)
        self._diagnostics = Diagnostics(self, self._loop, lambda: self._node_parameters.settings)
        self._goals = Goals(self, self._loop, self._outputs.now_ns)
        self.create_service(Trigger, "~/reset", self._on_reset)
        self.create_service(SetBool, "~/pause", self._on_pause)
        self._answer_wrong_transitions()
        self._watch_clock()
        # On the wall clock: simulated time may stand still.
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(WATCH_PERIOD_S, self._watch, clock=steady)
        self.create_timer(DIAGNOSTICS_PERIOD_S, self._diagnostics.publish, clock=steady)

    @property
    def settings(self) -> Settings:
        """The settings in force."""
        return self._node_parameters.settings

    def autostart(self) -> None:
        """Configure and activate as soon as the model is loaded; until then the node answers."""
        self._start_loading()
        self._autostart_timer = self.create_timer(
            WATCH_PERIOD_S, self._finish_autostart, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def _finish_autostart(self) -> None:
        if self._loading is not None and not self._loading[1].done():
            return
        self.destroy_timer(self._autostart_timer)
        # Somebody else may have been quicker.
        if self._policy is None and self.trigger_configure() == SUCCESS:
            self.trigger_activate()

    def shut_down(self, signal_name: str) -> None:
        """Send zero and let nothing move any more. May be called from any thread."""
        self._loop.shut_down(Stop(Reason[signal_name], f"{signal_name} was received."))
        self.stopping.set()

    def close(self, executor: Executor) -> bool:
        """End all threads. False if the model is still busy and was left alone."""
        self._goals.end(executor)
        self._outputs.flush(FLUSH_S)
        return self._loop.close(LAST_STEP_S)

    # Transitions. rclpy would swallow exceptions, and take the node to its end by them.

    def on_configure(self, _state: LifecycleState) -> TransitionCallbackReturn:
        """Load the model. Where that fails, the node stays unconfigured and says why."""
        try:
            self._configure()
            self._diagnostics.problem = ""
        except Exception as error:
            self._diagnostics.problem = f"it could not be configured: {error}"
            self._node_parameters.forget_model()
            self._tell(error, "The node stays unconfigured; correct the parameters and configure "
                              "it again.")
            return FAILURE
        return SUCCESS

    def on_activate(self, _state: LifecycleState) -> TransitionCallbackReturn:
        """Start to take steps."""
        try:
            self._inputs.open_cameras(self.settings)
            self._loop.activate()
        except Exception as error:
            self._inputs.close_cameras()
            self._tell(error, "The node stays inactive.")
            return FAILURE
        for sentence in self._loop.stepper.plan.warnings():
            self.get_logger().warning(sentence)
        return SUCCESS

    def on_deactivate(self, _state: LifecycleState) -> TransitionCallbackReturn:
        """Send zero, then stop listening."""
        return self._leave(self._deactivate)

    def on_cleanup(self, _state: LifecycleState) -> TransitionCallbackReturn:
        """Give the model up."""
        return self._leave(self._unload)

    def on_shutdown(self, _state: LifecycleState) -> TransitionCallbackReturn:
        """The end by a lifecycle transition: stop; the process goes on, and answers."""
        stop = Stop(Reason.SHUTDOWN, "the node was shut down by a transition.")
        return self._leave(lambda: (self._deactivate(stop), self._unload()))

    def on_error(self, _state: LifecycleState) -> TransitionCallbackReturn:
        """A transition failed: back to unconfigured, where it can be tried again."""
        return self._leave(lambda: (self._deactivate(), self._unload()))

    def _watch(self) -> None:
        self._loop.watch()
        self._goals.watch()

    def _answer_wrong_transitions(self) -> None:
        """rclpy raises, and never answers, where a transition does not fit the present state."""
        service = getattr(self, "_service_change_state", None)
        if service is None:
            return
        change_state = service.callback

        def answer(request, response):
            try:
                return change_state(request, response)
            except Exception as error:
                self.get_logger().error(f"a transition was refused: {str(error).splitlines()[0]}")
                response.success = False
                return response

        service.callback = answer

    def _configure(self) -> None:
        if self._loading is None or self._loading[0] != what_is_loaded(self.settings):
            self._start_loading()
        loading, self._loading = self._loading[1], None
        policy = self._wait(loading)
        self._node_parameters.check_model(policy.config)
        plan = Plan.of(self.settings, policy.config)
        budgets.check(policy, plan)
        self._policy = policy
        self._loop.set_policy(policy, plan)
        # Or every full collection goes through all of PyTorch, and all threads wait for it.
        gc.freeze()
        self.get_logger().info(
            f"configured: exits after layers {list(policy.config.exit_layers)}, "
            f"{plan.semantics.step_rate_hz:g} steps per second")

    def _start_loading(self) -> None:
        settings = self.settings
        self.get_logger().info(f"loading the model {settings.model!r}")
        future = self._loop.worker.call(lambda: self._prepared(self._load(settings)))
        self._loading = what_is_loaded(settings), future

    def _prepared(self, policy: DeerPolicy) -> DeerPolicy:
        """With all that budgets are solved from, so that any can be set while steps go on."""
        policy.measure(longest_s=MEASURING_S)
        try:
            policy.prepare_budgets()
        except (ValueError, OSError) as error:
            self.get_logger().warning(
                f"{error} Budgets that need a calibration are refused until it is mended and the "
                "node configured again.")
        return policy

    def _wait(self, future: Future[Result]) -> Result:
        """The result of a call in the worker's thread, or an error when the node is to stop."""
        while True:
            try:
                return future.result(timeout=0.05)
            except NotYet:
                if self.stopping.is_set():
                    raise ShuttingDown from None

    def _deactivate(self, stop: Stop = DEACTIVATED) -> None:
        self._loop.deactivate(stop)
        self._inputs.close_cameras()

    def _unload(self) -> None:
        self._wait(self._loop.worker.call(lambda: self._loop.set_policy(None, None)))
        self._policy = None
        self._node_parameters.forget_model()
        gc.unfreeze()
        gc.collect()

    def _leave(self, action: Callable[[], object]) -> TransitionCallbackReturn:
        try:
            action()
        except Exception as error:
            self._tell(error, "The transition failed.")
            return TransitionCallbackReturn.ERROR
        return SUCCESS

    def _tell(self, error: Exception, consequence: str) -> None:
        """A sentence for what a user can mend; a traceback for what should not happen."""
        if isinstance(error, ShuttingDown):
            return
        if isinstance(error, (ValueError, OSError, ImportError)):
            self.get_logger().error(f"{error} {consequence}")
        else:
            self.get_logger().error(f"{traceback.format_exc()}{consequence}")

    # What comes in beside the inputs.

    def _check_settings(self, settings: Settings, names: frozenset[str]) -> None:
        """Refuse what cannot be met. A budget that an instruction broke blocks nothing else."""
        if self._policy is not None and any(name.startswith(OF_BUDGETS) for name in names):
            budgets.check(self._policy, Plan.of(settings, self._policy.config))

    def _on_settings(self, settings: Settings, names: frozenset[str]) -> None:
        plan = None if self._policy is None else Plan.of(settings, self._policy.config)
        before = [] if self._loop.stepper.plan is None else self._loop.stepper.plan.warnings()
        self._loop.set_settings(settings, plan)
        if "instruction" in names:
            self._loop.set_instruction(settings.instruction)
        if plan is not None:
            for sentence in plan.warnings():
                if sentence not in before:
                    self.get_logger().warning(sentence)

    def _on_reset(self, _request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        problem = self._loop.reset()
        response.success = problem is None
        response.message = problem or "a new episode begins with the next step."
        return response

    def _on_pause(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        self._loop.pause(request.data)
        response.success = True
        response.message = "paused." if request.data else "going on."
        return response

    def _watch_clock(self) -> None:
        """Every tick of /clock is a jump forward; nothing of the kind happens without it."""
        threshold = JumpThreshold(
            min_forward=Duration(nanoseconds=1),
            min_backward=Duration(nanoseconds=-1),
            on_clock_change=True,
        )
        self._jump_handle = self.get_clock().create_jump_callback(
            threshold, post_callback=self._on_time_jump)

    def _on_time_jump(self, jump: TimeJump) -> None:
        moved_on = jump.delta.nanoseconds > 0 and not _is_clock_change(jump)
        self._loop.clock_ticked() if moved_on else self._loop.clock_jumped()


def main(args: list[str] | None = None, make_node: Callable[[], PolicyNode] = PolicyNode) -> int:
    """Run the node, and end the process: with 0 after a signal.

    Returns only where there was nothing to run: 2 if the command line or a file cannot be read.
    """
    catch_stop_signals()
    try:
        rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
        node = make_node()
    except Exception as error:
        # rclpy's own complaints, whose classes are many, are about the command line or a file.
        if not type(error).__module__.startswith("rclpy"):
            raise
        print(f"policy_node: {str(error).splitlines()[0]}", file=sys.stderr)
        return 2
    run(node)
    sys.stdout.flush()
    sys.stderr.flush()
    # A step may still be running, which nothing can end from outside; and Python takes seconds to
    # take PyTorch apart, longer than a stopped node promises to last.
    os._exit(0)


def run(node: PolicyNode) -> None:
    """Run callbacks until a signal comes, then stop the robot and close everything."""
    executor = make_executor(node)
    executor.add_node(node)

    def stop(signal_name: str) -> None:
        node.shut_down(signal_name)
        executor.wake()

    on_stop_signal(stop)
    if node.settings.autostart:
        node.autostart()
    spin(node, executor)
    if node.close(executor):
        node.destroy_node()
    rclpy.try_shutdown()


def make_executor(node: PolicyNode) -> Executor:
    """The executor that the parameter `executor` names, if this ROS release has it."""
    if node.settings.executor == "events":
        try:
            from rclpy.experimental import EventsExecutor

            return EventsExecutor()
        except ImportError:
            node.get_logger().warning(
                "this ROS release has no EventsExecutor; executor is single_threaded.")
    return SingleThreadedExecutor()


def spin(node: PolicyNode, executor: Executor) -> None:
    """Run callbacks until the node is to stop. One that fails is told of, and the node goes on."""
    # EventsExecutor.spin() dispatches nothing on Jazzy; spin_once with a timeout does.
    while rclpy.ok() and not node.stopping.is_set():
        try:
            executor.spin_once(timeout_sec=0.1)
        except ExternalShutdownException:
            return
        except Exception:
            node.get_logger().error(f"a callback failed:\n{traceback.format_exc()}")


def _is_clock_change(jump: TimeJump) -> bool:
    return jump.clock_change.name in ("ROS_TIME_ACTIVATED", "ROS_TIME_DEACTIVATED")


if __name__ == "__main__":
    from deer_ros.nodes.executable import start

    sys.exit(start("policy_node"))

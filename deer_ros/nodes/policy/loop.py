"""From pictures to commands: one step after the other, and a stop whenever something is wrong."""

from __future__ import annotations

import threading
import traceback
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from rclpy.clock import ROSClock
from rclpy.impl.rcutils_logger import RcutilsLogger
from sensor_msgs.msg import CompressedImage, Image

from deer_ros.control.command import Command
from deer_ros.control.safety import DEACTIVATED, FAULTS, PAUSED, Input, Reason, Stop
from deer_ros.msg import PolicyStatus
from deer_ros.nodes import images
from deer_ros.nodes.policy import messages
from deer_ros.nodes.policy.actuation import Actuation
from deer_ros.nodes.policy.depth import Depth, Wanted
from deer_ros.nodes.policy.inputs import WARN_EVERY_S, Inputs
from deer_ros.nodes.policy.outputs import Outputs
from deer_ros.nodes.policy.worker import Worker
from deer_ros.stepping.brain import Answer, Brain
from deer_ros.stepping.plan import Plan
from deer_ros.stepping.settings import Settings
from deer_ros.stepping.stepper import Account, Job, Stepper

if TYPE_CHECKING:
    from deer_ros.policy import DeerPolicy

PREEMPTED = Stop(Reason.PREEMPTED, "another instruction took the place of the goal's.")


class PolicyLoop:
    """The heart of the node. Three threads meet here, and one lock keeps them apart.

    The executor's thread tells what came in and what was asked for; the worker's thread runs steps;
    the commander's repeats commands until they end.
    Whether a result may still move the robot is decided, and the action sent, under the lock, so
    that nothing can move after a stop.
    """

    def __init__(
        self, clock: ROSClock, logger: RcutilsLogger, outputs: Outputs, settings: Settings
    ) -> None:
        self.stepper = Stepper(settings)
        self.inputs: Inputs | None = None
        self._clock = clock
        self._logger = logger
        self._outputs = outputs
        self._brain: Brain | None = None
        self._depth: Depth | None = None
        self._busy = False
        self._next: Job | None = None
        self._has_goal = False
        self._goal_end: Stop | None = None
        self._lock = threading.RLock()
        self._actuation = Actuation(
            clock, outputs, settings, self._lock, failed=self._stop_for)
        self.worker = Worker(self._lock, self._take, self._work)

    # What the executor's thread tells.

    def set_policy(self, policy: DeerPolicy | None, plan: Plan | None) -> None:
        """A model was loaded, or, with None, the one there was is given up."""
        with self._lock:
            self._brain = self._depth = None
            self._busy, self._next = False, None
            if policy is not None:
                self._brain = Brain(policy, images.to_rgb, self._complain)
                self._depth = Depth(
                    policy, self._brain, self.worker, Wanted.by(plan), self._logger)
            self._adopt(plan)

    def activate(self) -> None:
        """Steps may start."""
        with self._lock:
            self.stepper.activate()
            self.worker.wake()

    def deactivate(self, stop: Stop = DEACTIVATED) -> None:
        """Zero goes out first."""
        with self._lock:
            self._stop(stop)
            self._close_goal(stop)
            self.stepper.safety.active = False
            self._tell_cadence()

    def shut_down(self, stop: Stop) -> None:
        """Zero goes out, and no command ever after."""
        with self._lock:
            self.stepper.safety.shutdown = stop
            self._stop(stop)
            self._tell_cadence()

    def close(self, timeout_s: float) -> bool:
        """End both threads. False if a step lasts longer than `timeout_s`; it is left alone."""
        self._actuation.close()
        return self.worker.close(timeout_s)

    def set_settings(self, settings: Settings, plan: Plan | None) -> None:
        """New parameters, from the next step on."""
        with self._lock:
            before = self.stepper.plan
            turns_dry = plan is not None and plan.dry and before and not before.dry
            if turns_dry and self.stepper.safety.active:
                self._stop(Stop(Reason.DRY_RUN, plan.dry))
            self._actuation.obey(settings)
            if settings.action_frame_id != self._outputs.frame_id:
                self._change_frame(settings.action_frame_id)
            self._adopt(plan)

    def set_instruction(self, text: str) -> None:
        """A new text starts a new episode; the same one again changes nothing."""
        with self._lock:
            if not self.stepper.set_instruction(text):
                return
            self._logger.info(f"instruction: {text!r}")
            if self._has_goal:
                self._goal_end = PREEMPTED
                self._stop(PREEMPTED)
            stop = self.stepper.no_instruction()
            if stop is not None:
                self._stop(stop)
            self.worker.wake()

    def begin_goal(self, text: str) -> None:
        """Obey an instruction in a new episode, until `end_goal`, or until `goal_end` says why."""
        with self._lock:
            if self._has_goal:
                self._stop(PREEMPTED)
            self._has_goal, self._goal_end = False, None
            self.stepper.set_instruction("")
            self.set_instruction(text)
            self._has_goal = True

    def end_goal(self, stop: Stop) -> None:
        """Zero goes out, and the instruction of the goal is obeyed no more."""
        with self._lock:
            if not self._has_goal:
                return
            self._has_goal = False
            if self._goal_end is PREEMPTED:
                return
            self._stop(stop)
            self.stepper.set_instruction("")

    def goal_end(self) -> Stop | None:
        """Why the goal cannot go on, or None."""
        with self._lock:
            safety = self.stepper.safety
            if self._goal_end is not None or safety.shutdown is not None:
                return self._goal_end or safety.shutdown
            if not safety.active:
                return DEACTIVATED
            return safety.latched or self.stepper.episode.over

    def reset(self) -> str | None:
        """Start a new episode; the reason why not, or None."""
        with self._lock:
            if not self.stepper.safety.active:
                return "the node is not active."
            self._close_goal(self.goal_end())
            self.stepper.reset()
            self.worker.wake()
            return None

    def pause(self, paused: bool) -> None:
        """Zero goes out first; going on continues the episode."""
        with self._lock:
            self.stepper.safety.paused = paused
            if paused and self.stepper.safety.active:
                self._stop(PAUSED)
            self.worker.wake()

    def take_image(self, camera: str, stamp_ns: int, message: Image | CompressedImage) -> None:
        """See inputs.Listener."""
        with self._lock:
            if not self.stepper.safety.active:
                return
            stop = self.stepper.offer(camera, stamp_ns, message)
            if stop is not None:
                self._stop(stop)
            # Decided here and now: by the time the worker wakes up, more pictures may have come.
            if not self._busy:
                self._next = self._due()
            self.worker.wake()

    def refuse_image(self, camera: str, sentence: str) -> None:
        """See inputs.Listener."""
        with self._lock:
            self.stepper.sampler.count_unreadable()
        self._logger.warning(
            f"camera/{camera}: {sentence}", throttle_duration_sec=WARN_EVERY_S)

    def clock_ticked(self) -> None:
        """Simulated time has moved."""
        self._actuation.tick()
        with self._lock:
            self.worker.wake()

    def clock_jumped(self) -> None:
        """Time has been set back, or another clock counts now."""
        self.inputs.forget()
        with self._lock:
            stop = self.stepper.clock_jumped()
            if self.stepper.safety.active:
                self._stop(stop)

    def watch(self) -> None:
        """Called 20 times a second: notices what nobody tells."""
        with self._lock:
            self._note_robot()
            stop = self.stepper.watch(self._outputs.now_ns(), self._busy)
            if stop is not None:
                self._stop(stop)
            self.worker.wake()

    def input_ages(self) -> list[Input]:
        """Of both cameras and of what the robot says of itself."""
        with self._lock:
            self._note_robot()
            return self.stepper.input_ages(self._outputs.now_ns())

    # Under the lock.

    def _close_goal(self, stop: Stop | None) -> None:
        """Have the goal ended now, if it has one to end: what ends it may be over before somebody
        asks for `goal_end`."""
        if self._has_goal and stop is not None:
            self._goal_end = stop
            self.end_goal(stop)

    def _adopt(self, plan: Plan | None) -> None:
        self.stepper.adopt(plan)
        if plan is not None:
            self._depth.ask(Wanted.by(plan))

    def _change_frame(self, frame_id: str) -> None:
        """Nothing that was said, decided or commanded in another frame means anything in this."""
        self._send_zero()
        self.inputs.forget_pose()
        self.stepper.forget_pose()
        self._outputs.frame_id = frame_id

    def _note_robot(self) -> None:
        self.stepper.robot = self.inputs.state

    def _stop(self, stop: Stop) -> None:
        """Send zero and tell why, unless that has been done."""
        if self._halt(stop):
            self._outputs.status(self._status(None))

    def _halt(self, stop: Stop) -> bool:
        if not self.stepper.stop(stop):
            return False
        self._send_zero()
        if stop.reason in FAULTS:
            self._logger.warning(f"stopped: {self.stepper.safety.detail}")
        else:
            self._logger.info(f"stopped: {stop.detail}")
        return True

    def _send_zero(self) -> None:
        plan = self.stepper.plan
        if self.stepper.safety.active and plan is not None and plan.dry is None:
            self._actuation.stop()

    def _tell_cadence(self) -> None:
        cadence, plan = self.stepper.record.take_cadence(), self.stepper.plan
        if cadence.steps and plan is not None:
            self._logger.info(cadence.sentence(plan.control_rate_hz))

    def _take(self) -> Job | None:
        """The next step, for the worker."""
        job, self._next = self._next, None
        return job or self._due()

    def _due(self) -> Job | None:
        """The next step, if one may start."""
        if self._brain is None:
            return None
        self._note_robot()
        job = self.stepper.take(self._outputs.now_ns())
        if isinstance(job, Stop):
            self._stop(job)
            return None
        self._busy = job is not None
        return job

    # In the worker's thread.

    def _work(self, job: Job) -> None:
        try:
            answer = self._brain.answer(
                job.pair, job.plan, job.instruction, job.generation, job.robot)
            if answer.unmet:
                self._logger.warning(
                    f"the budget cannot be met: {answer.unmet}", throttle_duration_sec=WARN_EVERY_S)
            with self._lock:
                account = self._act(job, answer)
                status = self._status(account)
            self._outputs.status(status)
            self._show(answer)
        except Exception as error:
            self._logger.error(f"a step failed outside the model:\n{traceback.format_exc()}")
            self._stop_for(error)
        finally:
            self._busy = False

    def _stop_for(self, error: Exception) -> None:
        with self._lock:
            self._stop(Stop(Reason.MODEL_ERROR, f"{type(error).__name__}: {error}"))

    def _act(self, job: Job, answer: Answer) -> Account:
        """Under the lock: send the action, and the command if nothing has come in between."""
        self._note_robot()
        outcome = self.stepper.judge(job, answer, self._outputs.now_ns())
        account = outcome.account
        self._outputs.action(account)
        if outcome.command is not None:
            if account.commanded:
                self._actuation.send(
                    account, outcome.command, self._made_now(outcome.further))
            self._brain.commit(account.step)
            self.stepper.count(account, self._outputs.now_ns())
        elif outcome.stop is not None:
            self._halt(outcome.stop)
        return account

    def _made_now(self, commands: Iterator[Command]) -> Iterator[Command]:
        """Each is made from what the robot says of itself when it is asked for."""
        while True:
            self._note_robot()
            command = next(commands, None)
            if command is None:
                return
            yield command

    def _status(self, account: Account | None) -> PolicyStatus:
        with self._lock:
            return messages.status(self.stepper, account)

    def _complain(self, sentence: str) -> None:
        self._logger.error(sentence, throttle_duration_sec=WARN_EVERY_S)

    def _show(self, answer: Answer) -> None:
        if answer.observation is not None and self._outputs.wants_debug_image():
            step = answer.step
            text = "no answer" if step is None else (
                f"layer {step.exit_layer}  {step.cost.step_ms:.0f} ms  "
                f"gripper {step.gripper:+.0f}  action {np.round(step.action, 2).tolist()}")
            self._outputs.debug_image(answer.observation.static, answer.observation.gripper, text)

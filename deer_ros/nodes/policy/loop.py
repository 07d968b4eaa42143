"""From pictures to commands: one step after the other, and a stop whenever something is wrong."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from rclpy.clock import ROSClock
from rclpy.impl.rcutils_logger import RcutilsLogger
from sensor_msgs.msg import CompressedImage, Image

from deer_ros.control.command import Command
from deer_ros.control.episode import Episode
from deer_ros.control.safety import (
    DEACTIVATED,
    NO_INSTRUCTION,
    PAUSED,
    Input,
    Reason,
    Safety,
    Stop,
    stale,
)
from deer_ros.control.sampler import CAMERAS, CLOCK_JUMPED, Offer, Pair, Sampler
from deer_ros.msg import PolicyStatus
from deer_ros.nodes.policy import messages
from deer_ros.nodes.policy.actuation import Actuation
from deer_ros.nodes.policy.brain import Answer, Brain
from deer_ros.nodes.policy.depth import Depth
from deer_ros.nodes.policy.inputs import WARN_EVERY_S, Inputs, RobotState
from deer_ros.nodes.policy.messages import Account
from deer_ros.nodes.policy.outputs import Outputs
from deer_ros.nodes.policy.plan import Plan
from deer_ros.nodes.policy.record import Record
from deer_ros.nodes.policy.settings import Settings
from deer_ros.nodes.policy.worker import Worker

if TYPE_CHECKING:
    from deer_ros.policy import DeerPolicy

# Stops that somebody asked for are no warning.
_ON_REQUEST = (Reason.PAUSED, Reason.DEACTIVATED, Reason.SHUTDOWN, Reason.DRY_RUN,
               Reason.EPISODE_OVER)


@dataclass(frozen=True, eq=False)
class Job:
    """Everything that one step needs, taken together under the lock."""

    pair: Pair
    plan: Plan
    instruction: str
    generation: int
    age_s: float
    robot: RobotState


class PolicyLoop:
    """The heart of the node. Two threads meet here, and one lock keeps them apart.

    The executor's thread tells what came in and what was asked for; the worker's thread runs steps.
    Whether a result may still move the robot is decided, and the action sent, under the lock, so
    that nothing can move after a stop.
    """

    def __init__(
        self, clock: ROSClock, logger: RcutilsLogger, outputs: Outputs, settings: Settings
    ) -> None:
        self.safety = Safety()
        self.episode = Episode()
        self.record = Record()
        self.instruction = ""
        self.plan: Plan | None = None
        self.inputs: Inputs | None = None
        self.sampler = Sampler(1.0, settings.image_max_skew, settings.safety_input_timeout)
        self._clock = clock
        self._logger = logger
        self._outputs = outputs
        self._brain: Brain | None = None
        self._depth: Depth | None = None
        self._busy = False
        self._lock = threading.RLock()
        self._actuation = Actuation(clock, outputs, settings.command_rate)
        self.worker = Worker(self._lock, self._take, self._work)

    # What the executor's thread tells.

    def set_policy(self, policy: DeerPolicy | None, plan: Plan | None) -> None:
        """A model was loaded, or, with None, the one there was is given up."""
        with self._lock:
            self._brain = self._depth = None
            if policy is not None:
                self._brain = Brain(policy, self._logger)
                self._depth = Depth(policy, self._brain, self.worker,
                                    plan.settings.exit_max_layer, self._logger)
            self._adopt(plan)

    def activate(self) -> None:
        """Steps may start."""
        with self._lock:
            self.sampler.forget()
            self._actuation.start_afresh()
            self._restart("activated")
            self.safety.activate()

    def deactivate(self) -> None:
        """Zero goes out first."""
        with self._lock:
            self._stop(DEACTIVATED)
            self.safety.active = False

    def shut_down(self, sentence: str) -> None:
        """Zero goes out, and no command ever after."""
        with self._lock:
            self.safety.shutdown = Stop(Reason.SHUTDOWN, sentence)
            self._stop(self.safety.shutdown)

    def close(self, timeout_s: float) -> bool:
        """End both threads. False if a step lasts longer than `timeout_s`; it is left alone."""
        self._actuation.close()
        return self.worker.close(timeout_s)

    def set_settings(self, settings: Settings, plan: Plan | None) -> None:
        """New parameters, from the next step on."""
        with self._lock:
            turns_dry = plan is not None and plan.dry and self.plan and not self.plan.dry
            if turns_dry and self.safety.active:
                self._stop(Stop(Reason.DRY_RUN, plan.dry))
            self._actuation.set_rate(settings.command_rate)
            self._outputs.frame_id = settings.action_frame_id
            self._adopt(plan)

    def set_instruction(self, text: str) -> None:
        """A new text starts a new episode; the same one again changes nothing."""
        with self._lock:
            if text == self.instruction:
                return
            self.instruction = text
            self.safety.has_instruction = bool(text.strip())
            self._restart("new instruction")
            self._logger.info(f"instruction: {text!r}")
            if self.safety.active and not self.safety.has_instruction:
                self._stop(NO_INSTRUCTION)

    def reset(self) -> str | None:
        """Start a new episode; the reason why not, or None."""
        with self._lock:
            if not self.safety.active:
                return "the node is not active."
            self._restart("~/reset was called")
            return None

    def pause(self, paused: bool) -> None:
        """Zero goes out first; going on continues the episode."""
        with self._lock:
            self.safety.paused = paused
            if paused and self.safety.active:
                self._stop(PAUSED)
            self.worker.wake()

    def take_image(self, camera: str, stamp_ns: int, message: Image | CompressedImage) -> None:
        """See inputs.Listener."""
        with self._lock:
            if not self.safety.active:
                return
            if self.sampler.offer(camera, stamp_ns, message) is Offer.CLOCK_JUMPED:
                self._stop(Stop(Reason.CLOCK_JUMPED, f"stamps on camera/{camera} fell back."))
            self.worker.wake()

    def refuse_image(self, camera: str, sentence: str) -> None:
        """See inputs.Listener."""
        with self._lock:
            self.sampler.count_unreadable()
        self._logger.warning(
            f"camera/{camera}: {sentence}", throttle_duration_sec=WARN_EVERY_S)

    def clock_ticked(self) -> None:
        """Simulated time has moved."""
        self._actuation.tick()
        with self._lock:
            self.worker.wake()

    def clock_jumped(self) -> None:
        """Time has been set back, or another clock counts now."""
        with self._lock:
            self.sampler.forget(CLOCK_JUMPED)
            if self.safety.active:
                self._stop(Stop(Reason.CLOCK_JUMPED, "the clock was set."))

    def watch(self) -> None:
        """Called 20 times a second: notices what nobody tells."""
        with self._lock:
            if not self.safety.active or self.plan is None:
                return
            stop = self._hindrance() or self._unpaired()
            if stop is None:
                self.safety.clear()
            else:
                self._stop(stop)
            self.worker.wake()

    def input_ages(self) -> list[Input]:
        """Of both cameras and of what the robot says of itself."""
        now_ns = self._outputs.now_ns()
        robot = self.inputs.state
        ages = [Input(f"camera/{name}/image", _age_s(now_ns, self.sampler.newest_ns(name)))
                for name in CAMERAS]
        ages.append(Input("end_effector/pose", _age_s(now_ns, robot.pose_stamp_ns or None)))
        ages.append(Input("joint_states", _age_s(now_ns, robot.joints_stamp_ns or None)))
        return ages

    # Under the lock.

    def _adopt(self, plan: Plan | None) -> None:
        self.plan = plan
        self.record.restart_averages()
        if plan is not None:
            settings = plan.settings
            self._depth.ask(settings.exit_max_layer)
            self.sampler.set_times(1.0 / plan.control_rate_hz, settings.image_max_skew,
                                   settings.safety_input_timeout)

    def _restart(self, reason: str) -> None:
        self.episode.restart(reason)
        self.sampler.starts_episode()
        self._actuation.forget_target()
        self.worker.wake()

    def _stop(self, stop: Stop) -> None:
        """Send zero and tell why, unless that has been done."""
        if self._halt(stop):
            self._outputs.status(self._status(None))

    def _halt(self, stop: Stop) -> bool:
        if not self.safety.stop(stop):
            return False
        if self.safety.active and self.plan is not None and self.plan.dry is None:
            self._actuation.stop()
        self._actuation.forget_target()
        if stop.reason in _ON_REQUEST:
            self._logger.info(f"stopped: {stop.detail}")
        else:
            self._logger.warning(f"stopped: {stop.detail}")
        return True

    def _hindrance(self) -> Stop | None:
        """What forbids a step now."""
        ages = self.input_ages()[:3 if self.plan.needs_pose else 2]
        return self.safety.hindrance(
            self.episode.over, stale(ages, self.plan.settings.safety_input_timeout))

    def _unpaired(self) -> Stop | None:
        """Both cameras send, but never two pictures that belong together."""
        skew_s, largest_s = self.sampler.skew_s(), self.plan.settings.image_max_skew
        if self._busy or skew_s is None or skew_s <= largest_s:
            return None
        idle_s = _age_s(self._outputs.now_ns(), self.record.last_step_ns)
        if idle_s is not None and idle_s <= self.plan.settings.safety_input_timeout:
            return None
        return Stop(
            Reason.INPUT_STALE,
            f"the newest pictures of both cameras are {skew_s:.3f} s apart (image.max_skew is "
            f"{largest_s:g} s).",
        )

    def _take(self) -> Job | None:
        """The next step, if one may start."""
        if self._brain is None or self.plan is None or self._hindrance() is not None:
            return None
        pair = self.sampler.take()
        if pair is None:
            return None
        if pair.new_episode is not None:
            self._restart(pair.new_episode)
        elif self.episode.ends(pair.stamp_ns, self.plan.max_duration_s):
            self.sampler.give_back(unreadable=0)
            self._stop(self.episode.over)
            return None
        self._busy = True
        return Job(
            pair, self.plan, self.instruction, self.episode.generation,
            _age_s(self._outputs.now_ns(), pair.stamp_ns), self.inputs.state)

    # In the worker's thread.

    def _work(self, job: Job) -> None:
        try:
            answer = self._brain.answer(job.pair, job.plan, job.instruction, job.generation)
            with self._lock:
                account = self._act(job, answer)
                status = self._status(account)
            self._outputs.status(status)
            self._show(answer)
        except Exception as error:
            self._logger.error(f"a step failed outside the model: {error!r}")
        finally:
            self._busy = False

    def _act(self, job: Job, answer: Answer) -> Account:
        """Under the lock: send the action, and the command if nothing has come in between."""
        if answer.observation is None:
            self.sampler.give_back(answer.unreadable)
        is_current = job.generation == self.episode.generation and self._hindrance() is None
        step, stop, command = answer.step, answer.stop, None
        if step is not None and is_current:
            try:
                command = self._actuation.command(step, job.plan, job.robot.pose)
            except ValueError as error:
                step, stop = None, Stop(Reason.NOT_FINITE, str(error))
        account = Account(
            job.pair, job.plan, job.instruction, self.episode.number, self.episode.step + 1,
            job.age_s, step, answer.thresholds, answer.max_layer,
            commanded=command is not None and self.plan.dry is None,
            clamped=command.clamped if command is not None else (),
        )
        self._outputs.action(account)
        if command is not None:
            self._carry_out(account, command)
        elif stop is not None and is_current:
            self._halt(stop)
        return account

    def _carry_out(self, account: Account, command: Command) -> None:
        if account.commanded:
            self._actuation.send(account.step, account.plan, command)
        self._brain.commit(account.step)
        self.episode.count_step(account.pair.stamp_ns)
        self.record.count(account.step, self._outputs.now_ns())
        self.safety.moved(self.plan.dry)

    def _status(self, account: Account | None) -> PolicyStatus:
        with self._lock:
            return messages.status(
                self.safety, self.episode, self.sampler, self.record, self.instruction, self.plan,
                account)

    def _show(self, answer: Answer) -> None:
        if answer.observation is not None and self._outputs.wants_debug_image():
            step = answer.step
            text = "no answer" if step is None else (
                f"layer {step.exit_layer}  {step.cost.step_ms:.0f} ms  "
                f"gripper {step.gripper:+.0f}  action {np.round(step.action, 2).tolist()}")
            self._outputs.debug_image(answer.observation.static, answer.observation.gripper, text)


def _age_s(now_ns: int, stamp_ns: int | None) -> float | None:
    return None if stamp_ns is None else (now_ns - stamp_ns) / 1e9

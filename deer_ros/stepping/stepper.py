"""When a step is made, with what, and what becomes of its answer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from deer_ros.control.command import ActionTooLargeError, Command, CommandMaker, Pose
from deer_ros.control.episode import Episode
from deer_ros.control.frozen import FrozenImages
from deer_ros.control.safety import (
    NO_INSTRUCTION,
    Input,
    Reason,
    Safety,
    State,
    Stop,
    age_s,
    stale,
)
from deer_ros.control.sampler import CAMERAS, CLOCK_JUMPED, Offer, Pair, Sampler
from deer_ros.stepping.brain import Answer
from deer_ros.stepping.plan import Plan
from deer_ros.stepping.record import Record
from deer_ros.stepping.robot import RobotState

if TYPE_CHECKING:
    from deer_ros.policy import Step
    from deer_ros.stepping.settings import Settings


@dataclass(frozen=True, eq=False)
class Job:
    """Everything that one step needs, taken together. age_s: of the newer picture when it began."""

    pair: Pair
    plan: Plan
    instruction: str
    generation: int
    started_ns: int
    age_s: float
    robot: RobotState


@dataclass(frozen=True, eq=False)
class Account:
    """One step as it is told: what went in, what came out, what became of it.

    step: None where the model gave no answer. episode, number: of this step. thresholds, max_layer,
    binding, unmet: as in Answer.
    """

    pair: Pair
    plan: Plan
    instruction: str
    episode: int
    number: int
    age_s: float
    step: Step | None
    thresholds: tuple[float, ...]
    max_layer: int
    binding: str
    unmet: str
    commanded: bool
    clamped: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Outcome:
    """command: what the step asks for, None if nothing may follow from it. further: what its action
    asks for in the control periods after the first, each made when it is asked for, and none after
    a stop or for a new episode. stop: why not, if the step itself is at fault."""

    account: Account
    command: Command | None
    further: Iterator[Command]
    stop: Stop | None


class Stepper:
    """All that decides when the policy makes a step, and whether its answer counts.

    It reads no clock, starts no thread and sends nothing: the node tells it what comes in and
    carries out what it says, replay does the same with a bag. Times are integer nanoseconds of one
    clock, that of the stamps. Whoever uses it from several threads holds a lock.
    """

    def __init__(self, settings: Settings) -> None:
        self.safety = Safety()
        self.episode = Episode()
        self.record = Record()
        self.instruction = ""
        self.plan: Plan | None = None
        self.last: Account | None = None
        """Of the last step that was made with this budget and rule."""
        self.robot = RobotState()
        self.sampler = Sampler(1.0, settings.image_max_skew, settings.safety_input_timeout)
        self._maker = CommandMaker()
        self._frozen = FrozenImages()
        self._carried_out: Job | None = None
        self._in_work: Job | None = None
        self._awaited: Job | None = None
        self._unreadable_since_ns: int | None = None

    def adopt(self, plan: Plan | None) -> None:
        """Obey another plan from the next step on; None: there is no model."""
        if plan is None or self.plan is None or not plan.costs_as(self.plan):
            self.record.restart_averages()
            self.last = None
        self.plan = plan
        if plan is not None:
            settings, executions = plan.settings, plan.semantics.executions_per_step
            self.safety.latches = settings.safety_recovery == "latched"
            self.sampler.set_times(
                1.0 / (executions * plan.control_rate_hz), settings.image_max_skew,
                settings.safety_input_timeout, executions,
            )

    def activate(self) -> None:
        """Steps may be made."""
        self.sampler.forget()
        self._in_work = self._unreadable_since_ns = None
        self.restart("activated")
        self.safety.activate()

    def reset(self) -> None:
        """Somebody asked for a new episode: nothing that was latched stands in its way."""
        self.safety.release()
        self.restart("~/reset was called")

    def restart(self, reason: str) -> None:
        """Begin a new episode with the next step."""
        self.episode.restart(reason)
        self.sampler.starts_episode()
        self._frozen.restart()
        self._end_action()

    def set_instruction(self, text: str) -> bool:
        """A new text starts a new episode; False, and nothing changes, if it is the same again."""
        if text == self.instruction:
            return False
        self.instruction = text
        self.safety.has_instruction = bool(text.strip())
        self.restart("new instruction")
        return True

    def offer(self, camera: str, stamp_ns: int, message: Any) -> Stop | None:
        """A picture came. A stop where its stamp says that the clock was set."""
        offer = self.sampler.offer(camera, stamp_ns, message)
        if offer is Offer.CLOCK_JUMPED:
            self._frozen.restart()
            return Stop(Reason.CLOCK_JUMPED, f"stamps on camera/{camera} fell back.")
        if offer is Offer.KEPT:
            self._frozen.offer(camera, stamp_ns, getattr(message, "data", None))
        return None

    def clock_jumped(self) -> Stop:
        """Time itself was set: nothing of before counts any more, and a new episode begins."""
        self.sampler.forget()
        self.robot = RobotState()
        self.record.last_step_ns = None
        self.restart(CLOCK_JUMPED)
        return Stop(Reason.CLOCK_JUMPED, "the clock was set.")

    def forget_pose(self) -> None:
        """Where the robot was no longer counts, nor what was decided on it."""
        self.robot = self.robot.without_pose()
        self._end_action()

    def stop(self, stop: Stop) -> bool:
        """Note why no step is made, nor one that is being made counts. False where that is known
        already."""
        self._end_action()
        return self.safety.stop(stop)

    def input_ages(self, now_ns: int) -> list[Input]:
        """Of both cameras and of what the robot says of itself."""
        plan = self.plan
        needs_pose = plan is not None and self._needs_pose(plan)
        layout = () if plan is None else plan.layout
        return [
            *(Input(f"camera/{name}/image", age_s(now_ns, self.sampler.newest_ns(name)),
                    self.sampler.repeats(name)) for name in CAMERAS),
            self.robot.pose_input(now_ns, needs_pose),
            self.robot.joints_input(now_ns, layout),
        ]

    def hindrance(self, now_ns: int) -> Stop | None:
        """What forbids a step now."""
        ages = [source for source in self.input_ages(now_ns) if source.is_needed]
        settings = self.plan.settings
        wrong = stale(ages, settings.safety_input_timeout) or self._frozen.stop(
            settings.safety_frozen_image_timeout)
        return self.safety.hindrance(self.episode.over, wrong)

    def watch(self, now_ns: int, busy: bool = False) -> Stop | None:
        """What nobody tells: inputs that fail to come. To be asked often; notes nothing itself.

        busy: a step is being made.
        """
        if not self.safety.active or self.plan is None:
            return None
        stop = self.hindrance(now_ns)
        if stop is None and busy:
            stop = self._overrun(now_ns)
        elif stop is None:
            stop = self._unpaired(now_ns) or self._unreadable(now_ns)
        # Whether pictures can be read again, a step that is being made has yet to tell.
        if stop is None and self._unreadable(now_ns) is None:
            self.safety.clear()
        return stop

    def take(self, now_ns: int) -> Job | Stop | None:
        """The next step, if one may start; or a stop, if the episode ends before it."""
        if self.plan is None or self.hindrance(now_ns) is not None:
            return None
        pair = self.sampler.take()
        if pair is None:
            return None
        if pair.new_episode is not None:
            self.restart(pair.new_episode)
        elif self.episode.ends(pair.stamp_ns, self.plan.max_duration_s):
            self.sampler.give_back(unreadable=0)
            return self.episode.over
        self._in_work = self._awaited = Job(
            pair, self.plan, self.instruction, self.episode.generation, now_ns,
            age_s(now_ns, pair.stamp_ns), self.robot,
        )
        return self._in_work

    def judge(self, job: Job, answer: Answer, now_ns: int) -> Outcome:
        """What follows from an answer, if nothing has come in between."""
        self._note_reading(answer, now_ns)
        is_current = job is self._awaited and self.hindrance(now_ns) is None
        step, stop, command = answer.step, answer.stop or self._overrun(now_ns), None
        self._in_work = None
        if step is not None and stop is None and is_current:
            try:
                command = self._command(step, job, now_ns)
            except ActionTooLargeError as error:
                step, stop = None, Stop(Reason.OVER_LIMIT, str(error))
            except ValueError as error:
                step, stop = None, Stop(Reason.NOT_FINITE, str(error))
        account = Account(
            job.pair, job.plan, job.instruction, self.episode.number, self.episode.step + 1,
            job.age_s, step, answer.thresholds, answer.max_layer, answer.binding, answer.unmet,
            commanded=command is not None and job.plan.dry is None and self.plan.dry is None,
            clamped=command.clamped if command is not None else (),
        )
        further = self._again(job, step, now_ns) if account.commanded else iter(())
        return Outcome(account, command, further, stop if is_current else None)

    def count(self, account: Account, now_ns: int) -> None:
        """A step was carried out; the caller has advanced the recurrent state."""
        is_of_before = not account.plan.costs_as(self.plan)
        if not is_of_before:
            self.last = account
        self.episode.count_step(account.pair.stamp_ns)
        self.record.count(
            account.step, now_ns, self.safety.state is State.RUNNING, is_of_before)
        self.safety.moved(account.plan.dry or self.plan.dry)
        if account.commanded:
            self._frozen.moved(account.pair.stamp_ns)
        else:
            self._frozen.rested()

    def no_instruction(self) -> Stop | None:
        """The stop of an active policy that has nothing to do."""
        if self.safety.active and not self.safety.has_instruction:
            return NO_INSTRUCTION
        return None

    def _needs_pose(self, plan: Plan) -> bool:
        """Where each action starts from the measured pose, a robot that has told its pose must go
        on telling it: it is neither led from an old one nor turned as if there were none."""
        is_led = plan.semantics.reference == "measured" and self.robot.pose is not None
        return plan.needs_pose or is_led

    def _recent_pose(self, plan: Plan, now_ns: int) -> Pose | None:
        return self.robot.recent_pose(now_ns, plan.settings.safety_input_timeout)

    def _command(self, step: Step, job: Job, now_ns: int) -> Command:
        """What the step asks for, within the limits. Raises ValueError as CommandMaker."""
        self._carried_out = job
        plan = job.plan
        command = self._maker.command(
            step.action, plan.semantics, plan.limits, self._recent_pose(plan, now_ns)
        )
        if plan.dry is not None:
            # Nobody follows a target that is not sent.
            self._end_action()
        return command

    def _again(self, job: Job, step: Step, now_ns: int) -> Iterator[Command]:
        """The same action, from where the robot, or its target, is by then: a period later each."""
        plan = job.plan
        period_ns = round(1e9 * plan.semantics.period_s)
        for number in range(1, plan.semantics.executions_per_step):
            pose = self._recent_pose(plan, now_ns + number * period_ns)
            is_lost = pose is None and self._needs_pose(plan)
            if self._carried_out is not job or is_lost:
                return
            yield self._maker.command(step.action, plan.semantics, plan.limits, pose)

    def _end_action(self) -> None:
        """Nothing more follows from the last action, nor from the step that is being made, and the
        next starts from the measured pose."""
        self._carried_out = self._awaited = None
        self._maker.rest()
        self._frozen.rested()

    def _note_reading(self, answer: Answer, now_ns: int) -> None:
        if answer.observation is not None:
            self._unreadable_since_ns = None
            return
        self.sampler.give_back(answer.unreadable)
        if self._unreadable_since_ns is None:
            self._unreadable_since_ns = now_ns

    def _unreadable(self, now_ns: int) -> Stop | None:
        """Both cameras send, but no picture of one of them can be read."""
        timeout_s = self.plan.settings.safety_input_timeout
        since_s = age_s(now_ns, self._unreadable_since_ns)
        if since_s is None or since_s <= timeout_s:
            return None
        return Stop(
            Reason.INPUT_STALE,
            f"for {since_s:.2f} s no two pictures could be read (safety.input_timeout is "
            f"{timeout_s:g} s); the log says what is wrong with them.",
        )

    def _overrun(self, now_ns: int) -> Stop | None:
        """The step that is being made lasts too long."""
        job = self._in_work
        if job is None or (now_ns - job.started_ns) / 1e9 <= job.plan.step_timeout_s:
            return None
        return Stop(
            Reason.DEADLINE_OVERRUN,
            f"a step has lasted {(now_ns - job.started_ns) / 1e9:.2f} s, more than "
            f"{job.plan.step_timeout_s:.3g} s (safety.step_timeout, budget.latency_ms); its answer "
            "is dropped.",
        )

    def _unpaired(self, now_ns: int) -> Stop | None:
        """Both cameras send, but never two pictures that belong together."""
        skew_s, largest_s = self.sampler.skew_s(), self.plan.settings.image_max_skew
        if skew_s is None or skew_s <= largest_s:
            return None
        idle_s = age_s(now_ns, self.record.last_step_ns)
        if idle_s is not None and idle_s <= self.plan.settings.safety_input_timeout:
            return None
        return Stop(
            Reason.CAMERAS_APART,
            f"the newest pictures of both cameras are {skew_s:.3f} s apart (image.max_skew is "
            f"{largest_s:g} s).",
        )

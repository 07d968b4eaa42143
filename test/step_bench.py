"""A stepper, its clock and its cameras, for tests in virtual time."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import numpy as np
from tiny_model import tiny_config

from deer_ros.budget.budget import Budget
from deer_ros.control import rotation
from deer_ros.control.command import Pose
from deer_ros.control.safety import Reason, Stop
from deer_ros.control.sampler import CAMERAS
from deer_ros.decision import Step
from deer_ros.observation import Observation
from deer_ros.stepping.brain import Answer
from deer_ros.stepping.plan import Plan
from deer_ros.stepping.settings import Settings
from deer_ros.stepping.stepper import Stepper

MS = 1_000_000
PERIOD_MS = 50
PICTURE = np.zeros((8, 8, 3), np.uint8)


class Message:
    def __init__(self, data: bytes):
        self.data = data


class Bench:
    """A stepper and the time; pictures differ unless a test says otherwise.

    semantics: what the model's configuration says of actions, other than usual.
    """

    def __init__(self, budget: Budget | None = None, semantics: dict | None = None, **changes):
        usual = tiny_config()
        config = usual.replace(action=dataclasses.replace(usual.action, **semantics or {}))
        settings = Settings().replaced(
            {"allow_simulation_model": True, "episode.max_duration": 3600} | changes, config)
        self.stepper = Stepper(settings)
        plan = dataclasses.replace(Plan.of(settings, config), budget=budget)
        self.stepper.adopt(plan)
        self.stepper.activate()
        self.stepper.set_instruction("open the drawer")
        self.now_ms = 1000

    def show(self, same: bytes | None = None, late_ms: int = 0) -> None:
        for camera in CAMERAS:
            data = str(self.now_ms).encode() if same is None else same
            self.stepper.offer(camera, (self.now_ms - late_ms) * MS, Message(data))

    def tell_pose(self, x: float, late_ms: int = 0) -> None:
        """The end effector is at x now, or was so long ago."""
        pose = Pose(np.array([x, 0.0, 0.0]), rotation.IDENTITY)
        self.stepper.robot = self.stepper.robot.with_pose(pose, (self.now_ms - late_ms) * MS)

    def step(self, lasts_ms: int = 0, action=(0.5, 0, 0, 0, 0, 0), readable=True,
             meanwhile=lambda: None, **shown):
        """One period: pictures, and a step if one is due. The outcome, or None."""
        self.now_ms += PERIOD_MS
        self.show(**shown)
        job = self.stepper.take(self.now_ms * MS)
        if job is None:
            return None
        meanwhile()
        step = Step(np.array(action, np.float32), 1.0, 0.9, 6, np.full(3, np.nan, np.float32),
                    _cost(), None)
        answer = Answer(Observation(PICTURE, PICTURE), step, (np.inf,) * 3, 6)
        if not readable:
            answer = Answer(unreadable=1)
        now_ns = (self.now_ms + lasts_ms) * MS
        outcome = self.stepper.judge(job, answer, now_ns)
        if outcome.command is not None:
            self.stepper.count(outcome.account, now_ns)
        elif outcome.stop is not None:
            self.stepper.stop(outcome.stop)
        return outcome

    def watch(self, busy: bool = False) -> Stop | None:
        stop = self.stepper.watch(self.now_ms * MS, busy)
        if stop is not None:
            self.stepper.stop(stop)
        return stop

    @property
    def reason(self) -> Reason:
        return self.stepper.safety.reason


def _cost() -> SimpleNamespace:
    return SimpleNamespace(llm_gflops=1.0, step_gflops=1.0, step_ms=10.0)

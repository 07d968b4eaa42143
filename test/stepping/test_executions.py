"""An action that is carried out several times, as the stepper tells it to node and replay."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from tiny_model import tiny_config

from deer_ros.control import rotation
from deer_ros.control.command import Pose
from deer_ros.control.safety import PAUSED
from deer_ros.control.sampler import CAMERAS
from deer_ros.decision import Step
from deer_ros.observation import Observation
from deer_ros.stepping import contents
from deer_ros.stepping.brain import Answer
from deer_ros.stepping.plan import Plan
from deer_ros.stepping.robot import RobotState
from deer_ros.stepping.settings import Settings
from deer_ros.stepping.stepper import Stepper

MS = 1_000_000
PERIOD_MS = 50
ACTION = np.array([0.5, 0, 0, 0, 0, 0], np.float32)
ADVANCE_M = 0.5 * 0.04  # of the tiny model's linear scale


def robot_at(x: float) -> RobotState:
    return RobotState(pose=Pose(np.array([x, 0.0, 0.0]), rotation.IDENTITY), pose_stamp_ns=MS)


def stepper(executions: int, reference: str = "target", **changes) -> Stepper:
    action = dataclasses.replace(
        tiny_config().action, executions_per_step=executions, reference=reference)
    config = tiny_config(action=action)
    lasting = {"allow_simulation_model": True, "safety.input_timeout": 60.0}
    settings = Settings().replaced(lasting | changes, config)
    subject = Stepper(settings)
    subject.adopt(Plan.of(settings, config))
    subject.activate()
    subject.set_instruction("open the drawer")
    subject.robot = robot_at(0.0)
    return subject


def take(subject: Stepper, now_ms: int):
    for camera in CAMERAS:
        subject.offer(camera, now_ms * MS, None)
    return subject.take(now_ms * MS)


def judge(subject: Stepper, job, now_ms: int):
    """The outcome of a step, counted if it is carried out."""
    step = Step(ACTION, 1.0, 0.9, 6, np.full(3, np.nan, np.float32), None, None)
    picture = np.zeros((8, 8, 3), np.uint8)
    answer = Answer(Observation(picture, picture), step, (np.inf,) * 3, 6)
    return subject.judge(job, answer, now_ms * MS)


def x_of(command) -> float:
    return command.target.position[0]


@pytest.mark.parametrize("executions", [1, 2, 5])
def test_every_execution_moves_the_target_on_by_the_action(executions):
    subject = stepper(executions)
    for number in range(3):
        now_ms = 1000 + number * executions * PERIOD_MS
        outcome = judge(subject, take(subject, now_ms), now_ms)
        targets = [x_of(command) for command in (outcome.command, *outcome.further)]
        first = number * executions + 1
        np.testing.assert_allclose(
            targets, ADVANCE_M * np.arange(first, first + executions), rtol=1e-6)
        assert contents.action(outcome.account)["executions"] == executions


def test_the_next_step_waits_for_all_executions():
    subject = stepper(3)
    started = [now for now in range(1000, 1000 + 12 * PERIOD_MS, PERIOD_MS)
               if take(subject, now) is not None]
    assert started == [1000, 1150, 1300, 1450]


def test_a_rate_that_the_user_asks_for_is_of_steps_not_of_executions():
    subject = stepper(2, control_rate=5)
    assert subject.plan.semantics.step_rate_hz == 10.0
    assert any("trained at 10 Hz, and an action lasts 100 ms" in sentence
               for sentence in subject.plan.warnings())
    started = [now for now in range(1000, 2000, PERIOD_MS) if take(subject, now) is not None]
    assert started == [1000, 1200, 1400, 1600, 1800]


def test_where_the_measured_pose_counts_each_execution_starts_from_the_newest():
    subject = stepper(3, reference="measured")
    outcome = judge(subject, take(subject, 1000), 1000)
    subject.robot = robot_at(0.3)
    assert x_of(next(outcome.further)) == pytest.approx(0.3 + ADVANCE_M)
    subject.robot = robot_at(-0.1)
    assert x_of(next(outcome.further)) == pytest.approx(-0.1 + ADVANCE_M)
    assert next(outcome.further, None) is None


@pytest.mark.parametrize("event", [
    lambda subject: subject.stop(PAUSED),
    lambda subject: subject.restart("~/reset was called"),
    lambda subject: subject.set_instruction("close the drawer"),
])
def test_nothing_further_follows_after_a_stop_or_for_a_new_episode(event):
    subject = stepper(4)
    outcome = judge(subject, take(subject, 1000), 1000)
    next(outcome.further)
    event(subject)
    assert list(outcome.further) == []
    subject.robot = robot_at(0.7)
    subject.safety.clear()
    now_ms = 1000 + 4 * PERIOD_MS
    again = judge(subject, take(subject, now_ms), now_ms)
    assert x_of(again.command) == pytest.approx(0.7 + ADVANCE_M), "from the measured pose"


def test_the_next_action_ends_what_is_left_of_the_last():
    subject = stepper(2)
    first = judge(subject, take(subject, 1000), 1000)
    second = judge(subject, take(subject, 1100), 1100)
    assert list(first.further) == []
    assert x_of(second.command) == pytest.approx(2 * ADVANCE_M)
    assert len(list(second.further)) == 1


def test_what_is_not_commanded_is_not_carried_out_again():
    subject = stepper(3, dry_run=True)
    outcome = judge(subject, take(subject, 1000), 1000)
    assert not outcome.account.commanded and list(outcome.further) == []

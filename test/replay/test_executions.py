"""Actions that are carried out several times in a row, in a replay."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from lockstep import lockstep
from robot_bags import START_NS, write_bag
from tiny_model import tiny_config, write_tiny_model

from deer_ros.data.recording import Recording
from deer_ros.replay.summary import summary

FRAMES, PERIOD_NS = 24, 50_000_000


@pytest.fixture(params=[2, 3])
def executions(request) -> int:
    return request.param


@pytest.fixture
def replayed(executions, tmp_path):
    action = dataclasses.replace(tiny_config().action, executions_per_step=executions)
    model = write_tiny_model(tmp_path / "model", action=action)
    bag = write_bag(tmp_path / "bag", frames=FRAMES)
    return lockstep(model, bag, tmp_path / "out")


def said(folder: Path, topic: str) -> list:
    with Recording(folder) as recording:
        return [recording.decode(t, data) for t, _, data in recording.messages([topic])]


def test_a_step_is_made_once_all_executions_of_the_one_before_are_over(executions, replayed):
    stamps_ns = [step.stamps_ns[0] for step in replayed.runs[0].steps]
    assert stamps_ns == [START_NS + i * PERIOD_NS for i in range(0, FRAMES, executions)]


def test_the_bag_says_how_often_each_action_would_be_carried_out(executions, replayed, tmp_path):
    actions = said(tmp_path / "out", "/deer/action")
    assert len(actions) == FRAMES // executions
    assert {action.executions for action in actions} == {executions}
    assert not any(action.commanded for action in actions)


def test_jerk_is_that_of_velocities_that_hold_for_all_executions(executions, replayed):
    steps = replayed.runs[0].steps
    velocity = np.array([step.action[:3] for step in steps], np.float64) * 0.04 * 20
    second = (velocity[2:] - 2 * velocity[1:-1] + velocity[:-2]) * (20 / executions) ** 2
    expected = np.sqrt(np.mean(np.sum(second**2, axis=1)))
    assert summary([replayed], 0)["jerk_m_s3"]["policy"] == pytest.approx(expected, rel=1e-4)


def test_what_was_recorded_at_a_steps_picture_is_compared_with_it(executions, replayed):
    for number, step in enumerate(replayed.runs[0].steps):
        frame = number * executions
        expected = 0.1 * np.sin(frame + np.arange(6)) / np.repeat([0.04 * 20, 0.05 * 20], 3)
        np.testing.assert_allclose(step.recorded_action[:6], expected, rtol=1e-5)

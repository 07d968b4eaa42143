from __future__ import annotations

import re

import numpy as np
import pytest

from deer_ros.data.bags import BagError, EpisodeBagWriter, read_episodes
from deer_ros.sim import collection
from deer_ros.sim.collection import (
    BagPlan,
    Settings,
    SimulatorUnits,
    find_summaries,
    manifest,
    plan_bags,
    read_summary,
    record_bag,
)
from deer_ros.sim.robot import SimulatedRobot
from deer_ros.sim.tasks import EVALUATION_SEED_START

SETTINGS = Settings(seed=3, height=32, width=32)


@pytest.fixture(scope="module")
def robot():
    robot = SimulatedRobot(height=32, width=32)
    yield robot
    robot.close()


def test_bags_are_planned_so_that_every_task_comes_early():
    plans = plan_bags(["reach", "push"], 60)
    assert [(plan.task, plan.index, plan.episodes) for plan in plans] == [
        ("reach", 0, 25), ("push", 0, 25),
        ("reach", 1, 25), ("push", 1, 25),
        ("reach", 2, 10), ("push", 2, 10),
    ]
    assert plans[2].name == "reach-001"


def test_a_bag_holds_the_planned_episodes_and_says_how_it_was_made(tmp_path, robot):
    results = []
    summary = record_bag(tmp_path, BagPlan("reach", 1, 3), SETTINGS, robot, results.append)
    episodes = list(read_episodes(tmp_path / "reach-001", SimulatorUnits()))
    assert len(episodes) == summary.episodes == results.count(True) == 3
    assert len(results) == summary.attempts
    assert sum(map(len, episodes)) == summary.frames
    assert read_summary(tmp_path / "reach-001") == summary
    assert summary.settings == SETTINGS and summary.instruction == episodes[0].instruction
    assert len(set(summary.seeds)) == 3 and max(summary.seeds) < EVALUATION_SEED_START
    for episode in episodes:
        assert episode.state is not None and np.abs(episode.actions).max() <= 1.0


def test_noise_and_displaced_starts_alternate(tmp_path, robot, monkeypatch):
    used = []
    real = collection.record_demonstration

    def watch(robot, task, seed, disturbance, noise):
        used.append(disturbance.value)
        return real(robot, task, seed, disturbance, noise)

    monkeypatch.setattr(collection, "record_demonstration", watch)
    summary = record_bag(tmp_path, BagPlan("reach", 0, 4), SETTINGS, robot)
    assert summary.attempts == 4 == len(used)
    assert used == ["noise", "displaced start"] * 2


def test_the_same_bag_is_recorded_twice_alike_and_another_index_differs(tmp_path, robot):
    first = record_bag(tmp_path / "a", BagPlan("reach", 0, 2), SETTINGS, robot)
    again = record_bag(tmp_path / "b", BagPlan("reach", 0, 2), SETTINGS, robot)
    other = record_bag(tmp_path / "c", BagPlan("reach", 1, 2), SETTINGS, robot)
    assert first == again
    assert not set(first.seeds) & set(other.seeds)
    before, after = (
        (tmp_path / name / "reach-000" / "reach-000.mcap").read_bytes() for name in "ab"
    )
    assert before == after


def test_stopping_in_the_middle_leaves_no_bag(tmp_path, robot):
    def stop(success: bool) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        record_bag(tmp_path, BagPlan("reach", 0, 3), SETTINGS, robot, stop)
    assert list(tmp_path.iterdir()) == []


def test_a_bag_stays_until_the_one_in_its_place_is_complete(tmp_path, robot):
    first = record_bag(tmp_path, BagPlan("reach", 0, 1), SETTINGS, robot)

    def stop(success: bool) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        record_bag(tmp_path, BagPlan("reach", 0, 2), SETTINGS, robot, stop)
    assert read_summary(tmp_path / "reach-000") == first
    more = record_bag(tmp_path, BagPlan("reach", 0, 2), SETTINGS, robot)
    assert read_summary(tmp_path / "reach-000") == more and more.episodes == 2


def test_an_expert_that_fails_too_often_is_reported(tmp_path, robot, monkeypatch):
    monkeypatch.setattr(collection, "ATTEMPTS_PER_BAG", 2)
    wild = Settings(noise=5.0, height=32, width=32)
    with pytest.raises(ValueError, match="expert of pick-place succeeded in 0 of 2 attempts"):
        record_bag(tmp_path, BagPlan("pick-place", 0, 1), wild, robot)
    assert list(tmp_path.iterdir()) == []


class Stands:
    """Leads for an episode's length and does not move."""

    def begin(self, robot, rng):
        return robot.max_episode_steps

    def action(self, robot, pictures):
        return np.zeros(6), 1.0


def test_a_policy_after_which_nothing_can_be_put_right_is_reported(tmp_path, robot, monkeypatch):
    monkeypatch.setattr(collection, "ATTEMPTS_PER_BAG", 2)
    led = Settings(height=32, width=32, policy="0123")
    with pytest.raises(ValueError, match="put right what the policy had begun in 0 of 2 attempts"):
        record_bag(tmp_path, BagPlan("reach", 0, 1), led, robot, leader=Stands())
    assert list(tmp_path.iterdir()) == []


def test_bags_of_before_there_were_policies_that_lead_are_still_known(tmp_path, robot):
    record_bag(tmp_path, BagPlan("reach", 0, 1), SETTINGS, robot)
    file = tmp_path / "reach-000" / "metadata.yaml"
    text = file.read_text()
    older = re.sub(r',\s+"policy":\s+null', "", text)
    assert older != text
    file.write_text(older)
    assert read_summary(tmp_path / "reach-000").settings == SETTINGS


def test_the_manifest_adds_up_the_bags(tmp_path, robot):
    for index in range(2):
        record_bag(tmp_path, BagPlan("reach", index, 2), SETTINGS, robot)
    summaries, errors = find_summaries(tmp_path)
    content = manifest(summaries)
    reach = content["tasks"]["reach"]
    assert errors == []
    assert content["episodes"] == reach["episodes"] == 4
    assert reach["bags"] == ["reach-000", "reach-001"] and len(reach["seeds"]) == 4
    assert reach["kept_share"] == round(4 / reach["attempts"], 3)
    assert content["settings"]["seed"] == 3
    assert content["action"]["linear_scale"] == 0.04


def test_damaged_and_foreign_bags_are_named_and_the_others_found(tmp_path, robot):
    for index in range(2):
        record_bag(tmp_path, BagPlan("reach", index, 1), SETTINGS, robot)
    file = tmp_path / "reach-000" / "reach-000.mcap"
    file.write_bytes(file.read_bytes()[:-100])
    with EpisodeBagWriter(tmp_path / "foreign", SimulatorUnits()):
        pass
    summaries, errors = find_summaries(tmp_path)
    assert [summary.name for summary in summaries] == ["reach-001"]
    assert all(isinstance(error, BagError) for error in errors)
    assert "foreign: its metadata do not say how it was recorded" in str(errors[0])
    assert "reach-000: it is damaged" in str(errors[1])


def test_bags_of_before_configurations_were_told_stand_among_those_of_the_same_policy():
    told = Settings(policy="0123", configuration="ab")
    assert Settings(policy="0123").agrees(told) and told.agrees(told)
    assert not Settings(policy="0123", configuration="cd").agrees(told)
    assert not Settings(policy="4567").agrees(told) and not Settings().agrees(told)


@pytest.mark.parametrize("notes", ['{"task": "rea', "[1]", "{}"])
def test_a_bag_whose_notes_are_cut_is_an_error_that_names_it(tmp_path, monkeypatch, notes):
    monkeypatch.setattr(collection, "bag_notes", lambda bag: {"deer_demonstrations": notes})
    (tmp_path / "reach-000").mkdir()
    (tmp_path / "reach-000" / "metadata.yaml").touch()
    summaries, (error,) = find_summaries(tmp_path)
    assert not summaries
    assert "reach-000: its metadata do not say how it was recorded" in str(error)

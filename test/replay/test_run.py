from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from lockstep import lockstep
from robot_bags import (
    GRIPPER,
    SECOND,
    START_NS,
    STATIC,
    RobotBag,
    add_frames,
    write_bag,
)
from tiny_model import INSTRUCTIONS, write_tiny_model

from deer_ros.budget.timing import CostTable, Milliseconds
from deer_ros.control.sampler import Sampler
from deer_ros.data import images
from deer_ros.data.recording import Recording
from deer_ros.data.stamps import stamp_ns
from deer_ros.observation import Observation
from deer_ros.policy import DeerPolicy
from deer_ros.replay.records import read_records
from deer_ros.replay.results import BagResult
from deer_ros.stepping.settings import Settings

SETTINGS = Settings().replaced({"exit.policy": "fixed", "exit.thresholds": [0.0515, 0.02, 1]}, None)


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("model"))


def replay(model: Path, bag: Path, out: Path, settings=(SETTINGS,), **more) -> BagResult:
    return lockstep(model, bag, out, settings, **more)


def cost_table() -> CostTable:
    def ms(value: float) -> Milliseconds:
        return Milliseconds(value, 2 * value)

    return CostTable(
        "a machine", "cpu", "float32", 1, 5, 100, (2, 4, 6), preprocessing=ms(1.0), vision=ms(2.0),
        resampler=ms(0.5), recurrent=ms(0.25), head=ms(0.125), layers=(ms(1.0),) * 6,
        segments=(ms(5.0), ms(2.0), ms(2.0)), exits=(ms(5.0), ms(7.0), ms(9.0)),
    )


def by_hand(model: Path, bag: Path) -> list[np.ndarray]:
    """The actions of a policy that a user steps through the bag, with the node's sampler."""
    policy = DeerPolicy.from_pretrained(model, device="cpu")
    policy.set_thresholds(SETTINGS.exit_thresholds)
    sampler = Sampler(1 / 20, 0.05, 0.5)
    actions = []
    with Recording(bag) as recording:
        for topic, _, data in recording.messages([STATIC, GRIPPER]):
            message = recording.decode(topic, data)
            sampler.offer(topic.split("/")[2], stamp_ns(message.header.stamp), message)
            pair = sampler.take()
            if pair is not None:
                seen = [images.to_rgb(p.payload) for p in (pair.static, pair.gripper)]
                actions.append(policy.step(Observation(*seen), INSTRUCTIONS[0]).action)
    return actions


def test_the_actions_are_those_of_the_policy_on_the_samplers_pairs(model, tmp_path):
    bag = write_bag(tmp_path / "bag", frames=30)
    result = replay(model, bag, tmp_path / "out")
    steps = result.runs[0].steps
    expected = by_hand(model, bag)
    assert len(steps) == len(expected) == 30
    for step, action in zip(steps, expected):
        np.testing.assert_array_equal(step.action, action)
    assert len({step.exit_layer for step in steps}) > 1, "the thresholds shall matter here"


def test_two_runs_are_equal_bit_for_bit(model, tmp_path):
    bag = write_bag(tmp_path / "bag")
    runs = [replay(model, bag, tmp_path / name).runs[0].steps for name in ("a", "b")]
    assert len(runs[0]) == 12
    for first, second in zip(*runs, strict=True):
        np.testing.assert_array_equal(first.action, second.action)
        assert first.exit_layer == second.exit_layer


def test_with_a_cost_table_the_whole_bag_is_equal_bit_for_bit(model, tmp_path):
    bag = write_bag(tmp_path / "bag")
    for name in ("a", "b"):
        replay(model, bag, tmp_path / name / "out", table=cost_table())
    first, second = ((tmp_path / name / "out" / "out.mcap").read_bytes() for name in ("a", "b"))
    assert first == second


def test_times_are_the_cost_tables(model, tmp_path):
    bag = write_bag(tmp_path / "bag")
    steps = replay(model, bag, tmp_path / "out", table=cost_table()).runs[0].steps
    assert len(steps) == 12
    for step in steps:
        # Whole steps', which are not the sums of the parts': budgets are solved from them, too.
        assert step.step_ms == pytest.approx({2: 5.0, 4: 7.0, 6: 9.0}[step.exit_layer])


def test_every_run_of_a_sweep_is_what_it_is_alone(model, tmp_path):
    bag = write_bag(tmp_path / "bag", frames=20)
    settings = [
        SETTINGS.replaced({"exit.thresholds": [bound, bound, 1]}, None)
        for bound in (0.002, 0.0515, 0.1)
    ] + [SETTINGS.replaced({"exit.max_layer": 4}, None)]
    together = replay(model, bag, tmp_path / "together", settings)
    depths = []
    for number, own in enumerate(settings):
        alone = replay(model, bag, tmp_path / f"alone{number}", [own]).runs[0].steps
        depths.append([step.exit_layer for step in alone])
        assert len(alone) == 20
        for first, second in zip(alone, together.runs[number].steps, strict=True):
            np.testing.assert_array_equal(first.action, second.action)
            np.testing.assert_array_equal(first.deltas, second.deltas)
            assert first.exit_layer == second.exit_layer
            assert first.llm_gflops == second.llm_gflops
    assert len({tuple(depth) for depth in depths}) > 2


def test_what_is_read_back_is_what_was_done(model, tmp_path):
    result = replay(model, write_bag(tmp_path / "bag"), tmp_path / "out")
    read = read_records(tmp_path / "out", [])["/deer/action"]
    assert len(read) == 12
    for step, again in zip(result.runs[0].steps, read, strict=True):
        assert step.stamps_ns == again.stamps_ns
        np.testing.assert_array_equal(step.action, again.action)
        assert (step.exit_layer, step.episode, step.step) == (
            again.exit_layer, again.episode, again.step)
        np.testing.assert_array_equal(step.deltas, again.deltas)
        assert step.llm_gflops == pytest.approx(again.llm_gflops)


def test_full_depth_is_the_deepest_exit_from_the_same_state(model, tmp_path):
    bag = write_bag(tmp_path / "bag", frames=30)
    steps = replay(model, bag, tmp_path / "out").runs[0].steps
    deepest = [step for step in steps if step.exit_layer == 6]
    early = [step for step in steps if step.exit_layer < 6]
    assert deepest and early
    assert all(step.to_full_depth == 0 for step in deepest)
    assert all(step.to_full_depth > 0 for step in early)
    for step in steps:
        asked = np.isfinite(step.deltas)
        np.testing.assert_array_equal(step.deltas[asked], step.full_deltas[asked])


def test_the_recorded_velocity_is_compared_in_the_models_units(model, tmp_path):
    bag = write_bag(tmp_path / "bag")
    steps = replay(model, bag, tmp_path / "out").runs[0].steps
    assert len(steps) == 12
    for frame, step in enumerate(steps):
        expected = 0.1 * np.sin(frame + np.arange(6)) / np.repeat([0.04 * 20, 0.05 * 20], 3)
        np.testing.assert_allclose(step.recorded_action[:6], expected, rtol=1e-5)


@pytest.mark.parametrize("frame_id", ["tool0", "world", "base_link"])
def test_a_velocity_in_another_frame_is_refused_not_compared_with(model, tmp_path, frame_id):
    with RobotBag(tmp_path / "bag") as bag:
        bag.instruction(START_NS - SECOND, INSTRUCTIONS[0])
        for number in range(4):
            stamp_ns = START_NS + number * SECOND // 20
            bag.twist(stamp_ns, [0.1] * 6, frame_id)
            for topic in (STATIC, GRIPPER):
                bag.picture(topic, stamp_ns, number)
    result = replay(model, tmp_path / "bag", tmp_path / "out")
    compared = [step.recorded_action is not None for step in result.runs[0].steps]
    if frame_id == "tool0":
        assert compared == [False] * 4
        ((sentence, count),) = result.refused.items()
        assert count == 4
        assert "is in the frame 'tool0' and must be in 'base_link'" in sentence
    else:
        assert compared == [True] * 4
        assert not result.refused


@pytest.mark.parametrize("frame_id", ["tool0", "world", "base_link", ""])
def test_a_pose_is_taken_in_the_frames_that_it_is_learned_in(model, tmp_path, frame_id):
    with RobotBag(tmp_path / "bag") as bag:
        bag.instruction(START_NS - SECOND, INSTRUCTIONS[0])
        bag.pose(START_NS, frame_id)
        for topic in (STATIC, GRIPPER):
            bag.picture(topic, START_NS, 0)
    refused = replay(model, tmp_path / "bag", tmp_path / "out").refused
    assert list(refused.values()) == ([1] if frame_id == "tool0" else [])


def test_an_earlier_run_in_the_bag_is_what_is_compared_with_and_keeps_apart(model, tmp_path):
    first = replay(model, write_bag(tmp_path / "bag", recorded=False), tmp_path / "first")
    second = replay(model, tmp_path / "first", tmp_path / "second")
    assert second.moved == {"/deer/action": "/recorded/deer/action",
                            "/deer/status": "/recorded/deer/status"}
    for before, after in zip(first.runs[0].steps, second.runs[0].steps, strict=True):
        assert after.to_recorded == 0
        np.testing.assert_array_equal(before.action, after.action)
    with Recording(tmp_path / "second") as recording:
        counts = {name: topic.count for name, topic in recording.topics.items()}
    assert counts["/deer/action"] == counts["/recorded/deer/action"] == 12


def test_a_new_instruction_and_a_gap_begin_episodes_with_a_clean_state(model, tmp_path):
    with RobotBag(tmp_path / "bag") as bag:
        bag.instruction(START_NS - SECOND, INSTRUCTIONS[0])
        add_frames(bag, 5)
        bag.instruction(START_NS + SECOND // 2, INSTRUCTIONS[0])  # the same again: no news
        add_frames(bag, 5, start_ns=START_NS + 2 * SECOND)
        bag.instruction(START_NS + 2 * SECOND + SECOND // 4, INSTRUCTIONS[1])
        add_frames(bag, 5, start_ns=START_NS + 2 * SECOND + 3 * SECOND // 10)
    result = replay(model, tmp_path / "bag", tmp_path / "out").runs[0]
    assert [step.episode for step in result.steps] == [1] * 5 + [2] * 5 + [3] * 5
    assert result.resets == {"new instruction": 2, "gap in observations": 1}
    # The same pictures in a clean state give the same actions.
    first, second = result.steps[:5], result.steps[5:10]
    for before, after in zip(first, second):
        np.testing.assert_array_equal(before.action, after.action)
    assert result.stops["input stale"] >= 1


def test_stamps_that_fall_back_far_are_a_clock_that_was_set_and_a_little_are_late(model, tmp_path):
    with RobotBag(tmp_path / "bag") as bag:
        bag.instruction(START_NS - SECOND, INSTRUCTIONS[0])
        # Within what safety.input_timeout allows, first ahead of the recorder's clock, then behind.
        for first_ns, late_ns in ((START_NS, -300_000_000), (START_NS - 350_000_000, 350_000_000)):
            for frame in range(6):
                for topic in (STATIC, GRIPPER):
                    bag.picture(topic, first_ns + frame * 50_000_000, frame, late_ns=late_ns)
        for topic in (STATIC, GRIPPER):
            bag.picture(topic, START_NS - 200_000_000, 0, late_ns=SECOND)
    result = replay(model, tmp_path / "bag", tmp_path / "out")
    run = result.runs[0]
    assert [step.episode for step in run.steps] == [1] * 6 + [2] * 6
    assert run.resets == {"new instruction": 1, "clock jumped": 1}
    assert run.stops["clock jumped"] == 1
    for before, after in zip(run.steps[:6], run.steps[6:]):
        np.testing.assert_array_equal(before.action, after.action)
    assert result.refused == {
        "camera/static: a stamp older than the one before": 1,
        "camera/gripper: a stamp older than the one before": 1,
    }


def test_pictures_that_cannot_be_used_are_counted_with_the_reason(model, tmp_path):
    with RobotBag(tmp_path / "bag") as bag:
        bag.instruction(START_NS - SECOND, INSTRUCTIONS[0])
        add_frames(bag, 6, skew_ns=0)
        later = START_NS + 6 * 50_000_000
        bag.picture(STATIC, later, 1)
        bag.picture(STATIC, later, 1, late_ns=3_000_000)
        bag.picture(STATIC, later - 10_000_000, 1, late_ns=13_500_000)
        bag.picture(GRIPPER, later, 1, late_ns=4_000_000, data=b"\xff\xd8 cut")
        bag.raw(GRIPPER, "sensor_msgs/msg/CompressedImage", later + 5_000_000, b"rubbish")
        bag.picture(GRIPPER, later + 1, 1, late_ns=6_000_000, data=b"")
    result = replay(model, tmp_path / "bag", tmp_path / "out")
    run = result.runs[0]
    assert len(run.steps) == 6
    assert result.refused == Counter({
        "camera/static: a stamp that came before": 1,
        "camera/static: a stamp older than the one before": 1,
        f"{GRIPPER}: 7 bytes are no sensor_msgs/msg/CompressedImage": 1,
        f"{GRIPPER}: a compressed picture is empty.": 1,
    })
    assert run.failed == {"a JPEG picture is cut off: its end is missing.": 1}
    assert run.images == {"seen": 18, "used": 12, "refused": 4}


def test_cameras_that_never_belong_together_make_no_step_and_say_why(model, tmp_path):
    bag = write_bag(tmp_path / "bag", skew_ns=20_000_000, rate_hz=4)
    few = SETTINGS.replaced({"image.max_skew": 0.01}, None)
    run = replay(model, bag, tmp_path / "out", [few]).runs[0]
    assert not run.steps and run.stops["cameras apart"] == 1


def test_pictures_whose_stamps_are_another_clocks_are_stale(model, tmp_path):
    with RobotBag(tmp_path / "bag") as bag:
        bag.instruction(START_NS - SECOND, INSTRUCTIONS[0])
        for frame in range(10):
            for topic in (STATIC, GRIPPER):
                bag.picture(topic, START_NS + frame * 50_000_000, frame, late_ns=3 * SECOND)
    run = replay(model, tmp_path / "bag", tmp_path / "out").runs[0]
    assert not run.steps and "input stale" in run.stops


def test_raw_pictures_do_as_well(model, tmp_path):
    with RobotBag(tmp_path / "bag") as bag:
        bag.instruction(START_NS - SECOND, INSTRUCTIONS[0])
        for frame in range(5):
            for camera in ("static", "gripper"):
                bag.raw_picture(f"/camera/{camera}/image", START_NS + frame * 50_000_000, frame)
    assert len(replay(model, tmp_path / "bag", tmp_path / "out").runs[0].steps) == 5


def test_an_instruction_that_is_given_takes_the_place_of_those_in_the_bag(model, tmp_path):
    bag = write_bag(tmp_path / "bag", frames=4)
    result = replay(model, bag, tmp_path / "out", instruction=INSTRUCTIONS[2])
    assert {step.instruction for step in result.runs[0].steps} == {INSTRUCTIONS[2]}
    assert result.refused == {"/instruction: another instruction was given": 1}


def test_the_steps_that_differ_most_are_pictured(model, tmp_path):
    run = replay(model, write_bag(tmp_path / "bag", frames=20), tmp_path / "out").runs[0]
    largest = sorted((step.to_recorded for step in run.steps), reverse=True)[:8]
    assert [item.record.to_recorded for item in run.pictured] == largest
    assert run.pictured[0].observation.static.shape == (24, 32, 3)


def test_an_episode_that_lasts_too_long_is_over(model, tmp_path):
    bag = write_bag(tmp_path / "bag", frames=20)
    short = SETTINGS.replaced({"episode.max_duration": 0.3}, None)
    run = replay(model, bag, tmp_path / "out", [short]).runs[0]
    assert len(run.steps) == 6 and run.stops["episode over"] == 1

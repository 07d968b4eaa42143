from __future__ import annotations

import numpy as np
import pytest
from sim_client import running_simulator

from deer_ros.sim.robot import SimulatedRobot

PERIOD_NS = 50_000_000
UP = (0.0, 0.0, 1.0, 0.0, 0.0, 0.0)


@pytest.fixture(scope="module")
def simulator(tmp_path_factory):
    with running_simulator(tmp_path_factory.mktemp("sim"), lockstep=True) as (client, _):
        yield client


def start(simulator, **parameters) -> int:
    """The stamp of a new episode's first pictures."""
    episode = simulator.reset(**{"task": "drawer-close", "seed": 3, "max_episode_steps": 0}
                              | parameters)
    stamp_ns = episode.header.stamp.sec * 10**9 + episode.header.stamp.nanosec
    assert simulator.wait_for_pictures(stamp_ns - 1) == stamp_ns
    return stamp_ns


def wait_for_repeats(simulator, stamp_ns: int) -> None:
    """Until the pictures of that stamp came twice: for a while nothing else happened."""
    simulator.wait(lambda: simulator.sent.count(stamp_ns) >= 2)


def assert_world_stood_still(simulator, before_ns: int, after_ns: int) -> None:
    assert simulator.static[after_ns].data == simulator.static[before_ns].data
    assert simulator.gripper[after_ns].data == simulator.gripper[before_ns].data
    assert simulator.joints[after_ns] == simulator.joints[before_ns]


def test_an_episode_over_ros_is_the_simulators_own_to_the_byte(simulator):
    robot = SimulatedRobot()
    robot.reset("drawer-close", 3)
    stamp_ns = start(simulator)
    while not robot.success:
        static, gripper = robot.pictures()
        assert simulator.static[stamp_ns].data.tobytes() == static.tobytes()
        assert simulator.gripper[stamp_ns].data.tobytes() == gripper.tobytes()
        assert simulator.joints[stamp_ns] == robot.joint_positions().tolist()
        assert simulator.poses[stamp_ns].tolist() == robot.end_effector_position().tolist()
        action, opening = robot.expert_action()
        simulator.answer(stamp_ns, action, opening)
        robot.step(action, opening)
        if not robot.success:
            stamp_ns = simulator.wait_for_pictures(stamp_ns)
    simulator.wait(lambda: simulator.episodes[-1].done)
    last = simulator.episodes[-1]
    assert last.success and last.step == robot.steps
    assert (last.task, last.seed, last.instruction) == ("drawer-close", 3, robot.instruction)


def test_each_answer_moves_time_by_one_period_and_nothing_else_does(simulator):
    stamp_ns = start(simulator)
    for _ in range(3):
        simulator.answer(stamp_ns)
        stamp_ns += PERIOD_NS
        wait_for_repeats(simulator, stamp_ns)
        assert max(simulator.sent) == stamp_ns == simulator.clock[-1]
    simulator.wait(lambda: simulator.episodes[-1].step == 3)


def test_pictures_that_nobody_answers_are_sent_again_with_the_same_stamp(simulator):
    stamp_ns = start(simulator)
    simulator.wait(lambda: simulator.sent.count(stamp_ns) >= 3)
    assert simulator.stamp_ns == stamp_ns


@pytest.mark.parametrize("refused", [
    {"commanded": False},
    {"instruction": "do something else"},
    {"action": (np.nan,) + UP[1:]},
    {"gripper": np.inf},
    {"executions": 65535},
])
def test_an_action_that_must_not_move_the_robot_moves_only_the_time(simulator, refused):
    before_ns = start(simulator)
    simulator.answer(before_ns, **({"action": UP} | refused))
    after_ns = simulator.wait_for_pictures(before_ns)
    assert after_ns == before_ns + PERIOD_NS
    assert_world_stood_still(simulator, before_ns, after_ns)
    assert simulator.episodes[-1].step == 0

    simulator.answer(after_ns, UP)
    moved_ns = simulator.wait_for_pictures(after_ns)
    assert simulator.poses[moved_ns][2] > simulator.poses[before_ns][2]


def test_an_action_for_other_pictures_changes_nothing(simulator):
    stamp_ns = start(simulator)
    for other_ns in (stamp_ns - PERIOD_NS, stamp_ns + PERIOD_NS, 0):
        simulator.answer(other_ns, UP)
    repeats = simulator.sent.count(stamp_ns)
    simulator.wait(lambda: simulator.sent.count(stamp_ns) >= repeats + 2)
    assert simulator.stamp_ns == stamp_ns


def test_an_answer_that_comes_twice_moves_once(simulator):
    stamp_ns = start(simulator)
    simulator.answer(stamp_ns, UP)
    simulator.answer(stamp_ns, UP)
    wait_for_repeats(simulator, stamp_ns + PERIOD_NS)
    assert simulator.stamp_ns == stamp_ns + PERIOD_NS and simulator.episodes[-1].step == 1


def test_an_action_for_several_periods_is_carried_out_in_each_with_pictures_of_all(simulator):
    robot = SimulatedRobot()
    robot.reset("drawer-close", 3)
    stamp_ns = start(simulator)
    expected = {}
    for executions in (3, 2):
        simulator.answer(stamp_ns, UP, -1.0, executions=executions)
        for _ in range(executions):
            robot.step(np.array(UP, np.float32), -1.0)
            stamp_ns += PERIOD_NS
            expected[stamp_ns] = robot.pictures()[0], robot.end_effector_position()
        wait_for_repeats(simulator, stamp_ns)
        assert simulator.stamp_ns == stamp_ns == simulator.clock[-1]
    # What lies between is sent once; a busy machine may lose some of it.
    came = expected.keys() & simulator.static.keys() & simulator.poses.keys()
    assert len(came) >= 3
    for stamp_ns in came:
        picture, position = expected[stamp_ns]
        assert simulator.static[stamp_ns].data.tobytes() == picture.tobytes()
        assert simulator.poses[stamp_ns].tolist() == position.tolist()
    assert simulator.episodes[-1].step == 5


def test_an_episode_may_end_in_the_middle_of_an_action(simulator):
    stamp_ns = start(simulator, max_episode_steps=2)
    simulator.answer(stamp_ns, UP, executions=5)
    simulator.wait(lambda: simulator.episodes[-1].done)
    assert simulator.episodes[-1].step == 2


def test_an_action_that_says_none_is_carried_out_once(simulator):
    stamp_ns = start(simulator)
    simulator.answer(stamp_ns, UP, executions=0)
    wait_for_repeats(simulator, stamp_ns + PERIOD_NS)
    assert simulator.episodes[-1].step == 1


def test_a_reset_leaves_a_gap_that_a_policy_takes_for_a_new_episode(simulator):
    before_ns = start(simulator)
    after_ns = start(simulator, task="faucet-open")
    assert after_ns - before_ns > 500_000_000
    simulator.wait(lambda: simulator.instructions[-1] == "open the faucet")


def test_a_reset_to_the_same_seed_gives_the_same_pictures_and_to_another_others(simulator):
    first, again, other = (start(simulator, task="reach", seed=seed) for seed in (5, 5, 6))
    assert_world_stood_still(simulator, first, again)
    assert simulator.static[other].data != simulator.static[first].data


def test_an_episode_without_success_ends_after_its_steps_and_the_pictures_stop(simulator):
    stamp_ns = start(simulator, max_episode_steps=2)
    simulator.answer(stamp_ns)
    stamp_ns = simulator.wait_for_pictures(stamp_ns)
    simulator.answer(stamp_ns)
    simulator.wait(lambda: simulator.episodes[-1].done)
    assert simulator.episodes[-1].step == 2 and not simulator.episodes[-1].success

    def stand_still() -> bool:
        """Pictures would be sent again more than twice in that time; some may be under way yet."""
        sent = len(simulator.sent)
        return not simulator.holds_within(lambda: len(simulator.sent) > sent, timeout_s=0.6)

    assert stand_still() or stand_still()
    assert max(simulator.sent) == stamp_ns


@pytest.mark.parametrize("name, value, allowed", [
    ("task", "make coffee", "drawer-open"),
    ("task", 3, "drawer-open"),
    ("seed", -1, "0 to"),
    ("seed", 1.5, "0 to"),
    ("max_episode_steps", -4, "0 to"),
    ("camera_rate", float("nan"), "80"),
    ("camera_rate", 0.0, "80"),
    ("image_width", 320, "start it again"),
])
def test_a_wrong_parameter_is_refused_in_words_and_the_node_goes_on(simulator, name, value,
                                                                    allowed):
    result = simulator.set(**{name: value})
    assert not result.successful
    assert name in result.reason and allowed in result.reason
    start(simulator)

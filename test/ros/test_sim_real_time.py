from __future__ import annotations

import signal
import time

import numpy as np
import pytest
from rclpy.qos import QoSProfile
from sim_client import LATCHED, running_simulator
from std_msgs.msg import Float64
from stillness import on_time

from deer_ros.sim.robot import SimulatedRobot

pytestmark = pytest.mark.clock

VELOCITY_M_S = (0.2, 0.0, 0.2)
HOLD_NS = 100_000_000
PERIOD_NS = 50_000_000


@pytest.fixture(scope="module")
def simulator(tmp_path_factory):
    with running_simulator(tmp_path_factory.mktemp("sim"), task="reach") as (client, _):
        yield client


def start(simulator) -> None:
    simulator.reset(task="reach", camera_rate=20.0)
    newest_ns = max(simulator.poses)
    simulator.wait(lambda: max(simulator.poses) > newest_ns + PERIOD_NS)


def drive(simulator, seconds: float, velocity=VELOCITY_M_S, **how) -> int:
    """Sends twists at 40 Hz, as a policy would; returns the stamp of the last one."""
    sent = [simulator.command(velocity, **how)]
    start_s = time.monotonic()

    def send_when_due():
        elapsed_s = time.monotonic() - start_s
        if len(sent) < 40 * elapsed_s < 40 * seconds:
            sent.append(simulator.command(velocity, **how))
        return elapsed_s > seconds

    simulator.wait(send_when_due)
    return sent[-1]


def pose_at(simulator, stamp_ns: int) -> np.ndarray:
    simulator.wait(lambda: max(simulator.poses) >= stamp_ns)
    return simulator.poses[min(stamp for stamp in simulator.poses if stamp >= stamp_ns)]


def travel(simulator, **how) -> float:
    """Metres that the hand moves in 0.3 s of twists."""
    before = simulator.poses[max(simulator.poses)]
    drive(simulator, 0.3, **how)
    return float(np.linalg.norm(simulator.poses[max(simulator.poses)] - before))


def test_a_twist_moves_the_hand_at_its_speed(simulator):
    def move() -> None:
        start(simulator)
        first_ns = drive(simulator, 0.2)
        last_ns = drive(simulator, 0.3)
        # A busy machine sends fewer poses, each with the time that it is of.
        stamps = [stamp for stamp in sorted(simulator.poses) if first_ns < stamp <= last_ns]
        assert stamps and stamps[-1] - stamps[0] > 2 * PERIOD_NS
        first, last = stamps[0], stamps[-1]
        moved = simulator.poses[last] - simulator.poses[first]
        assert moved / ((last - first) / 1e9) == pytest.approx(VELOCITY_M_S, abs=0.04)

    on_time(move)


def test_silence_stops_the_hand_a_tenth_of_a_second_after_the_last_twist(simulator):
    def fall_silent() -> None:
        start(simulator)
        last_ns = drive(simulator, 0.4)
        at_last, held, stopped, later = (pose_at(simulator, last_ns + ns) for ns in (
            0, HOLD_NS, HOLD_NS + PERIOD_NS, HOLD_NS + 8 * PERIOD_NS))
        assert np.linalg.norm(held - at_last) > 0.02
        # It would go 14 mm further every period; what is left is the arm settling on its target.
        assert np.linalg.norm(later - stopped) < 0.005

    on_time(fall_silent)


def test_a_zero_twist_stops_the_hand_at_once(simulator):
    def stop() -> None:
        start(simulator)
        drive(simulator, 0.3)
        stop_ns = simulator.command((0.0, 0.0, 0.0))
        after, later = (pose_at(simulator, stop_ns + ns) for ns in (PERIOD_NS, 6 * PERIOD_NS))
        assert np.linalg.norm(later - after) < 0.006

    on_time(stop)


def test_a_twist_that_is_old_or_not_finite_or_in_another_frame_moves_nothing(simulator):
    start(simulator)
    for how in ({"stamp_ns": 1}, {"stamp_ns": 2 * 10**18}, {"frame_id": "camera"},
                {"frame_id": ""}, {"velocity": (np.nan, 0.0, 0.2)},
                {"velocity": (0.2, np.inf, 0.2)}, {"velocity": (0.2, -np.inf, 0.2)}):
        # After a reset the arm settles by some millimetres.
        assert travel(simulator, **how) < 0.015, how
    # Those that are none of this move it, however few a busy machine gets through.
    before = simulator.poses[max(simulator.poses)]
    simulator.wait(lambda: simulator.command(VELOCITY_M_S) and
                   np.linalg.norm(simulator.poses[max(simulator.poses)] - before) > 0.05)


@pytest.mark.parametrize("qos", [QoSProfile(depth=1), LATCHED], ids=["plain", "latched"])
def test_the_gripper_obeys_plain_and_latched_publishers(simulator, qos):
    start(simulator)
    publisher = simulator.node.create_publisher(Float64, "deer/gripper", qos)
    simulator.wait(lambda: publisher.get_subscription_count() > 0)

    def fingers():
        return simulator.joints[max(simulator.joints)][-2]
    publisher.publish(Float64(data=1.0))
    simulator.wait(lambda: fingers() < 0.01)
    publisher.publish(Float64(data=0.0))
    simulator.wait(lambda: fingers() > 0.03)
    publisher.publish(Float64(data=float("nan")))
    publisher.publish(Float64(data=0.5))
    simulator.wait(lambda: fingers() < 0.01)
    simulator.node.destroy_publisher(publisher)


def test_a_reset_forgets_what_the_gripper_was_told(simulator):
    start(simulator)

    def fingers():
        return simulator.joints[max(simulator.joints)][-2]

    def closed():
        simulator.open_gripper(0.0)
        return fingers() > 0.03

    simulator.wait(closed)
    start(simulator)
    simulator.wait(lambda: fingers() < 0.01)


def test_pictures_are_stamped_in_exact_periods_and_both_cameras_alike(simulator):
    start(simulator)
    first_ns = simulator.wait_for_pictures(simulator.stamp_ns)

    def of_both() -> list[int]:
        """A busy machine may lose one of them."""
        return [s for s in simulator.static.keys() & simulator.gripper.keys() if s >= first_ns]

    simulator.wait(lambda: len(of_both()) >= 12)
    for came in (simulator.static, simulator.gripper):
        assert {(stamp - first_ns) % PERIOD_NS for stamp in came if stamp >= first_ns} == {0}


def test_the_camera_rate_can_be_changed_with_a_whole_number(simulator):
    start(simulator)
    assert simulator.set(camera_rate=10).successful
    simulator.wait(lambda: np.diff(sorted(simulator.static)[-3:]).tolist() == [2 * PERIOD_NS] * 2)


def test_a_reset_brings_the_hand_home_and_the_cameras_are_silent_for_a_second(simulator):
    start(simulator)
    home = simulator.poses[max(simulator.poses)]
    drive(simulator, 0.3)
    before_ns = max(simulator.static)
    start(simulator)
    after_ns = simulator.wait_for_pictures(before_ns + 5 * PERIOD_NS)
    assert after_ns - max(s for s in simulator.static if s < after_ns) > 500_000_000
    assert simulator.poses[max(simulator.poses)] == pytest.approx(home, abs=0.002)


def test_an_episode_ends_after_its_steps_but_the_robot_and_its_cameras_go_on(simulator):
    simulator.reset(task="reach", max_episode_steps=5)
    simulator.wait(lambda: simulator.episodes[-1].done)
    assert simulator.episodes[-1].step == 5 and not simulator.episodes[-1].success
    done_ns = simulator.stamp_ns
    simulator.wait(lambda: simulator.stamp_ns > done_ns + 5 * PERIOD_NS)
    assert simulator.episodes[-1].step == 5
    assert simulator.set(max_episode_steps=0).successful


def test_an_episode_ends_with_success_within_any_physics_step_of_a_control_step(simulator):
    robot = SimulatedRobot()
    robot.reset("reach", 0)
    # Of the hand, when the fingers are at the goal.
    goal = robot.state()[-3:] + robot.end_effector_position() - robot.state()[:3]
    simulator.reset(task="reach", seed=0)

    def move_to_goal():
        simulator.command(3.0 * (goal - simulator.poses[max(simulator.poses)]))
        return simulator.episodes[-1].done
    simulator.wait(move_to_goal)
    assert simulator.episodes[-1].success


@pytest.mark.parametrize("wanted, lockstep", [(signal.SIGINT, True), (signal.SIGTERM, False)])
def test_a_signal_ends_the_simulator_at_once_with_exit_code_0(tmp_path, wanted, lockstep):
    with running_simulator(tmp_path, lockstep=lockstep) as (simulator, process):
        simulator.wait(lambda: simulator.static)
        process.signal(wanted)
        # Two seconds on a machine with time to spare; a busy one needs longer to unload Python.
        assert process.wait(30.0) == 0
        assert "Traceback" not in process.log.read_text()

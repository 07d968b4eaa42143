from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from deer_ros.sim.robot import (
    CONTROL_RATE_HZ,
    LINEAR_SCALE_M,
    MAX_EPISODE_STEPS,
    MAX_LINEAR_VELOCITY_M_S,
    STATE_SIZE,
    SimulatedRobot,
)
from deer_ros.sim.tasks import EVALUATION_SEED_START, TASKS

SEED = EVALUATION_SEED_START + 7
STILL = np.zeros(6, np.float32)


@pytest.fixture(scope="module")
def robot():
    robot = SimulatedRobot(height=64, width=96)
    yield robot
    robot.close()


def target(robot: SimulatedRobot) -> np.ndarray:
    """Where the hand is being pulled to: the mocap body that it is welded to."""
    return robot._environment.data.mocap_pos[0].copy()


def goal_pixels(picture: np.ndarray) -> int:
    """Pixels as red as reach's ball; the arm and the puck are darker."""
    red, green, blue = picture.astype(int).transpose(2, 0, 1)
    return int(((red > 200) & (green < 60) & (blue < 60)).sum())


def test_an_action_moves_the_target_by_its_scale(robot):
    robot.reset("reach", SEED)
    start = target(robot)
    for _ in range(5):
        robot.step(np.array([0.5, 0, 0, 0, 0, 0]), gripper=1.0)
    np.testing.assert_allclose(target(robot) - start, [5 * 0.02, 0, 0], atol=1e-9)
    assert 0.5 * LINEAR_SCALE_M == 0.02
    assert robot.steps == 5


def test_the_hand_follows_the_target(robot):
    robot.reset("reach", SEED)
    start = robot.end_effector_position()
    for _ in range(5):
        robot.step(np.array([0.5, 0, 0, 0, 0, 0]), gripper=1.0)
    for _ in range(5):
        robot.step(STILL, gripper=1.0)
    np.testing.assert_allclose(robot.end_effector_position() - start, [0.1, 0, 0], atol=0.01)


def test_a_velocity_for_one_control_period_is_the_same_as_an_action(robot):
    robot.reset("reach", SEED)
    robot.step(np.array([0.5, -0.25, 0.1, 0, 0, 0]), gripper=-1.0)
    by_action = robot.state()
    robot.reset("reach", SEED)
    for _ in range(4):
        robot.advance(np.array([0.4, -0.2, 0.08]), gripper=-1.0)
    np.testing.assert_allclose(robot.state(), by_action, atol=1e-6)
    assert MAX_LINEAR_VELOCITY_M_S == pytest.approx(0.8)
    assert robot.steps == 1


def test_actions_beyond_one_are_clipped(robot):
    robot.reset("reach", SEED)
    start = target(robot)
    robot.step(np.array([9.0, 0, 0, 0, 0, 0]), gripper=1.0)
    np.testing.assert_allclose(target(robot) - start, [LINEAR_SCALE_M, 0, 0], atol=1e-9)


@pytest.mark.parametrize("velocity", [9.0, 1.7e308])
def test_velocities_beyond_the_arms_are_clipped_however_large(robot, velocity):
    robot.reset("reach", SEED)
    start = target(robot)
    robot.advance(np.array([velocity, 0, 0]), gripper=1.0)
    np.testing.assert_allclose(target(robot) - start, [LINEAR_SCALE_M / 4, 0, 0], atol=1e-9)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_an_action_that_is_not_finite_is_refused_and_nothing_moves(robot, bad):
    robot.reset("reach", SEED)
    before = robot.state()
    for call in (
        lambda: robot.step(np.array([0, bad, 0, 0, 0, 0]), gripper=1.0),
        lambda: robot.step(STILL, gripper=bad),
        lambda: robot.advance(np.array([bad, 0, 0]), gripper=1.0),
    ):
        with pytest.raises(ValueError, match="not finite"):
            call()
    np.testing.assert_array_equal(robot.state(), before)


def test_the_gripper_closes_at_minus_one_and_opens_at_plus_one(robot):
    robot.reset("reach", SEED)
    opening = {}
    for command in (-1.0, 1.0):
        for _ in range(10):
            robot.step(STILL, gripper=command)
        opening[command] = robot.state()[3]
    assert opening[-1.0] < 0.6 < 0.9 < opening[1.0]


def test_the_same_seed_and_actions_give_the_same_pictures_whatever_ran_before(robot):
    def run():
        robot.reset("reach", SEED)
        at_the_start = robot.pictures()
        for _ in range(3):
            robot.step(np.array([0.3, 0.5, -0.4, 0, 0, 0]), gripper=-1.0)
        return (*at_the_start, *robot.pictures(), robot.state(), robot.joint_positions())

    first = run()
    robot.reset("drawer-open", SEED)
    robot.step(np.ones(6), gripper=1.0)
    robot.reset("reach", SEED + 1)
    for one, other in zip(first, run()):
        np.testing.assert_array_equal(one, other)


def test_another_seed_lays_out_another_scene(robot):
    robot.reset("reach", SEED)
    state, (static, _) = robot.state(), robot.pictures()
    robot.reset("reach", SEED + 1)
    assert np.abs(robot.state()[-3:] - state[-3:]).max() > 0.01
    assert (robot.pictures()[0] != static).any()


def test_pictures_have_the_size_asked_for_and_show_the_goal_from_the_start(robot):
    robot.reset("reach", SEED)
    static, gripper = robot.pictures()
    for picture in (static, gripper):
        assert picture.shape == (64, 96, 3) and picture.dtype == np.uint8
        assert picture.std() > 10
    assert 1 <= goal_pixels(static) <= 60


@pytest.mark.parametrize("task", ["reach", "window-open"])
def test_the_first_pictures_and_state_show_the_scene_as_it_was_laid_out(robot, task):
    robot.reset(task, SEED)
    pictures, state = robot.pictures(), robot.state()
    import mujoco

    environment = robot._environment
    mujoco.mj_forward(environment.model, environment.data)
    for before, after in zip(pictures, robot.pictures()):
        np.testing.assert_array_equal(before, after)
    np.testing.assert_allclose(state[:18], environment._get_obs()[:18], atol=1e-6)


def test_the_largest_pictures_of_the_demonstration_cameras_are_rendered():
    robot = SimulatedRobot(height=480, width=640)
    robot.reset("drawer-open", SEED)
    assert [picture.shape for picture in robot.pictures()] == [(480, 640, 3)] * 2
    robot.close()


@pytest.mark.parametrize("height, width", [(0, 128), (128, 5000)])
def test_a_picture_size_that_cannot_be_rendered_is_refused(height, width):
    with pytest.raises(ValueError, match="picture (height|width) is .* must be from 16 to 2048"):
        SimulatedRobot(height, width)


def test_an_unknown_task_or_negative_seed_is_refused_and_the_episode_goes_on(robot):
    robot.reset("reach", SEED)
    robot.step(STILL, gripper=1.0)
    with pytest.raises(ValueError, match="'dance'; the tasks are reach"):
        robot.reset("dance", SEED)
    with pytest.raises(ValueError, match="-1; it must be 0 or more"):
        robot.reset("reach", -1)
    assert (robot.task, robot.steps) == ("reach", 1)


def test_a_robot_without_an_episode_says_what_to_do():
    robot = SimulatedRobot()
    for use in (robot.pictures, robot.state, robot.expert_action, lambda: robot.success):
        with pytest.raises(RuntimeError, match="call reset first"):
            use()


def test_joints_and_pose_are_the_arms(robot):
    robot.reset("reach", SEED)
    assert robot.joint_names[:2] == ("right_j0", "right_j1") and len(robot.joint_names) == 9
    assert robot.joint_positions().shape == (9,)
    assert robot.joint_positions()[-2] == pytest.approx(0.0, abs=0.01)
    assert np.linalg.norm(robot.end_effector_quaternion()) == pytest.approx(1.0)
    np.testing.assert_allclose(robot.end_effector_position(), [0, 0.6, 0.2], atol=0.03)


@pytest.fixture(scope="module", params=TASKS)
def task(request) -> str:
    return request.param


def test_the_state_has_one_length_and_holds_the_goal_or_the_last_ball(robot, task):
    robot.reset(task, SEED)
    state = robot.state()
    assert state.shape == (STATE_SIZE,) and state.dtype == np.float32
    np.testing.assert_allclose(state[:3], robot.end_effector_position(), atol=1e-6)
    for _ in range(2):
        goal = robot._environment._get_pos_goal()
        np.testing.assert_allclose(robot.state()[-3:], goal, atol=0.02)
        robot.step(STILL, gripper=1.0)
    assert np.abs(robot.state()[-3:]).max() > 0.05


def test_the_expert_succeeds_and_success_stays(robot, task):
    robot.reset(task, SEED)
    assert not robot.success
    while not robot.success and robot.steps < MAX_EPISODE_STEPS:
        action, gripper = robot.expert_action()
        assert action.shape == (6,) and action.dtype == np.float32
        assert np.abs(action).max() <= 1 and not action[3:].any() and gripper in (-1.0, 1.0)
        robot.step(action, gripper)
    assert robot.success
    for _ in range(3):
        robot.step(np.array([0, -1, 1, 0, 0, 0]), gripper=1.0)
    assert robot.success
    robot.reset(task, SEED)
    assert not robot.success


def test_standing_still_does_not_succeed(robot):
    robot.reset("reach", SEED)
    for _ in range(20):
        robot.step(STILL, gripper=1.0)
    assert not robot.success


def test_an_episode_may_last_longer_than_meta_world_lets_it(robot):
    robot.reset("reach", SEED)
    for _ in range(501):
        robot.advance(np.zeros(3), gripper=1.0)
    assert robot.steps * 4 == 500 and CONTROL_RATE_HZ == 20


def test_opengl_is_chosen_where_nobody_chose_and_left_alone_where_somebody_did():
    program = "import os; import deer_ros.sim.opengl as o; print(o.choose_opengl())"

    def run(**extra):
        return subprocess.run(
            [sys.executable, "-c", program], env=extra, capture_output=True, text=True, check=True
        ).stdout.strip()

    path = {"PYTHONPATH": ":".join(sys.path)}
    assert run(**path) in ("osmesa", "egl")
    assert run(**path, MUJOCO_GL="glfw") == "glfw"


def test_a_machine_without_off_screen_opengl_gets_the_names_of_packages(monkeypatch):
    from deer_ros.sim import opengl

    monkeypatch.delenv("MUJOCO_GL", raising=False)
    monkeypatch.setattr(opengl, "_LIBRARIES", {"osmesa": ("libNotThere.so.8",)})
    with pytest.raises(OSError, match="apt install libosmesa6"):
        opengl.choose_opengl()

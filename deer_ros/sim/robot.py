"""The simulated robot: Meta-World's Sawyer arm, told where to move, seen by two cameras."""

from __future__ import annotations

import sys

import numpy as np

from deer_ros.data.episode import POSE_NAMES, joint_names
from deer_ros.sim.opengl import choose_opengl

choose_opengl()

import mujoco  # noqa: E402 - MuJoCo reads the choice of OpenGL when it is imported
from metaworld.env_dict import ALL_V3_ENVIRONMENTS  # noqa: E402
from metaworld.sawyer_xyz_env import SawyerXYZEnv  # noqa: E402

from deer_ros.sim.ball_tasks import THREE_BALLS  # noqa: E402
from deer_ros.sim.balls import ThreeBalls  # noqa: E402
from deer_ros.sim.cameras import Cameras, check_picture_size  # noqa: E402
from deer_ros.sim.experts import ScriptedExpert  # noqa: E402
from deer_ros.sim.judge import Judge  # noqa: E402
from deer_ros.sim.task import Request, Task  # noqa: E402
from deer_ros.sim.tasks import find_task  # noqa: E402

ENVIRONMENT_RATE_HZ = 80
ENVIRONMENT_STEPS_PER_CONTROL_STEP = 4
CONTROL_RATE_HZ = ENVIRONMENT_RATE_HZ // ENVIRONMENT_STEPS_PER_CONTROL_STEP
LINEAR_SCALE_M = 0.04
"""Metres that the target moves in one control step of action 1."""
ANGULAR_SCALE_RAD = 0.05
"""Radians of one unit of rotation. The arm does not rotate: the value only gives zeros a unit."""
MAX_LINEAR_VELOCITY_M_S = LINEAR_SCALE_M * CONTROL_RATE_HZ
MAX_EPISODE_STEPS = 100
STATE_SIZE = 21

_ARM_JOINTS = tuple(f"right_j{i}" for i in range(7))
_FINGER_JOINTS = ("r_close", "l_close")
_PROPRIOCEPTION_NAMES = (*POSE_NAMES, *joint_names(_ARM_JOINTS + _FINGER_JOINTS))


class SimulatedRobot:
    """A simulated arm on one of the tasks in `deer_ros.sim.tasks.TASKS`.

    Moving it moves a target that the hand is welded to; orientation stays fixed. Everything is
    deterministic: the same task, seed and actions give the same pictures. Use an instance from
    one thread only: it holds an OpenGL context, which belongs to the thread that made it.
    """

    joint_names: tuple[str, ...] = _ARM_JOINTS + _FINGER_JOINTS
    proprioception_names: tuple[str, ...] = _PROPRIOCEPTION_NAMES
    rate_hz: int = CONTROL_RATE_HZ
    physics_rate_hz: int = ENVIRONMENT_RATE_HZ
    max_episode_steps: int = MAX_EPISODE_STEPS

    def __init__(self, height: int = 128, width: int = 128) -> None:
        """height, width: size of both cameras' pictures in pixels; ValueError beyond the limits."""
        check_picture_size(height, width)
        self._height, self._width = height, width
        self._task = self._request = None
        self._environment: SawyerXYZEnv | None = None
        self._cameras: Cameras | None = None
        self._judges: dict[Task, Judge] = {}

    def reset(self, task: str, seed: int, said: str | None = None) -> None:
        """Starts an episode: lays out the scene of `task` by `seed` (>= 0), opens the gripper.

        said: the task whose words are said, and by which success is judged, in that very scene;
        None: `task` itself. Another one must be the `other` of `task`.

        Raises:
            ValueError: there is no such task, its words cannot be said here, or the seed is
                negative.
        """
        new = find_task(task)
        asked = new if said is None else find_task(said)
        if asked.name not in (new.name, new.other):
            raise ValueError(
                f"the words of {asked.name} cannot be said in the scene of {new.name}"
                + (f"; those of {new.other} can" if new.other else "")
            )
        if seed < 0:
            raise ValueError(f"the seed is {seed}; it must be 0 or more")
        if new != self._task:
            self._load(new)
            self._task = new
        request = asked.request(int(seed))
        self._environment.seed(int(seed))
        _ask(self._environment, new.request(int(seed)))
        self._environment.reset()
        # Meta-World moves goals and fixtures after its last forward pass; without another one the
        # first pictures and state would have them where they were before.
        mujoco.mj_forward(self._environment.model, self._environment.data)
        self._observation = self._environment._get_obs()
        self._request, self._judge = request, self._judge_of(asked, int(seed))
        self._expert = ScriptedExpert(asked.environment, request)
        self._environment_steps = 0
        self._success = False

    def step(self, action: np.ndarray, gripper: float) -> None:
        """One control step (1/20 s).

        Args:
            action: (6,) or (3,) in -1..1, clipped to it; 1 moves the target LINEAR_SCALE_M.
            gripper: -1 close .. +1 open.

        Raises:
            ValueError: a value is not finite. The robot has not moved then.
        """
        for _ in range(ENVIRONMENT_STEPS_PER_CONTROL_STEP):
            self._advance(np.asarray(action, dtype=np.float64)[:3], gripper)

    def advance(self, velocity_m_s: np.ndarray, gripper: float) -> None:
        """One environment step (1/80 s) at a velocity (3,) in m/s, clipped to what the arm can do.

        Raises:
            ValueError: a value is not finite. The robot has not moved then.
        """
        velocity = np.asarray(velocity_m_s, dtype=np.float64)
        if np.isfinite(velocity).all():
            # The division would make the largest numbers infinite.
            velocity = np.clip(velocity, -MAX_LINEAR_VELOCITY_M_S, MAX_LINEAR_VELOCITY_M_S)
        self._advance(velocity / MAX_LINEAR_VELOCITY_M_S, gripper)

    def pictures(self) -> tuple[np.ndarray, np.ndarray]:
        """What the static and the wrist camera see now: two uint8 (height, width, 3) RGB."""
        environment = self._running()
        if self._cameras is None:
            self._cameras = Cameras(environment.model, self._height, self._width)
        return self._cameras.pictures(environment.data)

    def joint_positions(self) -> np.ndarray:
        """float64 (9,): seven joints of the arm in rad, two fingers in m, as in `joint_names`."""
        data = self._running().data
        return np.array([data.joint(name).qpos[0] for name in self.joint_names])

    def end_effector_position(self) -> np.ndarray:
        """Position of the hand, float64 (3,), m."""
        return self._running().data.body("hand").xpos.copy()

    def end_effector_quaternion(self) -> np.ndarray:
        """Orientation of the hand, float64 (4,), in the order x, y, z, w."""
        return np.roll(self._running().data.body("hand").xquat, -1)

    def proprioception(self) -> np.ndarray:
        """Pose of the hand and joint positions, float32, as `proprioception_names` says."""
        pose = self.end_effector_position(), self.end_effector_quaternion()
        return np.concatenate([*pose, self.joint_positions()]).astype(np.float32)

    def expert_action(self) -> tuple[np.ndarray, float]:
        """What the scripted expert would do now: float32 (6,) in -1..1, gripper -1.0 or +1.0."""
        self._running()
        judge = self._judge
        return self._expert.action(self._observation if judge is None else judge.observation())

    def state(self) -> np.ndarray:
        """The simulator's own knowledge of the scene, float32 (STATE_SIZE,). Never for a policy.

        Hand position (3), gripper opening (1), position and quaternion of two objects (14, zeros
        where there is none), goal position (3).
        """
        self._running()
        # Meta-World stacks the previous frame (18 values) between the present one and the goal.
        return np.concatenate([self._observation[:18], self._observation[36:]]).astype(np.float32)

    @property
    def task(self) -> str:
        self._running()
        return self._task.name

    @property
    def instruction(self) -> str:
        self._running()
        return self._request.instruction

    @property
    def success(self) -> bool:
        """Whether the task that was said has been done at any moment since the reset."""
        self._running()
        return self._success

    @property
    def steps(self) -> int:
        """Whole control steps since the reset."""
        self._running()
        return self._environment_steps // ENVIRONMENT_STEPS_PER_CONTROL_STEP

    def close(self) -> None:
        """Ends the episode and frees the OpenGL context; `reset` may be called again."""
        if self._cameras is not None:
            self._cameras.close()
        self._task = self._request = self._environment = self._cameras = None

    def _advance(self, move: np.ndarray, gripper: float) -> None:
        command = np.append(move, -gripper)
        if not np.isfinite(command).all():
            raise ValueError(f"the action {move.tolist()} with gripper {gripper} is not finite")
        command = np.clip(command, -1.0, 1.0)
        self._observation, _, _, _, info = self._running().step(command)
        self._environment_steps += 1
        done = bool(info["success"]) if self._judge is None else self._judge.is_done(command)
        self._success = self._success or done

    def _running(self) -> SawyerXYZEnv:
        if self._environment is None:
            raise RuntimeError("the simulated robot has no episode yet: call reset first")
        return self._environment

    def _judge_of(self, said: Task, seed: int) -> Judge | None:
        """What judges another task than the scene's own."""
        if said == self._task:
            return None
        if said not in self._judges:
            self._judges[said] = Judge(_make_environment(said.environment))
        judge = self._judges[said]
        _ask(judge.environment, said.request(seed))
        judge.look_at(self._environment, seed)
        return judge

    def _load(self, task: Task) -> None:
        self.close()
        self._environment = _make_environment(task.environment)


def _ask(environment: SawyerXYZEnv, request: Request) -> None:
    """Make it so that the layouts to come are of `request`."""
    if isinstance(environment, ThreeBalls):
        environment.choice = request.choice


def _make_environment(name: str) -> SawyerXYZEnv:
    environment = ThreeBalls() if name == THREE_BALLS else ALL_V3_ENVIRONMENTS[name]()
    # The goal belongs to the full observation. The space that observations are clipped to was
    # computed while it was hidden and would clip it to zero.
    environment._partially_observable = False
    del environment.sawyer_observation_space
    environment._set_task_called = True
    # Every reset draws a new layout from the environment's own seeded generator.
    environment._freeze_rand_vec = False
    environment.seeded_rand_vec = True
    # When an episode ends is decided by whoever runs it.
    environment.max_path_length = sys.maxsize
    return environment

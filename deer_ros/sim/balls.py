"""A scene of this project's own: three coloured balls lie on the table, one is asked for.

The same scene serves all its tasks, so that only the words say where to go: some name a colour,
others compare the balls with each other.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from deer_ros.sim.opengl import choose_opengl

choose_opengl()

import mujoco  # noqa: E402 - MuJoCo reads the choice of OpenGL when it is imported
from gymnasium.spaces import Box  # noqa: E402
from metaworld.envs.sawyer_reach_v3 import SawyerReachEnvV3  # noqa: E402

SUCCESS_DISTANCE_M = 0.05
"""Of the fingertips' centre from the middle of the ball that was asked for."""

_COLOURS = {
    "red": (0.9, 0.0, 0.0, 1.0),
    "green": (0.0, 0.7, 0.0, 1.0),
    "blue": (0.0, 0.0, 0.9, 1.0),
}
_RADIUS_M = 0.035
_LOW_M, _HIGH_M = np.array([-0.25, 0.55, _RADIUS_M]), np.array([0.25, 0.85, _RADIUS_M])
# What makes every comparison of two balls clear to the eye.
_LEAST_DISTANCE_M = 0.12
_LEAST_DIFFERENCE_M = 0.06
_HAND_ABOVE_FINGERTIPS_M = np.array([0.0, 0.0, 0.045])


def _leftmost(balls: np.ndarray) -> int:
    return int(balls[:, 0].argmin())


def _rightmost(balls: np.ndarray) -> int:
    return int(balls[:, 0].argmax())


def _nearest_to(balls: np.ndarray, number: int) -> int:
    distances = np.linalg.norm(balls - balls[number], axis=1)
    distances[number] = np.inf
    return int(distances.argmin())


CHOICES: dict[str, Callable[[np.ndarray], int]] = {
    **{colour: (lambda balls, number=number: number) for number, colour in enumerate(_COLOURS)},
    "leftmost": _leftmost,
    "middle": lambda balls: int(balls[:, 0].argsort()[1]),
    "rightmost": _rightmost,
    **{
        f"next to {colour}": (lambda balls, number=number: _nearest_to(balls, number))
        for number, colour in enumerate(_COLOURS)
    },
    "next to leftmost": lambda balls: _nearest_to(balls, _leftmost(balls)),
    "next to rightmost": lambda balls: _nearest_to(balls, _rightmost(balls)),
}
"""Which of the balls (3, 3), in the order of their colours, is meant. The robot looks along +y."""


class ThreeBalls(SawyerReachEnvV3):
    """Meta-World's reach with three balls instead of its goal.

    choice: which of them is the goal, a key of `CHOICES`; it holds from the next reset on.

    The first two balls stand where other environments have objects in their observation, the third
    where they have the goal: what is observed is the scene, not what was asked for.
    """

    def __init__(self) -> None:
        self.choice = next(iter(CHOICES))
        self._balls = np.zeros((3, 3))
        super().__init__()
        # Observations are clipped to where goals can be.
        self.goal_space = Box(_LOW_M, _HIGH_M, dtype=np.float64)

    def _initialize_simulation(self) -> tuple[mujoco.MjModel, mujoco.MjData]:
        scene = mujoco.MjSpec.from_file(self.fullpath)
        for colour, rgba in _COLOURS.items():
            # MuJoCo takes a site that is compiled at the origin as one that stays there.
            scene.worldbody.add_site(name=colour, size=[_RADIUS_M] * 3, rgba=rgba, pos=_LOW_M)
        scene.site("goal").rgba = [0.0, 0.0, 0.0, 0.0]
        scene.geom("objGeom").rgba = [0.0, 0.0, 0.0, 0.0]
        model = scene.compile()
        return model, mujoco.MjData(model)

    def reset_model(self) -> np.ndarray:
        self._reset_hand()
        self._balls = self._scattered()
        self._target_pos = self._balls[CHOICES[self.choice](self._balls)]
        for colour, position in zip(_COLOURS, self._balls):
            self.model.site(colour).pos = position
        return self._get_obs()

    def evaluate_state(self, obs: np.ndarray, action: np.ndarray) -> tuple[float, dict]:
        distance = np.linalg.norm(self.tcp_center - self._target_pos)
        return 0.0, {"success": float(distance <= SUCCESS_DISTANCE_M)}

    def _scattered(self) -> np.ndarray:
        while True:
            balls = self.np_random.uniform(_LOW_M, _HIGH_M, size=(3, 3))
            gaps = np.diff(np.sort(balls[:, 0]))
            points = np.vstack([balls, self.tcp_center])
            distances = np.linalg.norm(points[:, None] - points[None], axis=-1)
            between_balls = np.sort(distances[:3, :3][np.triu_indices(3, k=1)])
            if (
                gaps.min() >= _LEAST_DIFFERENCE_M
                and distances[np.triu_indices(4, k=1)].min() >= _LEAST_DISTANCE_M
                and np.diff(between_balls).min() >= _LEAST_DIFFERENCE_M
            ):
                return balls

    def _get_pos_objects(self) -> np.ndarray:
        return self._balls[:2].reshape(-1)

    def _get_quat_objects(self) -> np.ndarray:
        return np.tile([0.0, 0.0, 0.0, 1.0], 2)

    def _get_pos_goal(self) -> np.ndarray:
        return self._balls[2]

    @property
    def _target_site_config(self) -> list[tuple[str, np.ndarray]]:
        return []


class BallExpert:
    """Goes straight to the ball that is meant."""

    def __init__(self, choice: str) -> None:
        self._choose = CHOICES[choice]

    def get_action(self, observation: np.ndarray) -> np.ndarray:
        """dx dy dz in units of action, and the effort that closes the gripper, float64 (4,)."""
        balls = np.stack([observation[4:7], observation[11:14], observation[-3:]])
        goal = balls[self._choose(balls)] + _HAND_ABOVE_FINGERTIPS_M
        return np.append(5.0 * (goal - observation[:3]), 0.0)

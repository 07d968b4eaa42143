"""CALVIN's protocol and scores, with a simulator that is written here."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from tiny_model import tiny_config, write_tiny_model

from deer_ros import DeerPolicy, Observation
from deer_ros.cli.main import main
from deer_ros.data.calvin import GRIPPER_WIDTH
from deer_ros.evaluation import calvin
from deer_ros.evaluation.calvin import ChainResult, run_chain, score
from deer_ros.evaluation.calvin_chains import Chain, chains
from deer_ros.evaluation.episode import Episode, Setting, run_episode
from deer_ros.model.config import ActionConfig, ProprioceptionConfig

TASKS = ("open_drawer", "close_drawer", "turn_on_led", "stack_block", "place_in_slider")
CHAIN = Chain({"led": 0}, TASKS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def policy(folder) -> DeerPolicy:
    return DeerPolicy.from_pretrained(folder)


class Table:
    """A `ChainEnvironment` whose tasks are done after so many steps; None: never."""

    def __init__(self, *steps_needed: int | None) -> None:
        self.needed = iter(steps_needed)
        self.log: list = []

    def reset(self, start) -> None:
        self.log.append(("reset", start))

    def begin(self, task) -> None:
        self.log.append(("begin", task))
        self.instruction, self.success = "open the drawer", False
        self.left = next(self.needed)

    def observation(self) -> Observation:
        return Observation(*np.full((2, 32, 32, 3), len(self.log) % 256, np.uint8))

    def step(self, action, gripper) -> None:
        self.log.append("step")
        if self.left is not None:
            self.left -= 1
            self.success = self.success or self.left == 0


def test_a_chain_goes_on_from_task_to_task_without_a_reset(policy):
    table = Table(2, 1, 3, 1, 1)
    episodes = run_chain(policy, table, 2, CHAIN)
    assert [e.success for e in episodes] == [True] * 5
    assert [e.steps for e in episodes] == [2, 1, 3, 1, 1]
    assert [entry for entry in table.log if entry != "step"] == [
        ("reset", CHAIN.start), *(("begin", task) for task in TASKS)
    ]


def test_a_chain_ends_with_the_first_task_that_fails_after_360_steps(policy):
    table = Table(2, None)
    episodes = run_chain(policy, table, 2, CHAIN)
    assert [(e.success, e.steps) for e in episodes] == [(True, 2), (False, 360)]


def test_a_task_done_in_the_last_step_counts(policy):
    assert [e.success for e in run_chain(policy, Table(360, None), 2, CHAIN)] == [True, False]


def test_every_task_starts_with_a_new_recurrent_state(policy):
    policy.step(Observation(*np.zeros((2, 32, 32, 3), np.uint8)), "open the drawer")
    table, actions = Table(1), []
    table.begin("open_drawer")
    table.observation = lambda: Observation(*np.zeros((2, 32, 32, 3), np.uint8))
    table.step = lambda action, gripper: actions.append(action)
    for _ in range(2):
        run_episode(policy, table, 6, max_periods=2)
    np.testing.assert_array_equal(actions[0], actions[2])
    assert not np.array_equal(actions[0], actions[1])


@pytest.fixture(scope="module")
def patient(tmp_path_factory) -> DeerPolicy:
    """A policy whose every action is carried out three times."""
    folder = tmp_path_factory.mktemp("models") / "patient"
    action = dataclasses.replace(tiny_config().action, executions_per_step=3)
    return DeerPolicy.from_pretrained(write_tiny_model(folder, action=action))


@pytest.mark.parametrize("needed, limit, steps, periods", [
    (6, 360, 2, 6), (7, 360, 3, 7), (1, 360, 1, 1), (None, 360, 120, 360), (None, 10, 4, 10),
])
def test_an_action_is_carried_out_as_often_as_the_model_says_until_success_or_the_limit(
    patient, needed, limit, steps, periods
):
    table, actions = Table(needed), []
    table.begin("open_drawer")
    carry_out = table.step
    table.step = lambda action, gripper: (actions.append((*action, gripper)),
                                          carry_out(action, gripper))
    outcome = run_episode(patient, table, None, limit)
    assert (outcome.success, outcome.steps, outcome.periods) == (needed is not None, steps, periods)
    assert len(actions) == periods
    assert all(actions[n] == actions[n - n % 3] for n in range(periods))


def test_the_recurrent_state_advances_once_per_step_however_often_it_is_carried_out(patient):
    table, actions = Table(None), []
    table.begin("open_drawer")
    blank = Observation(*np.zeros((2, 32, 32, 3), np.uint8))
    table.observation = lambda: blank
    table.step = lambda action, gripper: actions.append(action)
    run_episode(patient, table, 6, 9)
    patient.reset()
    expected = [patient.step(blank, "open the drawer", 6).action for _ in range(3)]
    np.testing.assert_array_equal(actions[::3], expected)
    assert not np.array_equal(expected[0], expected[1])


def episode(success: bool, steps: int, exit_layer: float, gflops: float) -> Episode:
    return Episode(success, steps, steps, exit_layer, gflops, 10 * gflops, 1.0)


def test_the_score_counts_tasks_in_a_row_and_averages_over_all_steps():
    done, failed = episode(True, 10, 2.0, 1.0), episode(False, 360, 6.0, 3.0)
    results = [
        ChainResult("s", 0, TASKS, (done,) * 5),
        ChainResult("s", 1, TASKS, (done, done, failed)),
        ChainResult("s", 2, TASKS, (failed,)),
        ChainResult("s", 3, TASKS, (done, failed)),
    ]
    assert [r.length for r in results] == [5, 2, 0, 1]
    found = score("s", results)
    assert found.average_length == 2.0
    assert found.in_a_row == (0.75, 0.5, 0.25, 0.25, 0.25)
    assert sum(found.in_a_row) == found.average_length
    steps = 8 * 10 + 3 * 360
    assert found.steps == steps and found.chains == 4
    assert found.mean_exit_layer == pytest.approx((80 * 2.0 + 1080 * 6.0) / steps)
    assert found.mean_llm_gflops == pytest.approx((80 * 1.0 + 1080 * 3.0) / steps)
    assert found.mean_step_gflops == pytest.approx(10 * found.mean_llm_gflops)


def test_a_setting_does_not_outlive_its_chain(policy):
    assert Setting("", thresholds=(0.5, 0.5, 0.5)).apply(policy) is None
    assert policy.thresholds[0] == 0.5
    assert Setting("").apply(policy) == 6
    assert policy.thresholds[0] == 0.01
    assert Setting("", exit_layer=2).apply(policy) == 2


# The command, with packages of the simulator's names


FAKE = {
    "calvin_env/__init__.py": "",
    "calvin_env/envs/__init__.py": "",
    "calvin_env/envs/play_table_env.py": """
import json
import numpy as np

class Env:
    def __init__(self):
        self.actions = []
        self.steps = 0
    def observe(self):
        return {"rgb_obs": {"rgb_static": np.zeros((200, 200, 3), np.uint8),
                            "rgb_gripper": np.zeros((84, 84, 3), np.uint8)},
                "robot_obs": np.arange(15.0)}
    def reset(self, robot_obs, scene_obs):
        assert (robot_obs, scene_obs["drawer"] in ("open", "closed")) == ("robot", True)
        return self.observe()
    def get_info(self):
        return {"steps": self.steps}
    def step(self, action):
        assert action.shape == (7,) and action[6] in (-1, 1) and abs(action[:6]).max() <= 4 / 3
        self.actions.append(action)
        self.steps += 1
        return self.observe(), 0, False, self.get_info()

def get_env(path, obs_space, show_gui):
    assert path.name == "validation" and path.is_dir() and show_gui is False
    assert obs_space == {"rgb_obs": ["rgb_static", "rgb_gripper"], "depth_obs": []}
    return Env()
""",
    # Lights take two steps, other tasks never succeed.
    "calvin_env/envs/tasks.py": """
class Tasks:
    def __init__(self, tasks):
        self.tasks = tasks
    def get_task_info_for_set(self, before, now, wanted):
        return {t for t in wanted if self.tasks[t][0] == "toggle_light"
                and now["steps"] - before["steps"] >= 2}
""",
    "models/calvin_agent/__init__.py": "",
    "models/calvin_agent/evaluation/__init__.py": "",
    "models/calvin_agent/evaluation/utils.py": """
def get_env_state_for_initial_condition(state):
    assert str(state.values()).startswith("dict_values([")
    return "robot", state
""",
}


@pytest.fixture
def installed(tmp_path, monkeypatch) -> Path:
    """Modules that take the simulator's place; the folder that they are in."""
    for name, text in FAKE.items():
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    every = {task for chain in chains(3) for task in chain.tasks}
    kinds = {t: ["toggle_light" if t.startswith("turn_") else "other"] for t in every}
    write_json(tmp_path / "models/conf" / calvin.TASKS, {"tasks": kinds})
    write_json(tmp_path / "models/conf" / calvin.ANNOTATIONS,
               {task: ["open the drawer\nsecond line", "another"] for task in every})
    write_json(tmp_path / "task_D_D" / calvin.RENDERING, {})
    for path in (tmp_path, tmp_path / "models"):
        monkeypatch.syspath_prepend(path)
    yield tmp_path
    for name in [n for n in sys.modules if n.split(".")[0] in calvin.PACKAGES]:
        del sys.modules[name]


def write_json(file: Path, value) -> None:
    """JSON is YAML, too."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(value))


def evaluate(*arguments) -> int:
    return main(["evaluate", "--env", "calvin", *map(str, arguments)])


def calvin_environment(installed: Path, **changes) -> calvin.CalvinEnvironment:
    environment = calvin.CalvinEnvironment(installed / "task_D_D", tiny_config(**changes))
    (chain,) = chains(1)
    environment.reset(chain.start)
    environment.begin(chain.tasks[0])
    return environment


def test_actions_are_brought_into_the_simulators_units(installed):
    """0.02 m at 30 Hz are 0.6 m/s; a model of 0.04 m at 20 Hz means 0.8 m/s by the same number."""
    action = np.array([0.3, -0.3, 0.1, 0.2, -0.2, 0.1], np.float32)
    for units, factors in (((30.0, 0.02, 0.05), (1, 1)), ((20.0, 0.04, 0.05), (4 / 3, 2 / 3))):
        rate_hz, linear_scale, angular_scale = units
        environment = calvin_environment(installed, action=ActionConfig(
            rate_hz=rate_hz, linear_scale=linear_scale, angular_scale=angular_scale))
        environment.step(action, 1.0)
        (taken,) = environment._env.actions
        np.testing.assert_allclose(taken[:6], action * np.repeat(factors, 3), rtol=1e-6)
    np.testing.assert_array_equal(taken[6], 1.0)
    with pytest.raises(ValueError, match="frame 'tool'"):
        calvin_environment(installed, action=ActionConfig(frame="tool"))


def test_what_a_model_reads_of_the_robot_comes_as_in_the_dataset(installed):
    names = (GRIPPER_WIDTH, "end_effector.y", "joint.panda_joint1")
    layout = ProprioceptionConfig(names, (0.0,) * 3, (1.0,) * 3)
    environment = calvin_environment(installed, proprioception=layout)
    np.testing.assert_array_equal(environment.observation().proprioception, [6.0, 1.0, 7.0])
    strange = ProprioceptionConfig(("joint.elbow",), (0.0,), (1.0,))
    with pytest.raises(ValueError, match=r"lacks joint\.elbow"):
        calvin_environment(installed, proprioception=strange)


def test_the_command_runs_the_chains_and_says_what_the_papers_table_says(
    installed, folder, capsys, monkeypatch
):
    monkeypatch.setattr(calvin, "MAX_PERIODS", 4)
    asked = (folder, "--dataset", installed / "task_D_D", "--chains", 3, "--exits", "2,6")
    assert evaluate(*asked, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    lengths = []
    for chain in chains(3):
        lights = [task.startswith("turn_") for task in chain.tasks]
        lengths.append((lights + [False]).index(False))
    assert {s["setting"] for s in found["scores"]} == {"exit 2", "exit 6"}
    for scored in found["scores"]:
        results = [c for c in found["chains"] if c["setting"] == scored["setting"]]
        assert [sum(e["success"] for e in c["episodes"]) for c in results] == lengths
        assert [c["tasks"] for c in results] == [list(chain.tasks) for chain in chains(3)]
        assert scored["average_length"] == np.mean(lengths)
        assert scored["mean_exit_layer"] == float(scored["setting"][-1])
        assert scored["steps"] == sum(2 * n + 4 for n in lengths)
    assert evaluate(*asked) == 0
    table = capsys.readouterr().out
    for text in ("average", "5 in", "exit 2", "exit 6", f"{np.mean(lengths):.2f}"):
        assert text in table


def test_one_process_computes_with_as_many_threads_as_each_of_several(
    installed, folder, monkeypatch
):
    monkeypatch.setattr(calvin, "MAX_PERIODS", 1)
    taken = []
    monkeypatch.setattr("torch.set_num_threads", taken.append)
    assert evaluate(folder, "--dataset", installed / "task_D_D", "--chains", 1) == 0
    assert taken == [1]


def test_without_a_setting_the_models_own_thresholds_run(installed, folder, capsys, monkeypatch):
    monkeypatch.setattr(calvin, "MAX_PERIODS", 1)
    assert evaluate(folder, "--dataset", installed / "task_D_D", "--chains", 1, "--json") == 0
    scores = json.loads(capsys.readouterr().out)["scores"]
    assert [s["setting"] for s in scores] == ["own thresholds"]


def test_the_first_line_of_the_first_annotation_is_the_instruction(installed):
    environment = calvin.CalvinEnvironment(installed / "task_D_D", tiny_config())
    environment.begin(chains(3)[0].tasks[0])
    assert environment.instruction == "open the drawer"


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ((), "--env calvin needs --dataset"),
        (("--dataset", "{}/nothing"), "is no CALVIN dataset"),
        (("--dataset", "{}/task_D_D", "--chains", "0"), "--chains is 0"),
        (("--dataset", "{}/task_D_D", "--processes", "0"), "--processes is 0"),
        (("--dataset", "{}/task_D_D", "--preset", "nonsense"), "there is no preset 'nonsense'"),
        (("--dataset", "{}/task_D_D", "--preset", "calvin-d"), "6 thresholds were given"),
        (("--dataset", "{}/task_D_D", "--exits", "3"), "--exits has 3"),
        (("--dataset", "{}/task_D_D", "--budget", "peak_gflops=1e-9"), "cannot be kept in the"),
        (("--dataset", "{}/task_D_D", "--tasks", "lift"), "--tasks is for --env metaworld and lib"),
    ],
)
def test_what_cannot_be_evaluated_is_said_in_one_line(
    installed, folder, capsys, arguments, complaint
):
    assert evaluate(folder, *(text.format(installed) for text in arguments)) == 2
    said = capsys.readouterr().err
    assert complaint in said and said.count("\n") == 1 and said.startswith("deer evaluate: ")


def test_a_missing_simulator_is_said_in_one_line(folder, capsys, tmp_path):
    assert evaluate(folder, "--dataset", tmp_path) == 2
    said = capsys.readouterr().err
    assert "calvin_env and calvin_agent are not installed" in said
    assert "https://github.com/mees/calvin" in said and said.count("\n") == 1


def test_a_simulator_without_its_configuration_is_said(installed, folder, capsys):
    (installed / "models/conf" / calvin.TASKS).unlink()
    assert evaluate(folder, "--dataset", installed / "task_D_D") == 2
    assert "install it from its repository with pip's --editable" in capsys.readouterr().err

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from cost_tables import cost_table
from robot_bags import GRIPPER, START_NS, STATIC, RobotBag, add_frames, write_bag
from rosbags.rosbag2 import CompressionMode, StoragePlugin
from tiny_model import write_tiny_model

from deer_ros.budget.timing import CostTable
from deer_ros.cli.main import main
from deer_ros.data.own_messages import ACTION, STATUS
from deer_ros.data.recording import Recording
from deer_ros.model.config import DeerConfig
from deer_ros.replay.folder import ReplayFolder
from deer_ros.replay.records import read_records
from deer_ros.report.files import write_json
from deer_ros.resources import bundled_model, share


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def replay(model, tmp_path, capsys):
    """Runs `deer replay`: exit code, stdout and stderr."""

    def run(*arguments: object, out: str = "out", report: bool = False) -> tuple[int, str, str]:
        more = ["--out", str(tmp_path / out), *(() if report else ("--no-report",))]
        code = main(["replay", str(model), *map(str, arguments), *more])
        return (code, *capsys.readouterr())

    return run


def refused(result: tuple[int, str, str], words: str) -> None:
    """One line, and nothing else."""
    code, out, err = result
    assert (code, out) == (2, "")
    assert err.startswith("deer replay: ") and err.count("\n") == 1, err
    assert re.search(words, err), err


def messages(bag: Path) -> list[tuple[str, int, bytes]]:
    with Recording(bag) as recording:
        return [(topic, time, bytes(data)) for topic, time, data in recording.messages()]


def test_inputs_go_through_unchanged_and_each_step_has_its_action_and_status(replay, tmp_path):
    bag = write_bag(tmp_path / "bag")
    code, out, _ = replay(bag)
    assert code == 0 and "out/replay.json" in out
    written = messages(tmp_path / "out" / "bag")
    assert [m for m in written if not m[0].startswith("/deer/")] == messages(bag)
    with Recording(tmp_path / "out" / "bag") as recording:
        topics = recording.topics
        assert (topics["/deer/action"].kind, topics["/deer/status"].kind) == (ACTION, STATUS)
        assert topics["/deer/action"].count == 12 <= topics["/deer/status"].count
        for kind, topic in ((ACTION, "/deer/action"), (STATUS, "/deer/status")):
            file = share("msg", kind.split("/")[-1] + ".msg").read_text()
            assert topics[topic].definition.startswith(file)
    times = [time for _, time, _ in written]
    assert times == sorted(times)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bag", "out"]


def test_nothing_is_commanded_by_a_replay(replay, tmp_path):
    replay(write_bag(tmp_path / "bag"), "--param", "allow_simulation_model:=true")
    with Recording(tmp_path / "out" / "bag") as recording:
        said = [recording.decode(t, d) for t, _, d in recording.messages(["/deer/action"])]
    assert len(said) == 12 and not any(action.commanded for action in said)


def test_the_page_needs_no_network_and_shows_what_it_must(replay, tmp_path):
    replay(write_bag(tmp_path / "bag"), report=True)
    page = (tmp_path / "out" / "report.html").read_text()
    # Names of XML namespaces are no addresses that a browser opens.
    opened = re.findall(r"""(?:src|href)\s*=\s*["']([^"'#][^"']*)""", page)
    assert all(address.startswith("data:") for address in opened)
    assert "<script" not in page and "@import" not in page and "url(http" not in page
    assert page.count("<svg") == 6 and page.count("data:image/jpeg") == 8
    for words in ("measured while this run was made", "difference to the recorded actions",
                  "differ most from what was recorded", "open the drawer"):
        assert words in page


def test_figures_are_printed_as_json(replay, tmp_path):
    code, out, _ = replay(write_bag(tmp_path / "bag"), "--json")
    told = json.loads(out)
    assert told == json.loads((tmp_path / "out" / "replay.json").read_text())
    (run,) = told["runs"]
    assert (code, run["steps"], run["episodes"]) == (0, 12, 1)
    assert sum(run["exits"].values()) == 12
    assert run["to_recorded"]["mean"] > 0 and run["gripper_as_recorded"] <= 1
    assert run["jerk_m_s3"]["policy"] > 0 and run["jerk_m_s3"]["recorded"] > 0


def test_the_recorded_jerk_is_that_of_the_recorded_velocity(replay, tmp_path):
    _, out, _ = replay(write_bag(tmp_path / "bag"), "--json")
    velocity = 0.1 * np.sin(np.arange(12)[:, None] + np.arange(3))
    second = (velocity[2:] - 2 * velocity[1:-1] + velocity[:-2]) * 20**2
    expected = np.sqrt(np.mean(np.sum(second**2, axis=1)))
    assert json.loads(out)["runs"][0]["jerk_m_s3"]["recorded"] == pytest.approx(expected, rel=1e-4)


def test_a_second_run_is_the_same(replay, tmp_path):
    bag = write_bag(tmp_path / "bag")
    replay(bag, out="first")
    code, out, _ = replay(bag, "--compare", tmp_path / "first", "--tolerance", 0, out="second")
    assert code == 0 and "the same in 12 steps" in out


def test_another_depth_is_a_difference_that_names_the_first_step(replay, tmp_path):
    bag = write_bag(tmp_path / "bag")
    replay(bag, out="first")
    earlier = tmp_path / "first"
    code, out, _ = replay(bag, "--param", "exit.max_layer:=2", "--compare", earlier, out="second")
    assert code == 1
    assert "First: bag, /deer/action, episode 1, step 1" in out
    assert "exit after layer 6 became 2" in out and "differ in 12 of 12 steps" in out
    compared = json.loads((tmp_path / "second" / "replay.json").read_text())["compared"]
    assert not compared["same"] and compared["largest"] > 0


def test_a_step_that_is_missing_is_a_difference(replay, tmp_path):
    replay(write_bag(tmp_path / "a" / "bag", frames=12), out="first")
    shorter = write_bag(tmp_path / "b" / "bag", frames=10)
    code, out, _ = replay(shorter, "--compare", tmp_path / "first", out="second")
    assert code == 1 and "2 steps are in the earlier run only" in out


def test_another_models_run_is_the_same_within_a_tolerance_that_is_large(tmp_path, capsys):
    bag = write_bag(tmp_path / "bag")
    for seed in (0, 1):
        other = write_tiny_model(tmp_path / f"model{seed}", seed=seed)
        arguments = ["replay", str(other), str(bag), "--out", str(tmp_path / f"out{seed}"),
                     "--no-report"]
        if seed:
            arguments += ["--compare", str(tmp_path / "out0")]
        code = main(arguments)
    assert code == 1
    assert "the action differs by" in capsys.readouterr().out


def test_bags_of_other_runs_are_not_compared(replay, tmp_path):
    replay(write_bag(tmp_path / "one" / "a"), write_bag(tmp_path / "one" / "b"), out="first")
    other = write_bag(tmp_path / "c")
    refused(replay(other, "--compare", tmp_path / "first", out="second"), "no bag in common")


def test_a_bag_without_any_run_cannot_be_compared_with(replay, tmp_path):
    bag = write_bag(tmp_path / "bag")
    refused(replay(bag, "--compare", bag), "no run of this policy")


def test_a_bag_in_which_no_step_is_made_does_not_keep_the_others_from_being_compared(
    replay, tmp_path
):
    bags = [write_bag(tmp_path / "a"), write_bag(tmp_path / "b", instruction=" ")]
    replay(*bags, out="first")
    code, out, _ = replay(*bags, "--compare", tmp_path / "first", out="second")
    assert code == 0 and "the same in 12 steps" in out
    replay(bags[1], out="nothing")
    refused(replay(*bags, "--compare", tmp_path / "nothing", out="third"), "made no step")


def test_replays_of_a_replay_go_on_and_are_compared_by_their_own_steps_alone(replay, tmp_path):
    """As of a bag that the node ran in: what it had said is in the input, moved aside."""
    bag = write_bag(tmp_path / "0")
    replay(bag, out="first")
    for generation in (1, 2, 3):
        shutil.copytree(tmp_path / "first" / bag.name, tmp_path / str(generation) / "bag")
        bag = tmp_path / str(generation) / "bag"
        shutil.rmtree(tmp_path / "first")
        code, _, _ = replay(bag, out="first")
        assert code == 0
        again = f"again_{generation}"
        code, out, _ = replay(bag, "--compare", tmp_path / "first", out=again)
        assert code == 0 and "the same in 12 steps" in out
    with Recording(tmp_path / again / "bag") as recording:
        kept = {topic.name: topic.count for topic in recording.topics.values()
                if topic.kind == ACTION}
    assert kept == {f"{'/recorded' * depth}/deer/action": 12 for depth in range(4)}


def test_a_step_without_an_answer_is_no_difference(replay, tmp_path):
    with RobotBag(tmp_path / "bag") as bag:
        bag.instruction(START_NS - 1, "open the drawer")
        for number in range(6):
            stamp_ns = START_NS + number * 50_000_000
            bag.picture(STATIC, stamp_ns, number, data=b"\xff\xd8" if number == 3 else None)
            bag.picture(GRIPPER, stamp_ns, number)
    replay(bag.path, out="first")
    code, out, _ = replay(bag.path, "--compare", tmp_path / "first", out="second")
    assert code == 0 and "the same in 5 steps" in out


def test_a_sweep_has_a_topic_and_a_section_for_each_run(replay, tmp_path):
    bag = write_bag(tmp_path / "bag")
    budgets = ("--budget", "exit.max_layer=2", "--budget", "exit.max_layer=6")
    code, out, _ = replay(bag, *budgets, report=True)
    assert code == 0
    runs = read_records(tmp_path / "out" / "bag", [])
    assert {topic: {step.exit_layer for step in steps} for topic, steps in runs.items()} == {
        "/exit_max_layer_2/deer/action": {2}, "/exit_max_layer_6/deer/action": {6}}
    assert "All runs are exact" in (tmp_path / "out" / "report.html").read_text()


def test_a_budget_is_kept_and_told(replay, tmp_path, model):
    told = json.loads(replay(write_bag(tmp_path / "bag", frames=30), "--json")[1])["runs"][0]
    asked = told["llm_gflops"]
    arguments = ("--budget", f"peak_gflops={0.7 * asked}", "--json")
    _, out, _ = replay(tmp_path / "bag", *arguments, out="second")
    (budget,) = json.loads(out)["runs"][0]["budgets"]
    assert budget["budget"] == "peak_gflops" and budget["asked"] == pytest.approx(0.7 * asked)
    assert 0 < budget["spent"] <= budget["asked"]


def test_a_budget_of_the_parameter_file_is_kept_as_the_nodes_is(replay, tmp_path):
    told = json.loads(replay(write_bag(tmp_path / "bag"), "--json")[1])["runs"][0]
    asked, file = 0.7 * told["llm_gflops"], tmp_path / "mine.yaml"
    presets = f"{{slow: {{peak_gflops: {asked!r}}}}}"
    file.write_text(yaml.safe_dump({"/**": {"ros__parameters": {
        "budget.presets": presets, "budget.preset": "slow"}}}))
    _, out, _ = replay(tmp_path / "bag", "--params", file, "--json", out="second")
    (run,) = json.loads(out)["runs"]
    assert run["budgets"][0]["asked"] == pytest.approx(asked)
    assert 0 < run["llm_gflops"] <= asked
    _, out, _ = replay(tmp_path / "bag", "--params", file, "--budget", "preset=''", "--json",
                       out="third")
    assert json.loads(out)["runs"][0]["llm_gflops"] == told["llm_gflops"]


def test_a_budget_that_cannot_be_met_is_refused_in_the_parameters_words(replay, tmp_path):
    bag = write_bag(tmp_path / "bag")
    refused(replay(bag, "--budget", "peak_gflops=1e-7"), "budget.peak_gflops is 1e-07")


def test_a_budget_of_time_needs_a_cost_table(replay, tmp_path):
    refused(replay(write_bag(tmp_path / "bag"), "--budget", "average_ms=5"), "--cost-table")
    assert [path.name for path in tmp_path.iterdir()] == ["bag"]


def bundled_table(first_ms: float, others_ms: float) -> CostTable:
    """Of as many exits as the bundled model has."""
    config = DeerConfig.load(bundled_model() / "config.json")
    segments = [first_ms] + [others_ms] * (len(config.exit_layers) - 1)
    return cost_table(segments, config.exits.interval)


@pytest.fixture(scope="module")
def simulated(tmp_path_factory) -> tuple[Path, Path]:
    """The bundled model with a cost table of its own, and a bag of the simulated robot."""
    folder = tmp_path_factory.mktemp("bundled") / "model"
    shutil.copytree(bundled_model(), folder)
    write_json(folder / "cost_table.json", bundled_table(11.0, 1.0).to_json())
    return folder, Path(__file__).parents[1] / "data" / "bags" / "simulated_robot"


def replayed(simulated, tmp_path, capsys, *budgets: str, more=()) -> tuple[dict, list[dict]]:
    model, bag = simulated
    asked = [word for budget in budgets for word in ("--budget", budget)]
    assert main(["replay", str(model), str(bag), "--out", str(tmp_path / "out"), "--no-report",
                 "--json", *asked, *more]) == 0
    told = json.loads(capsys.readouterr().out)
    return told, told["runs"]


def test_average_and_latency_budgets_are_kept_in_one_pass(simulated, tmp_path, capsys):
    told, runs = replayed(simulated, tmp_path, capsys, "average_gflops=0.0123", "average_ms=13",
                          "latency_ms=18.5", "average_gflops=0.02,latency_ms=16.5")
    assert told["times"] == "virtual"
    spent = [{b["budget"]: b["spent"] for b in run["budgets"]} for run in runs]
    assert spent[0]["average_gflops"] <= 0.0123 * 1.05
    assert spent[1]["average_ms"] <= 13 * 1.05
    # A layer more takes 1 ms, and 1.5 ms in one of 100 steps, for which there must be time.
    assert spent[2]["latency_ms"] == pytest.approx(11 + 7 * 1)
    assert spent[3]["latency_ms"] == pytest.approx(11 + 5 * 1)
    assert spent[3]["average_gflops"] <= 0.02 * 1.05
    deepest = [max(int(layer) for layer, count in run["exits"].items() if count) for run in runs]
    whole = DeerConfig.load(simulated[0] / "config.json").exit_layers[-1]
    assert deepest == [whole, whole, 8, 6]


def test_a_budget_of_time_gives_the_same_twice(simulated, tmp_path, capsys):
    runs = [replayed(simulated, tmp_path / name, capsys, "average_ms=13")[1] for name in "ab"]
    assert runs[0] == runs[1] and runs[0][0]["step_ms"]["mean"] > 10


def test_a_cost_table_that_is_named_goes_before_the_models(simulated, tmp_path, capsys):
    file = tmp_path / "slow.json"
    write_json(file, {"cost_table": bundled_table(100.0, 100.0).to_json()})
    _, (run,) = replayed(simulated, tmp_path, capsys, more=("--cost-table", str(file)))
    _, (usual,) = replayed(simulated, tmp_path / "usual", capsys)
    assert run["exits"] == usual["exits"]
    assert usual["step_ms"]["max"] <= 22 and run["step_ms"]["p50"] > 400


def test_a_cost_table_of_another_model_is_refused(replay, model, tmp_path):
    file = tmp_path / "other.json"
    write_json(file, cost_table([1.0] * 5).to_json())
    refused(replay(write_bag(tmp_path / "bag"), "--cost-table", file),
            r"other.json is of a model with exits after layers \[2, 4, 6, 8, 10\]")


@pytest.mark.parametrize("budget, words", [
    ("speed=8", "names are average_gflops"), ("average_gflops", "name=value"),
    ("average_gflops=-1", "average_gflops is -1"), ("exit.metric=l3", "exit.metric is 'l3'"),
    ("model=other", "names are average_gflops"), ("control_rate=5.0", "names are average_gflops"),
    ("device=cpu", "preset, exit.policy"), ("budget.exit.max_layer=2", "names are average_gflops"),
    ("exit.max_layer=2,exit.max_layer=4", "exit.max_layer is in it twice"),
    ("average_gflops=1,budget.average_gflops=2", "budget.average_gflops is in it twice"),
])
def test_a_wrong_budget_is_refused(replay, tmp_path, budget, words):
    refused(replay(write_bag(tmp_path / "bag"), "--budget", budget), words)


@pytest.mark.parametrize("parameter, words", [
    ("model:=5", "model is 5; allowed: any text"),
    ("control_rate:=2020-01-01", "control_rate is 2020-01-01; allowed: 0, or 0.001 to 1000"),
    ("control_rate:=2020-13-01", "is '2020-13-01', which is no value in YAML; allowed"),
    ("control_rate:=!!timestamp x", "control_rate is .* no value in YAML"),
    ("control_rate:=" + "[" * 3000, "control_rate is .* no value in YAML"),
    ("control_rate:=" + "9" * 5000, "control_rate is .* no value in YAML"),
    ("control_rate:=1e30", r"control_rate is 1e\+30"),
    ("control_rate:=1.0e-300", "control_rate is 1e-300; allowed: 0, or 0.001 to 1000"),
    ("exit.steps_per_decision:=1000000000000", "steps_per_decision is 1000000000000"),
    ("exit.thresholds:={1: 2}", "exit.thresholds is {1: 2}; allowed"),
])
def test_a_wrong_parameter_is_refused(model, tmp_path, capsys, parameter, words):
    bag = write_bag(tmp_path / "bag")
    code = main(["replay", str(bag), "--param", parameter, "--out", str(tmp_path / "out")])
    refused((code, *capsys.readouterr()), words)


def test_a_model_that_is_named_twice_is_refused(replay, tmp_path):
    bag = write_bag(tmp_path / "bag")
    refused(replay(bag, "--param", "model:=other"), "--param model:=other names a model beside")


def test_a_tolerance_without_anything_to_compare_with_is_refused(replay, tmp_path):
    bag = write_bag(tmp_path / "bag")
    refused(replay(bag, "--tolerance", "0.1"), "--tolerance is 0.1, and nothing is compared")


def test_the_nodes_parameter_file_counts(replay, tmp_path):
    file = tmp_path / "mine.yaml"
    content = {"/**": {"ros__parameters": {
        "use_sim_time": True, "image.transport": "compressed",
        "exit": {"max_layer": 4}, "control_rate": 10.0}}}
    file.write_text(yaml.safe_dump(content))
    _, out, _ = replay(write_bag(tmp_path / "bag"), "--params", file, "--json")
    (run,) = json.loads(out)["runs"]
    assert run["exits"] == {"2": 0, "4": 6}


def test_the_shipped_parameter_file_asks_for_raw_pictures_and_says_what_there_is(replay, tmp_path):
    bag = write_bag(tmp_path / "bag")
    file = share("config", "deer.yaml")
    refused(replay(bag, "--params", file), r"it lacks /camera/static/image, .*its topics are: "
            r"/camera/gripper/image/compressed \(sensor_msgs.*'raw'")
    assert replay(bag, "--params", file, "--param", "image.transport:=compressed")[0] == 0


@pytest.mark.parametrize("content, words", [
    ("a: [", "cannot be read"), ("[]", "no parameters of any node"),
    ("/**: {ros__parameters: {device: !!timestamp x}}", "mine.yaml cannot be read"),
    ("/other: {ros__parameters: {x: 1}}", "nothing for the policy node"),
    ("/**: {x: 1}", "no ros__parameters"),
    ("/**: {ros__parameters: {image.max_skew: -1.0}}", "image.max_skew is -1.0"),
    ("/**: {ros__parameters: {safety: {max_lineer_velocity: 1}}}", "safety.max_lineer_velocity is "
     "no parameter of the policy node; .* safety.max_linear_velocity"),
])
def test_a_wrong_parameter_file_is_refused(replay, tmp_path, content, words):
    (tmp_path / "mine.yaml").write_text(content)
    result = replay(write_bag(tmp_path / "bag"), "--params", tmp_path / "mine.yaml")
    refused(result, words)


def test_cameras_of_other_names_are_remapped(replay, tmp_path):
    with RobotBag(tmp_path / "bag") as bag:
        bag.instruction(START_NS - 1, "open the drawer")
        for frame in range(3):
            bag.picture("/front/compressed", START_NS + frame * 50_000_000, frame)
            bag.picture("/wrist/rgb", START_NS + frame * 50_000_000, frame)
    refused(replay(tmp_path / "bag"), "it lacks /camera/static/image")
    code, _, _ = replay(
        tmp_path / "bag", "--remap", "camera/static/image:=/front",
        "--remap", "camera/gripper/image/compressed:=/wrist/rgb", "--param",
        "image.transport:=compressed")
    assert code == 0
    assert len(read_records(tmp_path / "out" / "bag", [])["/deer/action"]) == 3
    refused(replay(tmp_path / "bag", "--remap", "a=b", out="x"), "from:=to")


def test_a_topic_of_another_type_is_refused(replay, tmp_path):
    with RobotBag(tmp_path / "bag") as bag:
        bag.put("/instruction", "std_msgs/msg/Float64", START_NS, 1.0)
        bag.picture(STATIC, START_NS, 0)
        bag.picture(GRIPPER, START_NS, 0)
    refused(replay(tmp_path / "bag"), "/instruction holds std_msgs/msg/Float64; it must hold")


def test_a_bag_without_an_instruction_needs_one(replay, tmp_path):
    bag = write_bag(tmp_path / "bag", instruction=None)
    refused(replay(bag), "nothing was recorded on /instruction; give --instruction TEXT")
    assert replay(bag, "--instruction", "close the drawer")[0] == 0
    steps = read_records(tmp_path / "out" / "bag", [])["/deer/action"]
    assert {step.instruction for step in steps} == {"close the drawer"}


def test_what_a_killed_recorder_left_is_replayed_and_the_loss_told(replay, tmp_path):
    whole = write_bag(tmp_path / "whole", frames=40)
    killed = tmp_path / "killed"
    killed.mkdir()
    (killed / "killed_0.mcap").write_bytes((whole / "whole.mcap").read_bytes()[:-200])
    code, _, err = replay(killed, report=True)
    assert code == 0
    assert "no metadata.yaml" in err and "killed_0.mcap was not finished" in err
    assert len(read_records(tmp_path / "out" / "killed", [])["/deer/action"]) == 40
    assert "was not finished" in (tmp_path / "out" / "report.html").read_text()


def test_a_file_that_is_no_bag_is_refused(replay, tmp_path):
    (tmp_path / "bag.mcap").write_bytes(b"nothing of the kind")
    refused(replay(tmp_path / "bag.mcap"), "bag.mcap: nothing of it can be read")
    refused(replay(tmp_path / "nowhere"), "there is no bag or folder of bags at")
    refused(replay(write_tiny_model(tmp_path / "m")), "is no bag")


def test_sqlite_and_compressed_bags_give_the_same_actions(replay, tmp_path):
    replay(write_bag(tmp_path / "a" / "bag"), out="first")
    for number, options in enumerate([
        {"storage": StoragePlugin.SQLITE3},
        {"storage": StoragePlugin.SQLITE3, "compression": CompressionMode.FILE},
        {"compression": CompressionMode.MESSAGE},
    ]):
        other = write_bag(tmp_path / f"other{number}" / "bag", **options)
        arguments = ("--compare", tmp_path / "first", "--tolerance", 0)
        assert replay(other, *arguments, out=f"second{number}")[0] == 0


def test_a_topic_whose_type_nobody_knows_is_carried_along(replay, tmp_path):
    with RobotBag(tmp_path / "bag") as bag:
        bag.instruction(START_NS - 1, "open the drawer")
        bag.raw("/pads", "my_robot/msg/Pads", START_NS - 1, b"\x00\x01\x00\x00\x07",
                definition="uint8 a\n")
        bag.picture(STATIC, START_NS, 0)
        bag.picture(GRIPPER, START_NS, 0)
    assert replay(tmp_path / "bag")[0] == 0
    with Recording(tmp_path / "out" / "bag") as recording:
        assert recording.topics["/pads"].definition == "uint8 a\n"
        (data,) = [data for _, _, data in recording.messages(["/pads"])]
    assert bytes(data) == b"\x00\x01\x00\x00\x07"


def test_a_type_whose_definition_is_not_whole_is_carried_along_and_told(replay, tmp_path):
    with RobotBag(tmp_path / "bag") as bag:
        bag.instruction(START_NS - 1, "open the drawer")
        bag.raw("/pads", "my_robot/msg/Pads", START_NS - 1, b"\x00\x01\x00\x00\x07",
                definition="Pad[] pads\n")
        bag.picture(STATIC, START_NS, 0)
        bag.picture(GRIPPER, START_NS, 0)
    assert replay(tmp_path / "bag")[0] == 0
    (told,) = json.loads((tmp_path / "out" / "replay.json").read_text())["bags"]
    (note,) = told["notes"]
    assert "the definition of my_robot/msg/Pads cannot be read (Type 'my_robot/msg/Pad'" in note
    assert told["lost"] == [], "nothing that is needed"
    with Recording(tmp_path / "out" / "bag") as recording:
        assert recording.topics["/pads"].definition == "Pad[] pads\n"
        assert len(list(recording.messages(["/pads"]))) == 1


def test_a_topic_of_two_types_is_told(replay, tmp_path):
    with RobotBag(tmp_path / "bag") as bag:
        bag.instruction(START_NS - 1, "open the drawer")
        add_frames(bag, 2)
        bag.put("/chat", "std_msgs/msg/String", START_NS, "hello")
        del bag._connections["/chat"]
        bag.put("/chat", "std_msgs/msg/Float64", START_NS, 1.0)
    assert replay(tmp_path / "bag")[0] == 0
    (told,) = json.loads((tmp_path / "out" / "replay.json").read_text())["bags"]
    assert told["notes"] == ["/chat holds std_msgs/msg/String and std_msgs/msg/Float64; all of it "
                             "was copied as std_msgs/msg/String."]


def test_an_instruction_that_cannot_be_read_is_counted_and_the_next_one_followed(replay, tmp_path):
    with RobotBag(tmp_path / "bag") as bag:
        bag.raw("/instruction", "std_msgs/msg/String", START_NS - 2, b"\x00\x01\x00\x00\xff\xff")
        bag.instruction(START_NS - 1, "open the drawer")
        bag.picture(STATIC, START_NS, 0)
        bag.picture(GRIPPER, START_NS, 0)
    assert replay(tmp_path / "bag")[0] == 0
    (told,) = json.loads((tmp_path / "out" / "replay.json").read_text())["bags"]
    assert told["steps"] == 1
    assert told["refused"] == {"/instruction: 6 bytes are no std_msgs/msg/String": 1}


def test_an_existing_folder_is_replaced_only_if_it_is_a_replay_and_asked(replay, tmp_path):
    bag = write_bag(tmp_path / "bag")
    replay(bag)
    refused(replay(bag), "exists already")
    assert replay(bag, "--force")[0] == 0
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("!")
    refused(replay(bag, "--force", out="mine"), "no earlier replay")
    assert (tmp_path / "mine" / "thesis.tex").exists()


def test_a_second_replay_into_a_folder_is_refused_while_the_first_is_at_it(replay, tmp_path):
    bag = write_bag(tmp_path / "bag")
    replay(bag)
    before = (tmp_path / "out" / "replay.json").read_bytes()
    with ReplayFolder(tmp_path / "out", replace=True):
        refused(replay(bag, "--force"), "another process replays into .*/out; wait for it")
        assert (tmp_path / "out" / "replay.json").read_bytes() == before
    assert replay(bag, "--force")[0] == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bag", "out"]


def test_an_earlier_replay_stays_where_the_new_one_cannot_have_its_name(
    replay, tmp_path, monkeypatch
):
    bag = write_bag(tmp_path / "bag")
    replay(bag)
    before = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    rename = Path.rename

    def fails(path, target):
        if target == tmp_path / "out" and "unfinished" in path.name:
            raise OSError("the disk is broken")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", fails)
    refused(replay(bag, "--force"), "the disk is broken")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bag", "out"]
    assert {p: p.read_bytes() for p in (tmp_path / "out").rglob("*") if p.is_file()} == before


@pytest.mark.parametrize("target", ["earlier", "nothing"])
def test_a_link_is_no_folder_to_replay_into(replay, tmp_path, target):
    bag = write_bag(tmp_path / "bag")
    replay(bag, out="earlier")
    (tmp_path / "link").symlink_to(target)
    refused(replay(bag, "--force", out="link"), f"link is a symbolic link, to {target}; name")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "earlier" / "replay.json").is_file()


def test_several_bags_of_one_name_are_kept_apart(replay, tmp_path):
    bags = [write_bag(tmp_path / folder / "bag", frames=3) for folder in "ab"]
    assert replay(*bags)[0] == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir() if path.is_dir()) == [
        "bag", "bag_2"]


def test_several_bags_of_one_name_are_each_compared_with_their_own_earlier_run(replay, tmp_path):
    bags = [write_bag(tmp_path / folder / "bag", frames=frames) for folder, frames in
            (("a", 5), ("b", 9))]
    replay(*bags, out="first")
    code, out, _ = replay(*bags, "--compare", tmp_path / "first", "--tolerance", 0, out="second")
    assert code == 0 and "the same in 14 steps" in out


def test_a_bag_of_the_simulated_robot_is_replayed(tmp_path, capsys):
    bag = Path(__file__).parents[1] / "data" / "bags" / "simulated_robot"
    code = main(["replay", str(bag), "--out", str(tmp_path / "out"), "--no-report",
                 "--json"])
    told = json.loads(capsys.readouterr().out)
    (run,) = told["runs"]
    assert code == 0 and run["steps"] == 79 and run["episodes"] == 4
    # The bundled model does about what the expert did, whom it learned from.
    assert run["to_recorded"]["mean"] < 0.35 and run["gripper_as_recorded"] > 0.8


@pytest.mark.skipif("DEER_BRIDGE_BAG" not in os.environ,
                    reason="DEER_BRIDGE_BAG does not name the folder of the bridge_widowx bag")
def test_a_recording_of_a_real_robot_is_replayed(tmp_path, capsys):
    bag = os.environ["DEER_BRIDGE_BAG"]
    code = main(["replay", bag, "--out", str(tmp_path / "out"), "--no-report", "--json"])
    told = json.loads(capsys.readouterr().out)
    (run,) = told["runs"]
    assert (code, run["steps"], run["episodes"]) == (0, 250, 25)
    assert run["to_recorded"]["mean"] > 0

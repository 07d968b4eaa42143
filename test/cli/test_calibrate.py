"""`deer calibrate` from bags to a file that `deer solve` and the policy use."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from episodes import Units, make_episode
from robot_bags import SECOND, START_NS, RobotBag
from rosbags.rosbag2 import StoragePlugin
from safetensors.numpy import load_file, save_file
from tiny_model import tiny_config, write_tiny_model

from deer_ros.budget.calibration import Calibration
from deer_ros.checkpoint.fingerprint import find_calibration, weights_fingerprint
from deer_ros.cli.main import main
from deer_ros.data.bags import EpisodeBagWriter
from deer_ros.policy import DeerPolicy
from deer_ros.resources import bundled_model

FILE = "calibration.safetensors"


@pytest.fixture(scope="module")
def demonstrations(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("demos")
    for name, seeds in (("one", range(3)), ("two", range(3, 5))):
        with EpisodeBagWriter(folder / name, Units(), joint_names=("a", "b")) as writer:
            for seed in seeds:
                writer.write(make_episode(frames=8 + seed, seed=seed))
    return folder


@pytest.fixture
def model(tmp_path) -> Path:
    return write_tiny_model(tmp_path / "model")


def calibrate(capsys, *arguments) -> dict:
    assert main(["calibrate", *map(str, arguments), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_bags_become_a_calibration_beside_weights_that_stay_as_they_are(
    capsys, demonstrations, model
):
    before = (model / "model.safetensors").read_bytes()
    facts = calibrate(capsys, model, demonstrations)
    assert facts["calibration"] == str(model / FILE)
    # Five episodes of 8 to 12 frames; the solving half's frames are samples.
    assert (facts["episodes"], facts["frames"]) == (5, 50)
    assert facts["held_out"] == 2 and 24 <= facts["samples"] <= 33
    assert [e["layer"] for e in facts["exits"]] == [2, 4, 6]
    assert facts["exits"][-1]["mean_action_error"] == 0
    assert sum(e["share_taken"] for e in facts["exits"]) == pytest.approx(1)
    calibration = find_calibration(model)
    assert len(calibration) == facts["samples"]
    assert calibration.fingerprint == facts["fingerprint"] == weights_fingerprint(model)
    assert (model / "model.safetensors").read_bytes() == before
    assert not list(model.glob("*.part")) and not list(model.glob(".*"))


def test_a_model_that_carries_out_each_action_several_times_sees_as_many_frames_a_step(
    capsys, demonstrations, tmp_path
):
    """As at run time. The authors' windows are of all frames, and who names a rate gets that."""
    action = dataclasses.replace(tiny_config().action, executions_per_step=3)
    model = write_tiny_model(tmp_path / "model", action=action)
    for arguments, frames, named in (
        ((), 3 + 3 + 4 + 4 + 4, False), (("--param", "control_rate:=20.0"), 50, True),
        (("--method", "original", "--windows", 2, "--holdout", 0), 50, False),
    ):
        assert main(["calibrate", *map(str, (model, demonstrations, *arguments)), "--json"]) == 0
        streams = capsys.readouterr()
        assert json.loads(streams.out)["frames"] == frames
        assert ("at another rate than the model's 6.66667 Hz" in streams.err) == named


def test_a_second_run_gives_the_same_and_another_seed_another(capsys, demonstrations, model):
    files = []
    for seed in (0, 0, 1):
        calibrate(capsys, model, demonstrations, "--seed", seed)
        files.append((model / FILE).read_bytes())
    assert files[0] == files[1] != files[2]


def test_the_authors_way_another_metric_and_another_place(capsys, demonstrations, model, tmp_path):
    out = tmp_path / "elsewhere.safetensors"
    facts = calibrate(
        capsys, model, demonstrations / "two", demonstrations / "one", "--method", "original",
        "--metric", "max", "--windows", 2, "--holdout", 0, "--out", out,
    )
    assert facts["method"] == "original" and facts["metric"] == "max" and facts["held_out"] == 0
    # Only the last episode is as long as a window.
    assert facts["samples"] == 6
    assert not (model / FILE).exists() and find_calibration(model, out).metric == "max"


def test_any_robots_recording_is_read_as_replay_reads_it(capsys, model, tmp_path):
    with RobotBag(tmp_path / "bag", storage=StoragePlugin.SQLITE3) as bag:
        for episode in range(4):
            start_ns = START_NS + episode * 5 * SECOND
            bag.put("/task", "std_msgs/msg/String", start_ns - SECOND, "open the drawer")
            for frame in range(6):
                for number, camera in enumerate(("front", "wrist")):
                    stamp_ns = start_ns + frame * 50_000_000 + number * 15_000_000
                    bag.raw_picture(f"/{camera}/image_raw", stamp_ns, 10 * frame + number)
    parameters = tmp_path / "robot.yaml"
    parameters.write_text("/**: {ros__parameters: {image: {transport: raw}, control_rate: 20.0}}")
    rules = ("--remap", "instruction:=/task", "--remap", "camera/static/image:=/front/image_raw",
             "--remap", "camera/gripper/image:=/wrist/image_raw", "--params", parameters)
    facts = calibrate(capsys, model, tmp_path / "bag", *rules)
    assert (facts["episodes"], facts["frames"]) == (4, 24)
    half = calibrate(capsys, model, tmp_path / "bag", *rules, "--param", "control_rate:=10.0")
    assert (half["episodes"], half["frames"]) == (4, 12)
    assert "lacks /camera/static/image" in refused(capsys, model, tmp_path / "bag")


def test_a_metric_that_the_model_lacks_is_refused_before_demonstrations_are_read(
    capsys, demonstrations, model, monkeypatch
):
    read = []
    monkeypatch.setattr(DeerPolicy, "features", lambda *_: read.append(1))
    sentence = refused(capsys, model, demonstrations, "--metric", "learned")
    assert "the metric learned needs a model whose head has a gate" in sentence and not read


def test_what_a_killed_recorder_left_is_used_where_that_is_wanted(
    capsys, demonstrations, model, tmp_path
):
    killed = tmp_path / "killed"
    killed.mkdir()
    (whole,) = (demonstrations / "one").glob("*.mcap")
    (killed / "killed_0.mcap").write_bytes(whole.read_bytes()[:-200])
    assert "killed: it is damaged or was not finished" in refused(capsys, model, killed)
    assert main(["calibrate", str(model), str(killed), "--skip-bad", "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["frames"] == 8 + 9 + 10
    assert err.startswith("skipped: ") and "killed_0.mcap was not finished" in err


def test_an_instruction_that_is_too_long_is_bad_data(capsys, demonstrations, model, tmp_path):
    with EpisodeBagWriter(tmp_path / "long", Units(), joint_names=("a", "b")) as writer:
        writer.write(make_episode(6, instruction="open the drawer " * 10))
    said = refused(capsys, model, demonstrations, tmp_path / "long")
    assert "/long" in said and "makes 33 tokens; this model takes 32" in said
    assert main(["calibrate", str(model), str(demonstrations), str(tmp_path / "long"),
                 "--skip-bad", "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["frames"] == 50
    assert err.startswith("skipped: ") and "makes 33 tokens" in err


@pytest.mark.skipif("DEER_BRIDGE_BAG" not in os.environ,
                    reason="DEER_BRIDGE_BAG does not name the folder of the bridge_widowx bag")
def test_a_recording_of_a_real_robot_calibrates_the_bundled_model(capsys, tmp_path):
    out = tmp_path / "bridge.safetensors"
    facts = calibrate(capsys, os.environ["DEER_BRIDGE_BAG"], "--out", out)
    assert (facts["episodes"], facts["frames"]) == (25, 250)
    assert find_calibration(bundled_model(), out) is not None


def test_people_get_a_table(capsys, demonstrations, model):
    assert main(["calibrate", str(model), str(demonstrations)]) == 0
    out = capsys.readouterr().out
    for word in ("run-time", "metric l2", "5, of which 2", "mean action error", "after layer"):
        assert word in out


def refused(capsys, *arguments) -> str:
    assert main(["calibrate", *map(str, arguments)]) == 2
    streams = capsys.readouterr()
    assert streams.out == "" and streams.err.count("\n") == 1, streams.err
    assert streams.err.startswith("deer calibrate: ")
    return streams.err


def test_bad_data_is_named_in_a_line_and_nothing_is_written(
    capsys, demonstrations, model, tmp_path
):
    empty = tmp_path / "empty"
    empty.mkdir()
    damaged = Path(shutil.copytree(demonstrations / "one", tmp_path / "damaged"))
    mcap = next(damaged.glob("*.mcap"))
    mcap.write_bytes(mcap.read_bytes()[:200])
    for data in (empty, damaged, tmp_path / "none"):
        assert data.name in refused(capsys, model, data)
    assert damaged.name in refused(capsys, model, demonstrations, damaged)
    assert not (model / FILE).exists()


@pytest.mark.parametrize("arguments, complaint", [
    (("--holdout", "1"), "holdout"), (("--holdout", "nan"), "holdout"),
    (("--second-pass", "2"), "second_pass"), (("--rows", "0"), "rows"),
    (("--seed", "-1"), "seed"), (("--out", "/nowhere/c.safetensors"), "/nowhere"),
    (("--dtype", "int3"), "dtype"), (("--device", "tpu"), "device"),
    (("--windows", "9"), "--windows is 9, and the method run-time has no use for it"),
    (("--method", "original", "--second-pass", "0.5"), "--second-pass is 0.5, and the method orig"),
    (("--lerobot", "static=top"), "--lerobot static=top is about LeRobot datasets, and there are"),
    (("--param", "exit.metric:=max"), "--param is exit.metric:=max, which changes nothing here"),
    (("--param", "device:=cpu"), "it may be one of model, instruction, control_rate"),
    (("--param", "model:=bundled"), "--param model:=bundled names a model beside"),
    (("--param", "control_rate:=1.0e-300"), "allowed: 0, or 0.001 to 1000"),
])
def test_bad_options_are_refused_in_a_line(capsys, demonstrations, model, arguments, complaint):
    assert complaint in refused(capsys, model, demonstrations, *arguments)
    assert not (model / FILE).exists()


@pytest.mark.parametrize("value", ["5", "[1]", "2020-01-01", "{a: 1}"])
def test_a_parameter_that_is_no_model_is_refused_where_it_is_the_only_one(
    capsys, demonstrations, value
):
    said = refused(capsys, demonstrations, "--param", f"model:={value}")
    assert "model is " in said and "allowed: any text" in said


def test_a_second_calibration_of_a_model_is_refused_while_the_first_is_at_it(
    capsys, demonstrations, model, tmp_path, monkeypatch
):
    features, elsewhere = DeerPolicy.features, tmp_path / "elsewhere.safetensors"
    said = []

    def meanwhile(*arguments):
        if not said:
            said.append(None)
            said[0] = refused(capsys, model, demonstrations)
            calibrate(capsys, model, demonstrations, "--out", elsewhere)
        return features(*arguments)

    monkeypatch.setattr(DeerPolicy, "features", meanwhile)
    calibrate(capsys, model, demonstrations)
    assert f"another process calibrates into {model / FILE}; wait for it" in said[0]
    assert elsewhere.read_bytes() == (model / FILE).read_bytes()
    assert not list(model.glob(".*"))


def test_a_link_stays_and_what_it_points_to_is_written(
    capsys, demonstrations, model, tmp_path
):
    target, link = tmp_path / "kept.safetensors", tmp_path / "link"
    link.symlink_to(target)
    calibrate(capsys, model, demonstrations, "--out", link)
    assert link.is_symlink() and target.stat().st_size > 0


def test_what_is_no_file_is_not_replaced(capsys, demonstrations, model, tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    said = refused(capsys, model, demonstrations, "--out", pipe)
    assert f"{pipe} is a pipe; name a file" in said
    assert pipe.is_fifo()


def test_a_model_alone_and_a_broken_model_are_told(capsys, demonstrations, model, tmp_path):
    assert "name bags" in refused(capsys, model)
    broken = Path(shutil.copytree(model, tmp_path / "broken"))
    (broken / "model.safetensors").write_bytes(b"broken")
    assert "broken" in refused(capsys, broken, demonstrations)


def test_weights_that_are_not_finite_are_told(capsys, demonstrations, model):
    weights = load_file(model / "model.safetensors")
    name = next(n for n in weights if n.startswith("layers.0") and weights[n].ndim == 2)
    weights[name] = np.full_like(weights[name], np.nan)
    save_file(weights, model / "model.safetensors", {"format": "pt"})
    assert "NaN" in refused(capsys, model, demonstrations)


def test_a_calibration_of_other_weights_is_refused_with_the_reason(
    capsys, demonstrations, model, tmp_path
):
    calibrate(capsys, model, demonstrations)
    weights = load_file(model / "model.safetensors")
    name = sorted(weights)[0]
    weights[name].reshape(-1)[0] += 1e-3
    save_file(weights, model / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match="calibration of other weights"):
        find_calibration(model)
    assert Calibration.load(model / FILE).fingerprint != weights_fingerprint(model)
    other = write_tiny_model(tmp_path / "other")
    assert find_calibration(other) is None
    with pytest.raises(FileNotFoundError, match="deer calibrate"):
        find_calibration(other, tmp_path / "none.safetensors")

"""`deer train` and `deer calibrate` on datasets that are no bags."""

from __future__ import annotations

import json
import shutil

import pytest
import yaml
from datasets import CAMERAS, write_calvin, write_lerobot
from tiny_model import tiny_config, write_tiny_model

from deer_ros.cli.main import main
from deer_ros.model.schema import to_dict
from deer_ros.resources import share

STRETCHES = (("open the drawer", 0, 7), ("close the drawer", 8, 15), ("open the drawer", 16, 22))


@pytest.fixture
def config(tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text(yaml.safe_dump({
        "model": to_dict(tiny_config()),
        "vision": {"steps": 0},
        "policy": {"steps": 2, "batch_windows": 2, "window": 4, "warmup_steps": 1},
    }))
    return file


@pytest.fixture(params=["calvin", "lerobot"])
def dataset(request, tmp_path):
    folder = tmp_path / request.param
    if request.param == "calvin":
        write_calvin(folder / "training", STRETCHES)
    else:
        pytest.importorskip("pyarrow")
        pytest.importorskip("av")
        write_lerobot(folder)
    return folder


def train(config, data, out, *more):
    return main(["train", str(config), "--data", str(data), "--out", str(out), *more])


def test_a_model_is_trained_on_a_dataset(config, dataset, tmp_path, capsys):
    assert train(config, dataset, tmp_path / "run", "--json") == 0
    model = json.loads(capsys.readouterr().out)["model"]
    assert main(["info", model]) == 0


def test_a_refused_vision_phase_can_be_left_out_in_the_same_folder(
    config, dataset, tmp_path, capsys
):
    assert train(config, dataset, tmp_path / "run", "--set", "vision.steps=2") == 2
    said = capsys.readouterr().err
    assert "Set vision.steps to 0" in said and said.count("\n") == 1
    assert train(config, dataset, tmp_path / "run") == 0


def test_the_configuration_for_datasets_trains_on_them(dataset, tmp_path):
    few = ("policy.steps=2", "policy.window=4", "policy.batch_windows=2")
    changes = [word for change in few for word in ("--set", change)]
    file = share() / "config/train/dataset.yaml"
    assert train(file, dataset, tmp_path / "run", *changes) == 0
    assert main(["info", str(tmp_path / "run/model")]) == 0


def test_a_model_is_calibrated_on_a_dataset(dataset, tmp_path, capsys):
    model = write_tiny_model(tmp_path / "model")
    if dataset.name == "lerobot":
        # Words that the small tokenizer knows.
        import pyarrow as pa
        import pyarrow.parquet as pq

        texts = pa.table({"task_index": [0, 1], "task": ["open the drawer", "close the drawer"]})
        pq.write_table(texts, dataset / "meta/tasks.parquet")
    assert main(["calibrate", str(model), str(dataset), "--json"]) == 0
    assert (model / "calibration.safetensors").is_file()
    assert json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("option, value", [
    ("--remap", "instruction:=/task"), ("--param", "control_rate:=10.0"),
    ("--param", "instruction:=open the drawer"),
])
def test_what_is_said_of_bags_is_refused_where_there_are_none(
    dataset, tmp_path, capsys, option, value
):
    model = write_tiny_model(tmp_path / "model")
    assert main(["calibrate", str(model), str(dataset), option, value]) == 2
    said = capsys.readouterr().err
    assert f"{option} {value} is about bags, and there are none in {dataset}" in said


def test_options_reach_the_reader(config, tmp_path, capsys):
    pytest.importorskip("pyarrow")
    pytest.importorskip("av")
    folder = tmp_path / "lerobot"
    write_lerobot(folder)
    (folder / "meta/stats.json").unlink()
    assert train(config, folder, tmp_path / "a") == 2
    said = capsys.readouterr().err
    assert "gripper_threshold=X" in said and said.count("\n") == 1
    named = ("--lerobot", "gripper_threshold=0.5", "--lerobot", f"static={CAMERAS[0]}")
    assert train(config, folder, tmp_path / "a", *named) == 0
    assert train(config, folder, tmp_path / "b", "--lerobot", "thumb=1") == 2
    assert "'thumb=1' must be NAME=VALUE" in capsys.readouterr().err


def test_a_damaged_dataset_is_refused_or_left_out_as_the_flag_says(config, tmp_path, capsys):
    folder = tmp_path / "calvin"
    write_calvin(folder, STRETCHES)
    (folder / "episode_0000009.npz").write_bytes(b"")
    assert train(config, folder, tmp_path / "run") == 2
    said = capsys.readouterr().err
    assert "episode_0000009.npz cannot be read" in said and said.count("\n") == 1
    assert not (tmp_path / "run" / "frames").exists()
    shutil.rmtree(tmp_path / "run", ignore_errors=True)
    assert train(config, folder, tmp_path / "run", "--skip-bad") == 0
    assert "skipped: " in capsys.readouterr().err

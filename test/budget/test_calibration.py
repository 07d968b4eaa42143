"""A calibration's file, and what follows from its answers."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import save_file
from synthetic_samples import make_calibration, with_frontiers

from deer_ros.budget import criterion
from deer_ros.budget.calibration import Calibration


@pytest.fixture
def calibration() -> Calibration:
    made = make_calibration(
        steps=60, thresholds=(0.1, float("inf")), notes={"seed": "3"}, method="original",
        metric="max", dtype="bfloat16",
    )
    return with_frontiers(made, np.array([1.0, 2.0, 3.0]), losses=7)


def test_a_file_gives_back_all_that_was_saved(calibration, tmp_path):
    file = tmp_path / "calibration.safetensors"
    calibration.save(file)
    again = Calibration.load(file)
    for field in dataclasses.fields(Calibration):
        ours, theirs = getattr(calibration, field.name), getattr(again, field.name)
        if field.name == "frontiers":
            assert ours.keys() == theirs.keys()
            for exits in ours:
                for name, value in vars(ours[exits]).items():
                    assert np.array_equal(value, getattr(theirs[exits], name)), name
        elif isinstance(ours, np.ndarray):
            assert np.array_equal(ours, theirs) and ours.dtype == theirs.dtype
        else:
            assert ours == theirs, field.name
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize(("notes", "dtype"), [({"dtype": "float32"}, "float32"), ({}, None)])
def test_older_files_tell_of_the_weights_type_in_a_note_or_not_at_all(
    calibration, tmp_path, notes, dtype
):
    file = tmp_path / "c"
    dataclasses.replace(calibration, notes=notes).save(file)
    with safe_open(str(file), framework="numpy") as stored:
        facts = json.loads(stored.metadata()["deer_calibration"])
        tensors = {name: stored.get_tensor(name) for name in stored.keys()}
    assert facts.pop("dtype") == "bfloat16"
    save_file(tensors, str(file), {"deer_calibration": json.dumps(facts)})
    assert Calibration.load(file).dtype == dtype


def test_a_model_without_a_pseudo_action_has_no_first_delta(tmp_path):
    file = tmp_path / "c"
    make_calibration(layers=(1, 2)).save(file)
    deltas = Calibration.load(file).deltas()
    assert np.isnan(deltas[0]).all() and np.isfinite(deltas[1]).all()


@given(st.integers(0, 2**32 - 1), st.sampled_from(["l2", "mean", "max", "cosine"]))
def test_deltas_and_errors_compare_the_poses_that_they_should(seed, metric):
    made = make_calibration(seed, steps=5)
    deltas, errors = made.deltas(metric), made.errors()
    assert deltas.dtype == errors.dtype == np.float32 and deltas.shape == errors.shape == (3, 5)
    for i in range(5):
        before = made.reference_poses[i]
        for k in range(3):
            pose = made.poses[i, k]
            assert deltas[k, i] == criterion.delta(pose, before, metric)
            assert errors[k, i] == criterion.delta(pose, made.poses[i, -1], "l2")
            before = pose
    assert not errors[-1].any()


@pytest.mark.parametrize("content", [b"", b"no safetensors", b"\x08" + bytes(7) + b"{}" + bytes(9)])
def test_a_damaged_file_is_named(content, tmp_path):
    file = tmp_path / "calibration.safetensors"
    file.write_bytes(content)
    with pytest.raises(ValueError, match="calibration.safetensors is no calibration"):
        Calibration.load(file)


def test_a_cut_file_is_named(calibration, tmp_path):
    file = tmp_path / "c"
    calibration.save(file)
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ValueError, match="is no calibration that can be read"):
        Calibration.load(file)


@pytest.mark.parametrize(("harm", "complaint"), [
    ({"frontier.2.cost": None}, "missing 1 required .*'cost'"),
    ({"frontier.2.cost": np.zeros(0)}, "frontier of 2 of 3 exits has 0 rows"),
    ({"frontier.2.cost": np.full(3, np.nan)}, "frontier of 2 of 3 exits has 3 rows"),
    ({"frontier.3.thresholds": np.zeros((2, 2), np.float32)}, "its thresholds does not fit"),
    ({"frontier.3.losses": np.zeros(7, np.float32)}, "its losses does not fit"),
    ({"frontier.9.cost": np.zeros(1)}, "missing 3 required"),
])
def test_a_frontier_that_does_not_fit_is_named(calibration, tmp_path, harm, complaint):
    file = tmp_path / "c"
    calibration.save(file)
    with safe_open(str(file), framework="numpy") as stored:
        metadata = stored.metadata()
        tensors = {name: stored.get_tensor(name) for name in stored.keys()} | harm
    save_file({n: t for n, t in tensors.items() if t is not None}, str(file), metadata)
    with pytest.raises(ValueError, match=f"is no calibration that can be read: .*{complaint}"):
        Calibration.load(file)


def test_a_frontier_with_what_is_no_number_is_named(calibration, tmp_path):
    error = calibration.frontiers[2].error.copy()
    error[0] = np.nan
    broken = dataclasses.replace(calibration.frontiers[2], error=error)
    with pytest.raises(ValueError, match="error of the frontier of 2 exits holds NaN"):
        dataclasses.replace(calibration, frontiers={2: broken})


def test_a_guess_of_success_without_guesses_is_refused(calibration):
    with pytest.raises(ValueError, match="guesses_success is true"):
        dataclasses.replace(calibration, guesses_success=True)


def test_another_safetensors_file_and_another_version_are_told(tmp_path):
    file = tmp_path / "c"
    save_file({"poses": np.zeros(3, np.float32)}, str(file), {"format": "pt"})
    with pytest.raises(ValueError, match="version is None"):
        Calibration.load(file)
    with pytest.raises(FileNotFoundError, match="deer calibrate"):
        Calibration.load(tmp_path / "none")


def test_a_file_that_cannot_be_written_leaves_the_old_one(calibration, tmp_path, monkeypatch):
    file = tmp_path / "c"
    calibration.save(file)
    before = file.read_bytes()
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        dataclasses.replace(calibration, fingerprint="another").save(file)
    assert file.read_bytes() == before and list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("changes, complaint", [
    ({"poses": np.zeros((400, 3, 5), np.float32)}, "poses has shape"),
    ({"poses": np.full((400, 3, 6), np.nan, np.float32)}, "poses holds NaN"),
    ({"gripper": np.zeros((0, 3), np.float32)}, "not empty"),
    ({"gripper": np.zeros((400, 2), np.float32)}, "one exit for each"),
    ({"taken": np.zeros(3, np.int32)}, "taken has shape"),
    ({"metric": "l3"}, "metric"),
    ({"method": "guess"}, "method"),
])
def test_what_does_not_fit_together_is_refused(changes, complaint):
    with pytest.raises(ValueError, match=complaint):
        make_calibration(**changes)


def test_another_models_calibration_is_told_apart():
    made = make_calibration()
    made.check_fits((2, 4, 6), "made up", "file")
    with pytest.raises(ValueError, match="file is the calibration of other weights"):
        made.check_fits((2, 4, 6), "others", "file")
    with pytest.raises(ValueError, match=r"exits after layers \[2, 4, 6\].*\[3, 6\]"):
        made.check_fits((3, 6), "made up", "file")

from __future__ import annotations

import argparse
import json
import os
import pickle
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from official_model import Official, write_files
from safetensors.torch import save_file

from deer_ros.checkpoint import convert_official
from deer_ros.checkpoint.official_files import official_paths, open_official

TENSORS = {
    "matrix": torch.arange(12.0).reshape(4, 3),
    "scalar": torch.tensor(2.5),
    "half": torch.arange(4.0).bfloat16(),
    "ids": torch.arange(3),
}


@pytest.fixture(params=["new.pt", "old.pth", "weights.bin", "weights.safetensors"])
def file(request, tmp_path) -> Path:
    path = tmp_path / request.param
    if path.suffix == ".safetensors":
        save_file(TENSORS, path)
    else:
        torch.save(TENSORS, path, _use_new_zipfile_serialization=path.stem != "old")
    return path


# Reading


def test_every_kind_of_file_tells_names_and_shapes_and_gives_tensors(file):
    opened = open_official(file)
    assert {name: tensor.shape for name, tensor in opened.tensors.items()} == {
        name: tuple(tensor.shape) for name, tensor in TENSORS.items()
    }
    for name in ("matrix", "scalar", "half"):
        read = opened.read(name)
        assert read.dtype == torch.float32
        assert torch.equal(read, TENSORS[name].float())
    with pytest.raises(ValueError, match="'ids' in .* is of type torch.int64; weights are floats"):
        opened.read("ids")


def test_rows_are_read_alone(file):
    opened = open_official(file)
    assert torch.equal(opened.read("matrix", 1, 3), TENSORS["matrix"][1:3])
    assert torch.equal(opened.read("matrix", 2), TENSORS["matrix"][2:])


@given(rows=st.integers(1, 6), columns=st.integers(1, 6), data=st.data())
@settings(max_examples=30, deadline=None)
def test_views_of_a_larger_tensor_are_read_right(tmp_path_factory, rows, columns, data):
    base = torch.randn(columns + 2, rows + 3)
    view = base[1 : columns + 1, 2 : rows + 2].T
    start = data.draw(st.integers(0, rows - 1))
    stop = data.draw(st.integers(start + 1, rows))
    file = tmp_path_factory.mktemp("views") / "view.pt"
    torch.save({"base": base, "view": view}, file)
    opened = open_official(file)
    assert torch.equal(opened.read("view"), view)
    assert torch.equal(opened.read("view", start, stop), view[start:stop])


def test_two_names_of_one_tensor_and_of_equal_ones_are_the_same(tmp_path):
    one = torch.randn(3, 4)
    torch.save({"a": one, "b": one, "c": one.clone(), "d": one + 1}, tmp_path / "f.pt")
    opened = open_official(tmp_path / "f.pt")
    assert opened.same("a", "b") and opened.same("a", "c")
    assert not opened.same("a", "d")


def zipped_anew(file: Path, compression: int, by: str = "as they were") -> None:
    """The records of an archive in a new one, as programs that know nothing of tensors do it."""
    with zipfile.ZipFile(file) as archive:
        names = archive.namelist()
        records = {name: archive.read(name) for name in (sorted(names) if by == "name" else names)}
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, record in records.items():
            archive.writestr(name, record)


@pytest.mark.parametrize("by", ["as they were", "name"])
@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("count", [1, 12])
def test_an_archive_that_was_zipped_anew_is_read_right(tmp_path, compression, by, count):
    tensors = {f"t{n}": torch.randn(64, 64) for n in range(count)}
    torch.save({"state_dict": tensors, "epoch": 3}, tmp_path / "f.pt")
    zipped_anew(tmp_path / "f.pt", compression, by)
    opened = open_official(tmp_path / "f.pt")
    for name, tensor in tensors.items():
        assert torch.equal(opened.read(name), tensor)
        assert torch.equal(opened.read(name, 3, 9), tensor[3:9])
    opened.release()
    assert torch.equal(opened.read("t0"), tensors["t0"])
    assert opened.values == {"epoch": 3}


def test_of_an_archive_as_pytorch_writes_it_nothing_is_read_whole(tmp_path):
    tensors = {f"t{n}": torch.randn(n, 3) for n in range(30)}
    torch.save(tensors, tmp_path / "f.pt")
    assert open_official(tmp_path / "f.pt").whole is None


@pytest.mark.parametrize("key", ["model_state_dict", "state_dict"])
def test_values_beside_the_tensors_are_kept_apart(tmp_path, key):
    torch.save({key: TENSORS, "epoch": 3, "head_type": "deterministic"}, tmp_path / "f.pt")
    opened = open_official(tmp_path / "f.pt")
    assert set(opened.tensors) == set(TENSORS)
    assert opened.values == {"epoch": 3, "head_type": "deterministic"}


# Paths


def test_a_folder_stands_for_the_weights_in_it(tmp_path):
    with pytest.raises(FileNotFoundError, match="has none of model.safetensors.index.json"):
        official_paths(tmp_path)
    torch.save(TENSORS, tmp_path / "pytorch_model.bin")
    assert official_paths(tmp_path) == [tmp_path / "pytorch_model.bin"]
    index = tmp_path / "pytorch_model.bin.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "part-2.bin", "b": "../part-1.bin"}}))
    with pytest.raises(FileNotFoundError, match="names part-1.bin, which is not there"):
        official_paths(tmp_path)
    for part in ("part-1.bin", "part-2.bin"):
        torch.save(TENSORS, tmp_path / part)
    assert official_paths(tmp_path) == [tmp_path / "part-1.bin", tmp_path / "part-2.bin"]


@pytest.mark.parametrize("name", ["weights.ckpt", "weights", "weights.txt"])
def test_other_endings_are_refused(tmp_path, name):
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(ValueError, match="weights are read from .pt, .pth, .bin, .safetensors"):
        official_paths(tmp_path / name)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no file .*no.pt"):
        official_paths(tmp_path / "no.pt")


@pytest.mark.parametrize("text", ["", "{", "[]", '{"weight_map": {"a": 1}}'])
def test_a_broken_index_is_named(tmp_path, text):
    (tmp_path / "w.index.json").write_text(text)
    with pytest.raises(ValueError, match=r"w\.index\.json cannot be read as an index"):
        official_paths(tmp_path / "w.index.json")


# Pickles that would run a program


class Bomb:
    """Writes a file when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = str(trace)

    def __reduce__(self):
        return os.mkdir, (self.trace,)


@pytest.mark.parametrize("new", [True, False])
@pytest.mark.parametrize("role", ["deer", "clip", "mpt", "openflamingo"])
def test_a_pickle_that_runs_a_program_is_refused_with_its_name(tmp_path, new, role):
    files = write_files(tmp_path, Official())
    bomb = tmp_path / "bomb.pt"
    torch.save({"model_state_dict": TENSORS, "x": Bomb(tmp_path / "trace")}, bomb,
               _use_new_zipfile_serialization=new)
    with pytest.raises(ValueError, match=r"needs more than tensors .*\(\w+\.mkdir\).*is refused"):
        convert_official(tmp_path / "model", **(files | {role: bomb}))
    assert not (tmp_path / "trace").exists() and not (tmp_path / "model").exists()


def test_a_bare_pickle_is_refused_unrun(tmp_path):
    (tmp_path / "bomb.pt").write_bytes(pickle.dumps(Bomb(tmp_path / "trace")))
    with pytest.raises(ValueError, match="bomb.pt"):
        open_official(tmp_path / "bomb.pt")
    assert not (tmp_path / "trace").exists()


@pytest.mark.parametrize("content", [
    {"a": torch.nn.Linear(2, 2)}, {"args": argparse.Namespace(x=1)}, {"lr": np.float64(0.1)},
])
def test_a_pickle_of_more_than_tensors_is_refused_with_the_reason(tmp_path, content):
    torch.save(content, tmp_path / "f.pt")
    with pytest.raises(ValueError, match=r"needs more than tensors and plain values \(\S+\)"):
        open_official(tmp_path / "f.pt")


@pytest.mark.parametrize("content", [[1, 2], torch.zeros(2), "text", {"a": 1}])
def test_a_pickle_without_named_tensors_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "f.pt")
    with pytest.raises(ValueError, match="must hold named tensors|they must be tensors"):
        open_official(tmp_path / "f.pt")


# Damaged files


@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.9, 0.999])
def test_a_truncated_file_is_refused(file, share):
    whole = file.read_bytes()
    file.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(ValueError, match=f"{file.name}"):
        opened = open_official(file)
        for name in ("matrix", "half"):
            opened.read(name)


@given(junk=st.binary(max_size=200), suffix=st.sampled_from([".pt", ".safetensors"]))
@settings(max_examples=60, deadline=None)
def test_any_bytes_are_refused_with_a_sentence(tmp_path_factory, junk, suffix):
    file = tmp_path_factory.mktemp("junk") / f"junk{suffix}"
    file.write_bytes(junk)
    with pytest.raises(ValueError, match="junk"):
        open_official(file)


@pytest.mark.parametrize("change", [{7: torch.zeros(2)}, {"a": torch.eye(3).to_sparse()}])
@pytest.mark.parametrize("new", [True, False])
def test_what_is_no_dense_tensor_with_a_name_is_refused(tmp_path, change, new):
    torch.save(change, tmp_path / "f.pt", _use_new_zipfile_serialization=new)
    with pytest.raises(ValueError, match="names must be texts|weights must be dense"):
        open_official(tmp_path / "f.pt")


def test_an_archive_whose_directory_is_damaged_is_refused(tmp_path):
    file = tmp_path / "f.pt"
    torch.save(TENSORS, file)
    whole = file.read_bytes()
    entry = whole.index(b"PK\x01\x02")
    for place in range(entry, len(whole)):
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        try:
            opened = open_official(file)
            for name in ("matrix", "half"):
                assert torch.equal(opened.read(name), TENSORS[name].float())
        except ValueError as error:
            assert "f.pt" in str(error)


def test_a_safetensors_header_that_lies_about_its_length_is_refused(tmp_path):
    (tmp_path / "f.safetensors").write_bytes(struct.pack("<Q", 1 << 40) + b"{}")
    with pytest.raises(ValueError, match="cannot be read as safetensors"):
        open_official(tmp_path / "f.safetensors")


def test_a_file_that_shrinks_while_it_is_read_is_noticed(tmp_path):
    file = tmp_path / "f.safetensors"
    save_file(TENSORS, file)
    opened = open_official(file)
    file.write_bytes(file.read_bytes()[:-40])
    with pytest.raises(ValueError, match="ends in the middle of a tensor"):
        for name in ("matrix", "half", "scalar"):
            opened.read(name)

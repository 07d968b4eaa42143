"""CALVIN's dataset layout, on folders that are written here."""

from __future__ import annotations

import os
import pickle

import numpy as np
import pytest
from datasets import write_annotations, write_calvin
from episodes import Units

from deer_ros.data.calvin import PROPRIOCEPTION_NAMES, CalvinUnits
from deer_ros.data.inert_pickle import read_object
from deer_ros.data.readers import read_all_episodes

STRETCHES = (("open the drawer", 2, 6), ("close the drawer\n", 4, 9))


@pytest.fixture
def split(tmp_path):
    return tmp_path / "task_D_D" / "training"


def test_every_annotation_becomes_an_episode_of_its_frames(split):
    frames = write_calvin(split, STRETCHES)
    episodes = list(read_all_episodes([split], CalvinUnits()))
    assert [e.instruction for e in episodes] == ["open the drawer", "close the drawer"]
    for episode, (_, first, last) in zip(episodes, STRETCHES):
        part = slice(first, last + 1)  # the last frame belongs to it
        np.testing.assert_array_equal(episode.static, frames["rgb_static"][part])
        np.testing.assert_array_equal(episode.gripper, frames["rgb_gripper"][part])
        np.testing.assert_allclose(episode.actions, frames["rel_actions"][part], rtol=1e-6)
        assert np.diff(episode.stamps_ns) == pytest.approx(1e9 / 30, abs=1)
        assert str(split) in episode.source


def test_a_whole_dataset_gives_its_training_split(split):
    write_calvin(split, STRETCHES[:1])
    write_calvin(split.parent / "validation", STRETCHES, seed=1)
    assert len(list(read_all_episodes([split.parent], CalvinUnits()))) == 1
    assert len(list(read_all_episodes([split.parent / "validation"], CalvinUnits()))) == 2


def test_actions_come_in_the_models_units(split):
    """0.02 m at 30 Hz are 0.6 m/s; a model of 0.04 m at 20 Hz moves 0.8 m/s with action 1."""
    frames = write_calvin(split, STRETCHES[:1])
    (episode,) = read_all_episodes([split], Units())
    asked = frames["rel_actions"][2:7]
    np.testing.assert_allclose(episode.actions[:, :3], asked[:, :3] * 0.6 / 0.8, rtol=1e-6)
    np.testing.assert_allclose(episode.actions[:, 3:6], asked[:, 3:6] * 1.5, rtol=1e-6)
    np.testing.assert_array_equal(episode.actions[:, 6], asked[:, 6])


def test_proprioception_has_a_quaternion_for_the_euler_angles(split):
    frames = write_calvin(split, STRETCHES[:1])
    (episode,) = read_all_episodes([split], CalvinUnits())
    assert episode.proprioception_names == PROPRIOCEPTION_NAMES
    observed = frames["robot_obs"][2:7]
    found = episode.proprioception
    np.testing.assert_allclose(found[:, :3], observed[:, :3], rtol=1e-6)
    np.testing.assert_allclose(found[:, 7:14], observed[:, 7:14], rtol=1e-6)
    np.testing.assert_allclose(found[:, 14], observed[:, 6], rtol=1e-6)
    for (x, y, z, w), (roll, pitch, yaw) in zip(found[:, 3:7], observed[:, 3:6]):
        matrix = np.array([
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ])  # fmt: skip
        np.testing.assert_allclose(matrix, turn(2, yaw) @ turn(1, pitch) @ turn(0, roll), atol=1e-5)


def turn(axis: int, angle: float) -> np.ndarray:
    """Turning about a fixed axis."""
    matrix = np.eye(3)
    i, j = (axis + 1) % 3, (axis + 2) % 3
    matrix[[i, j, i, j], [i, j, j, i]] = [np.cos(angle)] * 2 + [-np.sin(angle), np.sin(angle)]
    return matrix


def spoil_missing(split):
    (split / "episode_0000005.npz").unlink()


def spoil_bytes(split):
    (split / "episode_0000005.npz").write_bytes(b"PK\x03\x04 no more")


def spoil_part(split):
    content = dict(np.load(split / "episode_0000005.npz"))
    del content["rgb_gripper"]
    np.savez(split / "episode_0000005.npz", **content)


def spoil_size(split):
    content = dict(np.load(split / "episode_0000005.npz"))
    np.savez(split / "episode_0000005.npz", **{**content, "rgb_static": np.zeros((9, 9, 3), "u1")})


def spoil_action(split):
    content = dict(np.load(split / "episode_0000005.npz"))
    np.savez(split / "episode_0000005.npz", **{**content, "rel_actions": np.full(7, np.nan)})


def spoil_object(split):
    content = dict(np.load(split / "episode_0000005.npz"))
    spoiled = np.array([{"a": 1}], dtype=object)
    np.savez(split / "episode_0000005.npz", **{**content, "rel_actions": spoiled})


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (spoil_missing, "episode_0000005.npz is missing"),
        (spoil_bytes, "episode_0000005.npz cannot be read"),
        (spoil_part, "episode_0000005.npz cannot be read: .*rgb_gripper"),
        (spoil_size, "rgb_static have several shapes"),
        (spoil_action, "actions of frame 3 holds NaN"),
        (spoil_object, "episode_0000005.npz cannot be read: Object arrays"),
    ],
)
def test_a_damaged_frame_is_named_or_its_stretch_left_out(split, spoil, said):
    write_calvin(split, (("a", 2, 6), ("b", 7, 9)))
    spoil(split)
    with pytest.raises(ValueError, match=said):
        list(read_all_episodes([split], CalvinUnits()))
    heard = []
    episodes = list(read_all_episodes([split], CalvinUnits(), heard.append))
    assert [e.instruction for e in episodes] == ["b"] and len(heard) == 1


def test_actions_of_another_frame_are_refused_at_once(split):
    write_calvin(split, STRETCHES)
    with pytest.raises(ValueError, match="'tool'"):
        read_all_episodes([split], Units(frame="tool"))


class Program:
    """What runs when it is unpickled."""

    def __init__(self, file) -> None:
        self.file = file

    def __reduce__(self):
        return os.mkdir, (str(self.file),)


def test_nothing_in_the_annotations_is_run(split, tmp_path):
    write_calvin(split, STRETCHES)
    file = write_annotations(split, STRETCHES)
    trap = tmp_path / "sprung"
    np.save(file, {"language": {"ann": [Program(trap)]}}, allow_pickle=True)
    with pytest.raises(ValueError, match=r"posix\.mkdir|nt\.mkdir"):
        read_all_episodes([split], CalvinUnits())
    assert not trap.exists()
    np.load(file, allow_pickle=True)
    assert trap.exists()  # the trap was set


@pytest.mark.parametrize("call", [
    b"cnumpy\nload\n(S'x'\ntR.", b"cbuiltins\neval\n(S'1'\ntR.",
    b"cnumpy.core.multiarray\nfromfile\n.", b"cnumpy\ndtype.__init__.__globals__\n.",
])  # fmt: skip
def test_no_other_name_of_numpy_or_python_is_looked_up(tmp_path, call):
    file = tmp_path / "object.npy"
    with file.open("wb") as stream:
        np.lib.format.write_array_header_1_0(
            stream, {"shape": (), "fortran_order": False, "descr": "|O"}
        )
        stream.write(call)
    with pytest.raises(ValueError, match="which is no plain value"):
        read_object(file)


def test_numbers_of_numpy_in_the_annotations_are_numbers(split):
    write_calvin(split, STRETCHES)
    write_annotations(split, [(t, np.int64(a), np.int32(b)) for t, a, b in STRETCHES])
    assert [len(e) for e in read_all_episodes([split], CalvinUnits())] == [5, 6]


def test_a_pickle_of_the_other_numpy_is_read_too(split):
    """NumPy 1 names numpy.core, NumPy 2 numpy._core."""
    write_calvin(split, STRETCHES)
    file = split / "lang_annotations" / "auto_lang_ann.npy"
    content = file.read_bytes()
    assert b"numpy._core.multiarray" in content
    # Protocol 4 has a name's length before it; 3, as NumPy 1 wrote, ends it by a newline.
    plain = pickle.dumps(np.load(file, allow_pickle=True), protocol=3)
    start = content.index(b"\n") + 1
    file.write_bytes(content[:start] + plain.replace(b"numpy._core", b"numpy.core"))
    assert len(list(read_all_episodes([split], CalvinUnits()))) == 2


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "cannot be read"),
        (b"no array", "cannot be read"),
        (None, "cannot be read: it is an array of float64"),
        ({"language": {"ann": ["a"]}}, "holds no language annotations"),
        ({"language": {"ann": ["a"]}, "info": {"indx": []}}, "holds no language annotations"),
        ({"language": {"ann": []}, "info": {"indx": []}}, "holds no annotation"),
        ([1, 2], "holds no language annotations"),
    ],
)
def test_annotations_of_another_kind_are_refused(split, content, said):
    write_calvin(split, STRETCHES)
    file = split / "lang_annotations" / "auto_lang_ann.npy"
    if isinstance(content, bytes):
        file.write_bytes(content)
    else:
        np.save(file, np.zeros(3) if content is None else np.array(content, dtype=object)
                if isinstance(content, dict) else wrapped(content), allow_pickle=True)
    with pytest.raises(ValueError, match=said):
        read_all_episodes([split], CalvinUnits())


def wrapped(value) -> np.ndarray:
    array = np.empty((), dtype=object)
    array[()] = value
    return array


def test_a_cut_file_of_annotations_is_refused_wherever_it_was_cut(split):
    write_calvin(split, STRETCHES)
    file = split / "lang_annotations" / "auto_lang_ann.npy"
    whole = file.read_bytes()
    for length in range(0, len(whole) - 1, 97):
        file.write_bytes(whole[:length])
        with pytest.raises(ValueError, match="auto_lang_ann.npy"):
            read_all_episodes([split], CalvinUnits())

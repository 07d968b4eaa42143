"""CALVIN's dataset layout, on folders that are written here."""

from __future__ import annotations

import os
import pickle

import numpy as np
import pytest
from datasets import write_annotations, write_calvin
from episodes import Units

from deer_ros.data.bag_inputs import BagInputs
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


def spoil_compressed(split):
    file = split / "episode_0000005.npz"
    np.savez_compressed(file, **np.load(file))
    content = bytearray(file.read_bytes())
    start = content.index(b".npy") + 24  # what follows the first part's name is no more looked at
    content[start : start + 40] = b"\xff" * 40
    file.write_bytes(content)


def spoil_kind(split):
    with (split / "episode_0000005.npz").open("wb") as stream:
        np.save(stream, np.zeros(7))


def changed(**parts):
    def spoil(split):
        file = split / "episode_0000005.npz"
        np.savez(file, **{**np.load(file), **parts})

    return spoil


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (spoil_missing, "episode_0000005.npz is missing"),
        (spoil_bytes, "episode_0000005.npz cannot be read"),
        (spoil_part, "episode_0000005.npz cannot be read: .*rgb_gripper"),
        (spoil_compressed, "episode_0000005.npz cannot be read: .* while decompressing"),
        (spoil_kind, "episode_0000005.npz cannot be read: File is not a zip file"),
        (changed(rgb_static=np.zeros((9, 9, 3), "u1")), "rgb_static have several shapes"),
        (changed(rgb_static=np.zeros((20, 20, 3))), "rgb_static is float64, not uint8"),
        (changed(rel_actions=np.full(7, np.nan)), "actions of frame 3 holds NaN"),
        (changed(rel_actions=np.array([{}])), "episode_0000005.npz cannot be read: Object arrays"),
        (changed(rel_actions=np.array(["a"] * 7)), "5.npz: rel_actions is <U1, not float64"),
        (changed(robot_obs=np.array(["a"] * 15)), "5.npz: robot_obs is <U1, not float64"),
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


OBJECTS = np.empty((2, 1), dtype=object)
OBJECTS[:] = [["open it"], ["close it"]]


@pytest.mark.parametrize(("texts", "stretches"), [
    ([np.str_("open it"), np.str_("close it")], [(np.int64(2), np.int32(6)), (np.uint8(4), 9)]),
    (["open it", ["close it"]], [np.array([2, 6]), np.array([4, 9], ">i2")]),
    (OBJECTS, np.array([[2, 6], [4, 9]], object)),
    (OBJECTS[:, 0], np.array([[2, 6], [4, 9]])),
    (np.array(["open it", "close it"]), np.array([[2, 6], [4, 9]], order="F")),
    (np.array([["open it"], ["close it"]], ">U9"), [(2, 6), (4, 9)]),
])  # fmt: skip
def test_texts_and_numbers_of_numpy_in_the_annotations_are_read(split, texts, stretches):
    write_calvin(split, STRETCHES)
    annotate(split, texts, stretches)
    found = [(e.instruction, len(e)) for e in read_all_episodes([split], CalvinUnits())]
    assert found == [("open it", 5), ("close it", 6)]


def annotate(split, texts, stretches=((2, 6), (4, 9))):
    np.save(split / "lang_annotations" / "auto_lang_ann.npy",
            {"language": {"ann": texts}, "info": {"indx": stretches}}, allow_pickle=True)


@pytest.mark.parametrize(("texts", "said"), [
    ([None, "a"], "an annotation is None; it must be text"),
    ([["a", "b"], "c"], r"an annotation is \['a', 'b'\]; it must be text"),
    (np.zeros(2), "an array is of type 'f8'; whole numbers and texts can be read"),
    ([np.bytes_("a"), "b"], "a value of type 'S1'"),
])  # fmt: skip
def test_annotations_that_are_no_texts_are_refused(split, texts, said):
    write_calvin(split, STRETCHES)
    annotate(split, texts)
    with pytest.raises(ValueError, match=f"auto_lang_ann.npy .*{said}"):
        read_all_episodes([split], CalvinUnits())


def test_an_instruction_that_is_given_goes_before_those_annotated(split):
    write_calvin(split, [("", 2, 6), *STRETCHES[1:]])
    inputs = BagInputs(instruction="tidy up")
    found = list(read_all_episodes([split], CalvinUnits(), inputs=inputs))
    assert [e.instruction for e in found] == ["tidy up"] * 2
    heard = []
    assert len(list(read_all_episodes([split], CalvinUnits(), heard.append))) == 1
    assert "it has no instruction" in str(heard[0])


def other_split(root):
    (root / "training").rename(root / "validation")
    return root


def other_texts(root):
    (root / "training/lang_annotations").rename(root / "training/lang_paraphrase")
    return root


@pytest.mark.parametrize(("named", "said"), [
    (other_split, "is no split of CALVIN's dataset. Name .*validation instead"),
    (lambda root: root.parent, "is no split of CALVIN's dataset. Name .*task_D_D/training instead"),
    (lambda root: root / "training/lang_annotations/auto_lang_ann.npy",
     "is no split of CALVIN's dataset. Name .*task_D_D/training instead"),
    (other_texts, "training has frames of CALVIN's .* no lang_annotations/auto_lang_ann.npy.* "
                  "a copy of .*lang_paraphrase/auto_lang_ann.npy would do"),
    (lambda root: root / "nothing", "there are no demonstrations at"),
    (lambda root: next(root.glob("*/*5.npz")), "is no bag .*, no LeRobot dataset .* no split of"),
])  # fmt: skip
def test_what_is_near_a_split_and_none_is_told_what_it_lacks(split, named, said):
    write_calvin(split, STRETCHES)
    with pytest.raises((ValueError, FileNotFoundError), match=said):
        read_all_episodes([named(split.parent)], CalvinUnits())


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

"""LeRobot's layout v3, on folders that are written here."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
from datasets import CAMERAS, SIZES, write_info, write_lerobot
from episodes import Units

from deer_ros.data.bag_inputs import BagInputs
from deer_ros.data.lerobot_info import flat_names
from deer_ros.data.lerobot_keys import LeRobotKeys
from deer_ros.data.readers import read_all_episodes

pq = pytest.importorskip("pyarrow.parquet")
pytest.importorskip("av")

LENGTHS = (7, 5, 9)
AT_10_HZ = Units(rate_hz=10.0)


def episodes(folder, units=AT_10_HZ, on_bad=None, **keys):
    return list(read_all_episodes([folder], units, on_bad, LeRobotKeys(**keys)))


@pytest.mark.parametrize("videos", [True, False])
def test_every_episode_comes_with_its_own_frames(tmp_path, videos):
    held = write_lerobot(tmp_path, LENGTHS, videos=videos)
    found = episodes(tmp_path)
    assert [len(e) for e in found] == list(LENGTHS)
    assert [e.instruction for e in found] == ["open it", "close it", "open it"]
    start = 0
    for episode in found:
        part = slice(start, start + len(episode))
        start = part.stop
        np.testing.assert_allclose(episode.actions[:, :6], held["action"][part, :6], rtol=1e-5)
        np.testing.assert_array_equal(episode.actions[:, 6], 2 * held["action"][part, 6] - 1)
        np.testing.assert_array_equal(episode.proprioception, held["observation.state"][part])
        assert episode.proprioception_names == ("x", "y", "z")
        assert np.diff(episode.stamps_ns) == pytest.approx(1e8, abs=1e3)
        for pictures, key in zip((episode.static, episode.gripper), CAMERAS):
            assert pictures.shape[1:] == (*SIZES[key], 3)
            # Neighbouring frames differ by far more than the video's loss.
            colours = pictures.reshape(len(pictures), -1, 3).mean(axis=1)
            np.testing.assert_allclose(colours, held[key][part], atol=3)


def test_an_episode_of_two_tasks_becomes_two(tmp_path):
    write_lerobot(tmp_path, (6,))
    file = tmp_path / "data/chunk-000/file-000.parquet"
    table = pq.read_table(file).to_pydict()
    table["task_index"] = [0, 0, 1, 1, 1, 0]
    import pyarrow as pa

    pq.write_table(pa.table(table), file)
    found = episodes(tmp_path)
    assert [(e.instruction, len(e)) for e in found] == [
        ("open it", 2), ("close it", 3), ("open it", 1)
    ]  # fmt: skip
    assert found[1].stamps_ns[0] == pytest.approx(2e8, abs=1e3)


def test_keys_say_what_is_what(tmp_path):
    held = write_lerobot(tmp_path)
    found = episodes(
        tmp_path, static=CAMERAS[1], gripper=CAMERAS[0], pose=(2, 1, 0, 5, 4, 3), state="none",
        gripper_open="low", gripper_threshold=0.5,
    )  # fmt: skip
    np.testing.assert_allclose(
        found[0].actions[:, :6], held["action"][:7, [2, 1, 0, 5, 4, 3]], rtol=1e-5
    )
    np.testing.assert_array_equal(found[0].actions[:, 6], 1 - 2 * held["action"][:7, 6])
    assert found[0].proprioception is None
    assert found[0].static.shape[1:3] == SIZES[CAMERAS[1]]


def test_actions_come_in_the_models_units(tmp_path):
    """Metres at 10 Hz, for a model of 0.04 m at 20 Hz; radians alike, 0.05 rad."""
    held = write_lerobot(tmp_path)
    found = episodes(tmp_path, Units(), linear_scale=1.0, angular_scale=1.0)
    np.testing.assert_allclose(
        found[0].actions[:, :3], held["action"][:7, :3] * 10 / 0.8, rtol=1e-5
    )
    np.testing.assert_allclose(found[0].actions[:, 3:6], held["action"][:7, 3:6] * 10, rtol=1e-5)


def test_options_are_read_from_texts():
    keys = LeRobotKeys.parse(["static=top", "pose=6,5,4,3,2,1", "gripper_column=0",
                              "gripper_threshold=0.3", "linear_scale=0.01"])
    assert keys == LeRobotKeys("top", pose=(6, 5, 4, 3, 2, 1), gripper_column=0,
                               gripper_threshold=0.3, linear_scale=0.01)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("top", "must be NAME=VALUE"), ("camera=top", "must be NAME=VALUE"),
        ("pose=0,1", "six places"), ("pose=0,1,2,3,4,6", "six places"), ("pose=a", "no number"),
        ("pose=-1,0,1,2,3,4", "counted from 0"), ("gripper_open=wide", "allowed are high and low"),
        ("gripper_threshold=nan", "gripper_threshold is nan; it must be a number"),
        ("linear_scale=0", "must be a number above 0"), ("linear_scale=nan", "above 0"),
    ],
)  # fmt: skip
def test_wrong_options_are_refused(text, said):
    with pytest.raises(ValueError, match=said):
        LeRobotKeys.parse([text])


def rewrite(folder, name, change):
    """Change a table as a dictionary of columns."""
    import pyarrow as pa

    (file,) = folder.glob(name)
    table = pq.read_table(file).to_pydict()
    change(table)
    pq.write_table(pa.table(table), file)


FEATURES = {key: {"dtype": "video"} for key in CAMERAS}
JOINTS = {"motors": [*(f"joint_{number}" for number in range(1, 7)), "gripper"]}


def write_range(folder, least, greatest):
    """What the statistics say of the gripper."""
    stats = {"action": {"min": [-1.0] * 6 + [least], "max": [1.0] * 6 + [greatest]}}
    (folder / "meta/stats.json").write_text(json.dumps(stats))


SPOILS = {
    "description": (
        lambda f: (f / "meta/info.json").write_text("{"), "info.json is no description"),
    "older layout": (
        lambda f: write_info(f, codebase_version="v2.1"), "the layout is v2.1; v3 is read"),
    "no rate": (lambda f: write_info(f, fps="often"), "info.json is no description"),
    "endless rate": (lambda f: write_info(f, fps=float("inf")), "dataset: fps is inf"),
    "no path": (lambda f: write_info(f, data_path=7), "dataset: data_path is 7"),
    "no features": (lambda f: write_info(f, features=["action"]), "features is .'action'"),
    "no feature": (
        lambda f: write_info(f, features={"action": "float32"}), "feature action is 'float32'"),
    "joints": (
        lambda f: write_info(f, features={**FEATURES, "action": {"names": JOINTS}}),
        "action has a value named 'joint_1'.* by pose="),
    "no cameras": (
        lambda f: write_info(f, features={"action": {"dtype": "float32"}}),
        "static camera is not to be told from its name; the cameras are none"),
    "no action": (
        lambda f: write_info(f, features={"a": {"dtype": "video"}, "wrist": {"dtype": "video"}}),
        "has no feature 'action'"),
    "tasks": (lambda f: (f / "meta/tasks.parquet").unlink(), "tasks.parquet is missing"),
    "tasks' columns": (
        lambda f: rewrite(f, "meta/tasks.parquet", lambda t: t.pop("task_index")),
        "tasks.parquet has the columns"),
    "episodes": (
        lambda f: (f / "meta/episodes/chunk-000/file-000.parquet").write_bytes(b"PAR1"),
        "file-000.parquet cannot be read"),
    "episodes' columns": (
        lambda f: rewrite(f, "meta/episodes/*/*", lambda t: t.pop("dataset_to_index")),
        "lacks the column dataset_to_index"),
    "statistics": (
        lambda f: (f / "meta/stats.json").unlink(), "name what separates closed from open"),
    "no numbers in the statistics": (
        lambda f: write_range(f, np.nan, np.nan), "lies between nan and nan.*gripper_threshold=X"),
    "tasks without numbers": (
        lambda f: rewrite(f, "meta/tasks.parquet", lambda t: t.update(task_index=[[0], [1]])),
        r"tasks.parquet: task_index is \[0\]; it must be a whole number"),
    "places of joints": (
        lambda f: write_info(f, features={**FEATURES, "action": {
            "names": {"gripper": 6, **{f"joint_{number}": number for number in range(6)}}}}),
        "action has a value named 'joint_0'.* by pose="),
    "joints in parts": (
        lambda f: write_info(f, features={**FEATURES, "action": {
            "names": {"hand": ["x", "y"], "arm": [f"joint_{n}" for n in range(5)]}}}),
        "action has a value named 'joint_0'.* by pose="),
    "a gripper that never moved": (
        lambda f: write_range(f, 1.0, 1.0), "lies between 1.0 and 1.0.*gripper_threshold=X"),
}  # fmt: skip


@pytest.mark.parametrize("kind", SPOILS)
def test_a_wrong_description_is_refused_at_once(tmp_path, kind):
    write_lerobot(tmp_path)
    spoil, said = SPOILS[kind]
    spoil(tmp_path)
    with pytest.raises(ValueError, match=said):
        read_all_episodes([tmp_path], AT_10_HZ)


def rewrite_tasks(folder, texts):
    """The last text for the last episode."""
    rewrite(folder, "meta/tasks.parquet", lambda t: t.update(task_index=[0, 1, 2],
                                                             __index_level_0__=texts))
    rewrite(folder, "data/*/file-001.parquet", lambda t: t.update(task_index=[2] * 9))


def of_episode(name, episode, value):
    """What meta/episodes says of one."""
    return lambda f: rewrite(f, "meta/episodes/*/*", lambda t: t[name].__setitem__(episode, value))


BAD_EPISODES = {
    "no place": (
        of_episode("data/chunk_index", 1, None),
        "000.parquet: data/chunk_index of episode 1 is None, by which nothing can be found"),
    "time of a video": (
        of_episode(f"videos/{CAMERAS[0]}/from_timestamp", 0, 1e18),
        "from_timestamp of episode 0 is 1e[+]18"),
    "tasks in a list": (
        lambda f: rewrite(f, "data/*/file-001.parquet", lambda t: t.update(
            task_index=[[0]] * 9)),
        r"#2: task_index is \[0\]; it must be a whole number"),
    "no data": (
        lambda f: (f / "data/chunk-000/file-001.parquet").unlink(), "001.parquet is missing"),
    "no video": (
        lambda f: (f / f"videos/{CAMERAS[1]}/chunk-000/file-001.mp4").unlink(),
        "001.mp4 is missing"),
    "damaged video": (
        lambda f: (f / f"videos/{CAMERAS[0]}/chunk-000/file-001.mp4").write_bytes(b"no video"),
        "001.mp4 cannot be read as a video"),
    "short video": (
        lambda f: rewrite(f, "meta/episodes/*/*", lambda t: t[
            f"videos/{CAMERAS[0]}/from_timestamp"].__setitem__(2, 60.0)),
        "has no picture at 60.000 s"),
    "fewer frames": (
        lambda f: rewrite(f, "meta/episodes/*/*", lambda t: t[
            "dataset_to_index"].__setitem__(2, 99)),
        "has 9 of its 87 frames"),
    "NaN": (
        lambda f: rewrite(f, "data/*/file-001.parquet", lambda t: t[
            "action"].__setitem__(4, [float("nan")] * 7)),
        "actions of frame 4 holds NaN"),
    "unknown task": (
        lambda f: rewrite(f, "data/*/file-001.parquet", lambda t: t[
            "task_index"].__setitem__(slice(None), [8] * 9)),
        "has no task 8"),
    "short actions": (
        lambda f: rewrite(f, "data/*/file-001.parquet", lambda t: t[
            "action"].__setitem__(slice(None), [[0.0] * 4] * 9)),
        "has 4 values; value 6 is asked for"),
    "index as text": (
        lambda f: rewrite(f, "data/*/file-001.parquet", lambda t: t.update(
            index=[str(index) for index in t["index"]])),
        "001.parquet: index is string"),
    "no time": (
        lambda f: rewrite(f, "data/*/file-001.parquet", lambda t: t[
            "timestamp"].__setitem__(3, float("nan"))),
        "#2: the timestamp of frame 3 is nan"),
    "late": (
        lambda f: rewrite(f, "data/*/file-001.parquet", lambda t: t.update(
            timestamp=[1e18 + 1e6 * frame for frame in range(9)])),
        "#2: the timestamp of frame 0 is 1e[+]18"),
    "times as text": (
        lambda f: rewrite(f, "data/*/file-001.parquet", lambda t: t.update(
            timestamp=["soon"] * 9)),
        "#2: its timestamp are no numbers"),
    "no text": (
        lambda f: rewrite_tasks(f, ["open it", "close it", None]),
        "#2: its instruction is None; it must be text"),
    "empty text": (
        lambda f: rewrite_tasks(f, ["open it", "close it", " "]), "#2: it has no instruction"),
    "a wrong path": (
        lambda f: write_info(f, data_path="{nothing}.parquet"), "which names no file"),
}  # fmt: skip


@pytest.mark.parametrize("kind", BAD_EPISODES)
def test_a_bad_episode_is_named_or_left_out(tmp_path, kind):
    write_lerobot(tmp_path, LENGTHS)
    spoil, said = BAD_EPISODES[kind]
    spoil(tmp_path)
    with pytest.raises(ValueError, match=said):
        episodes(tmp_path)
    heard = []
    kept = 0 if kind == "a wrong path" else 2
    assert len(episodes(tmp_path, on_bad=heard.append)) == kept and len(heard) == 3 - kept


def test_episodes_that_the_tables_lost_are_named(tmp_path):
    write_lerobot(tmp_path, LENGTHS)
    rewrite(tmp_path, "meta/episodes/*/*", lambda t: [column.pop(1) for column in t.values()])
    with pytest.raises(ValueError, match="meta/episodes lacks episode 1, .*json tells of 3 epi"):
        episodes(tmp_path)
    heard = []
    assert len(episodes(tmp_path, on_bad=heard.append)) == 2 and len(heard) == 1


def test_episodes_of_elsewhere_among_the_tables_are_named(tmp_path):
    write_lerobot(tmp_path, LENGTHS)
    write_info(tmp_path, total_episodes=2)
    with pytest.raises(ValueError, match="meta/episodes has episode 2 too many, and meta/info"):
        episodes(tmp_path)


def test_an_episode_that_the_tables_tell_twice_of_is_refused(tmp_path):
    write_lerobot(tmp_path, LENGTHS)
    file = tmp_path / "meta/episodes/chunk-000/file-000.parquet"
    (file.parent / "file-001.parquet").write_bytes(file.read_bytes())
    with pytest.raises(ValueError, match="000.parquet and .*001.parquet: episode 0 has 2 rows"):
        episodes(tmp_path)
    rewrite(tmp_path, "meta/episodes/*/*1.parquet", lambda t: [
        column.__delitem__(slice(1, None)) for column in t.values()])
    heard = []
    assert len(episodes(tmp_path, on_bad=heard.append)) == 2 and len(heard) == 1


def test_places_that_are_texts_find_no_episode(tmp_path):
    write_lerobot(tmp_path, LENGTHS)
    rewrite(tmp_path, "meta/episodes/*/*", lambda t: t.update(
        dataset_from_index=[str(place) for place in t["dataset_from_index"]]))
    with pytest.raises(ValueError, match="dataset_from_index of episode 0 is '0'"):
        episodes(tmp_path)


def test_a_state_of_one_value_is_read_and_one_that_is_no_table_says_how_to_leave_it_out(tmp_path):
    write_lerobot(tmp_path, LENGTHS)
    data = "data/*/file-001.parquet"
    rewrite(tmp_path, data, lambda t: t.update({"observation.state": [0.5] * 9}))
    last = episodes(tmp_path)[-1]
    np.testing.assert_array_equal(last.proprioception, np.full((9, 1), 0.5, np.float32))
    assert last.proprioception_names == ()
    rewrite(tmp_path, data, lambda t: t.update({"observation.state": [[[0.5], [1.0]]] * 9}))
    with pytest.raises(ValueError, match=r"shape \(9, 2, 1\); --lerobot state=none leaves"):
        episodes(tmp_path)
    assert len(episodes(tmp_path, state="none")) == 3


@pytest.mark.parametrize(("names", "flat"), [
    (["x", "y"], ("x", "y")), ({"motors": ["x", "y"]}, ("x", "y")), ({"y": 1, "x": 0}, ("x", "y")),
    ({"arm": ["x"], "hand": ["y"]}, ("x", "y")), (None, ()), ({}, ()), ({"x": None}, ()),
])
def test_names_of_values_are_read_in_whatever_form(names, flat):
    assert flat_names(names) == flat


@pytest.mark.parametrize(("spoil", "said"), [
    (lambda column: column.__setitem__(2, None), "is None; the bytes of a picture are needed"),
    (lambda column: column.__setitem__(2, {"bytes": None, "path": "2.png"}), "'path': '2.png'"),
    (lambda column: column.__setitem__(2, {"bytes": b"\x89PNG", "path": ""}), ": a PNG picture"),
    (lambda column: column.__setitem__(slice(None), ["x"] * 9), "is 'x'; the bytes"),
])  # fmt: skip
def test_a_bad_picture_is_named_with_its_frame(tmp_path, spoil, said):
    write_lerobot(tmp_path, LENGTHS, videos=False)
    rewrite(tmp_path, "data/*/file-001.parquet", lambda t: spoil(t[CAMERAS[0]]))
    with pytest.raises(ValueError, match=rf"#2: frame [02] of {CAMERAS[0]}.*{said}"):
        episodes(tmp_path)
    heard = []
    assert len(episodes(tmp_path, on_bad=heard.append)) == 2 and len(heard) == 1


def test_pictures_may_be_bare_bytes(tmp_path):
    write_lerobot(tmp_path, LENGTHS, videos=False)
    before = episodes(tmp_path)[2].static
    rewrite(tmp_path, "data/*/file-001.parquet", lambda t: t.update(
        {CAMERAS[0]: [held["bytes"] for held in t[CAMERAS[0]]]}))
    np.testing.assert_array_equal(episodes(tmp_path)[2].static, before)


def test_an_instruction_that_is_given_goes_before_the_tasks(tmp_path):
    write_lerobot(tmp_path, videos=False)
    rewrite(tmp_path, "meta/tasks.parquet", lambda t: t.update(__index_level_0__=["", None]))
    inputs = BagInputs(instruction="tidy up")
    found = read_all_episodes([tmp_path], AT_10_HZ, inputs=inputs)
    assert {e.instruction for e in found} == {"tidy up"}


def test_texts_are_stripped(tmp_path):
    write_lerobot(tmp_path, videos=False)
    rewrite(tmp_path, "meta/tasks.parquet", lambda t: t.update(__index_level_0__=["open\n", " x"]))
    assert {e.instruction for e in episodes(tmp_path)} == {"open", "x"}


def test_who_names_the_places_of_the_pose_may_call_them_joints(tmp_path):
    write_lerobot(tmp_path)
    write_info(tmp_path, features={**FEATURES, "action": {"names": JOINTS}})
    assert len(episodes(tmp_path, pose=(0, 1, 2, 3, 4, 5))) == 3


@pytest.mark.parametrize(("static", "gripper", "lacks"), [
    (CAMERAS[1], "", "gripper camera is not to be told .* by gripper=KEY"),
    ("", CAMERAS[0], "static camera is not to be told .* by static=KEY"),
])  # fmt: skip
def test_a_camera_is_not_taken_for_both(tmp_path, static, gripper, lacks):
    write_lerobot(tmp_path)
    with pytest.raises(ValueError, match=lacks):
        episodes(tmp_path, static=static, gripper=gripper)


@pytest.mark.parametrize("module", ["pyarrow.parquet", "av"])
def test_a_missing_library_is_said_in_a_sentence(tmp_path, monkeypatch, module):
    write_lerobot(tmp_path)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ValueError, match="pip install -r requirements/lerobot.txt"):
        episodes(tmp_path)


def test_names_of_cameras_that_tell_nothing_must_be_named(tmp_path):
    write_lerobot(tmp_path, videos=False)
    info = json.loads((tmp_path / "meta/info.json").read_text())
    info["features"]["observation.images.side"] = {"dtype": "image"}
    (tmp_path / "meta/info.json").write_text(json.dumps(info))
    with pytest.raises(ValueError, match="static camera is not to be told .* by static=KEY"):
        episodes(tmp_path)
    assert len(episodes(tmp_path, static=CAMERAS[0])) == 3

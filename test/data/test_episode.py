from __future__ import annotations

import numpy as np
import pytest
from episodes import Units, make_episode
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from deer_ros.data.episode import POSE_NAMES, joint_names
from deer_ros.data.units import check_units, from_twist, to_twist


def test_an_episode_is_as_long_as_its_frames():
    assert len(make_episode(frames=6)) == 6
    assert len(make_episode(actions=None, proprioception=None, state=None)) == 4


@pytest.mark.parametrize(
    "changes, sentence",
    [
        ({"static": np.zeros((3, 8, 8, 3), np.uint8)}, r"static is uint8 of shape \(3, 8, 8, 3\)"),
        ({"gripper": np.zeros((4, 8, 8, 3), np.float32)}, "gripper is float32"),
        ({"gripper": np.zeros((4, 8, 8), np.uint8)}, r"of shape \(4, height, width, 3\)"),
        ({"actions": np.zeros((4, 6), np.float32)}, r"must be float32 of shape \(4, 7\)"),
        ({"actions": np.ones((4, 7))}, "actions is float64"),
        ({"actions": np.zeros((4, 7), np.float32)}, "gripper value other than -1"),
        ({"actions": np.full((4, 7), np.nan, np.float32)}, "actions of frame 0 holds NaN"),
        ({"state": np.full((4, 2), np.inf, np.float32)}, "state of frame 0 holds NaN"),
        ({"proprioception": np.zeros((5, 8), np.float32)}, "proprioception is"),
        ({"stamps_ns": np.array([0, 1, 1, 2])}, "do not grow"),
        ({"stamps_ns": np.zeros(0, np.int64)}, "no frames"),
        ({"stamps_ns": np.arange(4.0)}, "stamps_ns is float64"),
        ({"instruction": None}, "instruction is None; it must be text"),
        ({"instruction": " \n"}, "it has no instruction"),
    ],
)
def test_what_does_not_fit_together_is_named(changes, sentence):
    with pytest.raises(ValueError, match=sentence) as error:
        make_episode(**changes, source="bag#3")
    assert "bag#3" in str(error.value)


def test_a_twist_is_the_action_times_scale_times_rate():
    action = np.array([0.5, 0, 0, 0, 0, -1.0], np.float32)
    np.testing.assert_allclose(to_twist(action, Units()), [0.4, 0, 0, 0, 0, -1.0])


@given(
    arrays(np.float32, (3, 6), elements=st.floats(-1, 1, width=32)),
    st.floats(1, 100), st.floats(0.001, 0.5), st.floats(0.001, 0.5),
)
def test_actions_survive_the_way_to_velocities_and_back(actions, rate, linear, angular):
    units = Units(rate_hz=rate, linear_scale=linear, angular_scale=angular)
    back = from_twist(to_twist(actions, units), units)
    assert back.dtype == np.float32
    np.testing.assert_allclose(back, actions, atol=1e-6)


def test_actions_in_the_tools_frame_are_refused():
    with pytest.raises(ValueError, match="frame is 'tool'"):
        check_units(Units(frame="tool"))


def test_proprioception_is_picked_by_name_in_the_order_of_a_layout():
    names = (*POSE_NAMES, *joint_names(["one", "two"]))
    episode = make_episode(proprioception_names=names)
    picked = episode.proprioception_in(["joint.two", "end_effector.z"])
    np.testing.assert_array_equal(picked, episode.proprioception[:, [8, 2]])
    with pytest.raises(ValueError, match=r"lacks joint\.three; it has end_effector\.x, "):
        episode.proprioception_in(["joint.three", "end_effector.z"])
    for lacking in (make_episode(), make_episode(proprioception=None)):
        with pytest.raises(ValueError, match="no names|no proprioception"):
            lacking.proprioception_in(["end_effector.z"])
    with pytest.raises(ValueError, match="one value for each of"):
        make_episode(proprioception_names=names[1:])

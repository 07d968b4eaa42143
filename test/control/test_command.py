from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deer_ros.control import rotation
from deer_ros.control.command import (
    ANGULAR_VELOCITY,
    JUMP,
    LARGEST_VALUE,
    LINEAR_VELOCITY,
    WORKSPACE,
    ActionSemantics,
    ActionTooLargeError,
    CommandMaker,
    GripperCommand,
    Limits,
    Pose,
    needs_pose,
)

CALVIN = ActionSemantics(30.0, "world", "euler_xyz_increment", "target", 0.02, 0.05)
TOOL = ActionSemantics(10.0, "tool", "rotation_vector", "measured", 0.1, 0.2)
FREE = Limits(1000.0, 1000.0, (-1000.0,) * 3, (1000.0,) * 3)


def pose(x=0.0, y=0.0, z=0.0, turn=(0.0, 0.0, 0.0)) -> Pose:
    return Pose(np.array([x, y, z]), rotation.from_rotation_vector(np.array(turn, float)))


def command(action, semantics=CALVIN, limits=FREE, measured=None, maker=None):
    return (maker or CommandMaker()).command(np.array(action, float), semantics, limits, measured)


def turned(axis: str, angle: float) -> np.ndarray:
    return angle * np.eye(3)["xyz".index(axis)]


def test_twist_is_action_times_scale_times_rate():
    made = command([1, -0.5, 0.25, 0, 0, 1])
    np.testing.assert_allclose(made.linear, [0.6, -0.3, 0.15])
    np.testing.assert_allclose(made.angular, [0, 0, 1.5], atol=1e-12)
    assert made.target is None and made.clamped == ()


@pytest.mark.parametrize("axis", ["x", "y", "z"])
def test_one_euler_increment_is_a_turn_about_that_axis(axis):
    made = command([0, 0, 0, *turned(axis, 0.4)])
    np.testing.assert_allclose(made.angular, turned(axis, 0.4 * 0.05 * 30), atol=1e-12)


def test_three_euler_increments_are_not_a_rotation_vector():
    small = ActionSemantics(1.0, "world", "euler_xyz_increment", "measured", 1.0, 1.0)
    made = command([0, 0, 0, 0.3, 0.4, 0.5], small)
    # About x, then y, then z, composed by hand.
    x, y, z = (rotation.from_rotation_vector(turned(a, v)) for a, v in
               (("x", 0.3), ("y", 0.4), ("z", 0.5)))
    expected = rotation.to_rotation_vector(rotation.multiply(z, rotation.multiply(y, x)))
    np.testing.assert_allclose(made.angular, expected)
    assert np.abs(made.angular - [0.3, 0.4, 0.5]).max() > 0.05


def test_euler_increments_add_to_the_angles_of_the_reference():
    """With the tool yawed by 90 degrees, more roll turns about the base's y axis."""
    made = command([0, 0, 0, 1, 0, 0], measured=pose(turn=turned("z", np.pi / 2)))
    np.testing.assert_allclose(made.angular, [0, 1.5, 0], atol=1e-9)
    np.testing.assert_allclose(
        rotation.to_euler(made.target.orientation), [0.05, 0, np.pi / 2], atol=1e-9)


def test_a_rotation_vector_in_the_world_is_taken_as_it_is():
    semantics = replace(CALVIN, rotation="rotation_vector")
    made = command([0, 0, 0, 0.3, 0.4, 0.5], semantics,
                   measured=pose(turn=turned("z", np.pi / 2)))
    np.testing.assert_allclose(made.angular, np.array([0.3, 0.4, 0.5]) * 1.5)


def test_the_tools_frame_is_turned_into_the_bases():
    made = command([1, 0, 0, 1, 0, 0], TOOL, measured=pose(1, 2, 3, turned("z", np.pi / 2)))
    np.testing.assert_allclose(made.linear, [0, 1, 0], atol=1e-12)
    np.testing.assert_allclose(made.angular, [0, 2, 0], atol=1e-12)
    np.testing.assert_allclose(made.target.position, [1, 2.1, 3])
    # In the tool's frame the turn comes last: q times the rotation of the action.
    expected = rotation.multiply(rotation.from_rotation_vector(turned("z", np.pi / 2)),
                                 rotation.from_rotation_vector(turned("x", 0.2)))
    np.testing.assert_allclose(made.target.orientation, expected, atol=1e-12)


def test_the_tools_frame_needs_a_pose():
    assert needs_pose(TOOL, FREE) and not needs_pose(CALVIN, FREE)
    with pytest.raises(ValueError, match="pose is not known"):
        command([1, 0, 0, 0, 0, 0], TOOL)


def test_the_target_is_added_to_the_last_target_or_to_the_measured_pose():
    standing = pose(0.5)
    on_target, on_measured = CommandMaker(), CommandMaker()
    measured = replace(CALVIN, reference="measured")
    for _ in range(3):
        last_target = command([1, 0, 0, 0, 0, 0], CALVIN, FREE, standing, on_target)
        last_measured = command([1, 0, 0, 0, 0, 0], measured, FREE, standing, on_measured)
    np.testing.assert_allclose(last_target.target.position, [0.56, 0, 0])
    np.testing.assert_allclose(last_measured.target.position, [0.52, 0, 0])
    on_target.rest()
    again = command([1, 0, 0, 0, 0, 0], CALVIN, FREE, standing, on_target)
    np.testing.assert_allclose(again.target.position, [0.52, 0, 0])


def test_velocities_are_shortened_to_their_norm_and_keep_their_direction():
    limits = replace(FREE, linear_velocity=0.3, angular_velocity=0.5)
    made = command([1, 1, 0, 0, 0, 1], limits=limits, measured=pose())
    np.testing.assert_allclose(made.linear, np.array([1, 1, 0]) * 0.3 / np.sqrt(2))
    np.testing.assert_allclose(made.angular, [0, 0, 0.5], atol=1e-12)
    assert made.clamped == (LINEAR_VELOCITY, ANGULAR_VELOCITY)
    np.testing.assert_allclose(made.target.position, made.linear / 30)


@pytest.mark.parametrize("semantics", [CALVIN, replace(CALVIN, rotation="rotation_vector")])
def test_the_models_own_maximum_shortens_none_of_its_actions(semantics):
    limits = replace(FREE, linear_velocity=semantics.max_linear_velocity,
                     angular_velocity=semantics.max_angular_velocity)
    for corner in np.array(np.meshgrid(*[[-1, 1]] * 6)).reshape(6, -1).T:
        assert command(corner, semantics, limits).clamped == ()
    assert command([1.1, 1, 1, 0, 0, 0], semantics, limits).clamped == (LINEAR_VELOCITY,)


BOX = replace(FREE, workspace_min=(0.0, -1.0, 0.1), workspace_max=(1.0, 1.0, 0.5))


def test_components_that_lead_out_of_the_workspace_are_zeroed():
    made = command([1, 1, -1, 0, 0, 0], limits=BOX, measured=pose(0.99, 0.0, 0.3))
    np.testing.assert_allclose(made.linear, [0, 0.6, -0.6])
    np.testing.assert_allclose(made.target.position, [1.0, 0.02, 0.28])
    assert made.clamped == (WORKSPACE,)


def test_from_outside_the_workspace_only_the_way_in_is_free():
    outside = pose(1.5, 0.0, 0.3)
    inward = command([-1, 0, 0, 0, 0, 0], limits=BOX, measured=outside)
    np.testing.assert_allclose(inward.linear, [-0.6, 0, 0])
    np.testing.assert_allclose(inward.target.position, [1.48, 0, 0.3])
    outward = command([1, 0, 0, 0, 0, 0], limits=BOX, measured=outside)
    np.testing.assert_allclose(outward.linear, [0, 0, 0])
    np.testing.assert_allclose(outward.target.position, [1.5, 0, 0.3])


def test_a_workspace_needs_a_pose():
    assert needs_pose(CALVIN, BOX)
    with pytest.raises(ValueError, match="pose is not known"):
        command([0] * 6, limits=BOX)


@pytest.mark.parametrize("action", [
    [np.nan, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, np.inf], [0, -np.inf, 0, 0, 0, 0],
    [1e7, 0, 0, 0, 0, 0], [0] * 5, [[0] * 6], [],
])
def test_what_is_no_action_is_refused_whole(action):
    maker = CommandMaker()
    before = command([1, 0, 0, 0, 0, 0], measured=pose(), maker=maker).target.position
    with pytest.raises(ValueError, match="six finite numbers"):
        command(action, measured=pose(), maker=maker)
    after = command([0] * 6, measured=pose(), maker=maker).target.position
    np.testing.assert_allclose(after, before)


def test_what_is_too_large_is_told_from_what_is_no_number():
    with pytest.raises(ActionTooLargeError):
        command([1.1 * LARGEST_VALUE, 0, 0, 0, 0, 0])
    with pytest.raises(ValueError) as caught:
        command([np.inf, 0, 0, 0, 0, 0])
    assert not isinstance(caught.value, ActionTooLargeError)


def test_a_jump_is_shortened_value_by_value_and_starts_from_standstill():
    limits, maker = replace(FREE, jump=0.25), CommandMaker()
    made = [command([1, 0.1, 0, 0, 0, -1], limits=limits, maker=maker) for _ in range(5)]
    np.testing.assert_allclose([c.linear[0] for c in made], np.array([1, 2, 3, 4, 4]) * 0.15)
    np.testing.assert_allclose([c.linear[1] for c in made], [0.06] * 5)
    np.testing.assert_allclose([c.angular[2] for c in made], np.array([1, 2, 3, 4, 4]) * -0.375)
    assert [c.clamped for c in made] == [(JUMP,)] * 3 + [()] * 2
    back = command([-1, 0.1, 0, 0, 0, -1], limits=limits, maker=maker)
    np.testing.assert_allclose(back.linear[0], 0.75 * 0.6)
    maker.rest()
    np.testing.assert_allclose(command([1] * 6, limits=limits, maker=maker).linear, [0.15] * 3)


def test_a_refused_action_is_not_what_the_next_one_is_compared_with():
    limits, maker = replace(FREE, jump=0.5), CommandMaker()
    command([0.5, 0, 0, 0, 0, 0], limits=limits, maker=maker)
    with pytest.raises(ValueError):
        command([np.nan] * 6, limits=limits, maker=maker)
    np.testing.assert_allclose(command([1, 0, 0, 0, 0, 0], limits=limits, maker=maker).linear[0],
                               0.6)


SPECIAL = [np.nan, np.inf, -np.inf, 0.0, -0.0, 5e-324, -1e-300, 1.0, -1.0, LARGEST_VALUE,
           -LARGEST_VALUE, np.nextafter(LARGEST_VALUE, np.inf), 1e300, -1.7e308]


def generated_action(random: np.random.Generator) -> np.ndarray:
    """Mostly six values: ordinary, tiny, huge, special ones among them; sometimes other shapes."""
    shape = (6,)
    if random.random() < 0.1:
        shape = [(), (0,), (5,), (7,), (1, 6), (6, 1), (2, 3)][random.integers(7)]
    scale = 10.0 ** random.uniform(-320, 308) if random.random() < 0.3 else 1.0
    values = np.asarray(random.uniform(-1.5, 1.5, shape) * scale)
    if random.random() < 0.4:
        values = np.where(random.random(shape) < 0.3, random.choice(SPECIAL, shape), values)
    return values.astype(random.choice([np.float64, np.float32]))


def is_sound(action: np.ndarray) -> bool:
    return action.shape == (6,) and bool((np.abs(action.astype(float)) <= LARGEST_VALUE).all())


@pytest.mark.filterwarnings("ignore:overflow encountered")
def test_of_ten_thousand_actions_nothing_leaves_that_is_not_finite_or_beyond_the_limits():
    random = np.random.default_rng(7)
    maker, sent, refused, last = CommandMaker(), 0, 0, np.zeros(3)
    for index in range(10_000):
        if index % 40 == 0:
            semantics = replace(
                CALVIN, frame=random.choice(["world", "tool"]),
                rotation=random.choice(["euler_xyz_increment", "rotation_vector"]),
                reference=random.choice(["target", "measured"]))
            limit, jump = 10 ** random.uniform(-3, 1), random.uniform(0.01, 2)
            limits = replace(BOX if random.random() < 0.5 else FREE, linear_velocity=limit,
                             angular_velocity=limit, jump=jump)
            maker.rest()
            last = np.zeros(3)
        measured = pose(*random.uniform(-2, 2, 3), turn=random.uniform(-3, 3, 3))
        action = generated_action(random)
        try:
            made = command(action, semantics, limits, measured, maker)
        except ValueError:
            assert not is_sound(action)
            refused += 1
            continue
        sent += 1
        assert is_sound(action)
        check_within(made, semantics, limits, measured)
        if semantics.frame == "world" and not made.clamped:
            # Nothing was shortened: what was asked for is within a jump of what was sent last.
            assert (np.abs(action[:3] - last) <= limits.jump + 1e-5).all()
        last = np.clip(action[:3], last - limits.jump, last + limits.jump)
    assert sent > 5000 and refused > 1000


def check_within(made, semantics, limits, measured) -> None:
    values = np.concatenate([made.linear, made.angular, made.target.position,
                             made.target.orientation])
    assert np.isfinite(values).all()
    assert np.linalg.norm(made.linear) <= limits.linear_velocity * 1.00001
    assert np.linalg.norm(made.angular) <= limits.angular_velocity * 1.00001
    low = np.minimum(limits.workspace_min, measured.position)
    high = np.maximum(limits.workspace_max, measured.position)
    ahead = measured.position + made.linear / semantics.rate_hz
    assert (ahead >= low - 1e-9).all() and (ahead <= high + 1e-9).all()
    if semantics.reference == "measured":
        assert (made.target.position >= low).all() and (made.target.position <= high).all()


numbers = st.floats(allow_nan=True, allow_infinity=True) | st.floats(-1, 1)
coordinates = st.floats(-2, 2)


numbers = st.floats(allow_nan=True, allow_infinity=True) | st.floats(-1, 1)
coordinates = st.floats(-2, 2)


@settings(max_examples=500, deadline=None)
@given(st.lists(numbers, min_size=6, max_size=6), st.sampled_from(["world", "tool"]),
       st.sampled_from(["euler_xyz_increment", "rotation_vector"]),
       st.sampled_from(["target", "measured"]),
       st.tuples(coordinates, coordinates, coordinates), st.floats(0.001, 5), st.booleans())
def test_nothing_that_is_not_finite_or_beyond_the_limits_leaves(
    action, frame, turning, reference, position, limit, boxed
):
    semantics = replace(CALVIN, frame=frame, rotation=turning, reference=reference)
    limits = replace(BOX if boxed else FREE, linear_velocity=limit, angular_velocity=limit)
    measured = pose(*position, turn=(0.3, -0.2, 2.0))
    maker = CommandMaker()
    for _ in range(2):
        try:
            made = command(action, semantics, limits, measured, maker)
        except ValueError:
            assert not (np.abs(action) <= 1e6).all()
            return
        check_within(made, semantics, limits, measured)


def openings(gripper: GripperCommand, probabilities, hysteresis=0.1, episode=1) -> list:
    return [gripper.update(each, hysteresis, episode) for each in probabilities]


def test_the_gripper_changes_only_when_the_probability_is_clear():
    probabilities = [0.51, 0.45, 0.41, 0.39, 0.55, 0.6, 0.61, 0.5]
    assert openings(GripperCommand(), probabilities) == [
        1.0, None, None, 0.0, None, None, 1.0, None]


def test_without_hysteresis_the_gripper_follows():
    assert openings(GripperCommand(), [0.4, 0.6, 0.4], 0.0) == [0.0, 1.0, 0.0]


def test_what_is_to_be_repeated_is_commanded_again_once_and_kept_where_nothing_is_clear():
    gripper = GripperCommand()
    assert openings(gripper, [0.1]) == [0.0]
    gripper.repeat()
    assert openings(gripper, [0.55, 0.55]) == [0.0, None]


def test_a_new_episode_knows_of_no_opening_before_it():
    gripper = GripperCommand()
    assert openings(gripper, [0.1], episode=1) == [0.0]
    assert openings(gripper, [0.1, 0.1], episode=2) == [0.0, None]
    assert openings(gripper, [0.55], episode=3) == [1.0]


@pytest.mark.parametrize("probability", [np.nan, np.inf, -0.1, 1.1])
def test_what_is_no_probability_moves_no_gripper(probability):
    gripper = GripperCommand()
    openings(gripper, [0.9])
    with pytest.raises(ValueError, match="probability"):
        openings(gripper, [probability])
    assert openings(gripper, [0.9]) == [None]

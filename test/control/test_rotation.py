from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deer_ros.control import rotation

angles = st.floats(-3.1, 3.1)
vectors = st.tuples(angles, angles, angles).map(np.array)


def matrix(quaternion) -> np.ndarray:
    return np.column_stack([rotation.rotate(quaternion, axis) for axis in np.eye(3)])


def matrix_of_euler(roll, pitch, yaw) -> np.ndarray:
    """Written out from the definition: about x, then y, then z of the fixed frame."""
    cx, cy, cz = np.cos([roll, pitch, yaw])
    sx, sy, sz = np.sin([roll, pitch, yaw])
    about_x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    return about_z @ about_y @ about_x


def test_a_quarter_turn_about_z_takes_x_to_y():
    quarter = rotation.from_rotation_vector(np.array([0, 0, np.pi / 2]))
    np.testing.assert_allclose(quarter, [0, 0, np.sqrt(0.5), np.sqrt(0.5)])
    np.testing.assert_allclose(rotation.rotate(quarter, np.array([1.0, 0, 0])), [0, 1, 0],
                               atol=1e-12)


@settings(deadline=None)
@given(vectors)
def test_euler_angles_turn_as_their_definition_says(euler):
    np.testing.assert_allclose(
        matrix(rotation.from_euler(euler)), matrix_of_euler(*euler), atol=1e-9)


@settings(deadline=None)
@given(vectors)
def test_euler_angles_of_a_quaternion_give_the_same_rotation(euler):
    quaternion = rotation.from_euler(euler)
    again = rotation.from_euler(rotation.to_euler(quaternion))
    np.testing.assert_allclose(matrix(again), matrix(quaternion), atol=1e-4)


@pytest.mark.parametrize("pitch", [np.pi / 2, -np.pi / 2])
def test_euler_angles_hold_where_roll_and_yaw_are_one(pitch):
    quaternion = rotation.from_euler(np.array([0.3, pitch, -0.8]))
    again = rotation.from_euler(rotation.to_euler(quaternion))
    np.testing.assert_allclose(matrix(again), matrix(quaternion), atol=1e-6)


@settings(deadline=None)
@given(vectors)
def test_rotation_vectors_come_back_as_the_shortest(vector):
    back = rotation.to_rotation_vector(rotation.from_rotation_vector(vector))
    assert np.linalg.norm(back) <= np.pi + 1e-9
    np.testing.assert_allclose(
        matrix(rotation.from_rotation_vector(back)),
        matrix(rotation.from_rotation_vector(vector)), atol=1e-9)
    if np.linalg.norm(vector) < 3:
        np.testing.assert_allclose(back, vector, atol=1e-9)


@settings(deadline=None)
@given(vectors, vectors)
def test_multiplication_is_one_rotation_after_the_other(first, second):
    p, q = rotation.from_rotation_vector(first), rotation.from_rotation_vector(second)
    np.testing.assert_allclose(matrix(rotation.multiply(q, p)), matrix(q) @ matrix(p), atol=1e-9)
    np.testing.assert_allclose(
        matrix(rotation.multiply(q, rotation.conjugate(q))), np.eye(3), atol=1e-9)


@pytest.mark.parametrize("quaternion", [[0, 0, 0, 0], [np.nan, 0, 0, 1], [np.inf, 0, 0, 1]])
def test_what_is_no_orientation_is_refused(quaternion):
    with pytest.raises(ValueError, match="no orientation"):
        rotation.normalised(np.array(quaternion))

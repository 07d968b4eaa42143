"""The example for MoveIt Servo, against docs/servo.md and what the policy sends."""

from __future__ import annotations

import pytest
import yaml

from deer_ros.resources import share
from deer_ros.stepping.settings import Settings


@pytest.fixture(scope="module")
def servo() -> dict:
    content = yaml.safe_load(share("config", "servo.yaml").read_text())
    return content["servo_node"]["ros__parameters"]["moveit_servo"]


def test_servo_hears_the_policys_twist_in_its_units(servo):
    assert servo["cartesian_command_in_topic"] == "/deer/twist"
    assert servo["command_in_type"] == "speed_units"


def test_servo_waits_for_three_messages_of_the_policy(servo):
    messages = servo["incoming_command_timeout"] * Settings().command_rate
    # Rounding alone may make it less.
    assert messages >= 3 - 1e-9

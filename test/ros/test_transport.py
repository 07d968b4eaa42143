from __future__ import annotations

import xml.etree.ElementTree as ElementTree

import pytest

from deer_ros.nodes import transport
from deer_ros.nodes.transport import PROFILE_VARIABLES, reuse_freed_memory, use_shipped_profile


@pytest.fixture
def environment(monkeypatch) -> dict[str, str]:
    """What stands for the environment variables of this process."""
    variables = {}
    monkeypatch.setattr(transport.os, "environ", variables)
    return variables


def test_a_process_takes_the_shipped_profile_by_itself(environment):
    use_shipped_profile()
    assert len(set(environment.values())) == 1 and set(environment) == set(PROFILE_VARIABLES)
    ElementTree.parse(environment[PROFILE_VARIABLES[0]])


@pytest.mark.parametrize("variable", PROFILE_VARIABLES)
def test_a_profile_that_the_user_chose_is_kept(environment, variable):
    environment[variable] = "/my/own.xml"
    use_shipped_profile()
    assert environment == {variable: "/my/own.xml"}


def test_a_c_library_without_mallopt_is_left_alone(monkeypatch):
    monkeypatch.setattr(transport.ctypes, "CDLL", lambda _name: object())
    reuse_freed_memory()

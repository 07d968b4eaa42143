from __future__ import annotations

import os
import xml.etree.ElementTree as ElementTree

import pytest

from deer_ros.nodes import transport
from deer_ros.nodes.transport import PROFILE_VARIABLES, reuse_freed_memory, use_shipped_profile


@pytest.fixture(autouse=True)
def no_profile(monkeypatch):
    for variable in PROFILE_VARIABLES:
        monkeypatch.setenv(variable, "")


def test_a_process_takes_the_shipped_profile_by_itself():
    use_shipped_profile()
    files = {os.environ[variable] for variable in PROFILE_VARIABLES}
    assert len(files) == 1
    ElementTree.parse(files.pop())


@pytest.mark.parametrize("variable", PROFILE_VARIABLES)
def test_a_profile_that_the_user_chose_is_kept(monkeypatch, variable):
    monkeypatch.setenv(variable, "/my/own.xml")
    use_shipped_profile()
    assert {os.environ[variable] for variable in PROFILE_VARIABLES} == {"/my/own.xml", ""}


def test_a_c_library_without_mallopt_is_left_alone(monkeypatch):
    monkeypatch.setattr(transport.ctypes, "CDLL", lambda _name: object())
    reuse_freed_memory()

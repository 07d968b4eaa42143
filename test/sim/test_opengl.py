from __future__ import annotations

import os
import subprocess
import sys

import pytest

from deer_ros.sim import opengl


def test_a_chosen_library_that_is_not_installed_is_told_with_its_packages(monkeypatch):
    monkeypatch.setenv("MUJOCO_GL", "osmesa")
    monkeypatch.setattr(opengl, "_LIBRARIES", {"osmesa": ("libNotThere.so.8",)})
    with pytest.raises(OSError, match="MUJOCO_GL is osmesa.*apt install libosmesa6"):
        opengl.choose_opengl()


def test_a_library_that_does_not_exist_is_refused_with_those_that_do(monkeypatch):
    monkeypatch.setenv("MUJOCO_GL", "nonsense")
    with pytest.raises(OSError, match="MUJOCO_GL is 'nonsense'; allowed are osmesa, egl.*glfw"):
        opengl.choose_opengl()


def test_opengl_that_cannot_draw_is_an_error_with_a_way_out():
    program = "from deer_ros.sim.robot import SimulatedRobot as R; r = R(); r.reset('reach', 0); "
    program += "\ntry:\n    r.pictures()\nexcept OSError as error:\n    print(error)"
    environment = {name: value for name, value in os.environ.items() if name != "DISPLAY"}
    done = subprocess.run([sys.executable, "-c", program], text=True, capture_output=True,
                          env=environment | {"MUJOCO_GL": "glfw"})
    assert "MUJOCO_GL=glfw" in done.stdout and "set MUJOCO_GL=osmesa" in done.stdout, done.stderr


@pytest.mark.parametrize("library", opengl._LIBRARIES)
def test_a_process_that_leaves_a_robot_open_ends_quietly(library):
    if not opengl._is_installed(library):
        pytest.skip(f"{library} is not installed")
    # PyTorch's own preparations for the end come before OpenGL's: without more, so would the robot.
    program = "import torch; from deer_ros.sim.robot import SimulatedRobot as R\n"
    program += "for task in 'reach', 'push': r = R(); r.reset(task, 0); r.pictures()"
    done = subprocess.run([sys.executable, "-c", program], text=True, capture_output=True,
                          env=os.environ | {"MUJOCO_GL": library})
    assert (done.returncode, done.stderr) == (0, "")

"""Off-screen OpenGL for MuJoCo: which library to use, and what to say where there is none.

MuJoCo reads MUJOCO_GL once, when it is imported, and would pick a windowing library by itself.
"""

from __future__ import annotations

import ctypes
import os

# The software renderer first: it needs no display and no graphics card and gives the same
# pictures on every machine.
_LIBRARIES = {
    "osmesa": ("libOSMesa.so.8", "libOSMesa.so"),
    "egl": ("libEGL.so.1", "libEGL.so"),
}
_ON_SCREEN = "glfw"
_INSTALL_ONE = (
    "install one, on Debian and Ubuntu with `sudo apt install libosmesa6` "
    "or `sudo apt install libegl1 libegl-mesa0 libgl1-mesa-dri`"
)


def choose_opengl() -> str:
    """Sets MUJOCO_GL to an off-screen backend if nobody has set it, and returns its value.

    Call it before mujoco is imported for the first time.

    Raises:
        OSError: the library is not installed, and the sentence names the packages; or MUJOCO_GL
            names none.
    """
    chosen = os.environ.get("MUJOCO_GL") or None
    if chosen is not None and chosen.strip().lower() not in (*_LIBRARIES, _ON_SCREEN):
        raise OSError(
            f"MUJOCO_GL is {chosen!r}; allowed are {', '.join(_LIBRARIES)} and, with a display, "
            f"{_ON_SCREEN}. Leave it unset to take what is installed."
        )
    if chosen in _LIBRARIES and not _is_installed(chosen):
        raise OSError(f"MUJOCO_GL is {chosen}, but that library is not installed: {_INSTALL_ONE}")
    if chosen is None:
        os.environ["MUJOCO_GL"] = _first_installed()
    return os.environ["MUJOCO_GL"]


def _first_installed() -> str:
    for backend in _LIBRARIES:
        if _is_installed(backend):
            return backend
    raise OSError(
        "the simulated robot needs an off-screen OpenGL library and found neither OSMesa nor EGL: "
        + _INSTALL_ONE
    )


def _is_installed(backend: str) -> bool:
    return any(_loads(name) for name in _LIBRARIES[backend])


def _loads(name: str) -> bool:
    try:
        ctypes.CDLL(name)
    except OSError:
        return False
    return True

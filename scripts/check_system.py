"""Checks what `make setup` cannot get from wheels, before anything is installed.

Exits with one line that says what to do where the set-up cannot work. As root, missing system
packages are installed; off-screen OpenGL is the one that the set-up can do without.

Runs on every Python 3, to be able to refuse it.
"""

import ctypes.util
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
from importlib.util import find_spec
from pathlib import Path

OLDEST, NEWEST = (3, 10), (3, 13)


def main():
    require_wheels()
    missing = missing_build_packages()
    if missing and not install(missing):
        sys.exit(advice("The set-up needs", missing))
    if not has_rendering() and not install(["libosmesa6"]):
        print(advice("The simulated robot needs off-screen OpenGL,", ["libosmesa6"]))


def require_wheels():
    is_supported = (
        OLDEST <= sys.version_info[:2] <= NEWEST
        and platform.python_implementation() == "CPython"
        and (platform.system(), platform.machine()) == ("Linux", "x86_64")
    )
    if not is_supported:
        sys.exit(
            f"ROS 2 wheels exist for CPython 3.10 to 3.13 on x86-64 Linux, and this is "
            f"{platform.python_implementation()} {platform.python_version()} on "
            f"{platform.machine()} {platform.system()}: name another one, as in make setup "
            f"PYTHON=python3.12, or build the package on a ROS 2 installation (see README.md)."
        )


def missing_build_packages():
    """Debian packages that building needs and that are not there."""
    python = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    is_there = {
        "cmake": shutil.which("cmake"),
        "g++": shutil.which("g++"),
        f"{python}-venv": find_spec("ensurepip"),
        f"{python}-dev": (Path(sysconfig.get_path("include")) / "Python.h").is_file(),
    }
    return [package for package, found in is_there.items() if not found]


def has_rendering():
    return any(ctypes.util.find_library(library) for library in ("OSMesa", "EGL"))


def install(packages):
    """Whether the packages could be installed; only root tries."""
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        return False
    print(f"Installing {' '.join(packages)}", flush=True)
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    command = ["apt-get", "install", "--yes", "--quiet", *packages]

    def succeeds(command):
        return subprocess.run(command, env=environment, stdin=subprocess.DEVNULL).returncode == 0

    # Package lists can be absent or old: fetched only if the first try fails.
    return succeeds(command) or (succeeds(["apt-get", "update", "--quiet"]) and succeeds(command))


def advice(need, packages):
    names = " ".join(packages)
    return f"{need} {names}: install with  sudo apt-get install {names}"


if __name__ == "__main__":
    main()

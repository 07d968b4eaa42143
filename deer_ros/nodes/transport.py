"""Large pictures between processes: room for them in Fast DDS and in this process."""

from __future__ import annotations

import ctypes
import os

from deer_ros.resources import share

# Fast DDS reads the first variable up to version 2 and the second one from version 3 on.
PROFILE_VARIABLES = ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE")


# glibc's numbers in mallopt(3).
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
# Larger than pictures, smaller than the weights of large models, which go back to the system.
LARGEST_REUSED_BYTES = 8 * 2**20
KEPT_FREE_BYTES = 64 * 2**20


def prepare_for_pictures() -> None:
    """Both of the below; to be called before rclpy is initialised."""
    use_shipped_profile()
    reuse_freed_memory()


def use_shipped_profile() -> None:
    """Make this process publish with config/fastdds.xml, unless the user chose a profile.

    With Fast DDS's own settings most pictures of more than about 0.5 MB never leave the process,
    since its shared memory segment is smaller.
    """
    if not any(os.environ.get(variable) for variable in PROFILE_VARIABLES):
        profile = str(share() / "config" / "fastdds.xml")
        os.environ.update(dict.fromkeys(PROFILE_VARIABLES, profile))


def reuse_freed_memory() -> None:
    """Keep the memory of a picture for the next one.

    glibc gives blocks of that size back to the system at once, and the page faults of taking them
    anew cost more than all the copying: 3 ms of the way of a pair of 640x480 pictures.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, LARGEST_REUSED_BYTES)
        mallopt(M_TRIM_THRESHOLD, KEPT_FREE_BYTES)

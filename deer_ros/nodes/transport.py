"""Large pictures between processes: the Fast DDS profile that comes with this package."""

from __future__ import annotations

import os

from deer_ros.resources import share

# Fast DDS reads the first variable up to version 2 and the second one from version 3 on.
PROFILE_VARIABLES = ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE")


def use_shipped_profile() -> None:
    """Make this process publish with config/fastdds.xml, unless the user chose a profile.

    To be called before rclpy is initialised. With Fast DDS's own settings most pictures of more
    than about 0.5 MB never leave the process, since its shared memory segment is smaller.
    """
    if not any(os.environ.get(variable) for variable in PROFILE_VARIABLES):
        profile = str(share() / "config" / "fastdds.xml")
        os.environ.update(dict.fromkeys(PROFILE_VARIABLES, profile))

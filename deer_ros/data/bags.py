"""Bags of episodes: rosbag2 folders with MCAP files and standard messages only.

Every ROS tool reads them. An episode begins with an /instruction message or after a pause.
"""

from __future__ import annotations

from deer_ros.data.bag_format import BagError, bag_notes, find_recordings, is_bag
from deer_ros.data.bag_inputs import BagInputs
from deer_ros.data.bag_reader import read_all_episodes, read_episodes
from deer_ros.data.bag_writer import EpisodeBagWriter

__all__ = [
    "BagError",
    "BagInputs",
    "EpisodeBagWriter",
    "bag_notes",
    "find_recordings",
    "is_bag",
    "read_all_episodes",
    "read_episodes",
]

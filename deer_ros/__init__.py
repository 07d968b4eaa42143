"""Early-exit vision-language-action policies (DeeR), in Python and as ROS 2 nodes."""

from __future__ import annotations

from importlib import import_module
from pkgutil import extend_path

# In a source checkout the generated messages lie elsewhere on sys.path, in the colcon install.
__path__ = extend_path(__path__, __name__)

# Loaded on first use, so that importing one part does not pay for PyTorch.
_EXPORTS = {
    "Budget": "deer_ros.budget.budget",
    "DeerPolicy": "deer_ros.policy",
    "Observation": "deer_ros.observation",
}

__all__ = ["Budget", "DeerPolicy", "Observation"]


def __getattr__(name: str) -> object:
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_EXPORTS[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_EXPORTS])

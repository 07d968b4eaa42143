"""Model directories: reading, writing, and what their files may hold."""

from deer_ros.checkpoint.directory import LoadedModel, load_model, save_model
from deer_ros.checkpoint.weights import weights_sha256

__all__ = ["LoadedModel", "load_model", "save_model", "weights_sha256"]

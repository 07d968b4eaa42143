"""Model directories: reading, writing, and making them of the authors' files."""

from deer_ros.checkpoint.convert import convert_official
from deer_ros.checkpoint.directory import LoadedModel, load_model, save_model
from deer_ros.checkpoint.weights import weights_sha256

__all__ = ["LoadedModel", "convert_official", "load_model", "save_model", "weights_sha256"]

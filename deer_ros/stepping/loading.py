"""Loading the policy that the settings ask for."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from deer_ros.budget.budget import Budget
from deer_ros.resources import find_model
from deer_ros.stepping.settings import Settings

if TYPE_CHECKING:
    from deer_ros.policy import DeerPolicy


def what_is_loaded(settings: Settings) -> tuple:
    """The settings that `load_policy` depends on: the same ones give the same policy."""
    return (settings.model, settings.model_sha256, settings.device, settings.dtype,
            settings.exit_max_layer, kept_memory_mib(settings))


def kept_memory_mib(settings: Settings) -> float | None:
    """The memory that layers must fit into; None: any."""
    budget = settings.kept_budget()
    return None if budget is None else budget.memory_mib


def model_folder(settings: Settings) -> Path:
    """The directory that `settings.model` names. Raises as `find_model`."""
    return find_model(None if settings.model in ("", "bundled") else settings.model)


def load_policy(settings: Settings) -> DeerPolicy:
    """The policy in the directory that `settings.model` names.

    Raises OSError or ValueError with a sentence if there is none, or its weights are not the ones
    that `model_sha256` asks for, or not even the first exit's fit into the permitted memory;
    ImportError where PyTorch is missing.
    """
    folder = model_folder(settings)

    # Not before it is needed: PyTorch takes seconds, and the node must answer from the start.
    import torch

    from deer_ros.checkpoint import weights_sha256
    from deer_ros.policy import DeerPolicy

    if "OMP_NUM_THREADS" not in os.environ:
        # One core stays free for the executor, or parameters wait for the model.
        torch.set_num_threads(max(1, (os.cpu_count() or 2) - 1))
    if settings.model_sha256:
        found = weights_sha256(folder)
        if found != settings.model_sha256.lower():
            raise ValueError(
                f"the weights in {folder} have the SHA-256 {found}; model_sha256 asks for "
                f"{settings.model_sha256.lower()}."
            )
    memory_mib = kept_memory_mib(settings)
    return DeerPolicy.from_pretrained(
        folder, settings.device, settings.dtype, settings.exit_max_layer or None,
        None if memory_mib is None else Budget(memory_mib=memory_mib))

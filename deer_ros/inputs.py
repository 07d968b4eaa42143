"""What a user hands in, as the model takes it: device, type, pictures, instructions."""

from __future__ import annotations

import numpy as np
import torch

from deer_ros.model.config import DeerConfig, PromptConfig
from deer_ros.model.preprocessing import Preprocessor
from deer_ros.model.prompt import PromptEncoder
from deer_ros.model.proprioception import normalised
from deer_ros.observation import Observation

DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}
MOST_THREADS = 1024


def find_dtype(name: str) -> torch.dtype | None:
    """The type of that name; None for `auto`, as stored. Raises ValueError."""
    if name != "auto" and name not in DTYPES:
        raise ValueError(f"dtype is {name!r}; allowed are auto, {', '.join(DTYPES)}.")
    return DTYPES.get(name)


def find_device(name: str) -> torch.device:
    """The device of that name; `auto` is a GPU if there is one. Raises ValueError."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"device is {name!r}; allowed are auto, cpu, cuda, cuda:N.") from error
    if device.type not in ("cpu", "cuda"):
        raise ValueError(f"device is {name!r}; allowed are auto, cpu, cuda, cuda:N.")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device is {name!r}, but torch finds no GPU here; use cpu or auto.")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(
            f"device is {name!r}, but the last GPU here is cuda:{torch.cuda.device_count() - 1}."
        )
    return device


def check_threads(threads: int, least: int = 1) -> None:
    """ValueError for a number that torch does not take, or takes and crashes of.

    least: 0 where that means torch's own choice.
    """
    if not least <= threads <= MOST_THREADS:
        raise ValueError(f"--threads is {threads}; it must be {least} to {MOST_THREADS}.")


def pictures(
    observation: Observation, preprocessor: Preprocessor, like: torch.Tensor
) -> torch.Tensor:
    """Both pictures as the tower takes them: (1, 2, 3, S, S), of `like`'s type, on its device."""
    both = (observation.static, observation.gripper)
    prepared = np.stack([preprocessor(picture) for picture in both])
    return torch.from_numpy(prepared)[None].to(like)


def sensed(
    observation: Observation, config: DeerConfig, like: torch.Tensor
) -> torch.Tensor | None:
    """The robot's own state as the model takes it, (1, P); None for a model that reads none.

    Raises ValueError where it is missing or not finite.
    """
    if config.proprioception is None:
        return None
    values = normalised(config.proprioception, observation.proprioception)
    return torch.from_numpy(values)[None].to(like)


def token_ids(instruction: str | np.ndarray, prompts: PromptEncoder) -> np.ndarray:
    """The prompt of an instruction, text or int64 ids (L,), as int64 ids (L,).

    Raises ValueError for what the model cannot take.
    """
    if isinstance(instruction, str):
        return prompts.encode(instruction)
    ids, longest = instruction, prompts.config.max_tokens
    if getattr(ids, "dtype", None) != np.int64 or ids.ndim != 1 or ids.size == 0:
        raise ValueError(
            f"the instruction is {ids!r}; it must be text or a 1-D int64 array of token ids."
        )
    if ids.size > longest:
        raise ValueError(f"the instruction has {ids.size} token ids; this model takes {longest}.")
    return ids


def usual_ids(prompt: PromptConfig) -> np.ndarray:
    """Token ids of an instruction of usual length, which says nothing: int64 (L,)."""
    ids = np.full(prompt.usual_tokens, prompt.end_of_text_token, np.int64)
    ids[0] = prompt.image_token
    return ids

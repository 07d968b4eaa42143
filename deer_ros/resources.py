"""Where files lie: those that come with the package, and model directories by their names."""

from __future__ import annotations

import re
from pathlib import Path

HUB_NAME = re.compile(r"([\w-][\w.-]*/[\w-][\w.-]*)(?:@([\w-][\w./-]*))?", re.ASCII)
# What a model directory is made of. Nothing else is fetched, pickles and programs least of all.
MODEL_FILES = (
    "config.json", "preprocessor_config.json", "*.safetensors", "model.safetensors.index.json",
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "thresholds.json",
)
IN_SUBFOLDERS = "*/*"


def share(*parts: str) -> Path:
    """The package's share folder, which holds `config`, `launch` and `models`, or a path in it.

    In a source checkout (and in a symlinked install of it) that is the checkout itself. `colcon
    build` and `pip install` both put it at `share/deer_ros` under the prefix that the modules are
    installed in.

    Raises FileNotFoundError if no such folder belongs to this copy of the package.
    """
    module = Path(__file__).resolve()
    checkout = module.parents[1]
    for folder in (checkout, *(prefix / "share" / "deer_ros" for prefix in module.parents)):
        if (folder / "config" / "deer.yaml").is_file():
            return folder.joinpath(*parts)
    raise FileNotFoundError(
        f"The files that come with deer_ros (config/deer.yaml and others) are not installed beside "
        f"{module.parent}. Install the package again, with colcon build or pip install."
    )


def bundled_model() -> Path:
    """The directory of the model that comes with the package.

    Raises FileNotFoundError if it was not installed.
    """
    directory = share("models", "bundled")
    if not (directory / "config.json").is_file():
        raise FileNotFoundError(
            f"The bundled model is missing: {directory} holds no config.json. "
            f"Name a model directory, or install the package again."
        )
    return directory


def find_model(name: str | Path | None = None) -> Path:
    """The model directory of that name.

    name: None for the bundled model; a directory; or text like `owner/name` or
    `owner/name@revision`, a repository on the Hugging Face hub. That is downloaded, or taken from
    the hub's cache; without a network, the cache is enough. Raises OSError with a sentence if there
    is no such model.
    """
    if name is None:
        return bundled_model()
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder
    repository = HUB_NAME.fullmatch(name) if isinstance(name, str) else None
    if folder.exists() or repository is None:
        raise FileNotFoundError(
            f"there is no model directory {folder}; name a directory, or a model on the Hugging "
            "Face hub as owner/name or owner/name@revision."
        )
    return _from_hub(*repository.groups())


def _from_hub(repository: str, revision: str | None) -> Path:
    beginning = f"there is no model directory {repository}, and as a model on the Hugging Face hub "
    try:
        from huggingface_hub import errors, snapshot_download
    except ImportError as error:
        raise FileNotFoundError(
            f"{beginning}it can be fetched only with the Python module huggingface_hub, which is "
            "not installed."
        ) from error
    try:
        return Path(snapshot_download(
            repository, revision=revision, allow_patterns=list(MODEL_FILES),
            ignore_patterns=[IN_SUBFOLDERS],
        ))
    except errors.RepositoryNotFoundError as error:  # gated ones too
        reason = "it does not exist, or is private and this user may not read it."
        raise FileNotFoundError(beginning + reason) from error
    except errors.RevisionNotFoundError as error:
        raise FileNotFoundError(f"{beginning}it has no revision {revision!r}.") from error
    except errors.LocalEntryNotFoundError as error:
        raise FileNotFoundError(
            f"{beginning}it is not wholly in the cache, and the hub cannot be reached."
        ) from error
    except Exception as error:  # of the network's libraries, which change
        raise OSError(f"{beginning}it cannot be fetched: {str(error).splitlines()[0]}") from error

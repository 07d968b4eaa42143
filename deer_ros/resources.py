"""Where the files lie that come with the package: configuration, launch files, bundled model."""

from __future__ import annotations

from pathlib import Path


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

"""What a run was made with."""

from __future__ import annotations

import datetime
import importlib.metadata
import platform
from collections.abc import Sequence

import torch

from survlens import __version__

_PACKAGES = ("numpy", "scipy", "pandas", "pyarrow", "scikit-learn", "lifelines", "scikit-survival", "safetensors")


def environment(seed: int, command: Sequence[str]) -> dict[str, object]:
    """Versions of everything that can change a number; no name of the machine or of its user.

    Args:
        seed: Seed of the study.
        command: The command line.
    """
    return {
        "survlens": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "platform": f"{platform.system()} {platform.machine()}",
        "seed": seed,
        "command": " ".join(command),
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "packages": {name: version for name in _PACKAGES if (version := _version(name)) is not None},
    }


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None

"""Which columns of a table are coordinates of latent vectors of photographs."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

SUMMARY = "embedding.json"
"""What `survlens portrait embed` writes beside its table."""


def coordinates(names: Iterable[str], space: str) -> list[str]:
    """Those of `names` that are the name of the space and a number, such as w1."""
    return [name for name in names if name.startswith(space) and name[len(space) :].isdigit()]


def coordinates_beside(table: Path, names: Iterable[str]) -> list[str]:
    """Those of `names` that are coordinates of the embedding beside a table; none where no embedding is beside it."""
    try:
        content = json.loads((table.parent / SUMMARY).read_text(encoding="utf-8"))
        return coordinates(names, str(content["summary"]["space"]))
    except (OSError, ValueError, KeyError, TypeError):
        return []

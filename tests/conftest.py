"""What every test may use."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Callable[..., Path]:
    """Path of a file or folder of the shared data that stands beside the checkout; skips where it is missing."""

    def path(*parts: str) -> Path:
        found = SHARED.joinpath(*parts)
        if not found.exists():
            pytest.skip(f"shared data {'/'.join(parts)} is not beside this checkout")
        return found

    return path


@pytest.fixture
def generator() -> torch.Generator:
    """A seeded source of random numbers."""
    return torch.Generator().manual_seed(20240607)

"""Whole aligned cases for property tests: ties, heavy censoring, one row, many rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from hypothesis import strategies as st
from torch import Tensor

from survlens.core.grid import TimeGrid
from survlens.core.outcome import SurvivalOutcome

UNIT = "months"

# Few whole numbers make ties likely; the reals make them unlikely.
_tied_times = st.integers(1, 5).map(float)
_free_times = st.floats(0.01, 100.0, allow_nan=False)


@dataclass(frozen=True)
class Case:
    """An embedding, log-risks and an outcome of the same instances, and a grid that may end before or after them."""

    embedding: Tensor
    log_risk: Tensor
    outcome: SurvivalOutcome
    grid: TimeGrid

    def __len__(self) -> int:
        return len(self.outcome)


def outcomes(min_size: int = 1, max_size: int = 12, causes: int = 1) -> st.SearchStrategy[SurvivalOutcome]:
    """Outcomes with ties in half of the draws, censored from not at all to wholly."""
    times = st.sampled_from([_tied_times, _free_times])
    rows = times.flatmap(
        lambda time: st.lists(st.tuples(time, st.integers(0, causes)), min_size=min_size, max_size=max_size)
    )
    return rows.map(_outcome)


def _outcome(rows: list[tuple[float, int]]) -> SurvivalOutcome:
    return SurvivalOutcome.from_arrays([time for time, _ in rows], np.array([event for _, event in rows], int), UNIT)


@st.composite
def grids(draw: st.DrawFn) -> TimeGrid:
    """Grids of one to six uneven intervals; some end before most times do, some after all."""
    widths = draw(st.lists(st.floats(0.3, 40.0), min_size=1, max_size=6))
    return TimeGrid(torch.tensor([0.0, *np.cumsum(widths)], dtype=torch.float64), UNIT)


@st.composite
def cases(draw: st.DrawFn, width: int = 3, min_size: int = 1, max_size: int = 12, scale: float = 2.0) -> Case:
    """Aligned cases; embedding and log-risks are normal, float64, spread by `scale`."""
    outcome = draw(outcomes(min_size, max_size))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    normal = torch.randn((len(outcome), width + 1), generator=generator, dtype=torch.float64) * scale
    return Case(normal[:, :width].clone(), normal[:, width].clone(), outcome, draw(grids()))


def permutations(size: int) -> st.SearchStrategy[list[int]]:
    """Orders of `size` rows."""
    return st.permutations(range(size)).map(list)

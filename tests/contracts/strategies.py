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
def whole_outcomes(draw: st.DrawFn, min_size: int = 1, max_size: int = 12, causes: int = 1) -> SurvivalOutcome:
    """Outcomes with everything: some instances enter late, count more or less than once, or stand in a second stratum.

    Entries are multiples of a quarter of the time, so that some tie with each other and with event times.
    """
    outcome = draw(outcomes(min_size, max_size, causes))
    n = len(outcome)
    share = draw(st.lists(st.sampled_from([0.0, 0.0, 0.25, 0.5, 0.75]), min_size=n, max_size=n))
    weight = draw(st.lists(st.sampled_from([0.5, 1.0, 2.0, 3.5]), min_size=n, max_size=n))
    stratum = draw(st.lists(st.integers(0, 1), min_size=n, max_size=n))
    entry = outcome.time * torch.tensor(share, dtype=torch.float64)
    return SurvivalOutcome.from_arrays(outcome.time, outcome.event, UNIT, entry=entry, weight=weight, stratum=stratum)


@st.composite
def grids(draw: st.DrawFn) -> TimeGrid:
    """Grids of one to six uneven intervals; some end before most times do, some after all."""
    widths = draw(st.lists(st.floats(0.3, 40.0), min_size=1, max_size=6))
    return TimeGrid(torch.tensor([0.0, *np.cumsum(widths)], dtype=torch.float64), UNIT)


@st.composite
def cases(
    draw: st.DrawFn,
    width: int = 3,
    min_size: int = 1,
    max_size: int = 12,
    scale: float = 2.0,
    drawn: st.SearchStrategy[SurvivalOutcome] | None = None,
) -> Case:
    """Aligned cases; embedding and log-risks are normal, float64, spread by `scale`; other outcomes from `drawn`."""
    outcome = draw(outcomes(min_size, max_size) if drawn is None else drawn)
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    normal = torch.randn((len(outcome), width + 1), generator=generator, dtype=torch.float64) * scale
    return Case(normal[:, :width].clone(), normal[:, width].clone(), outcome, draw(grids()))


def permutations(size: int) -> st.SearchStrategy[list[int]]:
    """Orders of `size` rows."""
    return st.permutations(range(size)).map(list)

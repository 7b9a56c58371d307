"""The table of heads: how to build each, and its loss by a slow second route. A new head is one row of `HEADS`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from contracts.strategies import UNIT, Case
from survlens.core.grid import TimeGrid
from survlens.core.outcome import SurvivalOutcome
from survlens.core.protocols import BaselineHead
from survlens.core.ties import Ties
from survlens.heads.cox import CoxPH
from survlens.heads.logistic_hazard import LogisticHazard

WIDTH = 3


def network(columns: int) -> nn.Module:
    return nn.Sequential(nn.Linear(WIDTH, 4), nn.Tanh(), nn.Linear(4, columns))


def partial_likelihood_terms(head: Any, embedding: Tensor, outcome: SurvivalOutcome) -> Tensor:
    """The head's own claim about relative hazards, summed over risk sets in a loop."""
    share = head.risk(embedding).exp()
    terms = []
    for i, (now, event) in enumerate(zip(outcome.time.tolist(), outcome.event.tolist(), strict=True)):
        tied = (outcome.time == now) & (outcome.event > 0)
        at_risk, same, d = share[outcome.time >= now].sum(), share[tied].sum(), int(tied.sum())
        weights = [0.0 if head.ties is Ties.BRESLOW else rank / d for rank in range(d)]
        logs = [torch.log(at_risk - weight * same) for weight in weights]
        terms.append(sum(logs) / d - share[i].log() if event else 0 * share[i])
    return torch.stack(terms)


def interval_terms(head: Any, embedding: Tensor, outcome: SurvivalOutcome) -> Tensor:
    """-log of the predicted mass of the event's interval, or of surviving the last interval seen to its half."""
    prediction = head.predict(embedding)
    ends = prediction.times
    starts = torch.cat([ends.new_zeros(1), ends[:-1]])
    terms = []
    for i, (time, event) in enumerate(zip(outcome.time.tolist(), outcome.event.tolist(), strict=True)):
        if event and time <= float(ends[-1]):
            terms.append(-prediction.pmf[i, int(((starts < time) & (time <= ends)).nonzero()[0, 0])].log())
        else:
            seen = int((time > ends).sum()) if event else int((time >= (starts + ends) / 2).sum())
            terms.append(-prediction.log_survival[i, seen - 1] if seen else 0 * prediction.log_survival[i, 0])
    return torch.stack(terms)


@dataclass(frozen=True)
class Row:
    """A head under test: how to build it for an embedding of WIDTH, and its loss by a slow second route."""

    build: Callable[[TimeGrid], nn.Module]
    terms: Callable[[Any, Tensor, SurvivalOutcome], Tensor]


HEADS = {
    "CoxPH": Row(lambda grid: CoxPH(WIDTH), partial_likelihood_terms),
    "CoxPH Breslow": Row(lambda grid: CoxPH(WIDTH, ties=Ties.BRESLOW), partial_likelihood_terms),
    "CoxPH network": Row(lambda grid: CoxPH(WIDTH, network=network(1)), partial_likelihood_terms),
    "LogisticHazard": Row(lambda grid: LogisticHazard(WIDTH, grid), interval_terms),
    "LogisticHazard network": Row(lambda grid: LogisticHazard(WIDTH, grid, network=network(len(grid))), interval_terms),
}

GRID = TimeGrid.equidistant(40.0, 8, UNIT)
every_head = pytest.mark.parametrize("row", HEADS.values(), ids=HEADS.keys())


def built(row: Row, grid: TimeGrid = GRID, seed: int = 0) -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return row.build(grid).double()


def fitted(row: Row, case: Case) -> Any:
    head = built(row, case.grid)
    if isinstance(head, BaselineHead):
        head.fit_baseline(case.embedding, case.outcome)
    return head


def example(rows: int = 30, seed: int = 3) -> Case:
    generator = torch.Generator().manual_seed(seed)
    time = torch.randint(1, 40, (rows,), generator=generator).double()
    event = torch.randint(0, 2, (rows,), generator=generator)
    event[time.argmax()] = 0
    embedding = torch.randn((rows, WIDTH), generator=generator, dtype=torch.float64)
    return Case(embedding, embedding[:, 0], SurvivalOutcome(time, event, UNIT), GRID)

"""The table of heads: how to build each, and its loss by a slow second route. A new head is one row of `HEADS`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from contracts.strategies import UNIT, Case
from survlens.core.grid import TimeGrid
from survlens.core.outcome import SurvivalOutcome
from survlens.core.prediction import SurvivalPrediction
from survlens.core.protocols import BaselineHead, Reduction
from survlens.core.ties import Ties
from survlens.heads.cox import CoxPH
from survlens.heads.cox_time import CoxTime
from survlens.heads.deephit import DeepHit
from survlens.heads.logistic_hazard import LogisticHazard
from survlens.heads.mtlr import MTLR
from survlens.heads.pc_hazard import PCHazard
from survlens.heads.pmf import PMF
from survlens.heads.weibull import Weibull

WIDTH = 3


def network(columns: int) -> nn.Module:
    return nn.Sequential(nn.Linear(WIDTH, 4), nn.Tanh(), nn.Linear(4, columns))


def partial_likelihood_terms(head: Any, embedding: Tensor, outcome: SurvivalOutcome) -> Tensor:
    """The head's own claim about relative hazards, summed over risk sets in a loop."""
    weight = outcome.weights()
    entry, stratum = outcome.entries(), outcome.strata()
    terms = []
    for i, (now, event) in enumerate(zip(outcome.time.tolist(), outcome.event.tolist(), strict=True)):
        share = (
            head.log_risk(embedding, outcome.time[i : i + 1])[:, 0]
            if isinstance(head, CoxTime)
            else head.risk(embedding)
        )
        share = share.exp()
        members = (entry < now) & (now <= outcome.time) & (stratum == stratum[i])
        tied = members & (outcome.time == now) & (outcome.event > 0)
        at_risk, same, d = (weight * share)[members].sum(), (weight * share)[tied].sum(), int(tied.sum())
        parts = [0.0 if head.ties is Ties.BRESLOW else rank / d for rank in range(d)]
        logs = [torch.log(at_risk - part * same) for part in parts]
        terms.append(weight[i] * (sum(logs) / d - share[i].log()) if event else 0 * share[i])
    return torch.stack(terms)


def interval_terms(head: Any, embedding: Tensor, outcome: SurvivalOutcome) -> Tensor:
    """-log of the predicted mass of the event's interval, or of surviving the last interval seen to its half.

    Both after the entry and given survival to it, on the predicted curve.
    """
    curves = head.predict(embedding)
    edges, times = [0.0, *curves.times.tolist()], edges_and_entries(curves.times, outcome)
    log_survival = {0.0: curves.log_survival[:, 0] * 0}
    log_survival |= dict(zip(times, curves.at(times, extrapolate="hold").log_survival.T, strict=True))
    terms = []
    for i, (time, event, entry) in enumerate(rows_of(outcome)):
        if event and time <= edges[-1]:
            left, right = interval_of(time, edges)
            start = log_survival[max(left, entry)][i]
            reached = start + (-torch.expm1(log_survival[right][i] - start)).log()
        else:
            reached = log_survival[max(last_survived(time, event, edges), entry)][i]
        terms.append(log_survival[entry][i] - reached)
    return torch.stack(terms) * outcome.weights()


def cause_terms(head: Any, embedding: Tensor, outcome: SurvivalOutcome) -> Tensor:
    """The same with the incidence of the event's cause, and the ranking loss by its definition in a loop."""
    whole = head.predict_incidence(embedding)
    edges, times = [0.0, *whole.times.tolist()], edges_and_entries(whole.times, outcome)
    there = whole.at(times, extrapolate="hold")
    incidence = {0.0: there.cumulative_incidence[:, :, 0] * 0}
    incidence |= dict(zip(times, there.cumulative_incidence.permute(2, 0, 1), strict=True))
    log_survival = {0.0: there.overall().log_survival[:, 0] * 0}
    log_survival |= dict(zip(times, there.overall().log_survival.T, strict=True))
    rows, weight = list(rows_of(outcome)), outcome.weights()
    terms = []
    for i, (time, event, entry) in enumerate(rows):
        ranking = weight.new_zeros(())
        if event and time <= edges[-1]:
            left, right = interval_of(time, edges)
            ends = incidence[right][event - 1]
            reached = (ends[i] - incidence[max(left, entry)][event - 1, i]).log()
            for j, (later, other, entered) in enumerate(rows):
                if last_survived(later, other, edges) >= right and entered < time:
                    ranking = ranking + weight[j] / weight.sum() * (-(ends[i] - ends[j]) / head.sigma).exp()
        else:
            reached = log_survival[max(last_survived(time, event, edges), entry)][i]
        terms.append(head.alpha * (log_survival[entry][i] - reached) + (1 - head.alpha) * ranking)
    return torch.stack(terms) * weight


def density_terms(head: Any, embedding: Tensor, outcome: SurvivalOutcome) -> Tensor:
    """-log of the predicted density at an event, S(t) h(t), or of S(t) at a censoring, both divided by S(entry).

    A curve that ends at the last edge censors there what comes later; a formula goes on.
    """
    last = float("inf") if isinstance(head, Weibull) else float(head.grid.edges[-1])
    terms = []
    for i, (time, event, entry) in enumerate(rows_of(outcome)):

        def curve(when: float, row: slice = slice(i, i + 1)) -> SurvivalPrediction:
            return head.predict(embedding[row], torch.tensor([min(when, last)], dtype=torch.float64))

        there = curve(time)
        term = -there.log_survival[0, 0]
        if event and time <= last:
            rate = there.log_hazard_rate
            term = term - (there.hazard_rate.log() if rate is None else rate)[0, 0]
        terms.append(term + curve(entry).log_survival[0, 0] if entry else term)
    return torch.stack(terms) * outcome.weights()


def edges_and_entries(knots: Tensor, outcome: SurvivalOutcome) -> list[float]:
    """The times after 0 at which the terms above ask."""
    return sorted({*knots.tolist(), *outcome.entries().tolist()} - {0.0})


def rows_of(outcome: SurvivalOutcome) -> Iterator[tuple[float, int, float]]:
    """Time, event and entry of every instance."""
    return zip(outcome.time.tolist(), outcome.event.tolist(), outcome.entries().tolist(), strict=True)


def interval_of(time: float, edges: list[float]) -> tuple[float, float]:
    """Where the interval of a time begins and ends."""
    return next((left, right) for left, right in pairwise(edges) if left < time <= right)


def last_survived(time: float, event: int, edges: list[float]) -> float:
    """End of the last interval that counts as survived; censored ones count from their midpoint."""
    return max([0.0, *(b for a, b in pairwise(edges) if (time > b if event else time >= (a + b) / 2))])


@dataclass(frozen=True)
class Row:
    """A head under test: how to build it for an embedding of WIDTH, and its loss by a slow second route.

    `compares` says that the loss of an instance depends on its batch though it is reduced per instance; `formula` that
    asked times are answered from a formula, which between knots is not the curve through them.
    """

    build: Callable[[TimeGrid], nn.Module]
    terms: Callable[[Any, Tensor, SurvivalOutcome], Tensor]
    compares: bool = False
    formula: bool = False


HEADS = {
    "CoxPH": Row(lambda grid: CoxPH(WIDTH), partial_likelihood_terms),
    "CoxPH Breslow": Row(lambda grid: CoxPH(WIDTH, ties=Ties.BRESLOW), partial_likelihood_terms),
    "CoxPH network": Row(lambda grid: CoxPH(WIDTH, network=network(1)), partial_likelihood_terms),
    "LogisticHazard": Row(lambda grid: LogisticHazard(WIDTH, grid), interval_terms),
    "LogisticHazard network": Row(lambda grid: LogisticHazard(WIDTH, grid, network=network(len(grid))), interval_terms),
    "PMF": Row(lambda grid: PMF(WIDTH, grid), interval_terms),
    "PMF network": Row(lambda grid: PMF(WIDTH, grid, network=network(len(grid))), interval_terms),
    "MTLR": Row(lambda grid: MTLR(WIDTH, grid), interval_terms),
    "DeepHit": Row(lambda grid: DeepHit(WIDTH, grid), cause_terms, compares=True),
    "DeepHit likelihood": Row(lambda grid: DeepHit(WIDTH, grid, n_causes=2, alpha=1), cause_terms),
    "DeepHit network": Row(
        lambda grid: DeepHit(WIDTH, grid, n_causes=2, network=network(2 * len(grid))), cause_terms, compares=True
    ),
    "PCHazard": Row(lambda grid: PCHazard(WIDTH, grid), density_terms),
    "PCHazard network": Row(lambda grid: PCHazard(WIDTH, grid, network=network(len(grid))), density_terms),
    "Weibull": Row(lambda grid: Weibull(WIDTH, grid), density_terms, formula=True),
    "Weibull network": Row(
        lambda grid: Weibull(WIDTH, grid, network=network(2), shape_depends=True), density_terms, formula=True
    ),
    "CoxTime": Row(lambda grid: CoxTime(WIDTH, time_scale=10.0), partial_likelihood_terms),
    "CoxTime Breslow": Row(
        lambda grid: CoxTime(WIDTH, time_scale=10.0, hidden=(4, 3), ties=Ties.BRESLOW), partial_likelihood_terms
    ),
    "CoxTime controls": Row(lambda grid: CoxTime(WIDTH, time_scale=10.0, controls=2).eval(), partial_likelihood_terms),
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
        head.fit_baseline(case.embedding, replace(case.outcome, stratum=None))
    return head


def example(rows: int = 30, seed: int = 3) -> Case:
    generator = torch.Generator().manual_seed(seed)
    time = torch.randint(1, 40, (rows,), generator=generator).double()
    event = torch.randint(0, 2, (rows,), generator=generator)
    event[time.argmax()] = 0
    embedding = torch.randn((rows, WIDTH), generator=generator, dtype=torch.float64)
    return Case(embedding, embedding[:, 0], SurvivalOutcome(time, event, UNIT), GRID)


def alone(row: Row) -> bool:
    """Whether the loss of an instance depends on nobody else."""
    return built(row).reduction is Reduction.PER_INSTANCE and not row.compares


def rows_where(rule: Callable[[Row], bool]) -> pytest.MarkDecorator:
    chosen = {name: row for name, row in HEADS.items() if rule(row)}
    return pytest.mark.parametrize("row", chosen.values(), ids=chosen.keys())


def with_extras(outcome: SurvivalOutcome, seed: int = 7) -> SurvivalOutcome:
    """The same outcome with late entries in half of the rows, whole weights and two strata."""
    generator = torch.Generator().manual_seed(seed)
    share = (torch.rand(len(outcome), generator=generator, dtype=torch.float64) * 1.8 - 0.9).clamp(min=0)
    weight = torch.randint(1, 4, (len(outcome),), generator=generator).double()
    stratum = torch.randint(0, 2, (len(outcome),), generator=generator)
    return replace(outcome, entry=outcome.time * share, weight=weight, stratum=stratum)

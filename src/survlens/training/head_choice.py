"""Which head a network is trained under, and how its time axis is cut."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np
import torch
from torch import nn

from survlens.core.choices import check_choice
from survlens.core.errors import InvalidValueError
from survlens.core.grid import TimeGrid
from survlens.core.outcome import SurvivalOutcome
from survlens.heads.cox import CoxPH
from survlens.heads.cox_time import CoxTime
from survlens.heads.deephit import DeepHit
from survlens.heads.logistic_hazard import LogisticHazard
from survlens.heads.mtlr import MTLR
from survlens.heads.pc_hazard import PCHazard
from survlens.heads.pmf import PMF
from survlens.heads.weibull import Weibull


class HeadKind(Enum):
    """Family of survival models.

    COX: proportional hazards, `CoxPH`. COX_TIME: relative risks that change with time, `CoxTime`. LOGISTIC_HAZARD, PMF,
    MTLR, DEEP_HIT: discrete time. DEEP_HIT tells causes apart where the training outcome has several. PC_HAZARD: a
    hazard rate per interval. WEIBULL: parametric.
    """

    COX = "cox"
    COX_TIME = "cox_time"
    LOGISTIC_HAZARD = "logistic_hazard"
    PMF = "pmf"
    MTLR = "mtlr"
    DEEP_HIT = "deep_hit"
    PC_HAZARD = "pc_hazard"
    WEIBULL = "weibull"


class GridRule(Enum):
    """How intervals are cut. QUANTILE: as `TimeGrid.quantile`. EQUIDISTANT: of one width."""

    QUANTILE = "quantile"
    EQUIDISTANT = "equidistant"


@dataclass(frozen=True, slots=True, eq=False)
class HeadFacts:
    """What a head has to know of the training outcome; plain numbers, no patients.

    Attributes:
        grid: Intervals.
        n_causes: Number of causes to tell apart.
        median_time: Median of the observed times.
        last_hidden: Width of the last layer, the only one that `CoxTime` shows the time to.
        alpha: Weight of the likelihood of `DeepHit`.
        sigma: Scale of its ranking loss.
    """

    grid: TimeGrid
    n_causes: int
    median_time: float
    last_hidden: int
    alpha: float = 0.2
    sigma: float = 0.1


_HEADS: Mapping[HeadKind, Callable[[int, HeadFacts], nn.Module]] = {
    HeadKind.COX: lambda width, facts: CoxPH(width),
    HeadKind.COX_TIME: lambda width, facts: CoxTime(width, time_scale=facts.median_time, hidden=(facts.last_hidden,)),
    HeadKind.LOGISTIC_HAZARD: lambda width, facts: LogisticHazard(width, facts.grid),
    HeadKind.PMF: lambda width, facts: PMF(width, facts.grid),
    HeadKind.MTLR: lambda width, facts: MTLR(width, facts.grid),
    HeadKind.DEEP_HIT: lambda width, facts: DeepHit(
        width, facts.grid, n_causes=facts.n_causes, alpha=facts.alpha, sigma=facts.sigma
    ),
    HeadKind.PC_HAZARD: lambda width, facts: PCHazard(width, facts.grid),
    HeadKind.WEIBULL: lambda width, facts: Weibull(width, facts.grid),
}


def build_head(kind: HeadKind, width: int, facts: HeadFacts) -> nn.Module:
    """The untrained head of a family over an embedding of `width`."""
    check_choice("head", kind, HeadKind)
    return _HEADS[kind](width, facts)


def cut(
    outcome: SurvivalOutcome, *, intervals: int, rule: GridRule, edges: Sequence[float] | None, last: float
) -> TimeGrid:
    """The intervals of a head.

    Args:
        outcome: Training outcome.
        intervals: Number of intervals asked for.
        rule: How they are cut.
        edges: Given boundaries, which count instead; 0 comes first.
        last: Last observed time, where the last interval ends.

    Raises:
        InvalidValueError: If `intervals` < 1, or `edges` do not start at 0 and increase.
    """
    if edges is not None:
        return TimeGrid(torch.as_tensor(np.asarray(edges, dtype=np.float64)), outcome.unit)
    if intervals < 1:
        raise InvalidValueError(f"`intervals` must be >= 1; got {intervals}.")
    check_choice("grid", rule, GridRule)
    if rule is GridRule.EQUIDISTANT:
        return TimeGrid.equidistant(last, intervals, outcome.unit)
    found = TimeGrid.quantile(outcome, intervals).edges.clone()
    found[-1] = last
    return TimeGrid(found, outcome.unit)

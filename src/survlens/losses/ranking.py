"""A penalty for incidences in the wrong order."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from survlens.core.errors import InvalidValueError
from survlens.core.grid import TimeGrid
from survlens.core.outcome import SurvivalOutcome
from survlens.losses.discrete import CensoredCredit, check_scores, interval_places

SMALLEST_SIGMA = 0.02


def ranking_loss(
    incidence: Float[Tensor, "instance cause time"],
    outcome: SurvivalOutcome,
    grid: TimeGrid,
    *,
    sigma: float = 0.1,
    credit: CensoredCredit = CensoredCredit.MIDPOINT,
) -> Float[Tensor, " instance"]:
    """How far who had an event of a cause is from being predicted the highest incidence of it, one value per instance.

    An instance i with an event of cause k in interval s gives

        (1/n) sum over j of A_ij exp(-(F_k(s | i) - F_k(s | j)) / `sigma`),

    where F_k is its `incidence` at the end of s, n counts all instances, and A_ij is 1 where j counts as having
    survived s: its own event came in a later interval, or it was censored later, or in s late enough for `credit`. Two
    events in one interval are not compared. Instances without an event inside the grid give 0, on the graph.

    With delayed entry only those j are compared that had entered before the event of i. With weights w, the mean over j
    is weighted and the term of i is multiplied by w_i, so that whole weights are repeated rows. It takes the memory of
    (events, instances) numbers.

    Args:
        incidence: F_k at the end of each interval.
        outcome: What was observed of the same instances, in the unit of `grid`.
        grid: The intervals.
        sigma: Difference of incidences that divides a term by e, >= 0.02; the exponential of 1 / `sigma` is the most
            that a pair can give.
        credit: Rule for the interval of censoring.

    Raises:
        InvalidValueError: If the shape of `incidence` is not (instances, causes, intervals), the units differ, an event
            has a cause that `incidence` does not have, or `sigma` is too small.

    References:
        Lee et al. 2018.
    """
    check_sigma(sigma)
    check_scores(incidence, outcome, grid, causes=int(incidence.shape[1]) if incidence.ndim == 3 else 0)
    outcome = outcome.to(incidence.device)
    place, survived = interval_places(outcome, grid, credit)
    rows = (place >= 0).nonzero()[:, 0]
    interval = place[rows]
    columns = (outcome.event[rows] - 1) * len(grid) + interval
    there = incidence.flatten(1).index_select(1, columns).T  # (event, instance)
    own = there[torch.arange(len(rows), device=rows.device), rows][:, None]
    compared = survived > interval[:, None]
    if outcome.entry is not None:
        compared = compared & (outcome.entry < outcome.time[rows, None])
    weight = outcome.weights().to(incidence.dtype)
    terms = ((there - own) / sigma).exp() * compared
    losses = weight[rows] * (terms @ (weight / weight.sum()))
    return incidence.new_zeros(len(outcome)).index_put((rows,), losses)


def check_sigma(sigma: float) -> None:
    """Raises InvalidValueError unless exp(1 / `sigma`) fits float32 with room for a sum."""
    if not SMALLEST_SIGMA <= sigma < math.inf:
        raise InvalidValueError(f"`sigma` must be finite and >= {SMALLEST_SIGMA}; got {sigma}. The usual value is 0.1.")

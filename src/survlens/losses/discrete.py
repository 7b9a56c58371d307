"""Likelihoods of discrete time."""

from __future__ import annotations

from enum import Enum

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from survlens.core.errors import InvalidValueError
from survlens.core.grid import TimeGrid
from survlens.core.outcome import SurvivalOutcome


class CensoredCredit(Enum):
    """When the interval in which an instance was censored counts as survived.

    MIDPOINT: if it was seen at or past the interval's midpoint (Gensheimer and Narasimhan). START: never, so only whole
    intervals count. END: always.
    """

    START = "start"
    MIDPOINT = "midpoint"
    END = "end"


def logistic_hazard_loss(
    logits: Float[Tensor, "instance time"],
    outcome: SurvivalOutcome,
    grid: TimeGrid,
    *,
    credit: CensoredCredit = CensoredCredit.MIDPOINT,
) -> Float[Tensor, " instance"]:
    """Negative log-likelihood of hazards h_l = sigmoid(z_l) per interval, one value per instance.

    With z the `logits`, an event in interval j gives softplus(-z_j) + sum over l < j of softplus(z_l): survived until
    j, then not. An instance without an event gives the sum of softplus(z_l) over the intervals that it survived;
    `credit` says whether the one in which it was censored is among them. Events after the last edge are censored at the
    last edge. Any cause counts as an event.

    Args:
        logits: Log-odds of the hazard in each interval of `grid`.
        outcome: What was observed of the same instances, in the unit of `grid`.
        grid: The intervals.
        credit: Rule for the interval of censoring.

    Raises:
        InvalidValueError: If the shape of `logits` is not (instances, intervals), or the units differ.

    References:
        Brown 1975; Gensheimer and Narasimhan 2019.
    """
    if logits.shape != (len(outcome), len(grid)):
        raise InvalidValueError(
            "`logits` must have one row per instance and one column per interval; "
            f"got {tuple(logits.shape)} for {len(outcome)} instances and {len(grid)} intervals."
        )
    if outcome.unit != grid.unit:
        raise InvalidValueError(
            f"`outcome` must be in the unit of `grid`; got {outcome.unit!r} and {grid.unit!r}. Convert one of them."
        )
    survived, ended = interval_targets(outcome.to(logits.device), grid, credit)
    # -logsigmoid(-z) is softplus(z) with its tail; torch's softplus drops e^-z above 20.
    survival_terms = torch.where(survived, -torch.nn.functional.logsigmoid(-logits), torch.zeros_like(logits))
    event_terms = torch.where(ended, -torch.nn.functional.logsigmoid(logits), torch.zeros_like(logits))
    return (survival_terms + event_terms).sum(1)


def interval_targets(
    outcome: SurvivalOutcome, grid: TimeGrid, credit: CensoredCredit
) -> tuple[Bool[Tensor, "instance time"], Bool[Tensor, "instance time"]]:
    """Which intervals each instance survived, and in which one it had its event.

    The second is false everywhere for who was censored, or had the event past the last edge.
    """
    edges = grid.edges.to(outcome.time.device)
    reached = {
        CensoredCredit.START: edges[1:],
        CensoredCredit.MIDPOINT: (edges[1:] + edges[:-1]) / 2,
        CensoredCredit.END: torch.nextafter(edges[:-1], edges[1:]),
    }[credit]
    interval = grid.discretise(outcome)[:, None]
    columns = torch.arange(len(grid), device=outcome.time.device)
    died = (outcome.event > 0)[:, None]
    survived = torch.where(died, columns < interval, outcome.time[:, None] >= reached)
    return survived, died & (columns == interval)

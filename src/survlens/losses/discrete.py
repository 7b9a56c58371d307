"""Likelihoods of discrete time.

One rule each for what a grid leaves open, in every loss here. *Censoring*: `CensoredCredit` says whether the interval
in which an instance was censored counts as survived. *Delayed entry*: the likelihood is conditional on survival to the
entry, so it is divided by S(entry) of the model's own curve, which between edges is straight in log S for hazards and
straight in S for masses. In the interval of entry the model then speaks of what is left of it after the entry: an event
there is never left out, and the conditional probabilities of everything that can follow sum to 1. *Weights*: the term
of an instance is multiplied by its weight.
"""

from __future__ import annotations

import math
from enum import Enum

import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor
from torch.nn.functional import logsigmoid, pad

from survlens.core.choices import check_choice
from survlens.core.errors import InvalidValueError
from survlens.core.grid import TimeGrid
from survlens.core.outcome import SurvivalOutcome
from survlens.losses.set_odds import log_odds_of_sets


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

    With delayed entry only the share r_l of an interval after the entry counts: r_l softplus(z_l) where it was
    survived, and -log(1 - (1 - h_j)^r_j) for an event in it. Each term is multiplied by the weight of its instance.

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
    check_scores(logits, outcome, grid, causes=None)
    outcome = outcome.to(logits.device)
    survived, ended = interval_targets(outcome, grid, credit)
    # -logsigmoid(-z) is softplus(z) with its tail; torch's softplus drops e^-z above 20.
    sign = torch.where(ended, 1.0, -1.0).to(logits.dtype)
    terms = -logsigmoid(logits * sign)
    if outcome.entry is not None:
        share = remaining_shares(outcome, grid).to(logits.dtype)
        part = ended & (share < 1)
        terms = torch.where(ended, terms, terms * share)
        terms = torch.where(part, -_log_hazard_of_a_share(logits, torch.where(part, share, 1.0)), terms)
    return _weighted((terms * (survived | ended)).sum(1), outcome)


def pmf_loss(
    logits: Float[Tensor, "instance time"],
    outcome: SurvivalOutcome,
    grid: TimeGrid,
    *,
    credit: CensoredCredit = CensoredCredit.MIDPOINT,
) -> Float[Tensor, " instance"]:
    """Negative log-likelihood of masses p = softmax(z_1 .. z_K, 0), one value per instance.

    With z the `logits`, p_j is the probability of an event in interval j, and the last entry, whose logit is 0, that of
    an event after the last edge. An event in interval j gives -log p_j. An instance without an event gives -log S at
    the end of the last interval that it survived; `credit` says whether the one in which it was censored is among them.
    Events after the last edge are censored at the last edge. Any cause counts as an event.

    With delayed entry each mass counts by the share of its interval after the entry, r_l p_l, and everything is divided
    by S(entry) = sum of these and of the tail. Each term is multiplied by the weight of its instance.

    Args:
        logits: Score of each interval of `grid`, against 0 for what lies after it.
        outcome: What was observed of the same instances, in the unit of `grid`.
        grid: The intervals.
        credit: Rule for the interval of censoring.

    Raises:
        InvalidValueError: If the shape of `logits` is not (instances, intervals), or the units differ.

    References:
        Kvamme and Borgan 2021.
    """
    check_scores(logits, outcome, grid, causes=None)
    return _mass_terms(logits[:, None], outcome, grid, credit)


def competing_pmf_loss(
    logits: Float[Tensor, "instance cause time"],
    outcome: SurvivalOutcome,
    grid: TimeGrid,
    *,
    credit: CensoredCredit = CensoredCredit.MIDPOINT,
) -> Float[Tensor, " instance"]:
    """Negative log-likelihood of masses p_kj over causes k and intervals j, one value per instance.

    All p_kj and the probability of no event up to the last edge are one softmax, in which the latter has the logit 0.
    An event of cause k in interval j gives -log p_kj; everything else is as in `pmf_loss`, which this is with one
    cause.

    Args:
        logits: Score of each cause and interval, against 0 for what lies after the last edge.
        outcome: What was observed of the same instances, in the unit of `grid`.
        grid: The intervals.
        credit: Rule for the interval of censoring.

    Raises:
        InvalidValueError: If the shape of `logits` is not (instances, causes, intervals), the units differ, or an event
            has a cause that `logits` does not have.

    References:
        Lee et al. 2018; Kvamme and Borgan 2021.
    """
    check_scores(logits, outcome, grid, causes=int(logits.shape[1]) if logits.ndim == 3 else 0)
    return _mass_terms(logits, outcome, grid, credit)


def sequence_scores(logits: Float[Tensor, "instance time"]) -> Float[Tensor, "instance time"]:
    """f_j = sum over l >= j of psi_l: the score of an event in interval j under multi-task logistic regression.

    Each psi_l, a column of `logits`, is the log-odds of a classifier that says whether the event has happened by the
    end of interval l; an event in interval j switches the classifiers from j on. No event switches none and scores 0.

    References:
        Yu et al. 2011.
    """
    return logits.flip(1).cumsum(1).flip(1)


def interval_targets(
    outcome: SurvivalOutcome, grid: TimeGrid, credit: CensoredCredit
) -> tuple[Bool[Tensor, "instance time"], Bool[Tensor, "instance time"]]:
    """Which intervals each instance survived, and in which one it had its event.

    The second is false everywhere for who was censored, or had the event past the last edge.
    """
    reached = _reached(grid, credit, outcome.time.device)
    interval = grid.discretise(outcome)[:, None]
    columns = torch.arange(len(grid), device=outcome.time.device)
    died = (outcome.event > 0)[:, None]
    survived = torch.where(died, columns < interval, outcome.time[:, None] >= reached)
    return survived, died & (columns == interval)


def _reached(grid: TimeGrid, credit: CensoredCredit, device: torch.device) -> Float64[Tensor, " time"]:
    """Time at which each interval counts as survived by who was censored."""
    check_choice("credit", credit, CensoredCredit)
    edges = grid.edges.to(device)
    if credit is CensoredCredit.START:
        return edges[1:]
    if credit is CensoredCredit.MIDPOINT:
        return (edges[1:] + edges[:-1]) / 2
    return torch.nextafter(edges[:-1], edges[1:])


def remaining_shares(outcome: SurvivalOutcome, grid: TimeGrid) -> Float[Tensor, "instance time"]:
    """Share of each interval that lies after the entry of each instance: 0 before it, 1 after it."""
    edges = grid.edges.to(outcome.time.device)
    return ((edges[1:] - outcome.entries()[:, None]) / edges.diff()).clamp(0, 1)


def check_scores(scores: Tensor, outcome: SurvivalOutcome, grid: TimeGrid, *, causes: int | None) -> None:
    """Checks at the door of a loss over intervals; `causes` is None where the scores have no axis of causes.

    Raises:
        InvalidValueError: If shapes or units disagree, or an event has a cause past `causes`.
    """
    expected = (len(outcome), len(grid)) if causes is None else (len(outcome), causes, len(grid))
    if scores.shape != expected or causes == 0:
        layers = "" if causes is None else ", one layer per cause"
        raise InvalidValueError(
            f"`logits` must have one row per instance{layers} and one column per interval; "
            f"got {tuple(scores.shape)} for {len(outcome)} instances and {len(grid)} intervals."
        )
    if outcome.unit != grid.unit:
        raise InvalidValueError(
            f"`outcome` must be in the unit of `grid`; got {outcome.unit!r} and {grid.unit!r}. Convert one of them."
        )
    if causes is not None and outcome.n_causes > causes:
        first = int((outcome.event > causes).nonzero()[0, 0])
        raise InvalidValueError(
            f"`event` must be 0 or a cause in 1 .. {causes}; got cause {int(outcome.event[first])} at position {first}."
            f" Build the head with n_causes={outcome.n_causes}, or merge the causes first."
        )


def _mass_terms(
    logits: Float[Tensor, "instance cause time"], outcome: SurvivalOutcome, grid: TimeGrid, credit: CensoredCredit
) -> Float[Tensor, " instance"]:
    """-log of A / (A + B), where A sums what agrees with what was seen and B what was still possible at entry.

    It is softplus(log B - log A), which is exact where A is nearly everything and where it is nearly nothing: a log of
    the softmax would round the first to 0 and could overflow for the second.
    """
    outcome = outcome.to(logits.device)
    agrees = _agreeing(outcome, grid, credit, causes=logits.shape[1])
    scores, possible = pad(logits.flatten(1), (0, 1)), None
    if outcome.entry is not None:
        share = pad(remaining_shares(outcome, grid).repeat(1, logits.shape[1]), (0, 1), value=1.0)
        possible = share > 0
        scores = scores + torch.where(possible, share, 1.0).log().to(scores.dtype)
    return _weighted(-logsigmoid(log_odds_of_sets(scores, agrees, possible)), outcome)


def interval_places(
    outcome: SurvivalOutcome, grid: TimeGrid, credit: CensoredCredit
) -> tuple[Int64[Tensor, " instance"], Int64[Tensor, " instance"]]:
    """The interval of the event of each instance, -1 where there is none inside the grid, and how many it survived."""
    interval = grid.discretise(outcome)
    died = outcome.event > 0
    seen = torch.searchsorted(_reached(grid, credit, outcome.time.device), outcome.time, right=True)
    survived = torch.where(died, interval.clamp(max=len(grid)), seen)
    return torch.where(died & (interval < len(grid)), interval, -1), survived


def _agreeing(
    outcome: SurvivalOutcome, grid: TimeGrid, credit: CensoredCredit, *, causes: int
) -> Bool[Tensor, "instance score"]:
    """Which of the masses, and last the tail, agree with what was seen: one, or all from some interval on."""
    count = len(grid)
    interval, survived = interval_places(outcome, grid, credit)
    cause = outcome.event.clamp(max=causes) - 1  # with one cause, any is that one
    scores = torch.arange(causes * count + 1, device=interval.device)
    within = torch.where(scores < causes * count, scores % count, count)
    own = scores == (cause * count + interval)[:, None]
    return torch.where((interval < 0)[:, None], within >= survived[:, None], own)


def _log_hazard_of_a_share(logits: Tensor, share: Tensor) -> Tensor:
    """log(1 - (1 - h)^r): the log-probability of an event in the share r of an interval with h = sigmoid(z).

    Below z = -15 the first terms of its series, z + log r - (1 + r) e^z / 2, are exact to float64; the formula itself
    loses h once e^z underflows.
    """
    low = logits < -15
    series = logits + share.log() - (1 + share) / 2 * torch.where(low, logits, -15.0).exp()
    fall = -share * logsigmoid(-torch.where(low, 0.0, logits))
    much = fall > math.log(2)
    little = torch.where(much, 1.0, fall)
    direct = torch.where(much, torch.log1p(-(-torch.where(much, fall, 1.0)).exp()), (-torch.expm1(-little)).log())
    return torch.where(low, series, direct)


def _weighted(loss: Tensor, outcome: SurvivalOutcome) -> Tensor:
    return loss if outcome.weight is None else loss * outcome.weight.to(loss.dtype)

"""The Cox partial likelihood in differentiable torch operations: any device, any order of derivative."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from survlens.core.outcome import SurvivalOutcome
from survlens.core.ties import Ties

Terms = Callable[[Tensor, SurvivalOutcome, Ties], Tensor]


def partial_likelihood_in_torch(
    log_risk: Float[Tensor, " instance"], outcome: SurvivalOutcome, ties: Ties
) -> Float[Tensor, " instance"]:
    """The numbers of `cox_partial_likelihood`, slower."""
    return weighted(terms_in_torch, log_risk, outcome, ties)


def weighted(
    terms: Terms, log_risk: Float[Tensor, " instance"], outcome: SurvivalOutcome, ties: Ties
) -> Float[Tensor, " instance"]:
    """The weighted likelihood from `terms`, which know no weights.

    An instance counts w times in every sum, so its log-risk there is log_risk + log w; its own term is without log w,
    and counts w times.
    """
    if outcome.weight is None:
        return terms(log_risk, outcome, ties)
    weight = outcome.weight.to(log_risk.device)
    log_weight = weight.log()
    own = torch.where(outcome.event.to(log_risk.device) > 0, log_weight, torch.zeros_like(log_weight))
    return (weight * (terms(log_risk.double() + log_weight, outcome, ties) + own)).to(log_risk.dtype)


def terms_in_torch(
    log_risk: Float[Tensor, " instance"], outcome: SurvivalOutcome, ties: Ties
) -> Float[Tensor, " instance"]:
    """Unweighted terms."""
    outcome = outcome.to(log_risk.device)
    if outcome.n_events == 0:
        return log_risk * 0
    if outcome.entry is None and outcome.stratum is None:
        return _one_growing_risk_set(log_risk, outcome, ties)
    return _risk_sets_on_ranges(log_risk, outcome, ties)


def _one_growing_risk_set(log_risk: Tensor, outcome: SurvivalOutcome, ties: Ties) -> Tensor:
    # Latest time first, and at one time censored before events: then the risk set of an event is what stands before it,
    # and those of it without the events of the same time are what stands before the first of these.
    order = torch.argsort(outcome.event > 0, stable=True)
    order = order[torch.argsort(outcome.time[order], descending=True, stable=True)]
    score, time, died = log_risk[order].double(), outcome.time[order], outcome.event[order] > 0
    events = died.nonzero()[:, 0]
    _, group, sizes = torch.unique_consecutive(time[events], return_inverse=True, return_counts=True)
    last = sizes.cumsum(0) - 1
    running = torch.logcumsumexp(score, 0)
    log_total = running[events[last]]
    if ties is Ties.BRESLOW:
        denominator = log_total[group]
    else:
        first = events[last - sizes + 1]
        scale = log_total.detach()
        # Shares of the risk set, Q/R + (1 - l/d) D/R: no subtraction, so nothing cancels where the tied events are all
        # of it. The derivative by log R is 0 and is left out.
        others = running[(first - 1).clamp(min=0)] - scale
        others = torch.where(first == 0, torch.zeros_like(others), others.exp())
        rank = torch.arange(len(events), device=score.device, dtype=torch.float64) - (last - sizes + 1)[group]
        denominator = _mean_logs(score[events], group, sizes, scale, others, 1 - rank / sizes[group])
    loss = torch.zeros_like(score).index_put((order[events],), denominator - score[events])
    return loss.to(log_risk.dtype)


def _mean_logs(score: Tensor, group: Tensor, sizes: Tensor, scale: Tensor, others: Tensor, part: Tensor) -> Tensor:
    """For each event the mean over the tied ones of log(Q + part D): Q is `others` exp(scale), D sums exp(score)."""
    members = (score - scale[group]).exp()
    tied = torch.zeros_like(others).index_add(0, group, members)
    logs = scale[group] + torch.log(others[group] + part * tied[group])
    return (torch.zeros_like(others).index_add(0, group, logs) / sizes)[group]


def _risk_sets_on_ranges(log_risk: Tensor, outcome: SurvivalOutcome, ties: Ties) -> Tensor:
    """Terms with delayed entry or strata.

    The event times of all strata stand on one axis of ranks, stratum after stratum, and a row is at risk on a range of
    ranks. A segment tree over the ranks splits each range into few nodes; a node holds the log-sum-exp of its rows, and
    a risk set is what the nodes above its rank hold. Nothing is ever subtracted, so nothing cancels.
    """
    score = log_risk.double()
    events = (outcome.event > 0).nonzero()[:, 0]
    first, last, group, sizes = _ranges(outcome, events)
    rows, nodes = _nodes(first, last, len(sizes))
    held = _held(score, rows, nodes, 2 * len(sizes))
    above = _above(len(sizes), held.device)
    apart = held[above]
    own = torch.full_like(held[: len(sizes)], -torch.inf).scatter_reduce(0, group, score[events].detach(), "amax")
    scale = torch.maximum(apart.detach().amax(1), own)
    others = (apart - scale[:, None]).exp().sum(1)
    part = torch.ones_like(score[events])
    if ties is Ties.EFRON:
        part = 1 - _place_in_group(group, sizes) / sizes[group]
    denominator = _mean_logs(score[events], group, sizes, scale, others, part)
    return torch.zeros_like(score).index_put((events,), denominator - score[events]).to(log_risk.dtype)


def _ranges(outcome: SurvivalOutcome, events: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """First and last rank at which each row is at risk beside the events; ranks of the events, and their numbers."""
    n = len(outcome)
    times, code = torch.unique(torch.cat([outcome.time, outcome.entries()]), return_inverse=True)
    stratum = torch.unique(outcome.strata(), return_inverse=True)[1] * len(times)
    leaves, enters = stratum + code[:n], stratum + code[n:]
    keys, group, sizes = torch.unique(leaves[events], return_inverse=True, return_counts=True)
    first = torch.searchsorted(keys, enters, right=True)
    last = torch.searchsorted(keys, leaves, right=True) - 1 - (outcome.event > 0).long()
    return first, last, group, sizes


def _nodes(first: Tensor, last: Tensor, ranks: int) -> tuple[Tensor, Tensor]:
    """Pairs (row, node) that split the ranges first .. last; node 1 is the root, node `ranks` + r is rank r."""
    rows = (first <= last).nonzero()[:, 0]
    low, high = first[rows] + ranks, last[rows] + 1 + ranks
    pairs: list[tuple[Tensor, Tensor]] = []
    while len(rows):
        left, right = low % 2 == 1, high % 2 == 1
        pairs += [(rows[left], low[left]), (rows[right], high[right] - 1)]
        low, high = (low + 1) // 2, high // 2
        open_ = low < high
        rows, low, high = rows[open_], low[open_], high[open_]
    if not pairs:
        return rows, low
    return torch.cat([row for row, _ in pairs]), torch.cat([node for _, node in pairs])


def _held(score: Tensor, rows: Tensor, nodes: Tensor, size: int) -> Tensor:
    """Log-sum-exp of the rows of each node; minus infinity, off the graph, where there are none."""
    used, place = torch.unique(nodes, return_inverse=True)
    empty = torch.full_like(score[:1].detach(), -torch.inf).expand(size)
    if not len(used):
        return empty
    mine = score[rows]
    peak = empty[: len(used)].scatter_reduce(0, place, mine.detach(), "amax")
    total = torch.zeros_like(peak).index_add(0, place, (mine - peak[place]).exp())
    return empty.index_put((used,), peak + total.log())


def _above(ranks: int, device: torch.device) -> Tensor:
    """The nodes from each rank up to the root; 0, which holds nobody, once the root is passed."""
    node = torch.arange(ranks, 2 * ranks, device=device)
    return torch.stack([node >> up for up in range((2 * ranks - 1).bit_length())], 1)


def _place_in_group(group: Tensor, sizes: Tensor) -> Tensor:
    """0, 1, .. among the events of one rank, in the order in which they stand."""
    order = torch.argsort(group, stable=True)
    place = torch.arange(len(group), device=group.device, dtype=torch.float64)
    return torch.empty_like(place).index_put((order,), place - (sizes.cumsum(0) - sizes).repeat_interleave(sizes))

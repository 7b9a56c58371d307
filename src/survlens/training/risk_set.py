"""Risk sets across processes: the loss of all ranks' rows, with gradients to every rank.

A partial likelihood compares a row with everyone at risk, so the mean of the ranks' own losses is not the loss of
their rows together. Here every rank gathers all embeddings, computes the one loss of all rows, and the backward pass
sums what the ranks ask of each row. With W ranks that sum is W times the gradient; distributed data parallel training
then divides the gradients of the weights by W, and what is left is the gradient of one process that held all rows.
Weights used after the gathering (the head's) get the full gradient on each rank, and their mean is the same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor

from survlens.core.outcome import SurvivalOutcome

Group = Any
"""A process group of torch.distributed; None means all processes."""


def ranks(group: Group = None) -> int:
    """Number of processes that train together; 1 where torch.distributed is not in use."""
    return dist.get_world_size(group) if dist.is_available() and dist.is_initialized() else 1


def gathered_loss(
    loss: Callable[[Tensor, SurvivalOutcome], Tensor],
    embedding: Float[Tensor, "instance embedding"] | Float[Tensor, " instance"],
    outcome: SurvivalOutcome,
    *,
    group: Group = None,
) -> tuple[Float[Tensor, " instance"], SurvivalOutcome]:
    """The unreduced loss of the rows of all ranks, and their outcome, in the order of the ranks.

    Args:
        loss: From embeddings (or log-risks) and outcome to one value per instance, such as `head.loss`.
        embedding: This rank's embeddings or log-risks; ranks may hold different numbers of rows, also none.
        outcome: This rank's outcome.
        group: Processes that take part.
    """
    everyone = gather_outcome(outcome, group=group)
    return loss(gather_rows(embedding, group=group), everyone), everyone


def gather_rows(rows: Float[Tensor, "instance ..."], *, group: Group = None) -> Float[Tensor, "instance ..."]:
    """The rows of all ranks, with gradients; the rows themselves on one process."""
    if ranks(group) == 1:
        return rows
    return _Gather.apply(rows, _sizes(rows, group), group)  # type: ignore[no-any-return]


def gather_outcome(outcome: SurvivalOutcome, *, group: Group = None) -> SurvivalOutcome:
    """The outcomes of all ranks."""
    if ranks(group) == 1:
        return outcome
    sizes = _sizes(outcome.time, group)
    columns = (outcome.entry, outcome.weight, outcome.stratum)
    optional = [None if column is None else _gather(column, sizes, group) for column in columns]
    time, event = _gather(outcome.time, sizes, group), _gather(outcome.event, sizes, group)
    return SurvivalOutcome(time, event, outcome.unit, *optional)


def mean_over_ranks(values: Float[Tensor, " instance"], *, group: Group = None) -> Float[Tensor, ""]:
    """This rank's part of the mean over all ranks' rows, so scaled that the ranks' mean is that mean."""
    count = ranks(group)
    if count == 1:
        return values.mean()
    return values.sum() * count / sum(_sizes(values, group))


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, sizes: list[int], group: Group) -> Tensor:
        ctx.sizes, ctx.group = sizes, group
        return _gather(rows, sizes, group)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        whole = gradients[0].contiguous()
        dist.all_reduce(whole, group=ctx.group)
        return whole.split(ctx.sizes)[dist.get_rank(ctx.group)], None, None


def _sizes(rows: Tensor, group: Group) -> list[int]:
    mine = torch.tensor([rows.shape[0]], device=rows.device)
    sizes = [torch.zeros_like(mine) for _ in range(ranks(group))]
    dist.all_gather(sizes, mine, group=group)
    return [int(size) for size in sizes]


def _gather(rows: Tensor, sizes: list[int], group: Group) -> Tensor:
    longest = max(sizes)
    padded = rows.new_zeros((longest, *rows.shape[1:]))
    padded[: rows.shape[0]] = rows.detach()
    parts = [torch.empty_like(padded) for _ in sizes]
    dist.all_gather(parts, padded, group=group)
    return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])

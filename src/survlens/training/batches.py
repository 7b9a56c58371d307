"""Mini-batches: every row once an epoch, and events in every batch."""

from __future__ import annotations

import torch
from jaxtyping import Int64
from torch import Tensor

from survlens.core.errors import InvalidValueError


def shuffled_batches(
    rows: int, batch: int, *, generator: torch.Generator, drop_last: bool = False
) -> list[Int64[Tensor, " _"]]:
    """Row numbers in random order, cut into batches.

    Without `drop_last` the batches are ceil(rows / batch) in number and differ by at most one in size, so that no batch
    is a lonely row at the end. With it they hold exactly `batch` rows, and the rows left over sit out this epoch.

    Args:
        rows: Number of rows.
        batch: Largest number of rows in a batch.
        generator: Source of random numbers.
        drop_last: Whether all batches must be full.

    Raises:
        InvalidValueError: If `batch` < 1, or `rows` is too small for one batch.
    """
    count = _count(rows, batch, drop_last)
    order = torch.randperm(rows, generator=generator)
    return list(order[: count * batch].tensor_split(count))


def event_balanced_batches(
    event: Int64[Tensor, " instance"], batch: int, *, generator: torch.Generator, drop_last: bool = False
) -> list[Int64[Tensor, " _"]]:
    """Row numbers in random order, cut into batches with equal shares of the events.

    With B batches and E events, every batch holds floor(E / B) or ceil(E / B) of them: none is without an event while
    E >= B. A partial likelihood learns nothing from a batch without events, and at 80 % censoring 2.8 % of plain
    batches of 16 have none. Sizes are those of `shuffled_batches`.

    Args:
        event: 0 where censored.
        batch: Largest number of rows in a batch.
        generator: Source of random numbers.
        drop_last: Whether all batches must be full.

    Raises:
        InvalidValueError: If `batch` < 1, or there are too few rows for one batch.
    """
    rows = int(event.shape[0])
    count = _count(rows, batch, drop_last)
    order = torch.randperm(rows, generator=generator)
    happened = event.cpu()[order] > 0
    events, censored = order[happened], order[~happened]
    if drop_last:
        kept = count * batch
        share = round(len(events) * kept / rows)
        share = min(max(share, kept - len(censored)), kept)
        events, censored = events[:share], censored[: kept - share]
    # Dealt like cards, events first: card i goes to batch i mod B. The batches are then put in random order.
    dealt = torch.cat([events, censored])
    hands = [dealt[start::count] for start in range(count)]
    return [hands[place] for place in torch.randperm(count, generator=generator).tolist()]


def _count(rows: int, batch: int, drop_last: bool) -> int:
    if batch < 1:
        raise InvalidValueError(f"`batch` must be >= 1; got {batch}.")
    count = rows // batch if drop_last else -(-rows // batch)
    if count == 0:
        raise InvalidValueError(
            f"`batch` must leave at least one batch; got {batch} for {rows} rows. Take a smaller one."
        )
    return count

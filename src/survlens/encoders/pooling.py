"""Several items per row (the tiles of a slide, the images of a patient) as one embedding.

The items of all rows stand one after another in one tensor, and `count` says how many each row has; no padding.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from survlens.core.errors import InvalidValueError
from survlens.core.inputs import row_of_item


@runtime_checkable
class Pooling(Protocol):
    """From the embeddings of the items of each row to one."""

    def weights(
        self, embedding: Float[Tensor, "item embedding"], count: Int64[Tensor, " instance"]
    ) -> Float[Tensor, " item"]:
        """Share of each item in the embedding of its row; the shares of a row add up to 1."""
        ...

    def __call__(
        self, embedding: Float[Tensor, "item embedding"], count: Int64[Tensor, " instance"]
    ) -> Float[Tensor, "instance embedding"]:
        """One embedding per row."""
        ...


class MeanPooling(nn.Module):
    """The mean of the embeddings of a row's items: every item counts alike."""

    def weights(
        self, embedding: Float[Tensor, "item embedding"], count: Int64[Tensor, " instance"]
    ) -> Float[Tensor, " item"]:
        """1 / n for each of the n items of a row."""
        return (1.0 / count.to(embedding.dtype))[row_of_item(count)]

    def forward(
        self, embedding: Float[Tensor, "item embedding"], count: Int64[Tensor, " instance"]
    ) -> Float[Tensor, "instance embedding"]:
        """One embedding per row."""
        return _row_sums(embedding, count) / count[:, None].to(embedding.dtype)


class AttentionPooling(nn.Module):
    """A weighted mean, with weights that are learned: gated attention.

    a_k = softmax over the row's items of w . (tanh(V h_k) * sigmoid(U h_k)), and z = sum of a_k h_k, where h_k is the
    embedding of item k, V and U are `hidden` x `in_features` and w is a vector of length `hidden`.

    Args:
        in_features: Width of the embedding of an item.
        hidden: Width of the attention layer.

    References:
        Ilse et al. 2018.
    """

    def __init__(self, in_features: int, *, hidden: int = 64):
        super().__init__()
        if in_features < 1 or hidden < 1:
            raise InvalidValueError(f"`in_features` and `hidden` must be >= 1; got {in_features} and {hidden}.")
        self.in_features, self.hidden = in_features, hidden
        self.content, self.gate = nn.Linear(in_features, hidden), nn.Linear(in_features, hidden)
        self.score = nn.Linear(hidden, 1, bias=False)  # a bias would cancel in the softmax

    def weights(
        self, embedding: Float[Tensor, "item embedding"], count: Int64[Tensor, " instance"]
    ) -> Float[Tensor, " item"]:
        """Attention of each item within its row."""
        score = self.score(torch.tanh(self.content(embedding)) * torch.sigmoid(self.gate(embedding)))[:, 0]
        return _softmax_by_row(score, count)

    def forward(
        self, embedding: Float[Tensor, "item embedding"], count: Int64[Tensor, " instance"]
    ) -> Float[Tensor, "instance embedding"]:
        """One embedding per row."""
        return _row_sums(self.weights(embedding, count)[:, None] * embedding, count)


class WorstPooling(nn.Module):
    """The embedding of one item of the row: the one with the largest score u . h_k, where u is learned.

    The head sees that item alone, and its embedding alone gets the gradient. The choice itself has no gradient, so u is
    learned as if the row's items had been weighted by the softmax of their scores (a straight-through estimate).
    Which item is "worst" is therefore what training makes of it: the one that best tells the survival of the row.

    Args:
        in_features: Width of the embedding of an item.
    """

    def __init__(self, in_features: int):
        super().__init__()
        if in_features < 1:
            raise InvalidValueError(f"`in_features` must be >= 1; got {in_features}.")
        self.in_features = in_features
        self.score = nn.Linear(in_features, 1, bias=False)  # a bias would not change which is largest

    def scores(self, embedding: Float[Tensor, "item embedding"]) -> Float[Tensor, " item"]:
        """The score u . h of each item; the embeddings get no gradient from it."""
        return self.score(embedding.detach())[:, 0]

    def weights(
        self, embedding: Float[Tensor, "item embedding"], count: Int64[Tensor, " instance"]
    ) -> Float[Tensor, " item"]:
        """1 for the chosen item of each row and 0 for the others."""
        chosen = _first_largest(self.scores(embedding), count)
        return torch.zeros_like(embedding[:, 0]).index_fill(0, chosen, 1.0)

    def forward(
        self, embedding: Float[Tensor, "item embedding"], count: Int64[Tensor, " instance"]
    ) -> Float[Tensor, "instance embedding"]:
        """One embedding per row."""
        score = self.scores(embedding)
        worst = embedding[_first_largest(score, count)]
        soft = _softmax_by_row(score, count)
        # The second term is zero: it is there for the gradient of the scores.
        return worst + _row_sums((soft - soft.detach())[:, None] * embedding.detach(), count)


class MultipleInstance(nn.Module):
    """An encoder of items, and a pooling of the items of each row.

    The order of a row's items changes nothing, and with mean and attention pooling neither does repeating all of them.
    A row of one item has the embedding that the encoder gives it.

    Args:
        encoder: From items to (item, embedding); with `out_features`.
        pooling: From the embeddings of a row's items to one: `MeanPooling`, `AttentionPooling`, `WorstPooling`, or a
            module of your own with their two methods.
        items_at_once: In eval mode and without gradients, the items are encoded so many at a time, which bounds the
            memory that a row of thousands of items takes. In training `BagSource(max_items=...)` bounds it.

    References:
        Ilse et al. 2018.
    """

    def __init__(self, encoder: nn.Module, pooling: nn.Module, *, items_at_once: int = 256):
        super().__init__()
        if items_at_once < 1:
            raise InvalidValueError(f"`items_at_once` must be >= 1; got {items_at_once}.")
        self.encoder, self.pooling, self.items_at_once = encoder, pooling, items_at_once
        self.out_features = encoder.out_features
        expected = getattr(pooling, "in_features", self.out_features)
        if expected != self.out_features:
            raise InvalidValueError(
                f"`pooling` must take embeddings as wide as those of `encoder`, {self.out_features}; got {expected}."
            )

    def forward(
        self, items: Float[Tensor, "item *feature"], count: Int64[Tensor, " instance"] | None = None
    ) -> Float[Tensor, "instance embedding"]:
        """One embedding per row.

        Args:
            items: The items of all rows, one after another in the order of the rows.
            count: Number of items of each row, >= 1; every item is a row where None.

        Raises:
            InvalidValueError: If a row has no items, or counts do not add up to the items.
        """
        count = self._checked(items, count)
        return self.pooling(self._encoded(items), count)

    def weights(
        self, items: Float[Tensor, "item *feature"], count: Int64[Tensor, " instance"] | None = None
    ) -> Float[Tensor, " item"]:
        """Share of each item in the embedding of its row, as the pooling says; the shares of a row add up to 1."""
        count = self._checked(items, count)
        return self.pooling.weights(self._encoded(items), count)  # type: ignore[operator]

    def _checked(self, items: Tensor, count: Tensor | None) -> Tensor:
        if count is None:
            return torch.ones(items.shape[0], dtype=torch.int64, device=items.device)
        if bool((count < 1).any()) or int(count.sum()) != items.shape[0]:
            raise InvalidValueError(
                f"`count` must be >= 1 in every row and add up to the {items.shape[0]} items; got {int(count.sum())} "
                f"in all and {int((count < 1).sum())} rows without any. Leave such rows out: they lack this modality."
            )
        return count

    def _encoded(self, items: Tensor) -> Tensor:
        if self.training or torch.is_grad_enabled() or items.shape[0] <= self.items_at_once:
            return self.encoder(items)
        return torch.cat([self.encoder(part) for part in items.split(self.items_at_once)])


def _row_sums(values: Float[Tensor, "item embedding"], count: Int64[Tensor, " instance"]) -> Tensor:
    return values.new_zeros((count.shape[0], values.shape[1])).index_add(0, row_of_item(count), values)


def _largest_by_row(score: Float[Tensor, " item"], count: Int64[Tensor, " instance"]) -> Float[Tensor, " instance"]:
    return score.new_full((count.shape[0],), -torch.inf).scatter_reduce(0, row_of_item(count), score, "amax")


def _softmax_by_row(score: Float[Tensor, " item"], count: Int64[Tensor, " instance"]) -> Float[Tensor, " item"]:
    row = row_of_item(count)
    power = torch.exp(score - _largest_by_row(score.detach(), count)[row])
    return power / power.new_zeros(count.shape[0]).index_add(0, row, power)[row]


def _first_largest(score: Float[Tensor, " item"], count: Int64[Tensor, " instance"]) -> Int64[Tensor, " instance"]:
    """Position of the largest score of each row; of equal ones the first."""
    row, n = row_of_item(count), score.shape[0]
    is_largest = score.detach() == _largest_by_row(score.detach(), count)[row]
    position = torch.where(is_largest, torch.arange(n, device=score.device), n)
    first = torch.full((count.shape[0],), n, device=score.device)
    return first.scatter_reduce(0, row, position, "amin")

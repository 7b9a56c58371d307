"""Checks at the door of a head."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from survlens.core.errors import InvalidValueError


def check_width(embedding: Float[Tensor, "instance embedding"], in_features: int) -> None:
    """Raises InvalidValueError unless `embedding` is a table of `in_features` columns."""
    if embedding.ndim != 2 or embedding.shape[1] != in_features:
        raise InvalidValueError(
            f"`embedding` must have the shape (instances, {in_features}); got {tuple(embedding.shape)}. "
            "Build the head with in_features = the width of the encoder's output."
        )


def raw_output(
    network: nn.Module, embedding: Float[Tensor, "instance embedding"], *, columns: int
) -> Float[Tensor, "instance raw"]:
    """Output of `network` before any link; raises InvalidValueError unless it has `columns` columns."""
    raw = network(embedding)
    if raw.shape != (embedding.shape[0], columns):
        raise InvalidValueError(
            f"`network` must map (instances, features) to (instances, {columns}); "
            f"got {tuple(raw.shape)} from {tuple(embedding.shape)}. End it with a linear layer of {columns} outputs."
        )
    return raw

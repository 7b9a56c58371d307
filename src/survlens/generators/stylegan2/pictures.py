"""Pictures in [0, 1], which survlens speaks, and in [-1, 1], which the networks speak."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor


def to_network(
    pictures: Float[Tensor, "instance channel height width"],
) -> Float[Tensor, "instance channel height width"]:
    """From [0, 1] to [-1, 1]."""
    return pictures * 2 - 1


def to_pictures(
    network: Float[Tensor, "instance channel height width"],
) -> Float[Tensor, "instance channel height width"]:
    """From [-1, 1] to [0, 1]; what lies outside is clamped."""
    return ((network + 1) / 2).clamp(0.0, 1.0)


def to_pictures_for_descent(
    network: Float[Tensor, "instance channel height width"],
) -> Float[Tensor, "instance channel height width"]:
    """As `to_pictures`, but what lies outside passes its gradient on, so that a descent can bring it back."""
    open_ended = (network + 1) / 2
    return open_ended + (open_ended.clamp(0.0, 1.0) - open_ended).detach()

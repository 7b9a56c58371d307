"""How the embeddings of several modalities become one."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn


class Concatenation(nn.Module):
    """Puts the embeddings side by side, in the order of `modalities`.

    Args:
        modalities: Names of the modalities, in order.
    """

    def __init__(self, modalities: tuple[str, ...]):
        super().__init__()
        self.modalities = tuple(modalities)

    def forward(self, embeddings: Mapping[str, Tensor]) -> Float[Tensor, "instance embedding"]:
        """The joint embedding."""
        return torch.cat([embeddings[name] for name in self.modalities], dim=1)

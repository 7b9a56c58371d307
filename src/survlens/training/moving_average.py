"""The moving average of a network."""

from __future__ import annotations

import torch
from torch import nn


def memory(batch: int, half_life: float, *, seen: int = 0, ramp: float | None = None) -> float:
    """Share of the moving average that a step keeps: 0.5^(batch / n).

    Args:
        batch: Pictures of a step.
        half_life: Pictures n after which half of the average is new.
        seen: Pictures so far.
        ramp: n is at most this share of `seen`; None for no such limit.
    """
    pictures = half_life if ramp is None else min(half_life, ramp * seen)
    return 0.5 ** (batch / max(pictures, 1e-8))


@torch.no_grad()
def follow(average: nn.Module, network: nn.Module, kept: float) -> None:
    """Parameters of `average` keep the share `kept` and take the rest from `network`; buffers are copied."""
    for mean, value in zip(average.parameters(), network.parameters(), strict=True):
        mean.lerp_(value, 1 - kept)
    for mean, value in zip(average.buffers(), network.buffers(), strict=True):
        mean.copy_(value)

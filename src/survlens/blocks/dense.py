"""Stacks of fully connected layers."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn


def dense_stack(
    in_features: int,
    hidden: Sequence[int],
    *,
    activation: type[nn.Module] = nn.ReLU,
    batch_norm: bool = False,
    dropout: float = 0.0,
) -> nn.Sequential:
    """Linear layers, each followed by its activation, batch norm and dropout where asked for.

    Args:
        in_features: Width of the input.
        hidden: Width of each layer; the last is the width of the output.
        activation: Class of the activation.
        batch_norm: Whether to normalise after each activation.
        dropout: Share of units dropped in training.
    """
    layers: list[nn.Module] = []
    for width in hidden:
        layers += [nn.Linear(in_features, width), activation()]
        if batch_norm:
            layers.append(nn.BatchNorm1d(width))
        if dropout > 0:
            layers.append(nn.Dropout(dropout))
        in_features = width
    return nn.Sequential(*layers)

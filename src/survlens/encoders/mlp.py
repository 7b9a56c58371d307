"""A multilayer perceptron on a table, or on the flattened pixels of a small image."""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn

from survlens.blocks.dense import dense_stack


class MLP(nn.Module):
    """Fully connected layers; the embedding is the last hidden layer.

    Args:
        in_features: Values per instance, after flattening.
        hidden: Width of each layer; the last is the width of the embedding. Empty: the input itself, flattened.
        dropout: Share of units dropped in training.
        activation: Class of the activation.
        batch_norm: Whether to normalise after each activation.
    """

    def __init__(
        self,
        in_features: int,
        hidden: Sequence[int] = (32, 32),
        *,
        dropout: float = 0.0,
        activation: type[nn.Module] = nn.ReLU,
        batch_norm: bool = False,
    ):
        super().__init__()
        self.in_features, self.hidden, self.dropout = in_features, tuple(hidden), dropout
        self.activation, self.batch_norm = activation, batch_norm
        self.layers = dense_stack(in_features, hidden, activation=activation, batch_norm=batch_norm, dropout=dropout)
        self.out_features = self.hidden[-1] if self.hidden else in_features

    def forward(self, x: Float[Tensor, "instance *feature"]) -> Float[Tensor, "instance embedding"]:
        """The embedding."""
        return self.layers(x.flatten(1))

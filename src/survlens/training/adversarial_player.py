"""One of the two networks that are trained against each other, with its optimiser."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.utils import get_total_norm
from torch.optim import Adam

from survlens.training.adversarial_state import AdversarialState

_LARGEST_GRADIENT = 1e5


@dataclass(slots=True)
class _Rest:
    weights: list[nn.Parameter]

    def __enter__(self) -> None:
        for weight in self.weights:
            weight.requires_grad_(False)

    def __exit__(self, *_: object) -> None:
        for weight in self.weights:
            weight.requires_grad_(True)


class Player:
    """A network and its optimiser.

    Adam is set so that penalties of period k change nothing else: its learning rate is multiplied by k / (k + 1), and
    its memory of second moments is 0.99^(k / (k + 1)).

    Args:
        network: The network; its weights that ask for a gradient are trained.
        learning_rate: Step size before that factor.
        interval: Period k of its penalty; None where it has none.
    """

    def __init__(self, network: nn.Module, learning_rate: float, interval: int | None):
        self.interval = interval
        self.weights = [weight for weight in network.parameters() if weight.requires_grad]
        share = 1.0 if interval is None else interval / (interval + 1)
        self.optimiser = Adam(self.weights, lr=learning_rate * share, betas=(0.0, 0.99**share), eps=1e-8, fused=True)

    def resting(self) -> _Rest:
        """Within it the network passes gradients on and takes none."""
        return _Rest(self.weights)

    def learn(self, loss: Tensor, ranks: int, state: AdversarialState) -> None:
        """One step of Adam; numbers in the gradient that are not finite become 0, or 1e5 with their sign."""
        loss.backward()
        gradients = [weight.grad for weight in self.weights if weight.grad is not None]
        if ranks > 1:
            flat = summed(torch.cat([gradient.flatten() for gradient in gradients]), ranks) / ranks
            for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
                gradient.copy_(part.view_as(gradient))
        broken = ~get_total_norm(gradients).isfinite()
        if loss.device.type != "cpu" or broken:
            for gradient in gradients:
                torch.nan_to_num_(gradient, nan=0.0, posinf=_LARGEST_GRADIENT, neginf=-_LARGEST_GRADIENT)
        state.broken = state.broken + (int(broken) if loss.device.type == "cpu" else cast(Any, broken.long()))
        self.optimiser.step()
        self.optimiser.zero_grad()


def summed(value: Tensor, ranks: int) -> Tensor:
    """The sum over all processes."""
    if ranks > 1:
        value = value.detach().clone()
        dist.all_reduce(value)
    return value

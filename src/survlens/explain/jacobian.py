"""Derivatives of the raw network output by the inputs, exactly and in the cheapest way."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from survlens.core.protocols import Inputs
from survlens.explain.held import HeldModel


def raw_slopes(
    held: HeldModel, inputs: Inputs, modalities: Sequence[str]
) -> tuple[Float[Tensor, "instance raw"], dict[str, Float[Tensor, "row raw *feature"]]]:
    """Raw outputs u(x), and du/dx of each modality: one reverse pass per raw output.

    Args:
        held: The model.
        inputs: Inputs of the points.
        modalities: Names of the inputs by which u is differentiated.
    """
    with torch.enable_grad():
        moving = {name: inputs[name].detach().requires_grad_(True) for name in modalities}
        raw = held.raw({**inputs, **moving})
        columns = [
            torch.autograd.grad(
                raw[:, column].sum(),
                list(moving.values()),
                retain_graph=True,
                allow_unused=True,
                materialize_grads=True,
            )
            for column in range(raw.shape[1])
        ]
    slopes = {name: torch.stack(parts, dim=1) for name, parts in zip(moving, zip(*columns, strict=True), strict=True)}
    return raw.detach(), slopes

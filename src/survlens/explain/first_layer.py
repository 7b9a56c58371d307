"""Slopes by what the first linear layer of a wide table gives, which is narrower than the table.

Where a table of p columns enters a network through one linear layer W of h < p outputs only, du/dx = du/d(Wx) W: the
network, the outer map and all sums over points see h numbers, and W comes in once per line instead of once per point.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from survlens.core.inputs import has_bags, select_rows
from survlens.core.protocols import Inputs
from survlens.explain.held import HeldModel
from survlens.explain.jacobian import is_last_narrower, raw_slopes, slopes_of
from survlens.heads.cox_time import CoxTime

_WORTH = 1.5  # times as many columns as outputs of the layer, or nothing is won


@dataclass(frozen=True, slots=True)
class FirstLayers:
    """The first layers of some tables; none where the tables are narrow or enter in another way.

    Attributes:
        of: Layer of each modality that has one.
    """

    of: Mapping[str, nn.Linear]

    def width(self, inputs: Inputs, name: str) -> int:
        """Numbers per row by which u is differentiated."""
        return self.of[name].out_features if name in self.of else inputs[name][:1].numel()

    def slopes(
        self, held: HeldModel, inputs: Inputs, modalities: Sequence[str]
    ) -> tuple[Float[Tensor, "instance raw"], dict[str, Tensor]]:
        """Raw outputs, and slopes by what the layers give, or by the input itself where there is no layer."""
        chosen = {name: layer for name, layer in self.of.items() if name in modalities}
        if not chosen:
            return raw_slopes(held, inputs, modalities)
        with torch.no_grad():
            given = {name: layer(inputs[name]) for name, layer in chosen.items()}

        def raw(moved: Inputs) -> Tensor:
            with ExitStack() as hooks:
                for name, layer in chosen.items():
                    hooks.callback(layer.register_forward_hook(partial(_instead, moved[name])).remove)
                return held.raw({name: inputs[name] if name in chosen else each for name, each in moved.items()})

        return slopes_of(raw, {**inputs, **given}, modalities, None)

    def of_inputs(
        self, name: str, found: Float[Tensor, "line inner column"], across: Float[Tensor, "line feature 1"]
    ) -> Float[Tensor, "line feature column"]:
        """Sums of slopes by the inputs times `across`, from those by what the layer gives."""
        if name not in self.of:
            return found * across
        return (self.of[name].weight.detach().to(found.dtype).T @ found).mul_(across)


def first_layers(held: HeldModel, inputs: Inputs, modalities: Sequence[str]) -> FirstLayers:
    """The linear layers through which alone wide tables enter the network, found by a trial with one row.

    Args:
        held: The model.
        inputs: Ready inputs.
        modalities: Names of the inputs by which u is differentiated.
    """
    wide = [name for name in modalities if inputs[name].ndim == 2 and not has_bags(inputs, name)]
    if isinstance(held.head, CoxTime) or is_last_narrower(held) or not wide or not len(inputs[wide[0]]):
        return FirstLayers({})
    found = {name: layer for name in wide if (layer := _first_layer(held, inputs, name)) is not None}
    return FirstLayers(found)


def _first_layer(held: HeldModel, inputs: Inputs, name: str) -> nn.Linear | None:
    columns = inputs[name].shape[1]
    layers = [
        each
        for each in held.model.modules()
        if isinstance(each, nn.Linear) and each.in_features == columns >= _WORTH * each.out_features
    ]
    if not layers:
        return None
    one = select_rows(inputs, torch.zeros(1, dtype=torch.int64, device=held.device))
    moving = one[name].detach().requires_grad_(True)
    calls: list[tuple[nn.Linear, Tensor]] = []

    def keep(layer: nn.Module, given: tuple[Any, ...], result: Tensor) -> None:
        calls.append((layer, result))  # type: ignore[arg-type]

    with torch.enable_grad(), ExitStack() as hooks:
        for layer in layers:
            hooks.callback(layer.register_forward_hook(keep).remove)
        raw = held.raw({**one, name: moving})
    users = list(_users(raw, moving))
    called = [layer for layer, result in calls if len(users) == 1 and result.grad_fn is users[0]]
    return called[0] if len(called) == 1 and sum(layer is called[0] for layer, _ in calls) == 1 else None


def _instead(result: Tensor, layer: nn.Module, given: tuple[Any, ...], own: Tensor) -> Tensor:
    return result


def _users(raw: Tensor, leaf: Tensor) -> Iterator[Any]:
    """Nodes of the graph of `raw` that read `leaf`, once per reading."""
    seen, waiting = set(), [raw.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        for parent, _ in node.next_functions:
            if getattr(parent, "variable", None) is leaf:
                yield node
            else:
                waiting.append(parent)

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

_TRIALS = 3  # rows
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
    ) -> tuple[FirstLayers, Float[Tensor, "instance raw"], dict[str, Tensor]]:
        """The layers that serve these rows, raw outputs, and slopes by what the layers give, or by the input itself."""
        chosen = {name: layer for name, layer in self.of.items() if name in modalities}
        if chosen:
            try:
                return self, *self._thin(held, inputs, modalities, chosen)
            except _CalledOtherwiseError:
                pass
        return FirstLayers({}), *raw_slopes(held, inputs, modalities)

    def _thin(
        self, held: HeldModel, inputs: Inputs, modalities: Sequence[str], chosen: Mapping[str, nn.Linear]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        with torch.no_grad():
            given = {name: layer(inputs[name]) for name, layer in chosen.items()}

        def raw(moved: Inputs) -> Tensor:
            calls: list[str] = []
            with ExitStack() as hooks:
                for name, layer in chosen.items():
                    hooks.callback(layer.register_forward_hook(partial(_instead, name, moved[name], calls)).remove)
                result = held.raw({name: inputs[name] if name in chosen else each for name, each in moved.items()})
            if sorted(calls) != sorted(chosen):
                raise _CalledOtherwiseError
            return result

        return slopes_of(raw, {**inputs, **given}, modalities, None)

    def of_inputs(
        self, name: str, found: Float[Tensor, "line inner column"], across: Float[Tensor, "line feature 1"]
    ) -> Float[Tensor, "line feature column"]:
        """Sums of slopes by the inputs times `across`, from those by what the layer gives."""
        if name not in self.of:
            return found * across
        return (self.of[name].weight.detach().to(found.dtype).T @ found).mul_(across)


def first_layers(held: HeldModel, inputs: Inputs, modalities: Sequence[str]) -> FirstLayers:
    """The linear layers through which alone wide tables enter the network, found by a trial with a few rows.

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
        if type(each) is nn.Linear and each.in_features == columns >= _WORTH * each.out_features
    ]
    if not layers:
        return None
    few = torch.linspace(0, len(inputs[name]) - 1, _TRIALS, device=held.device).long()
    rows = select_rows(inputs, few)
    moving = rows[name].detach().requires_grad_(True)
    calls: list[tuple[nn.Module, Tensor]] = []

    def keep(layer: nn.Module, given: tuple[Any, ...], result: Tensor) -> None:
        calls.append((layer, result))

    with torch.enable_grad(), ExitStack() as hooks:
        for layer in layers:
            hooks.callback(layer.register_forward_hook(keep).remove)
        raw = held.raw({**rows, name: moving})
    users = list(_users(raw, moving))
    called = [layer for layer, result in calls if len(users) == 1 and result.grad_fn is users[0]]
    found = next((layer for layer in layers if called == [layer]), None)
    return found if found is not None and _gives_the_slopes(held, rows, name, found) else None


def _gives_the_slopes(held: HeldModel, rows: Inputs, name: str, layer: nn.Linear) -> bool:
    """Whether slopes by way of the layer are those taken without it."""
    try:
        layers, _, inner = FirstLayers({name: layer}).slopes(held, rows, [name])
    except RuntimeError:  # layers that are computed again on the way back
        return False
    if not layers.of:
        return False
    expected = raw_slopes(held, rows, [name])[1][name]
    found = inner[name] @ layer.weight.detach()
    return bool((found - expected).abs().max() <= 1e3 * torch.finfo(held.dtype).eps * expected.abs().max())


class _CalledOtherwiseError(Exception):
    """A layer was not called once with all rows."""


def _instead(
    name: str, result: Tensor, calls: list[str], layer: nn.Module, given: tuple[Any, ...], own: Tensor
) -> Tensor:
    calls.append(name)
    if own.shape != result.shape:
        raise _CalledOtherwiseError
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

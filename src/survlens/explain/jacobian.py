"""Derivatives of the raw network output by the inputs, exactly and in the cheapest way.

Of u(x), m numbers by p features, one may take m reverse passes, or p forward passes; or fewer than m reverse passes
where u is a closed form of something narrower: the last hidden layer, which a linear layer turns into u, or the
embedding of a head that is asked at many times. The chain rule does the rest without the network.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import Enum
from math import prod
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd import forward_ad

from survlens.core.errors import InvalidValueError
from survlens.core.inputs import has_bags
from survlens.core.protocols import Inputs
from survlens.explain.forward import ready_forward_mode
from survlens.explain.held import HeldModel
from survlens.explain.layout import items_of
from survlens.explain.memory import rows_at_once, spans
from survlens.heads.cox_time import CoxTime

Moving = Mapping[str, Tensor]
Slopes = dict[str, Float[Tensor, "row raw *feature"]]

_BLOCK = 64 * 2**20  # bytes of the pairs of instances and knots that are held at a time
_BATCHED_UP_TO = 2000  # rows up to which one batched reverse pass costs less than a loop of them


class Strategy(Enum):
    """How the derivatives of the raw output are taken; all give the same.

    REVERSE: one reverse pass per raw output. BATCHED: all of them at once, which pays where launching costs more than
    computing. HIDDEN: reverse passes to the input of the last linear layer, times its weights. FORWARD: one forward
    pass per feature, for tables. TRUNK: the head's slope at every knot by one pass, times the derivative of the
    embedding; for heads that are asked at many times.
    """

    REVERSE = "reverse"
    BATCHED = "batched"
    HIDDEN = "hidden"
    FORWARD = "forward"
    TRUNK = "trunk"


def raw_slopes(
    held: HeldModel, inputs: Inputs, modalities: Sequence[str], *, strategy: Strategy | None = None
) -> tuple[Float[Tensor, "instance raw"], Slopes]:
    """Raw outputs u(x), and du/dx of each modality.

    Args:
        held: The model.
        inputs: Inputs of the points.
        modalities: Names of the inputs by which u is differentiated.
        strategy: How; the one with the fewest passes where None.

    Raises:
        InvalidValueError: If `strategy` does not fit the model or its inputs.
    """
    if isinstance(held.head, CoxTime) and strategy in (None, Strategy.TRUNK):
        return _through_embedding(held, inputs, modalities)
    if strategy is Strategy.TRUNK:
        raise InvalidValueError(
            f"`strategy` must fit the head; got TRUNK for {type(held.head).__name__}, whose raw output does not "
            "depend on time. Leave it out."
        )
    last = _last_linear(held)
    if strategy is Strategy.HIDDEN or (strategy is None and is_last_narrower(held)):
        if last is None:
            raise InvalidValueError(
                f"`strategy` must fit the head; got HIDDEN for {type(held.head).__name__}, which does not end with a "
                "linear layer. Leave it out."
            )
        if (found := _through_hidden(held, inputs, modalities, last, strategy is None)) is not None:
            return found
    return slopes_of(held.raw, inputs, modalities, strategy)


def raw_pullback(
    held: HeldModel,
    inputs: Inputs,
    cotangent: Float[Tensor, "instance raw"] | Callable[[Tensor], Tensor],
    modalities: Sequence[str],
) -> tuple[Float[Tensor, "instance raw"], dict[str, Float[Tensor, "row *feature"]]]:
    """Raw outputs u(x), and the sum over raw outputs of cotangent times du/dx, by one reverse pass.

    Args:
        held: The model.
        inputs: Inputs of the points.
        cotangent: One weight per raw output, or a function that makes them of the raw outputs.
        modalities: Names of the inputs by which u is differentiated.
    """
    with torch.enable_grad():
        moving = _moving(inputs, modalities)
        raw = held.raw({**inputs, **moving})
        weights = cotangent(raw.detach()) if callable(cotangent) else cotangent
        found = _reverse(raw, moving, weights.to(raw))
    return raw.detach(), dict(zip(moving, found, strict=True))


def pushforward(
    function: Callable[[Inputs], Tensor], inputs: Inputs, directions: Mapping[str, Tensor]
) -> tuple[Tensor, Tensor]:
    """Value of `function` and its derivative along `directions`; by two reverse passes where a layer knows no other."""
    try:
        return _forward(function, inputs, directions)
    except NotImplementedError:
        with torch.enable_grad():
            moving = _moving(inputs, tuple(directions))
            value = function({**inputs, **moving})
            probe = torch.zeros_like(value, requires_grad=True)
            slopes = torch.autograd.grad(
                value, list(moving.values()), probe, create_graph=True, allow_unused=True, materialize_grads=True
            )
            along = sum((slope * directions[name]).sum() for name, slope in zip(moving, slopes, strict=True))
            (moved,) = torch.autograd.grad(along, probe, allow_unused=True, materialize_grads=True)  # type: ignore[arg-type]
        return value.detach(), moved


def _forward(
    function: Callable[[Inputs], Tensor], inputs: Inputs, directions: Mapping[str, Tensor]
) -> tuple[Tensor, Tensor]:
    ready_forward_mode()
    with torch.no_grad(), forward_ad.dual_level():
        moving = {
            name: forward_ad.make_dual(inputs[name].detach(), direction.to(inputs[name]))
            for name, direction in directions.items()
        }
        value, moved = forward_ad.unpack_dual(function({**inputs, **moving}))
        return value, torch.zeros_like(value) if moved is None else moved


def slopes_of(
    function: Callable[[Inputs], Tensor], inputs: Inputs, modalities: Sequence[str], strategy: Strategy | None
) -> tuple[Tensor, Slopes]:
    """Value of `function`, (instance, m), and its slopes by each modality.

    Args:
        function: From inputs to (instance, m).
        inputs: Inputs of the points.
        modalities: Names of the inputs by which it is differentiated.
        strategy: Which of REVERSE, BATCHED and FORWARD; the cheapest where None.
    """
    if strategy is Strategy.FORWARD:
        if not _is_table(inputs, modalities):
            raise InvalidValueError(
                "`strategy` must fit the inputs; got FORWARD for images or several items per row, which have too many "
                "features for a pass each. Leave it out."
            )
        return _forward_slopes(function, inputs, modalities)
    with torch.enable_grad():
        moving = _moving(inputs, modalities)
        value = function({**inputs, **moving})
        width = value.shape[1]
        if not value.requires_grad:
            return value, {name: _no_slopes(tensor, width) for name, tensor in moving.items()}
        features = sum(prod(inputs[name].shape[1:]) for name in modalities)
        if strategy is None and 2 * features < width and _is_table(inputs, modalities):
            try:
                return _forward_slopes(function, inputs, modalities)
            except NotImplementedError:
                strategy = Strategy.REVERSE  # a layer without a forward derivative
        if strategy is Strategy.BATCHED or (strategy is None and _pays_batched(value)):
            try:
                return value.detach(), _batched(value, moving)
            except RuntimeError:  # a layer of one's own, without a rule for batches
                if strategy is Strategy.BATCHED:
                    raise
        eye = torch.eye(width, dtype=value.dtype, device=value.device)
        columns = [_reverse(value, moving, row.expand_as(value), again=True) for row in eye]
    stacked = (torch.stack(parts, dim=1) for parts in zip(*columns, strict=True))
    return value.detach(), dict(zip(moving, stacked, strict=True))


def _pays_batched(value: Tensor) -> bool:
    return value.shape[1] > 1 and (value.is_cuda or value.shape[0] <= _BATCHED_UP_TO)


def _batched(value: Tensor, moving: Moving) -> Slopes:
    rows, width = value.shape
    cotangents = torch.eye(width, dtype=value.dtype, device=value.device)[:, None].expand(width, rows, width)
    found = torch.autograd.grad(
        value,
        list(moving.values()),
        cotangents,
        is_grads_batched=True,
        retain_graph=True,
        allow_unused=True,
    )
    return {
        name: _no_slopes(tensor, width) if slope is None else slope.transpose(0, 1).contiguous()
        for (name, tensor), slope in zip(moving.items(), found, strict=True)
    }


def _no_slopes(tensor: Tensor, width: int) -> Tensor:
    """Slopes by an input that the raw output does not depend on."""
    return tensor.new_zeros((len(tensor), width, *tensor.shape[1:]))


def _forward_slopes(
    function: Callable[[Inputs], Tensor], inputs: Inputs, modalities: Sequence[str]
) -> tuple[Tensor, Slopes]:
    value, slopes = None, {}
    for name in modalities:
        columns = []
        for feature in range(inputs[name].shape[1]):
            direction = torch.zeros_like(inputs[name])
            direction[:, feature] = 1
            value, moved = _forward(function, inputs, {name: direction})
            columns.append(moved)
        slopes[name] = torch.stack(columns, dim=2)
    return function(inputs).detach() if value is None else value, slopes


def _through_embedding(held: HeldModel, inputs: Inputs, modalities: Sequence[str]) -> tuple[Tensor, Slopes]:
    """Slopes of a head that is asked at every knot: of its embedding by one pass, and of the embedding once."""
    embedding, inner = slopes_of(held.model.embed, inputs, modalities, None)
    knots, raws, slopes = len(held.head.baseline.times), [], []
    widest = max(embedding.shape[1], *held.head.hidden)
    for span in spans(len(embedding), rows_at_once(8 * 6 * knots * widest, _BLOCK)):
        with torch.enable_grad():
            leaf = embedding[span, None].expand(-1, knots, -1).clone().requires_grad_(True)
            raw = held.head.raw_by_knot(leaf)
            slopes.append(torch.autograd.grad(raw.sum(), leaf)[0])
        raws.append(raw.detach())
    outer = torch.cat(slopes)
    return torch.cat(raws), {name: _chained(outer, slope, items_of(inputs, name)) for name, slope in inner.items()}


def _through_hidden(
    held: HeldModel, inputs: Inputs, modalities: Sequence[str], last: nn.Linear, may_decline: bool
) -> tuple[Tensor, Slopes] | None:
    """Slopes of the input of the last layer, times its weights; None where the raw output is not what it gives."""
    seen: list[tuple[Tensor, Tensor]] = []

    def hidden(moved: Inputs) -> Tensor:
        with _watched(last, seen):
            raw = held.raw(moved)
        before, after = seen.pop()
        if before.ndim != 2 or not torch.equal(after.detach(), raw.detach()):
            raise _NotLastError
        return before

    try:
        before, inner = slopes_of(hidden, inputs, modalities, None)
    except _NotLastError:
        if may_decline:
            return None
        raise InvalidValueError(
            f"`strategy` must fit the head; got HIDDEN for {type(held.head).__name__}, whose raw output is not that "
            "of its last linear layer. Leave it out."
        ) from None
    weight = last.weight.detach()
    slopes = {
        name: _chained(weight.expand(len(before), *weight.shape), slope, items_of(inputs, name))
        for name, slope in inner.items()
    }
    with torch.no_grad():
        return last(before), slopes


class _NotLastError(Exception):
    pass


@contextmanager
def _watched(layer: nn.Module, seen: list[tuple[Tensor, Tensor]]) -> Iterator[None]:
    """Keeps what goes into and comes out of a layer; the hook is gone afterwards whatever happens."""

    def keep(module: nn.Module, given: tuple[Any, ...], result: Any) -> None:
        seen.append((given[0], result))

    hook = layer.register_forward_hook(keep)
    try:
        yield
    finally:
        hook.remove()


def _last_linear(held: HeldModel) -> nn.Linear | None:
    """The linear layer that the head's raw output comes from, where there is one."""
    last: Any = getattr(held.head, "network", None) or getattr(held.head, "linear", None)
    while isinstance(last, nn.Sequential) and len(last):
        last = last[-1]
    return last if isinstance(last, nn.Linear) else None


def is_last_narrower(held: HeldModel) -> bool:
    """Whether the raw output comes from a linear layer with fewer inputs than outputs."""
    last = _last_linear(held)
    return last is not None and last.in_features < last.out_features


def _chained(outer: Float[Tensor, "instance raw inner"], slope: Tensor, rows: Tensor | None) -> Tensor:
    """Slopes of the outer output: outer slopes of each row's instance, times slopes of what lies between."""
    of_rows = outer if rows is None else outer[rows]
    return (of_rows @ slope.flatten(2)).unflatten(2, slope.shape[2:]) if slope.ndim > 2 else of_rows @ slope


def _is_table(inputs: Inputs, modalities: Sequence[str]) -> bool:
    return all(inputs[name].ndim == 2 and not has_bags(inputs, name) for name in modalities)


def _moving(inputs: Inputs, modalities: Sequence[str]) -> dict[str, Tensor]:
    return {name: inputs[name].detach().requires_grad_(True) for name in modalities}


def _reverse(value: Tensor, moving: Moving, weights: Tensor, again: bool = False) -> tuple[Tensor, ...]:
    if not value.requires_grad:
        return tuple(torch.zeros_like(tensor) for tensor in moving.values())
    return torch.autograd.grad(
        value, list(moving.values()), weights, retain_graph=again, allow_unused=True, materialize_grads=True
    )

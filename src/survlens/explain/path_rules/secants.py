"""Mean slopes of a network along a short straight line, by one reverse pass.

Between two inputs a and b every piecewise-linear unit y = f(z) is replaced by the line through its two ends,

    y = y_a + (y_b - y_a) / (z_b - z_a) (z - z_a),

whose slope is the mean of f' along the line from z_a to z_b. A unit that switches in between is counted with the share
of the line on which it is on, where a gradient at one point would take all or nothing. What is left is second order:
two units of different layers that switch on the same short line. Summed over features, the slopes times b - a are
exactly u(b) - u(a), so that completeness says nothing about their error. A max pooling takes the two winners of the
ends by their shares; every other operation has its derivative at the middle of its two inputs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

_IN_PLACE: dict[Any, Any] = {
    torch.relu_: torch.relu,
    Tensor.relu_: torch.relu,
    Tensor.clamp_: torch.clamp,
    Tensor.clamp_min_: torch.clamp_min,
    Tensor.abs_: torch.abs,
}
_ELEMENTWISE: frozenset[Any] = frozenset(
    (
        *(functional.relu, torch.relu, Tensor.relu, functional.leaky_relu, functional.relu6, functional.hardtanh),
        *(torch.prelu, functional.threshold, torch.abs, Tensor.abs, functional.hardsigmoid, functional.hardswish),
        *(torch.clamp, Tensor.clamp, torch.clamp_min, Tensor.clamp_min, torch.clamp_max, Tensor.clamp_max),
    )
)
_POOLING: dict[Any, tuple[Callable[..., tuple[Tensor, Tensor]], int]] = {
    functional.max_pool1d: (functional.max_pool1d_with_indices, 1),
    functional.max_pool2d: (functional.max_pool2d_with_indices, 2),
    functional.max_pool3d: (functional.max_pool3d_with_indices, 3),
    functional.adaptive_max_pool1d: (functional.adaptive_max_pool1d_with_indices, 1),
    functional.adaptive_max_pool2d: (functional.adaptive_max_pool2d_with_indices, 2),
    functional.adaptive_max_pool3d: (functional.adaptive_max_pool3d_with_indices, 3),
}
_SAME = 1e-3  # shorter than this share of its ends, a change is too short to divide by


@dataclass(frozen=True, slots=True)
class _Unit:
    """Inputs and outputs of one call, with its slopes or, of a pooling, the winners and the axes that are pooled."""

    z: Tensor
    y: Tensor
    slope: Tensor
    pooled: int = 0


class Seen(TorchFunctionMode):
    """Keeps what goes into and comes out of every piecewise-linear call."""

    def __init__(self) -> None:
        super().__init__()
        self.units: list[_Unit] = []

    def __torch_function__(  # noqa: D105
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if not _is_taken(func, args, kwargs):
            return func(*args, **kwargs)
        z, settings = args[0].detach(), {key: each for key, each in kwargs.items() if key != "inplace"}
        if func in _POOLING:
            pool, axes = _POOLING[func]
            settings.pop("return_indices", None)
            y, winners = pool(z, *args[1:], **settings)
            self.units.append(_Unit(z, y, winners, axes))
            return y
        with torch.enable_grad():
            point = z.clone().requires_grad_(True)
            y = _IN_PLACE.get(func, func)(point, *args[1:], **settings)
            slope = torch.autograd.grad(y.sum(), point)[0]
        self.units.append(_Unit(point.detach(), y.detach(), slope))
        return _answer(func, args, kwargs, y.detach())


class Straightened(TorchFunctionMode):
    """Replaces every piecewise-linear call by the line through its two ends, as two `Seen` runs found them."""

    def __init__(self, start: Seen, end: Seen):
        super().__init__()
        self._left = iter(zip(start.units, end.units, strict=True))

    def __torch_function__(  # noqa: D105
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if not _is_taken(func, args, kwargs):
            return func(*args, **kwargs)
        start, end = next(self._left)
        line = _pooled_line(start, end) if start.pooled else _line(start, end)
        return _answer(func, args, kwargs, line(args[0]))


def _is_taken(func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> bool:
    known = func in _ELEMENTWISE or func in _IN_PLACE or (func in _POOLING and not kwargs.get("return_indices"))
    return known and len(args) > 0 and isinstance(args[0], Tensor) and args[0].is_floating_point()


def _answer(func: Any, args: Sequence[Any], kwargs: dict[str, Any], y: Tensor) -> Tensor:
    return args[0].copy_(y) if func in _IN_PLACE or kwargs.get("inplace") else y


def _line(start: _Unit, end: _Unit) -> Callable[[Tensor], Tensor]:
    """The line through the ends; where they lie on one straight part or are too close, the slope there."""
    across, rise = end.z - start.z, end.y - start.y
    size = start.z.abs() + end.z.abs()
    mean = (start.slope + end.slope) / 2
    straight = (start.slope == end.slope) & ((rise - mean * across).abs() <= 1e-5 * size)
    divide = ~straight & (across.abs() > _SAME * size)
    slope = torch.where(divide, rise / torch.where(divide, across, torch.ones_like(across)), mean)
    offset = (start.y + end.y) / 2 - slope * (start.z + end.z) / 2
    return lambda z: torch.addcmul(offset, z, slope)


def _pooled_line(start: _Unit, end: _Unit) -> Callable[[Tensor], Tensor]:
    """The winners of both ends, each with the share of the line on which it is the larger of the two."""

    def taken(z: Tensor, winners: Tensor) -> Tensor:
        return z.flatten(-start.pooled).gather(-1, winners.flatten(-start.pooled)).reshape(winners.shape)

    first, second = start.slope, end.slope
    lead, lag = start.y - taken(start.z, second), end.y - taken(end.z, first)
    both = lead + lag
    share = torch.where(both > 0, lead / torch.where(both > 0, both, torch.ones_like(both)), torch.ones_like(both))

    def mixed(z: Tensor) -> Tensor:
        return share * taken(z, first) + (1 - share) * taken(z, second)

    offset = (start.y + end.y) / 2 - mixed((start.z + end.z) / 2)
    return lambda z: mixed(z) + offset

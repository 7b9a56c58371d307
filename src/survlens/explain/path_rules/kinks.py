"""Where functions that are linear in pieces change from one piece to the next.

A kink function is given either by levels, each of which bends it where it crosses zero (ReLU, absolute value, clamp),
or by windows, of each of which it takes the largest member (max-pooling): it bends where another member leads.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn.functional import pad


@dataclass(frozen=True, slots=True)
class KinkValues:
    """What decides on which piece a kink function is, at several points.

    Attributes:
        levels: One number per point and bend: it bends where the number crosses zero. None for windows.
        windows: Members among which the largest is taken, per point and window. None for levels.
    """

    levels: Float[Tensor, "point unit"] | None = None
    windows: Float[Tensor, "point window member"] | None = None

    @property
    def units(self) -> int:
        """Number of bends per point, or of members of all windows."""
        if self.windows is not None:
            return self.windows.shape[1] * self.windows.shape[2]
        return 0 if self.levels is None else self.levels.shape[1]

    def of_rows(self, rows: int) -> KinkValues | None:
        """The same with one point per row, where several points in a row belong to each; None where they do not."""
        values = self.levels if self.windows is None else self.windows
        if values is None or values.shape[0] == rows:
            return self
        if values.shape[0] % rows:
            return None
        if self.windows is not None:
            return KinkValues(windows=self.windows.unflatten(0, (rows, -1)).flatten(1, 2))
        return KinkValues(levels=values.reshape(rows, -1))

    def crossings(self, pairs: Int64[Tensor, " pair"]) -> tuple[Int64[Tensor, " bend"], Float[Tensor, " bend"]]:
        """Bends between points i and i + 1, for each i of `pairs`, between which all members are linear.

        Returns:
            Of each bend, the position of its pair in `pairs`, and where it lies between the two points, in (0, 1).
        """
        if self.windows is not None:
            return _leads(self.windows[pairs], self.windows[pairs + 1])
        if self.levels is None:
            return pairs[:0], torch.zeros(0, dtype=torch.float64, device=pairs.device)
        left, right = self.levels[pairs], self.levels[pairs + 1]
        which, unit = (torch.signbit(left) != torch.signbit(right)).logical_and_(left != 0).nonzero(as_tuple=True)
        before, after = left[which, unit].double(), right[which, unit].double()
        moved = after != 0
        return which[moved], (before / (before - after))[moved]


def _leads(left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """Bends of the largest of several lines, walked from the left: each step goes to the next line that takes over."""
    first, last = left.argmax(2), right.argmax(2)
    pair, window = (first != last).nonzero(as_tuple=True)
    start, rise = left[pair, window].double(), (right - left)[pair, window].double()
    where = start.new_zeros(len(pair))
    # Of several that lead at the start, the steepest goes on leading.
    ahead = start == start.max(1, keepdim=True).values
    leader = torch.where(ahead, rise, -torch.inf).argmax(1)
    found: list[tuple[Tensor, Tensor]] = []
    for _ in range(left.shape[2]):
        if not len(pair):
            break
        own_start, own_rise = start.gather(1, leader[:, None]), rise.gather(1, leader[:, None])
        faster = rise > own_rise
        meets = torch.where(faster, (own_start - start) / (rise - own_rise), torch.inf)
        meets = torch.maximum(meets, where[:, None])
        where = meets.min(1).values
        going = where < 1
        earliest = meets == where[:, None]
        leader = torch.where(earliest & faster, rise, -torch.inf).argmax(1)
        pair, start, rise, where, leader = pair[going], start[going], rise[going], where[going], leader[going]
        found.append((pair, where))
    if not found:
        return pair, where
    bends, places = torch.cat([each for each, _ in found]), torch.cat([each for _, each in found])
    inside = places > 0
    return bends[inside], places[inside]


def kink_values(name: str, arguments: Sequence[Any], settings: Mapping[str, Any]) -> KinkValues | None:
    """Values that decide the piece of the kink function `name` when called with `arguments` and `settings`.

    None where the function is no kink function, or called in a way that is not followed.
    """
    return _KINKS[name](*arguments, **settings) if name in _KINKS else None


def kink_names() -> frozenset[str]:
    """Names of the kink functions of torch that are followed."""
    return frozenset(_KINKS)


def _levels(*tensors: Tensor) -> KinkValues:
    return KinkValues(levels=torch.cat([each.detach().reshape(len(each), -1) for each in tensors], dim=1))


def _at_zero(x: Tensor, *_: Any, **__: Any) -> KinkValues:
    return _levels(x)


def _at_threshold(x: Tensor, threshold: float, value: float, *_: Any, **__: Any) -> KinkValues | None:
    return _levels(x - threshold) if threshold == value else None  # elsewhere it jumps


def _at_bounds(low: float, high: float) -> Callable[..., KinkValues]:
    return lambda x, *_, **__: _levels(x - low, x - high)


def _hardtanh(x: Tensor, min_val: float = -1.0, max_val: float = 1.0, *_: Any, **__: Any) -> KinkValues:
    return _levels(x - min_val, x - max_val)


def _softshrink(x: Tensor, lambd: float = 0.5) -> KinkValues:
    return _levels(x - lambd, x + lambd)


def _clamp(x: Tensor, min: Any = None, max: Any = None) -> KinkValues:
    return _levels(*(x - bound for bound in (min, max) if bound is not None))


def _clamp_min(x: Tensor, min: Any) -> KinkValues:
    return _levels(x - min)


def _clamp_max(x: Tensor, max: Any) -> KinkValues:
    return _levels(x - max)


def _of_two(x: Tensor, other: Tensor) -> KinkValues:
    return _levels(x - other)


def _extreme(sign: int) -> Callable[..., KinkValues | None]:
    def values(x: Tensor, dim: Any = None, *_: Any, **__: Any) -> KinkValues | None:
        if isinstance(dim, Tensor):
            return _levels(x - dim)
        axes = [dim] if isinstance(dim, int) else list(dim or ())
        axes = sorted(axis % x.ndim for axis in axes)
        if not axes or 0 in axes:
            return None  # the largest of all rows together
        moved = x.detach().movedim(axes, list(range(-len(axes), 0)))
        return KinkValues(windows=sign * moved.flatten(x.ndim - len(axes)).reshape(len(x), -1, _size(x, axes)))

    return values


def _size(x: Tensor, axes: Sequence[int]) -> int:
    return int(torch.tensor([x.shape[axis] for axis in axes]).prod())


def _max_pool(axes: int) -> Callable[..., KinkValues | None]:
    def values(
        x: Tensor,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        dilation: Any = 1,
        ceil_mode: bool = False,
        return_indices: bool = False,
    ) -> KinkValues | None:
        del return_indices
        if x.ndim != axes + 2:
            return None
        kernel = _each(kernel_size, axes)
        step = kernel if stride is None or stride == [] else _each(stride, axes)
        around, apart = _each(padding, axes), _each(dilation, axes)
        wide = x.detach()
        spans = [(size - 1) * gap + 1 for size, gap in zip(kernel, apart, strict=True)]
        counts, ends = [], []
        for size, span, move, edge in zip(x.shape[2:], spans, step, around, strict=True):
            free = size + 2 * edge - span
            count = free // move + 1
            if ceil_mode and free % move and count * move < size + edge:
                count += 1
            counts.append(count)
            ends.append(max(0, (count - 1) * move + span - size - edge))
        sides = [side for edge, end in zip(reversed(around), reversed(ends), strict=True) for side in (edge, end)]
        wide = pad(wide, sides, value=-torch.finfo(x.dtype).max / 4)
        for axis, (size, gap, move, count) in enumerate(zip(kernel, apart, step, counts, strict=True)):
            places = torch.arange(count)[:, None] * move + torch.arange(size) * gap
            taken = wide.index_select(2 + axis, places.flatten().to(x.device))
            wide = taken.unflatten(2 + axis, (count, size)).movedim(3 + axis, -1)
        members = wide.flatten(2 + axes)
        return KinkValues(windows=members.reshape(len(x), -1, members.shape[-1]))

    return values


def _global_max_pool(axes: int) -> Callable[..., KinkValues | None]:
    def values(x: Tensor, output_size: Any, return_indices: bool = False) -> KinkValues | None:
        del return_indices
        if x.ndim != axes + 2 or any(size != 1 for size in _each(output_size, axes)):
            return None
        return KinkValues(windows=x.detach().flatten(2))

    return values


def _each(value: Any, axes: int) -> list[int]:
    values = [value] * axes if isinstance(value, int) else list(value)
    return values * axes if len(values) == 1 else values


_KINKS: dict[str, Callable[..., KinkValues | None]] = {
    **dict.fromkeys(("relu", "leaky_relu", "prelu", "rrelu", "abs", "absolute"), _at_zero),
    "threshold": _at_threshold,
    "relu6": _at_bounds(0, 6),
    "hardsigmoid": _at_bounds(-3, 3),
    "hardtanh": _hardtanh,
    "softshrink": _softshrink,
    **dict.fromkeys(("clamp", "clip"), _clamp),
    "clamp_min": _clamp_min,
    "clamp_max": _clamp_max,
    **dict.fromkeys(("maximum", "minimum"), _of_two),
    **dict.fromkeys(("max", "amax"), _extreme(1)),
    **dict.fromkeys(("min", "amin"), _extreme(-1)),
    **{f"max_pool{axes}d": _max_pool(axes) for axes in (1, 2, 3)},
    **{f"adaptive_max_pool{axes}d": _global_max_pool(axes) for axes in (1, 2, 3)},
}

"""Path integrals of targets with kinks of their own, by halving lines where contributions do not add up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from survlens.core.errors import InvalidValueError
from survlens.core.inputs import count_key, has_bags, row_of_item, rows_of_modality, select_rows
from survlens.core.protocols import Inputs
from survlens.explain.held import HeldModel
from survlens.explain.outer.outer_maps import OuterMap
from survlens.explain.path_rules.path_integral import PathIntegral, PathRule
from survlens.explain.path_rules.paths import largest, rows_of, tolerance_of
from survlens.explain.path_rules.pieces import points_between

_NOTE = (
    "The target has kinks of its own, which no rule knows the places of. Lines were halved where contributions did not "
    "add up; the estimated error of each part is at least what its sum misses."
)


@dataclass(frozen=True, slots=True)
class HalvedLines:
    """A rule, and for targets with kinks of their own the same rule on shorter and shorter parts of a line.

    The slope of a survival quantile jumps where it passes a knot. A rule of smooth functions does not see that, but
    what its contributions miss of the change of the target does. A part of a line that misses too much is halved, so
    the part that holds a kink gets shorter, and with it the error. Other targets go to the rule as they are.

    Attributes:
        rule: How a line, or a part of it, is integrated.
        tolerance: What a part may miss, as a share of the largest contribution of its line.
        halvings: How often a part is halved at most.

    Raises:
        InvalidValueError: If `tolerance` is not > 0, or `halvings` is negative.
    """

    rule: PathRule
    tolerance: float = 1e-6
    halvings: int = 12

    def __post_init__(self) -> None:
        if not self.tolerance > 0 or self.halvings < 0:
            raise InvalidValueError(
                f"`tolerance` must be > 0 and `halvings` >= 0; got {self.tolerance} and {self.halvings}."
            )

    def integrate(
        self, held: HeldModel, outers: Sequence[OuterMap], start: Inputs, end: Inputs, modalities: Sequence[str]
    ) -> list[PathIntegral]:
        """The integrals from each row of `start` to that of `end`, one result per outer map."""
        smooth = [outer for outer in outers if not outer.target.has_kinks]
        found = iter(self.rule.integrate(held, smooth, start, end, modalities) if smooth else ())
        return [
            self._halved(held, outer, start, end, modalities) if outer.target.has_kinks else next(found)
            for outer in outers
        ]

    def _halved(
        self, held: HeldModel, outer: OuterMap, start: Inputs, end: Inputs, modalities: Sequence[str]
    ) -> PathIntegral:
        moving = [name for name in held.modalities if start[name].is_floating_point()]
        paths, columns = rows_of_modality(start, held.modalities[0]), len(outer.columns)
        options = {"dtype": torch.float64, "device": held.device}
        values = {name: torch.zeros((*start[name].shape, columns), **options) for name in modalities}
        error = torch.zeros((paths, columns), **options)
        line = torch.arange(paths, device=held.device)
        left, right, size = torch.zeros(paths, **options), torch.ones(paths, **options), None
        first, last, notes = start, end, dict.fromkeys([_NOTE])
        limit = tolerance_of(held, self.tolerance)
        for halving in range(self.halvings + 1):
            part = self.rule.integrate(held, [outer], first, last, moving)[0]
            missed = self._missed(held, outer, part, first, last)
            size = largest(part, first) if size is None else size
            going = (missed > limit * size[line, None]).any(1) & (halving < self.halvings)
            kept = (~going).nonzero()[:, 0]
            for name, each in rows_of(part, first, kept).values.items():
                if name in values:
                    values[name].index_add_(0, _items(start, name, line[kept]), each.double())
            error.index_add_(0, line[kept], torch.maximum(part.error, missed)[kept])
            notes |= dict.fromkeys(part.notes)
            if not bool(going.any()):
                break
            middle = (left + right) / 2
            line = line[going].repeat(2)
            left, right = torch.cat([left[going], middle[going]]), torch.cat([middle[going], right[going]])
            first, last = (points_between(held, start, end, line, where) for where in (left, right))
        return PathIntegral(values, error, tuple(notes))

    def _missed(
        self, held: HeldModel, outer: OuterMap, part: PathIntegral, first: Inputs, last: Inputs
    ) -> Float[Tensor, "part column"]:
        """What the contributions of each part of a line miss of the change of the target along it."""
        with torch.no_grad():
            change = outer.values(held.raw(last)) - outer.values(held.raw(first))
        return (change - _totals(part.values, first)).abs()


def _totals(values: Mapping[str, Tensor], start: Inputs) -> Tensor:
    """Sum of the contributions of each part of a line."""
    total = None
    for name, value in values.items():
        summed = value.double().flatten(1, -2).sum(1)
        if has_bags(start, name):
            counts = start[count_key(name)]
            summed = summed.new_zeros((len(counts), summed.shape[1])).index_add_(0, row_of_item(counts), summed)
        total = summed if total is None else total + summed
    return torch.zeros(()) if total is None else total


def _items(start: Inputs, name: str, lines: Int64[Tensor, " part"]) -> Int64[Tensor, " item"]:
    """Positions in `start` of the rows, or of the items, of some lines."""
    if not has_bags(start, name):
        return lines
    places = torch.arange(len(start[name]), device=lines.device)
    return select_rows({name: places, count_key(name): start[count_key(name)]}, lines)[name]

"""Many times between two knots of a curve from a few: what is asked there is a smooth function of the time."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from survlens.explain.outer import chebyshev

_WORTH = 2  # so many times as many asked times as nodes, or the asked times are taken themselves
_TOLERANCE = 1e-13  # of the largest value of a group


@dataclass(frozen=True, slots=True)
class Interval:
    """A stretch between two knots: where its times stand among those asked, and among those taken.

    Attributes:
        asked: Positions among the times asked.
        taken: Positions among the times taken.
        start: Where it begins.
        end: Where it ends.
        filled: Whether its times follow from nodes.
    """

    asked: slice
    taken: slice
    start: float
    end: float
    filled: bool


@dataclass(frozen=True, slots=True)
class Fill:
    """Times to be taken, and how those asked follow from them."""

    times: Float[Tensor, " taken"]
    intervals: tuple[Interval, ...]

    def spread(
        self, found: Float[Tensor, "group feature taken"], asked: Float[Tensor, " time"]
    ) -> tuple[Tensor, Tensor]:
        """Values at the asked times, and for which of them the nodes were too few."""
        result = found.new_zeros((*found.shape[:2], len(asked)))
        failed = torch.zeros(len(asked), dtype=torch.bool, device=found.device)
        size = found.abs().amax((1, 2))
        for each in self.intervals:
            values = found[..., each.taken]
            if not each.filled:
                result[..., each.asked] = values
                continue
            coefficients = chebyshev.coefficients_of(values.permute(2, 0, 1))
            left_out = chebyshev.next_terms(coefficients).amax(1)
            if not bool((left_out <= _TOLERANCE * size).all()):
                failed[each.asked] = True
                continue
            place = (2 * asked[each.asked] - each.start - each.end) / (each.end - each.start)
            basis = chebyshev.basis(place.to(found), len(coefficients))
            result[..., each.asked] = torch.einsum("qgp,tq->gpt", coefficients, basis)
        return result, failed


def few_times(knots: Float[Tensor, " knot"], asked: Float[Tensor, " time"], nodes: int) -> Fill | None:
    """The times to take for those `asked`, increasing, `nodes` where many lie between two knots; None if none do."""
    last = knots.new_tensor([float("inf")])
    right = torch.searchsorted(torch.cat([knots, last]), asked.to(knots), right=False)
    numbers, counts = right.unique_consecutive(return_counts=True)
    if int(counts.max()) < _WORTH * nodes:
        return None
    ends = [*knots.tolist(), float(asked[-1])]
    places, intervals, first, taken = [], [], 0, 0
    for number, count in zip(numbers.tolist(), counts.tolist(), strict=True):
        start, end = (ends[number - 1] if number else 0.0), ends[number]
        filled = count >= _WORTH * nodes
        if filled:
            middle, half = (start + end) / 2, (end - start) / 2
            places.append((middle + half * chebyshev.nodes(nodes)).to(asked))
        else:
            places.append(asked[first : first + count])
        size = len(places[-1])
        intervals.append(Interval(slice(first, first + count), slice(taken, taken + size), start, end, filled))
        first, taken = first + count, taken + size
    return Fill(torch.cat(places), tuple(intervals))

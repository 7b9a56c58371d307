"""All pieces of a network with kinks along straight lines of inputs.

Along x(a) = x' + a (x - x') every number inside the network is piecewise linear in a. Going through the kink functions
in the order in which the network calls them: between the breaks found so far, what enters the next one is linear, so
its values at the breaks say where it bends in between. No gradient is needed for that, and each kink function is
evaluated at no more points than there are breaks before it. In a network that is curved between its kinks the same
values bracket each kink, which is then found by false position.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from survlens.core.inputs import count_key, has_bags, row_of_item, rows_of_modality, select_rows
from survlens.core.protocols import Inputs
from survlens.explain.held import HeldModel
from survlens.explain.path_rules.kinks import KinkValues
from survlens.explain.path_rules.network_kind import kink_values_at

_MOST_STEPS = 60
_SHORTEST = 1e-14  # breaks closer than this, as a share of the line, are one


@dataclass(frozen=True, slots=True)
class Breaks:
    """Where each of several lines is broken, its ends included.

    Attributes:
        path: Line of each break, in order.
        where: Its position in [0, 1], increasing within a line.
    """

    path: Int64[Tensor, " break"]
    where: Float[Tensor, " break"]

    def with_more(self, path: Int64[Tensor, " more"], where: Float[Tensor, " more"]) -> Breaks:
        """These and more breaks, sorted; of those that coincide, one."""
        paths, places = torch.cat([self.path, path]), torch.cat([self.where, where])
        order = places.argsort()
        order = order[paths[order].argsort(stable=True)]
        paths, places = paths[order], places[order]
        apart = torch.ones_like(paths, dtype=torch.bool)
        apart[1:] = (paths[1:] != paths[:-1]) | (places[1:] - places[:-1] > _SHORTEST) | (places[1:] == 1)
        apart[:-1] &= ~((places[1:] == 1) & (places[:-1] > 1 - _SHORTEST) & (paths[1:] == paths[:-1]))
        return Breaks(paths[apart], places[apart])

    @property
    def pairs(self) -> Int64[Tensor, " piece"]:
        """Positions of the breaks at which a piece begins."""
        return (self.path[1:] == self.path[:-1]).nonzero()[:, 0]


def breaks_of(
    held: HeldModel, start: Inputs, end: Inputs, calls: int, *, cells: int = 1, curved: bool = False
) -> Breaks:
    """Breaks of the raw output along the line from each row of `start` to that of `end`.

    Args:
        held: A model that is piecewise linear, or piecewise smooth, up to its raw output.
        start: Ready inputs where the lines begin.
        end: Where they end, laid out alike.
        calls: Number of calls of kink functions, by `network_kind`.
        cells: Equal cells that every line is cut into to begin with.
        curved: Whether the network is curved between kinks. A unit that switches twice within a cell is then missed.
    """
    paths = torch.arange(rows_of_modality(start, held.modalities[0]), device=held.device)
    edges = torch.linspace(0, 1, cells + 1, dtype=torch.float64, device=held.device)
    breaks = Breaks(paths.repeat_interleave(cells + 1), edges.repeat(len(paths)))
    for call in range(calls):
        pairs = breaks.pairs
        values = kink_values_at(held, points_between(held, start, end, breaks.path, breaks.where), call)
        if curved:
            found = _roots(held, start, end, breaks, values, call)
        else:
            which, share = values.crossings(pairs)
            left = pairs[which]
            found = breaks.path[left], breaks.where[left] + share * (breaks.where[left + 1] - breaks.where[left])
        breaks = breaks.with_more(*found)
    return breaks


def _roots(
    held: HeldModel, start: Inputs, end: Inputs, breaks: Breaks, values: KinkValues, call: int
) -> tuple[Int64[Tensor, " root"], Float[Tensor, " root"]]:
    """Where units switch, by false position (Illinois rule): lines of the switches, and positions."""
    if values.levels is None:
        return breaks.path[:0], breaks.where[:0]
    pairs = breaks.pairs
    before, after = values.levels[pairs], values.levels[pairs + 1]
    which, unit = ((before < 0) != (after < 0)).nonzero(as_tuple=True)
    left, right = breaks.where[pairs[which]].clone(), breaks.where[pairs[which] + 1].clone()
    low, high = before[which, unit].double(), after[which, unit].double()
    path, root = breaks.path[pairs[which]], (left + right) / 2
    going, kept = torch.arange(len(path), device=path.device), torch.zeros_like(path)
    for _ in range(_MOST_STEPS):
        near = left[going] + (right[going] - left[going]) * low[going] / (low[going] - high[going])
        inside = ((near - root[going]).abs() > _SHORTEST) & (near > left[going]) & (near < right[going])
        root[going] = near
        going = going[inside]
        if not len(going):
            break
        reached = kink_values_at(held, points_between(held, start, end, path[going], root[going]), call).levels
        if reached is None:
            break
        found = reached[torch.arange(len(going), device=path.device), unit[going]].double()
        going, found = going[found != 0], found[found != 0]
        to_left = (found < 0) == (low[going] < 0)
        moved, stayed = going[to_left], going[~to_left]
        high[moved] /= 1 + (kept[moved] == 1)  # the same end twice: the other one is worth half
        low[stayed] /= 1 + (kept[stayed] == -1)
        left[moved], low[moved], kept[moved] = root[moved], found[to_left], 1
        right[stayed], high[stayed], kept[stayed] = root[stayed], found[~to_left], -1
    return path, root


def points_between(
    held: HeldModel, start: Inputs, end: Inputs, path: Int64[Tensor, " point"], where: Float[Tensor, " point"]
) -> dict[str, Tensor]:
    """Inputs at x' + a (x - x') of the line `path[i]` with a = `where[i]`, for every i."""
    first, last = select_rows(start, path), select_rows(end, path)
    for name in held.modalities:
        if first[name].is_floating_point():
            share = _by_item(first, name, where).to(first[name].dtype)
            first[name] = torch.lerp(first[name], last[name], share.reshape(-1, *[1] * (first[name].ndim - 1)))
    return first


def _by_item(inputs: Inputs, name: str, where: Tensor) -> Tensor:
    return where[row_of_item(inputs[count_key(name)])] if has_bags(inputs, name) else where


def tables_of(
    path: Int64[Tensor, " piece"], paths: int, *, filled: float = 1.3
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Lines with about as many pieces together: their numbers, (line, piece) positions of pieces, and which are real.

    The shorter lines of a table are filled up with their first piece.

    Args:
        path: Line of each piece, in order.
        paths: Number of lines.
        filled: How many times the pieces of its shortest line the longest of a table may have.
    """
    counts = torch.bincount(path, minlength=paths)
    first, order = counts.cumsum(0) - counts, counts.argsort()
    sizes = counts[order].tolist()
    begin = 0
    while begin < len(sizes):
        stop = begin
        while stop < len(sizes) and sizes[stop] <= filled * sizes[begin] + 1:
            stop += 1
        lines = order[begin:stop]
        place = torch.arange(sizes[stop - 1], device=path.device)
        there = place < counts[lines][:, None]
        yield lines, first[lines][:, None] + place * there, there
        begin = stop

"""The integral of a target's gradient along straight lines from references to instances.

    phi_j(t) = (x_j - x'_j) times the integral over a in (0, 1) of dF(t | x' + a (x - x')) / dx_j

A rule says where on the line the network is differentiated. How the outer map is integrated between is the business of
`OuterMap`. Every rule estimates its error.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from survlens.core.errors import InvalidValueError
from survlens.core.inputs import count_key, has_bags, row_of_item, rows_of_modality, select_rows
from survlens.core.protocols import Inputs
from survlens.explain.held import HeldModel
from survlens.explain.memory import MEMORY, rows_at_once, spans
from survlens.explain.outer.outer_maps import OuterMap
from survlens.explain.path_rules.first_layer import FirstLayers, first_layers
from survlens.explain.path_rules.path_integral import PathIntegral
from survlens.explain.path_rules.pieces import points_between

_BLOCK = 64 * 2**20  # bytes of one block of points: more than this only leaves the cache
_FLOOR = 0.1  # the share of the last change that an estimated error is at least: a small one may be chance
_ROUNDING = 64  # an estimated error below so many roundings of a number says nothing


@dataclass(frozen=True, slots=True)
class GaussLegendre:
    """Gauss-Legendre nodes on the network, twice as many until the error is small: for smooth networks.

    The error of n nodes is estimated by the rules before: where d is the change from n / 2 to n nodes and r its ratio
    to the change before, 0.1 <= r <= 1, by d r. On an analytic integrand the error falls faster.

    Attributes:
        nodes: Nodes of the first rule.
        most: Nodes of the last rule; equal to `nodes` for a fixed rule, whose error is the difference to the rule that
            has every other node.
        tolerance: Estimated error, as a share of the largest contribution of a line, at which nodes are enough.
        memory: Bytes that intermediate results may take.

    Raises:
        InvalidValueError: If `nodes` is not >= 1, `most` is smaller, or `tolerance` is not > 0.
    """

    nodes: int = 4
    most: int = 128
    tolerance: float = 1e-7
    memory: int = MEMORY

    def __post_init__(self) -> None:
        if not 1 <= self.nodes <= self.most:
            raise InvalidValueError(f"`nodes` must lie in 1..`most`; got {self.nodes} and {self.most}.")
        if not self.tolerance > 0:
            raise InvalidValueError(f"`tolerance` must be > 0; got {self.tolerance}.")

    def integrate(
        self, held: HeldModel, outers: Sequence[OuterMap], start: Inputs, end: Inputs, modalities: Sequence[str]
    ) -> list[PathIntegral]:
        """The integrals from each row of `start` to that of `end`, one result per outer map."""
        if self.nodes == self.most:
            return self._at(self.nodes, held, outers, start, end, modalities, with_error=True)

        def rule(nodes: int, first: Inputs, last: Inputs) -> list[PathIntegral]:
            return self._at(nodes, held, outers, first, last, modalities)

        return doubled(rule, held, start, end, self.nodes, self.most, self.tolerance)

    def _at(
        self,
        nodes: int,
        held: HeldModel,
        outers: Sequence[OuterMap],
        start: Inputs,
        end: Inputs,
        modalities: Sequence[str],
        *,
        with_error: bool = False,
    ) -> list[PathIntegral]:
        """The rule of `nodes` nodes, in blocks of lines; where no error is asked for, it is left at 0."""
        places, weights = np.polynomial.legendre.leggauss(nodes)
        paths = rows_of_modality(start, held.modalities[0])
        where = torch.as_tensor((1 + places) / 2, device=held.device)
        scale = torch.as_tensor(weights / 2, device=held.device)
        layers = first_layers(held, end, modalities)
        size = nodes * 8 * 4 * raw_width(held, start) * _numbers(start, modalities, paths, layers)
        thinned = every_other(nodes).to(where) if with_error else None
        parts = []
        for span in spans(paths, rows_at_once(size, min(self.memory, _BLOCK))):
            rows = torch.arange(span.start, span.stop, device=held.device)
            ends = (select_rows(start, rows), select_rows(end, rows))
            parts.append(weighted_nodes(held, outers, *ends, modalities, where, scale, thinned, layers))
        return [joined([part[number] for part in parts]) for number in range(len(outers))]


def doubled(
    rule: Callable[[int, Inputs, Inputs], list[PathIntegral]],
    held: HeldModel,
    start: Inputs,
    end: Inputs,
    fewest: int,
    most: int,
    tolerance: float,
) -> list[PathIntegral]:
    """Results of a rule of `fewest` nodes or cells, then twice as many on the lines whose estimated error is large.

    The error is estimated by d r, where d is the last change and r its ratio to the change before, in [0.1, 1].
    """
    found = rule(fewest, start, end)
    rows = torch.arange(rows_of_modality(start, held.modalities[0]), device=held.device)
    last = [torch.full_like(each.error, torch.inf) for each in found]
    fineness, limit = fewest, tolerance_of(held, tolerance)
    while fineness < most and len(rows):
        fineness = min(2 * fineness, most)
        part = (select_rows(start, rows), select_rows(end, rows))
        finer = rule(fineness, *part)
        is_open = torch.zeros(len(rows), dtype=torch.bool, device=held.device)
        for number, (whole, fine) in enumerate(zip(found, finer, strict=True)):
            change, before = largest_change(fine, rows_of(whole, start, rows), part[0]), last[number][rows]
            fall = torch.where(torch.isinf(before) | (before == 0), 1.0, change / before).clamp(_FLOOR, 1.0)
            error = change * fall
            last[number][rows] = change
            found[number] = replaced(whole, start, rows, _with_error(fine, error))
            is_open |= (error > limit * largest(fine, part[0])[:, None]).any(1)
        rows = rows[is_open]
    return found


def every_other(nodes: int) -> Float[Tensor, " node"]:
    """Weights on (0, 1) of the interpolating rule that has every other Gauss-Legendre node; 0 at the nodes between.

    Of a single node nothing is left, so that its error is all that it says.
    """
    places = np.polynomial.legendre.leggauss(nodes)[0]
    weights = np.zeros(nodes)
    if nodes > 1:
        chosen = places[::2]
        values = np.polynomial.legendre.legvander(chosen, len(chosen) - 1)
        weights[::2] = np.linalg.solve(
            values.T, np.eye(len(chosen))[0]
        )  # of the Legendre polynomials only P_0 has a mean
    return torch.from_numpy(weights)


def weighted_nodes(
    held: HeldModel,
    outers: Sequence[OuterMap],
    start: Inputs,
    end: Inputs,
    modalities: Sequence[str],
    where: Float[Tensor, " node"],
    weights: Float[Tensor, " node"],
    thinned: Float[Tensor, " node"] | None = None,
    layers: FirstLayers | None = None,
) -> list[PathIntegral]:
    """Contributions by the nodes `where` in (0, 1) with `weights`; the error is the difference to weights `thinned`."""
    layers = FirstLayers({}) if layers is None else layers
    paths, nodes = rows_of_modality(start, held.modalities[0]), len(where)
    path = torch.arange(paths, device=held.device).repeat_interleave(nodes)
    inside = points_between(held, start, end, path, where.repeat(paths))
    layers, raw, slopes = layers.slopes(held, inside, modalities)
    raw = raw.unflatten(0, (paths, nodes))
    values: list[dict[str, Tensor]] = [{} for _ in outers]
    errors = [raw.new_zeros((paths, len(outer.columns)), dtype=torch.float64) for outer in outers]
    rules = weights[None] if thinned is None else torch.stack([weights, weights - thinned])
    for name in modalities:
        slope, of_rows = slopes[name], raw
        if has_bags(start, name):
            slope = slope[_node_last(start[count_key(name)], nodes)]
            of_rows = raw[row_of_item(start[count_key(name)])]
        features = prod(slope.shape[2:])
        grouped = slope.reshape(len(of_rows), nodes, raw.shape[2], features)
        shape = end[name].shape
        across = (end[name].double() - start[name].double()).reshape(len(of_rows), -1, 1)
        for found, outer, error in zip(values, outers, errors, strict=True):
            summed, *missed = outer.accumulate_rules(of_rows, grouped, rules)
            found[name] = layers.of_inputs(name, summed, across).reshape(*shape, -1)
            for each in missed:
                change = layers.of_inputs(name, each.to(slope.dtype), across.to(slope.dtype))
                torch.maximum(error, _by_path(start, name, change.abs_().amax(1).double(), paths), out=error)
    return [PathIntegral(found, error) for found, error in zip(values, errors, strict=True)]


def _node_last(counts: Int64[Tensor, " path"], nodes: int) -> Int64[Tensor, " item"]:
    """Order that brings items of (path, node, item) into (path, item, node)."""
    repeated = counts.repeat_interleave(nodes)
    point = row_of_item(repeated)
    within = torch.arange(len(point), device=counts.device) - (repeated.cumsum(0) - repeated)[point]
    return ((counts.cumsum(0) - counts)[point // nodes] + within).argsort(stable=True)


def raw_width(held: HeldModel, inputs: Inputs) -> int:
    """Number of raw outputs."""
    with torch.no_grad():
        return held.raw(select_rows(inputs, torch.zeros(1, dtype=torch.int64, device=held.device))).shape[1]


def tolerance_of(held: HeldModel, tolerance: float) -> float:
    """The tolerance that the network's numbers allow."""
    return max(tolerance, _ROUNDING * torch.finfo(held.dtype).eps)


def _numbers(inputs: Inputs, modalities: Sequence[str], paths: int, layers: FirstLayers) -> float:
    """Numbers per line, counted with some for what the network makes of them."""
    return 64 + sum(len(inputs[name]) * layers.width(inputs, name) for name in modalities) / max(paths, 1)


def _by_path(start: Inputs, name: str, values: Tensor, paths: int) -> Tensor:
    """Largest over the items of each line."""
    if not has_bags(start, name):
        return values
    index = row_of_item(start[count_key(name)])
    found = values.new_zeros((paths, *values.shape[1:]))
    return found.scatter_reduce(0, index.reshape(-1, *[1] * (values.ndim - 1)).expand_as(values), values, "amax")


def largest_change(new: PathIntegral, old: PathIntegral, start: Inputs) -> Float[Tensor, "path column"]:
    """Largest absolute change of a contribution of each line at each time, over features and modalities."""
    changes = [
        _by_path(start, name, (value - old.values[name]).abs().flatten(1, -2).amax(1), len(new.error))
        for name, value in new.values.items()
        if value.numel()
    ]
    return torch.stack(changes).amax(0) if changes else torch.zeros_like(new.error)


def largest(integral: PathIntegral, start: Inputs) -> Float[Tensor, " path"]:
    """Largest absolute contribution of each line."""
    sizes = [
        _by_path(start, name, value.abs().flatten(1).amax(1), len(integral.error))
        for name, value in integral.values.items()
        if value.numel()
    ]
    return torch.stack(sizes).amax(0) if sizes else integral.error.new_zeros(len(integral.error))


def _items(start: Inputs, name: str, rows: Tensor) -> Tensor:
    if not has_bags(start, name):
        return rows
    places = torch.arange(len(start[name]), device=rows.device)
    return select_rows({name: places, count_key(name): start[count_key(name)]}, rows)[name]


def rows_of(integral: PathIntegral, start: Inputs, rows: Int64[Tensor, " chosen"]) -> PathIntegral:
    """Some lines, with all their items."""
    values = {name: value[_items(start, name, rows)] for name, value in integral.values.items()}
    return PathIntegral(values, integral.error[rows], integral.notes)


def replaced(integral: PathIntegral, start: Inputs, rows: Int64[Tensor, " chosen"], part: PathIntegral) -> PathIntegral:
    """The same with other results in some lines."""
    values = {
        name: value.index_copy(0, _items(start, name, rows), part.values[name])
        for name, value in integral.values.items()
    }
    notes = tuple(dict.fromkeys((*integral.notes, *part.notes)))
    return PathIntegral(values, integral.error.index_copy(0, rows, part.error), notes)


def joined(parts: Sequence[PathIntegral]) -> PathIntegral:
    """The lines of several results, one after another."""
    if len(parts) == 1:
        return parts[0]
    values = {name: torch.cat([part.values[name] for part in parts]) for name in parts[0].values}
    notes = tuple(dict.fromkeys(note for part in parts for note in part.notes))
    return PathIntegral(values, torch.cat([part.error for part in parts]), notes)


def _with_error(integral: PathIntegral, error: Tensor) -> PathIntegral:
    return PathIntegral(integral.values, error, integral.notes)

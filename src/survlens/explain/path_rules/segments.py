"""Path integrals by segments, where pieces cannot be counted: networks with thousands of kinks, and unknown ones.

The line from reference to instance is cut into n segments. In each, u is taken as linear with its mean slopes
(`secants`: one reverse pass), and the outer map is integrated exactly along it. Units that switch are
counted by their shares, so the error falls faster than 1/n, where any rule on gradients at points falls like 1/n.
Segments are shorter where the slopes of neighbours disagree, found on a coarser cut; leaving out nodes tells the
error.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from survlens.core.errors import InvalidValueError
from survlens.core.inputs import check_inputs, count_key, has_bags, row_of_item, select_rows
from survlens.core.protocols import Inputs
from survlens.explain.held import HeldModel
from survlens.explain.memory import MEMORY, rows_at_once
from survlens.explain.outer.outer_maps import OuterMap
from survlens.explain.path_rules.path_integral import PathIntegral
from survlens.explain.path_rules.secants import Seen, Straightened

_RATIO = 3  # a cut has so many times the segments of the coarse one that tells its error
_LAST = 0.85  # share of the budget, or of what is left of it, that goes to the last cut
_LEAST = 12  # gradients that a cut, its coarse one and an even one before it need
_ORDER = 1.6  # measured order of convergence: 1.5 for switches of random sign, 2 for smooth networks
_MARGIN = 1.25  # segments, of those that the order of convergence foretells, to be sure of the tolerance
_EVEN = 0.1  # share of the segments that is laid out evenly, whatever the slopes say
_HELD = 24  # activations of a segment that are taken to be held, in inputs of a row


@dataclass(frozen=True, slots=True)
class RefinedSegments:
    """A path rule for ReLU networks with thousands of kinks, and for networks of which nothing is known.

    phi_j(t) = d_j sum over segments s of  g_sj . integral over s of dA_t/du(u(a)) da,  with d = x - x', mean slopes
    g_s, and u linear within a segment. Cuts get finer until the tolerance or the budget is reached, each laid out by
    what the one before found and as fine as its error asks for. The estimate compares a cut with the one of every third
    of its nodes: with errors that fall like n^-1.6, the difference is 4.8 times the error.

    Attributes:
        tolerance: Error to stop at, as a share of the largest contribution of a path; 0 uses the whole budget.
        budget: Gradients (reverse passes per raw output) that a path may cost; at least 12, of which a
            seventh is spent on finding where to cut and a fifth on the estimate of the error.
        memory: Bytes of activations and slopes that one network pass may hold.

    References:
        Sundararajan et al. 2017; Shrikumar et al. 2017, whose rescale rule the slopes of a segment follow.
    """

    tolerance: float = 1e-3
    budget: int = 128
    memory: int = MEMORY

    def __post_init__(self) -> None:
        if not self.tolerance >= 0 or self.budget < _LEAST:
            raise InvalidValueError(
                f"`tolerance` must be >= 0 and `budget` >= {_LEAST} gradients; got {self.tolerance} and {self.budget}."
            )

    def integrate(
        self, held: HeldModel, outers: Sequence[OuterMap], start: Inputs, end: Inputs, modalities: Sequence[str]
    ) -> list[PathIntegral]:
        """The integrals along the line from each row of `start` to that of `end`, one result per outer map.

        Args:
            held: The model.
            outers: Targets and times; lines are refined for each target apart.
            start: Ready inputs where the lines begin.
            end: Where they end; laid out alike.
            modalities: Names of the inputs to which the integral is shared out.
        """
        return [self._of_target(held, outer, start, end, modalities) for outer in outers]

    def _of_target(
        self, held: HeldModel, outer: OuterMap, start: Inputs, end: Inputs, modalities: Sequence[str]
    ) -> PathIntegral:
        paths = check_inputs(end, held.modalities)
        even, count = self.cuts()[:2]
        where = torch.linspace(0, 1, even + 1, dtype=torch.float64, device=held.device).repeat(paths, 1)
        values: dict[str, Tensor] = {}
        error = torch.zeros((paths, len(outer.columns)), dtype=torch.float64, device=held.device)
        everyone = torch.arange(paths, device=held.device)
        _, uneven = self._cut(held, outer, start, end, modalities, where)
        waiting = [(everyone, where, uneven, count, self.budget - even)]
        while waiting:
            active, where, uneven, count, left = waiting.pop()
            where = _graded(where, uneven, count)
            first, last = select_rows(start, active), select_rows(end, active)
            found, uneven = self._cut(held, outer, first, last, modalities, where)
            coarse, _ = self._cut(held, outer, first, last, modalities, where[:, ::_RATIO])
            parts = {name: _of_paths(last, name) for name in modalities}
            change = _largest({name: found[name] - coarse[name] for name in modalities}, parts, len(active))
            error[active] = change / (_RATIO**_ORDER - 1)
            _put(values, found, active, end, paths)
            limit = self.tolerance * _largest(found, parts, len(active)).amax(1)
            left -= count + count // _RATIO
            worst = error[active].amax(1).tolist()
            finer = [self._next(count, left, *pair) for pair in zip(worst, limit.tolist(), strict=True)]
            for wanted in sorted(set(finer) - {0}):
                going = torch.tensor([row for row, each in enumerate(finer) if each == wanted], device=held.device)
                waiting.append((active[going], where[going], uneven[going], wanted, left))
        return PathIntegral(values, error, self._notes(values, error, end))

    def cuts(self) -> list[int]:
        """Numbers of segments of the cuts where each is needed, with the coarse ones beside them all that is paid for.

        The last takes most of it, in whole multiples of the coarse one; the first is even and only tells where to go.
        """
        counts, left = [], self.budget
        while left >= _LEAST:
            coarse = int(_LAST * left / (_RATIO + 1))
            counts.insert(0, _RATIO * coarse)
            left -= (_RATIO + 1) * coarse
        return [left, *counts]

    def _next(self, count: int, left: int, error: float, limit: float) -> int:
        """Segments of the next cut of a path; 0 where its error is small enough or no finer cut is left.

        The fewest doublings that the order of convergence foretells to suffice; everything that is left where that
        would leave too little for another cut.
        """
        if error <= limit:
            return 0
        most = _RATIO * (left // (_RATIO + 1))
        finer = 2 * count
        while limit > 0 and finer <= most and finer < _MARGIN * count * (error / limit) ** (1 / _ORDER):
            finer *= 2
        if limit > 0 and 2 * finer <= most:
            return finer
        return most if most > count else 0

    def _notes(self, values: Mapping[str, Tensor], error: Tensor, end: Inputs) -> tuple[str, ...]:
        parts = {name: _of_paths(end, name) for name in values}
        missed = (error > self.tolerance * _largest(values, parts, len(error)).amax(1, keepdim=True)).any(1)
        if not self.tolerance or not bool(missed.any()):
            return ()
        return (
            f"The tolerance of {self.tolerance:g} was not reached on {int(missed.sum())} of {len(error)} paths within "
            f"{self.budget} gradients each; their estimated error is given.",
        )

    def _cut(
        self, held: HeldModel, outer: OuterMap, start: Inputs, end: Inputs, modalities: Sequence[str], where: Tensor
    ) -> tuple[dict[str, Tensor], Tensor]:
        """The integral on one cut, and how far neighbouring segments differ, (path, segment - 1)."""
        paths, count = where.shape[0], where.shape[1] - 1
        size = sum(end[name].numel() * end[name].element_size() for name in held.modalities) / max(paths, 1)
        at_once = rows_at_once(_HELD * size, self.memory)
        if at_once < paths:
            pieces = [torch.arange(paths, device=where.device)[low : low + at_once] for low in range(0, paths, at_once)]
            done = [
                self._cut(held, outer, select_rows(start, part), select_rows(end, part), modalities, where[part])
                for part in pieces
            ]
            joined = {name: torch.cat([found[name] for found, _ in done]) for name in modalities}
            return joined, torch.cat([uneven for _, uneven in done])
        blocks = max(1, min(count, at_once // max(paths, 1)))
        return _Cut(held, outer, start, end, tuple(modalities), where, blocks).run()


@dataclass(frozen=True, slots=True)
class _Cut:
    """One cut of a few paths; `blocks` stretches of each path are gone through side by side, segment by segment."""

    held: HeldModel
    outer: OuterMap
    start: Inputs
    end: Inputs
    modalities: tuple[str, ...]
    where: Tensor
    blocks: int

    def run(self) -> tuple[dict[str, Tensor], Tensor]:
        paths, count = self.where.shape[0], self.where.shape[1] - 1
        steps = -(-count // self.blocks)
        rows = torch.arange(paths, device=self.where.device).repeat_interleave(self.blocks)
        first, last = select_rows(self.start, rows), select_rows(self.end, rows)
        order = {name: _by_block(self.end, first, name, rows) for name in self.modalities}
        beginning = torch.arange(self.blocks, device=self.where.device).repeat(paths) * steps
        values: dict[str, Tensor] = {}
        previous: dict[str, Tensor] | None = None
        firsts: dict[str, Tensor] = {}
        seen: list[tuple[Tensor, Tensor, Tensor]] = []
        left = self._seen(first, last, self.where[rows, beginning.clamp(max=count)])
        for step in range(steps):
            ends = self.where[rows, (beginning + step + 1).clamp(max=count)]
            right = self._seen(first, last, ends)
            middle = (self.where[rows, (beginning + step).clamp(max=count)] + ends) / 2
            slopes = self._slopes(first, last, middle, left[1], right[1])
            width = ends - self.where[rows, (beginning + step).clamp(max=count)]
            sizes = self.where.new_zeros((len(rows), left[0].shape[1], 2))
            for name in self.modalities:
                change = (last[name] - first[name]).unsqueeze(1)
                scaled = (slopes[name] * change).flatten(2)
                row_of = _of_paths(last, name)
                sizes[..., 1] += _by_path(_square(scaled), row_of, len(rows))
                if previous is not None:
                    sizes[..., 0] += _by_path(_square(scaled - previous[name]), row_of, len(rows))
                self._add(values, name, scaled, (left[0], right[0], width), row_of, order[name])
                slopes[name] = scaled
            seen.append((left[0], right[0], sizes))
            firsts = firsts or slopes
            previous, left = slopes, right
        for name in self.modalities:  # the first segment of a block is compared with the last of the block before it
            jump = firsts[name] - (previous or firsts)[name][_one_back(last, name)]
            seen[0][2][..., 0] += _by_path(_square(jump), _of_paths(last, name), len(rows))
        for _, _, sizes in seen:
            sizes.sqrt_()
        shaped = {
            name: values[name].reshape(*self.end[name].shape, len(self.outer.columns)) for name in self.modalities
        }
        return shaped, self._uneven(seen, count)

    def _uneven(self, seen: list[tuple[Tensor, Tensor, Tensor]], count: int) -> Float[Tensor, "path neighbours"]:
        """How far the contributions of neighbouring segments differ, as a mean over columns of their shares."""
        start, end, sizes = (torch.stack(parts, dim=1) for parts in zip(*seen, strict=True))
        steps = start.shape[1]
        middle = ((start + end) / 2).flatten(0, 1)[:, None]
        weighted = self.outer.accumulate(middle, sizes.flatten(0, 1)[:, None])
        weighted = weighted.unflatten(0, (-1, self.blocks * steps)).abs()
        found = (weighted[:, 1:, 0] + weighted[:, :, 1].diff(dim=1).abs())[:, : count - 1]
        whole = found.sum(1, keepdim=True)
        return torch.where(whole > 0, found / whole, torch.zeros_like(found)).mean(2)

    def _at(self, first: Inputs, last: Inputs, where: Tensor) -> dict[str, Tensor]:
        moved = dict(last)
        for name in self.held.modalities:
            if last[name].is_floating_point():
                row_of = _of_paths(last, name)
                share = where if row_of is None else where[row_of]
                share = share.reshape(-1, *[1] * (last[name].ndim - 1))
                begin, rest = first[name], last[name] - first[name]
                moved[name] = (begin.double() + share * rest.double()).to(begin)
        return moved

    def _seen(self, first: Inputs, last: Inputs, where: Tensor) -> tuple[Tensor, Seen]:
        with torch.no_grad(), Seen() as seen:
            raw = self.held.raw(self._at(first, last, where))
        return raw.detach(), seen

    def _slopes(self, first: Inputs, last: Inputs, where: Tensor, left: Seen, right: Seen) -> dict[str, Tensor]:
        """Mean slopes of every raw output by each modality, through the embedding where it is narrower."""
        inputs = self._at(first, last, where)
        with torch.enable_grad():
            moving = {name: inputs[name].detach().requires_grad_(True) for name in self.modalities}
            with Straightened(left, right):
                embedding = self.held.model.embed({**inputs, **moving})
                raw = self.held.head.raw(embedding)
            if raw.shape[1] <= embedding.shape[1]:
                return _columns_by(raw, moving)
            outer = _columns_by(raw, {"embedding": embedding})["embedding"]
            inner = _columns_by(embedding, moving)
        mixed = {}
        for name, slope in inner.items():
            row_of = _of_paths(last, name)
            rows = outer if row_of is None else outer[row_of]
            mixed[name] = (rows @ slope.flatten(2)).unflatten(2, slope.shape[2:])
        return mixed

    def _add(
        self,
        values: dict[str, Tensor],
        name: str,
        scaled: Tensor,
        segment: tuple[Tensor, Tensor, Tensor],
        row_of: Tensor | None,
        order: Tensor | None,
    ) -> None:
        start, end, width = segment if row_of is None else [each[row_of] for each in segment]
        scaled = scaled * width.to(scaled)[:, None, None]
        if order is not None:
            start, end, scaled = start[order], end[order], scaled[order]
        start, end, scaled = (each.unflatten(0, (-1, self.blocks)) for each in (start, end, scaled))
        found = self.outer.accumulate_pieces(start, end, scaled)
        values[name] = values[name] + found if name in values else found


def _columns_by(value: Tensor, moving: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Derivatives of every column of `value` by each of `moving`, (row, column, *feature)."""
    columns = [
        torch.autograd.grad(
            value[:, column].sum(),
            list(moving.values()),
            retain_graph=True,
            allow_unused=True,
            materialize_grads=True,
        )
        for column in range(value.shape[1])
    ]
    return {name: torch.stack(parts, dim=1) for name, parts in zip(moving, zip(*columns, strict=True), strict=True)}


def _by_block(inputs: Inputs, repeated: Inputs, name: str, rows: Tensor) -> Tensor | None:
    """The order that puts the copies of each item beside each other, block by block; None where they are."""
    if not has_bags(inputs, name):
        return None
    numbers = _with_counts(torch.arange(inputs[name].shape[0], device=rows.device), inputs, name)
    return select_rows(numbers, rows)["m"].argsort(stable=True)


def _of_paths(inputs: Inputs, name: str) -> Tensor | None:
    return row_of_item(inputs[count_key(name)]) if has_bags(inputs, name) else None


def _by_path(values: Tensor, row_of: Tensor | None, rows: int) -> Tensor:
    """Sums over the items of each row."""
    return values if row_of is None else values.new_zeros((rows, *values.shape[1:])).index_add(0, row_of, values)


def _square(slopes: Float[Tensor, "row raw feature"]) -> Float[Tensor, "row raw"]:
    """Squared length over features."""
    return torch.linalg.vector_norm(slopes, dim=2).double().square()


def _one_back(inputs: Inputs, name: str) -> Tensor:
    """For each row or item the same one of the row before; some other for the first rows."""
    count = len(inputs[name])
    places = torch.arange(count, device=inputs[name].device)
    counts = inputs.get(count_key(name))
    return (places - (1 if counts is None else counts[row_of_item(counts)])) % max(count, 1)


def _with_counts(values: Tensor, inputs: Inputs, name: str) -> dict[str, Tensor]:
    """`values` with one entry per item of modality `name`, laid out as inputs of one modality m."""
    return {"m": values} | ({count_key("m"): inputs[count_key(name)]} if has_bags(inputs, name) else {})


def _put(values: dict[str, Tensor], found: Mapping[str, Tensor], active: Tensor, end: Inputs, paths: int) -> None:
    """Writes what was found for the `active` paths over what was there."""
    for name, tensor in found.items():
        if len(active) == paths:
            values[name] = tensor.clone()
        else:
            numbers = _with_counts(torch.arange(end[name].shape[0], device=active.device), end, name)
            values[name][select_rows(numbers, active)["m"]] = tensor


def _largest(values: Mapping[str, Tensor], row_of: Mapping[str, Tensor | None], paths: int) -> Float[Tensor, "path c"]:
    """Largest absolute value over all features of each path, per column."""
    found = []
    for name, tensor in values.items():
        per_row = tensor.abs().flatten(1, -2).amax(1)
        rows = row_of[name]
        if rows is not None:
            empty = per_row.new_zeros((paths, per_row.shape[1]))
            per_row = empty.scatter_reduce(0, rows[:, None].expand_as(per_row), per_row, "amax")
        found.append(per_row)
    return torch.stack(found).amax(0)


def _graded(where: Tensor, uneven: Tensor, count: int) -> Float[Tensor, "path node"]:
    """Nodes of a cut into `count` segments, denser where slopes of neighbours differ.

    An error of J h^3 in a segment of length h, with J the density of changes, is smallest in sum where segments are as
    dense as J^(2/3), or where the changes cluster a little less; the density is bounded below.
    """
    widths = where.diff(dim=1)
    rate = uneven / ((widths[:, 1:] + widths[:, :-1]) / 2).clamp(min=1e-12)
    rate = torch.cat([rate[:, :1], (rate[:, 1:] + rate[:, :-1]) / 2, rate[:, -1:]], dim=1)
    whole = (rate * widths).sum(1, keepdim=True)
    density = (torch.where(whole > 0, rate / whole, torch.ones_like(rate)) + _EVEN) ** (2 / 3)
    reached = torch.nn.functional.pad((density * widths).cumsum(1), (1, 0))
    shares = np.linspace(0, 1, count + 1)
    rows = [
        np.interp(shares, each / each[-1], places)
        for each, places in zip(reached.cpu().numpy(), where.cpu().numpy(), strict=True)
    ]
    return torch.as_tensor(np.stack(rows) if rows else np.empty((0, count + 1))).to(where)

"""Path integrals of piecewise-linear networks, exactly: one gradient per straight piece."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from survlens.core.errors import InvalidValueError
from survlens.core.inputs import rows_of_modality, select_rows
from survlens.core.protocols import Inputs
from survlens.explain.held import HeldModel
from survlens.explain.jacobian import raw_slopes
from survlens.explain.memory import MEMORY, rows_at_once, spans
from survlens.explain.outer.outer_maps import OuterMap
from survlens.explain.path_rules.network_kind import NetworkKind, Smoothness, network_kind
from survlens.explain.path_rules.path_integral import PathIntegral
from survlens.explain.path_rules.paths import joined, raw_width
from survlens.explain.path_rules.pieces import breaks_of, points_between, tables_of

_BLOCK = 64 * 2**20  # bytes of one block of pieces: more than this only leaves the cache


@dataclass(frozen=True, slots=True)
class ExactPieces:
    """Every straight piece of a piecewise-linear network, with one gradient each.

    Exact to rounding, but for targets with kinks of their own in u, such as a survival quantile: see `HalvedLines`.
    On a piece the raw output u is linear in a, so u at both ends and one slope say everything, and the outer map is
    integrated in u without the network. There are no nodes to compare, so the estimated error is the size of the
    completeness gap of each line: what the integral of the whole slope along it misses of F(x) - F(x'), with both ends
    evaluated on their own. Nothing forces it to 0, so it shows a kink that was missed, unless what several of them miss
    of one line cancels. It is no second, independent estimate: over several lines errors add up, and gaps may cancel.

    Attributes:
        kind: What `network_kind` says of the network; found out where None.
        memory: Bytes that intermediate results may take.

    References:
        Sundararajan et al. 2017.
    """

    kind: NetworkKind | None = None
    memory: int = MEMORY

    def integrate(
        self, held: HeldModel, outers: Sequence[OuterMap], start: Inputs, end: Inputs, modalities: Sequence[str]
    ) -> list[PathIntegral]:
        """The integrals from each row of `start` to that of `end`, one result per outer map.

        Raises:
            InvalidValueError: If the network is not piecewise linear, or an instance has several items.
        """
        kind = network_kind(held, end) if self.kind is None else self.kind
        if kind.smoothness is not Smoothness.PIECEWISE_LINEAR or not kind.countable:
            raise InvalidValueError(
                f"The network must be piecewise linear with one item per instance; got one that is "
                f"{kind.smoothness.value}. Leave the rule out, or use GaussLegendre()."
            )
        paths = rows_of_modality(start, held.modalities[0])
        numbers = sum(prod(start[name].shape[1:]) for name in held.modalities)
        size = (8 + kind.units / 4) * 8 * (4 * raw_width(held, end) * (numbers + 1) + 8 * kind.units)
        parts = []
        for span in spans(paths, rows_at_once(size, min(self.memory, _BLOCK))):
            rows = torch.arange(span.start, span.stop, device=held.device)
            ends = (select_rows(start, rows), select_rows(end, rows))
            parts.append(_block(held, outers, *ends, modalities, kind.calls))
        return [joined([part[number] for part in parts]) for number in range(len(outers))]


def _block(
    held: HeldModel, outers: Sequence[OuterMap], start: Inputs, end: Inputs, modalities: Sequence[str], calls: int
) -> list[PathIntegral]:
    breaks = breaks_of(held, start, end, calls)
    pairs = breaks.pairs
    path, left, right = breaks.path[pairs], breaks.where[pairs], breaks.where[pairs + 1]
    moving = [name for name in held.modalities if start[name].is_floating_point()]
    raw, slopes = raw_slopes(held, points_between(held, start, end, path, (left + right) / 2), moving)
    across = {name: (end[name].double() - start[name].double()).flatten(1) for name in moving}
    flat = {name: slopes[name].flatten(2) for name in moving}
    rise = sum(_along(flat[name], across[name][path]) for name in moving)
    pieces = _Pieces(path, (right - left), raw.double(), rise, len(next(iter(across.values()))))  # type: ignore[arg-type]
    found = []
    for outer in outers:
        values, total = _contributions(outer, pieces, flat, across, modalities)
        missed = outer.values(held.raw(end).detach()) - outer.values(held.raw(start).detach()) - total
        shaped = {name: each.reshape(len(each), *start[name].shape[1:], -1) for name, each in values.items()}
        found.append(PathIntegral(shaped, missed.abs()))
    return found


@dataclass(frozen=True, slots=True)
class _Pieces:
    """Straight pieces of several lines: u in the middle, and its slope along the line."""

    path: Int64[Tensor, " piece"]
    length: Float[Tensor, " piece"]
    middle: Float[Tensor, "piece raw"]
    rise: Float[Tensor, "piece raw"]
    paths: int

    def tables(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Lines with about as many pieces: their numbers, (line, piece) positions of pieces, and lengths."""
        filled = 4.0 if self.middle.shape[1] == 1 else 1.3  # with one raw output a table costs more than its entries
        for lines, position, there in tables_of(self.path, self.paths, filled=filled):
            yield lines, position, self.length[position] * there


def _along(slope: Tensor, across: Tensor) -> Tensor:
    """Slope of u along the line, (piece, raw)."""
    return (slope.double() @ across[:, :, None])[:, :, 0]


def _contributions(
    outer: OuterMap,
    pieces: _Pieces,
    slopes: dict[str, Tensor],
    across: dict[str, Tensor],
    modalities: Sequence[str],
) -> tuple[dict[str, Tensor], Tensor]:
    """Contributions of each modality, (line, feature, column), and the integral of the whole slope, (line, column)."""
    columns = len(outer.columns)
    found = {name: pieces.middle.new_zeros((pieces.paths, across[name].shape[1], columns)) for name in modalities}
    total = pieces.middle.new_zeros((pieces.paths, columns))
    for lines, position, length in pieces.tables():
        middle, rise = pieces.middle[position], pieces.rise[position]
        half = rise * (length / 2)[:, :, None]
        together = [*(slopes[name][position].double() for name in modalities), rise[..., None]]
        joint = torch.cat(together, dim=3) * length[:, :, None, None]
        summed = outer.accumulate_pieces(middle - half, middle + half, joint)
        *parts, whole = summed.split([*(across[name].shape[1] for name in modalities), 1], dim=1)
        for name, part in zip(modalities, parts, strict=True):
            found[name][lines] = part * across[name][lines][:, :, None]
        total[lines] = whole[:, 0]
    return found, total

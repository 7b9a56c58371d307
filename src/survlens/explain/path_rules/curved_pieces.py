"""Path integrals of networks that are smooth between kinks which can be found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
import torch

from survlens.core.errors import InvalidValueError
from survlens.core.inputs import rows_of_modality, select_rows
from survlens.core.protocols import Inputs
from survlens.explain.held import HeldModel
from survlens.explain.jacobian import raw_slopes
from survlens.explain.memory import MEMORY, rows_at_once, spans
from survlens.explain.outer.outer_maps import OuterMap
from survlens.explain.path_rules.network_kind import NetworkKind, network_kind
from survlens.explain.path_rules.path_integral import PathIntegral
from survlens.explain.path_rules.paths import doubled, joined, raw_width
from survlens.explain.path_rules.pieces import breaks_of, points_between, tables_of

_BLOCK = 64 * 2**20  # bytes of one block of points: more than this only leaves the cache


@dataclass(frozen=True, slots=True)
class CurvedPieces:
    """Gauss-Legendre between the kinks of a network that is curved: kinks of ReLU after tanh, say.

    Every line is cut into equal cells; where a unit has another sign at the two ends of a cell, its kink is found and
    cuts the cell. The rule on a part without kinks converges as on a smooth network. Cells are halved until the error
    is small, which also finds units that switched twice within one.

    Attributes:
        kind: What `network_kind` says of the network; found out where None.
        nodes: Nodes on each part.
        cells: Cells of the first cut.
        most: Cells of the last cut.
        tolerance: Estimated error, as a share of the largest contribution of a line, at which cells are small enough.
        memory: Bytes that intermediate results may take.

    Raises:
        InvalidValueError: If `nodes` or `cells` is not >= 1, `most` is smaller, or `tolerance` is not > 0.
    """

    kind: NetworkKind | None = None
    nodes: int = 4
    cells: int = 2
    most: int = 64
    tolerance: float = 1e-7
    memory: int = MEMORY

    def __post_init__(self) -> None:
        if self.nodes < 1 or not 1 <= self.cells <= self.most:
            raise InvalidValueError(
                f"`nodes` must be >= 1 and `cells` lie in 1..`most`; got {self.nodes}, {self.cells} and {self.most}."
            )
        if not self.tolerance > 0:
            raise InvalidValueError(f"`tolerance` must be > 0; got {self.tolerance}.")

    def integrate(
        self, held: HeldModel, outers: Sequence[OuterMap], start: Inputs, end: Inputs, modalities: Sequence[str]
    ) -> list[PathIntegral]:
        """The integrals from each row of `start` to that of `end`, one result per outer map.

        Raises:
            InvalidValueError: If the kinks of the network cannot be found.
        """
        kind = network_kind(held, end) if self.kind is None else self.kind
        if not kind.countable:
            raise InvalidValueError(
                "The kinks of the network must be zeros of numbers of one instance each; got others. Leave the rule "
                "out, or use RefinedSegments()."
            )

        def rule(cells: int, first: Inputs, last: Inputs) -> list[PathIntegral]:
            return self._at(cells, kind, held, outers, first, last, modalities)

        return doubled(rule, held, start, end, self.cells, self.most, self.tolerance)

    def _at(
        self,
        cells: int,
        kind: NetworkKind,
        held: HeldModel,
        outers: Sequence[OuterMap],
        start: Inputs,
        end: Inputs,
        modalities: Sequence[str],
    ) -> list[PathIntegral]:
        paths = rows_of_modality(start, held.modalities[0])
        numbers = sum(prod(start[name].shape[1:]) for name in modalities)
        size = (cells + kind.units / 4) * 8 * (4 * self.nodes * raw_width(held, end) * numbers + 8 * kind.units)
        parts = []
        for span in spans(paths, rows_at_once(size, min(self.memory, _BLOCK))):
            rows = torch.arange(span.start, span.stop, device=held.device)
            ends = (select_rows(start, rows), select_rows(end, rows))
            parts.append(self._block(cells, kind, held, outers, *ends, modalities))
        return [joined([part[number] for part in parts]) for number in range(len(outers))]

    def _block(
        self,
        cells: int,
        kind: NetworkKind,
        held: HeldModel,
        outers: Sequence[OuterMap],
        start: Inputs,
        end: Inputs,
        modalities: Sequence[str],
    ) -> list[PathIntegral]:
        breaks = breaks_of(held, start, end, kind.calls, cells=cells, curved=True)
        pairs, paths = breaks.pairs, rows_of_modality(start, held.modalities[0])
        places, weights = (
            torch.as_tensor(each, device=held.device) for each in np.polynomial.legendre.leggauss(self.nodes)
        )
        left, length = breaks.where[pairs, None], (breaks.where[pairs + 1] - breaks.where[pairs])[:, None]
        where, weight = (left + length * (1 + places) / 2).flatten(), (length * weights / 2).flatten()
        path = breaks.path[pairs].repeat_interleave(self.nodes)
        raw, slopes = raw_slopes(held, points_between(held, start, end, path, where), modalities)
        columns = [len(outer.columns) for outer in outers]
        found = [
            {name: raw.new_zeros((*start[name].shape, count), dtype=torch.float64) for name in modalities}
            for count in columns
        ]
        for name in modalities:
            across = (end[name].double() - start[name].double())[..., None]
            flat = slopes[name].flatten(2)
            for lines, position, there in tables_of(path, paths):
                scaled = flat[position] * (weight[position] * there)[:, :, None, None].to(flat)
                for values, outer in zip(found, outers, strict=True):
                    part = outer.accumulate(raw[position], scaled)
                    values[name][lines] = part.unflatten(1, start[name].shape[1:]) * across[lines]
        return [
            PathIntegral(values, raw.new_zeros((paths, count), dtype=torch.float64))
            for values, count in zip(found, columns, strict=True)
        ]

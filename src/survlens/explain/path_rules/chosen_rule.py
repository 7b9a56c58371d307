"""The rule for path integrals that fits a network, chosen from the functions that it calls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from survlens.core.inputs import has_bags, present, rows_of_modality, select_rows, states_missing
from survlens.core.protocols import Inputs
from survlens.explain.held import HeldModel
from survlens.explain.memory import MEMORY
from survlens.explain.outer.outer_maps import OuterMap
from survlens.explain.path_rules.curved_pieces import CurvedPieces
from survlens.explain.path_rules.exact_pieces import ExactPieces
from survlens.explain.path_rules.knot_pieces import KnotPieces, knot_kinds
from survlens.explain.path_rules.network_kind import Smoothness, network_kind
from survlens.explain.path_rules.path_integral import PathIntegral, PathRule
from survlens.explain.path_rules.paths import GaussLegendre, replaced
from survlens.explain.path_rules.segments import RefinedSegments

_COARSE = 1e-3  # tolerance from which on two nodes are where to begin
_LOOSE = 1e-2  # tolerance from which on segments reach it before kinks are found
_COUNTABLE = 4096  # kinks per row, of CoxTime per row and knot, up to which all pieces are taken


@dataclass(frozen=True, slots=True)
class ChosenRule:
    """Exact pieces where the network is piecewise linear with countable kinks, Gauss-Legendre where it is smooth.

    Where it is smooth between countable kinks, Gauss-Legendre between these, or refined segments where the tolerance
    is 1e-2 or more. Everything else gets refined segments, and a note where the network calls what is not known. Rows
    that lack different modalities are looked at apart, since other parts of the network are at work in them.

    Attributes:
        tolerance: Estimated error, as a share of the largest contribution of a line, that rules without an exact
            answer refine to; where None 1e-7 between known kinks, 1e-6 for CoxTime and 1e-3 for segments.
        memory: Bytes that intermediate results may take.
    """

    tolerance: float | None = None
    memory: int = MEMORY

    def integrate(
        self, held: HeldModel, outers: Sequence[OuterMap], start: Inputs, end: Inputs, modalities: Sequence[str]
    ) -> list[PathIntegral]:
        """The integrals from each row of `start` to that of `end`, one result per outer map."""
        groups = _alike(held, end)
        if len(groups) == 1:
            return self._of_alike(held, outers, start, end, modalities)
        found: list[PathIntegral] | None = None
        for rows in groups:
            part = (select_rows(start, rows), select_rows(end, rows))
            results = self._of_alike(held, outers, *part, modalities)
            if found is None:
                found = [_empty(each, start) for each in results]
            found = [replaced(old, start, rows, new) for old, new in zip(found, results, strict=True)]
        return found or []

    def of(self, held: HeldModel, inputs: Inputs) -> tuple[PathRule, str]:
        """The rule for rows that have the same modalities, and a note or nothing."""
        knots = knot_kinds(held, inputs)
        if knots is not None and sum(kind.units for kind in knots) <= _COUNTABLE:
            pieces = KnotPieces(knots, memory=self.memory)
            return (pieces if self.tolerance is None else replace(pieces, tolerance=self.tolerance)), ""
        kind = network_kind(held, inputs)
        if kind.countable and kind.units <= _COUNTABLE:
            if kind.smoothness is Smoothness.PIECEWISE_LINEAR:
                return ExactPieces(kind, self.memory), ""
            if kind.smoothness is Smoothness.MIXED and (self.tolerance is None or self.tolerance < _LOOSE):
                curved = CurvedPieces(kind, memory=self.memory)
                if self.tolerance is None:
                    return curved, ""
                nodes, cells = (2, 1) if self.tolerance >= _COARSE else (curved.nodes, curved.cells)
                return replace(curved, tolerance=self.tolerance, nodes=nodes, cells=cells), ""
        if kind.smoothness is Smoothness.SMOOTH:
            smooth = GaussLegendre(memory=self.memory)
            if self.tolerance is None:
                return smooth, ""
            return replace(smooth, tolerance=self.tolerance, nodes=2 if self.tolerance >= _COARSE else smooth.nodes), ""
        segments = RefinedSegments(memory=self.memory)
        return (segments if self.tolerance is None else replace(segments, tolerance=self.tolerance)), kind.note

    def _of_alike(
        self, held: HeldModel, outers: Sequence[OuterMap], start: Inputs, end: Inputs, modalities: Sequence[str]
    ) -> list[PathIntegral]:
        rule, note = self.of(held, end)
        found = rule.integrate(held, outers, start, end, modalities)
        return [PathIntegral(each.values, each.error, (*each.notes, note)) for each in found] if note else found


def _alike(held: HeldModel, inputs: Inputs) -> list[Tensor]:
    """Rows that have the same modalities, together."""
    stated = [name for name in held.modalities if states_missing(inputs, name)]
    rows = rows_of_modality(inputs, held.modalities[0])
    if not stated or all(has_bags(inputs, name) for name in stated):
        return [torch.arange(rows, device=held.device)]
    pattern = torch.stack([present(inputs, name) for name in stated], dim=1)
    kinds, group = pattern.unique(dim=0, return_inverse=True)
    return [(group == number).nonzero()[:, 0] for number in range(len(kinds))]


def _empty(like: PathIntegral, start: Inputs) -> PathIntegral:
    """Zeros for all lines."""
    values = {name: part.new_zeros((len(start[name]), *part.shape[1:])) for name, part in like.values.items()}
    total = rows_of_modality(start, next(iter(like.values)))
    return PathIntegral(values, like.error.new_zeros((total, like.error.shape[1])))

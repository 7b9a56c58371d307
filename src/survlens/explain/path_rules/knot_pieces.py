"""Path integrals of CoxTime, exactly: each knot of the baseline has straight pieces of its own.

The raw output has a log-risk g(t_l, z) per knot, every one of them with other kinks along a line; a gradient of all for
every kink of any would cost thousands of passes. So the line is cut into the pieces of the embedding z first; on each,
z is straight, and g(t_l, .) is cut into its own pieces for every knot, with one gradient by z each. What remains is an
integral of one dimension, whose integrand is known in closed form: it is taken part by part between the kinks of all
knots, in a compiled walk.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from survlens.core.errors import InvalidValueError
from survlens.core.inputs import rows_of_modality, select_rows
from survlens.core.protocols import Inputs
from survlens.core.targets import Scope
from survlens.explain.held import HeldModel
from survlens.explain.jacobian import raw_slopes
from survlens.explain.memory import MEMORY, rows_at_once, spans
from survlens.explain.outer.level_curves import level_curves, level_weights
from survlens.explain.outer.outer_maps import OuterMap
from survlens.explain.path_rules.network_kind import NetworkKind, Smoothness, network_kind
from survlens.explain.path_rules.path_integral import PathIntegral
from survlens.explain.path_rules.paths import joined, largest, replaced, tolerance_of
from survlens.explain.path_rules.pieces import breaks_of, points_between
from survlens.heads.cox_time import CoxTime

_BLOCK = 128 * 2**20  # bytes of one block of lines
_LONGEST = 1 / 64  # of a line, without nodes in between


class _Identity(nn.Module):
    def raw(self, embedding: Tensor) -> Tensor:
        return embedding


class _Embedding(nn.Module):
    """A model whose raw output is the embedding."""

    def __init__(self, held: HeldModel):
        super().__init__()
        self.model, self.head, self.modalities = held.model, _Identity(), held.modalities

    def embed(self, inputs: Inputs) -> Tensor:
        return self.model.embed(inputs)


class _Pairs(nn.Module):
    """A model of embeddings, each at a knot of its own, whose raw output is the log-risk there."""

    modalities = ("embedding",)

    def __init__(self, held: HeldModel):
        super().__init__()
        self.pairs, self.head = held.head, _Identity()

    def embed(self, inputs: Inputs) -> Tensor:
        times = self.pairs.baseline.times[inputs["knot"]]
        return self.pairs.log_risk_of_pairs(inputs["embedding"], times)[:, None]


def _held(model: Any) -> HeldModel:
    return HeldModel(model, model.head, tuple(model.modalities))


@dataclass(frozen=True, slots=True)
class KnotPieces:
    """Every straight piece of every knot of a piecewise-linear CoxTime network, with one gradient each.

    The estimated error is what the integral of the whole slope along the line misses of F(x) - F(x'): the size of its
    completeness gap, which nothing forces to 0.

    Attributes:
        kinds: Kinds of the encoder and of the network of pairs, by `knot_kinds`; found out where None.
        cells: Cells of a line, each with two nodes; kinks within a cell count by their place in it, which is exact to
            the second order of its length. None: cells are cut at every kink of every knot.
        tolerance: Estimated error, as a share of the largest contribution of a line, above which lines are taken anew
            with four times the cells, and then cut at every kink.
        memory: Bytes that intermediate results may take.
    """

    kinds: tuple[NetworkKind, NetworkKind] | None = None
    cells: int | None = 128
    tolerance: float = 1e-6
    memory: int = MEMORY

    def __post_init__(self) -> None:
        if (self.cells is not None and self.cells < 1) or not self.tolerance > 0:
            raise InvalidValueError(
                f"`cells` must be >= 1 or None, and `tolerance` > 0; got {self.cells} and {self.tolerance}."
            )

    def integrate(
        self, held: HeldModel, outers: Sequence[OuterMap], start: Inputs, end: Inputs, modalities: Sequence[str]
    ) -> list[PathIntegral]:
        """The integrals from each row of `start` to that of `end`, one result per outer map.

        Raises:
            InvalidValueError: If the head is not CoxTime, or a network is not piecewise linear.
        """
        kinds = knot_kinds(held, end) if self.kinds is None else self.kinds
        if kinds is None:
            raise InvalidValueError(
                f"The model must be piecewise linear with a CoxTime head; got {type(held.head).__name__}. Leave the "
                "rule out."
            )
        found: list[PathIntegral] | None = None
        rows = torch.arange(rows_of_modality(start, held.modalities[0]), device=held.device)
        limit = tolerance_of(held, self.tolerance)
        for cells in (self.cells, 4 * self.cells, None) if self.cells else (None,):
            part = (select_rows(start, rows), select_rows(end, rows))
            results = self._at(cells, kinds, held, outers, *part, modalities)
            if found is None:
                found = results
            else:
                found = [replaced(old, start, rows, new) for old, new in zip(found, results, strict=True)]
            wrong = [(each.error > limit * largest(each, part[0])[:, None]).any(1) for each in results]
            rows = rows[torch.stack(wrong).any(0)]
            if not len(rows):
                break
        return found or []

    def _at(
        self,
        cells: int | None,
        kinds: tuple[NetworkKind, NetworkKind],
        held: HeldModel,
        outers: Sequence[OuterMap],
        start: Inputs,
        end: Inputs,
        modalities: Sequence[str],
    ) -> list[PathIntegral]:
        paths, knots = rows_of_modality(start, held.modalities[0]), len(held.head.baseline.times)
        columns = max(len(outer.columns) for outer in outers)
        kinks = kinds[0].units / 4 + knots * (1 + kinds[1].units / 3)
        parts = (kinks if cells is None else cells) + kinds[0].units / 4 + 1 / _LONGEST
        size = 8 * (2 * parts * (3 * knots + 6 * columns) + kinks * 4 * kinds[1].units)
        done = []
        for span in spans(paths, rows_at_once(size, min(self.memory, _BLOCK))):
            rows = torch.arange(span.start, span.stop, device=held.device)
            ends = (select_rows(start, rows), select_rows(end, rows))
            done.append(_block(held, outers, *ends, modalities, kinds, cells))
        return [joined([part[number] for part in done]) for number in range(len(outers))]


def knot_kinds(held: HeldModel, inputs: Inputs) -> tuple[NetworkKind, NetworkKind] | None:
    """Kinds of the encoder and of the network of pairs; None unless both are piecewise linear with countable kinks."""
    if not isinstance(held.head, CoxTime):
        return None
    encoder = network_kind(_held(_Embedding(held)), inputs)
    with torch.no_grad():
        embedding = held.model.embed(select_rows(inputs, torch.zeros(2, dtype=torch.int64, device=held.device)))
    knot = torch.zeros(2, dtype=torch.int64, device=held.device)
    pairs = network_kind(_held(_Pairs(held)), {"embedding": embedding, "knot": knot})
    both = (encoder, pairs)
    straight = all(kind.smoothness is Smoothness.PIECEWISE_LINEAR and kind.countable for kind in both)
    return both if straight else None


def _block(
    held: HeldModel,
    outers: Sequence[OuterMap],
    start: Inputs,
    end: Inputs,
    modalities: Sequence[str],
    kinds: tuple[NetworkKind, NetworkKind],
    cells: int | None,
) -> list[PathIntegral]:
    embedder = _held(_Embedding(held))
    breaks = breaks_of(embedder, start, end, kinds[0].calls)
    pairs = breaks.pairs
    path, left, right = breaks.path[pairs], breaks.where[pairs], breaks.where[pairs + 1]
    moving = [name for name in held.modalities if start[name].is_floating_point()]
    middle, slopes = raw_slopes(embedder, points_between(held, start, end, path, (left + right) / 2), moving)
    across = {name: (end[name].double() - start[name].double()).flatten(1) for name in moving}
    flat = {name: slopes[name].flatten(2).double() for name in moving}
    length = right - left
    rise = sum((flat[name] @ across[name][path][:, :, None])[:, :, 0] for name in moving) * length[:, None]
    half = rise.to(middle) / 2  # type: ignore[union-attr]
    walk = _Walk.of(held, middle - half, middle + half, kinds[1].calls, length, cells)
    paths, found = len(next(iter(across.values()))), []
    for outer in outers:
        by_embedding = walk.integral(outer).to(rise.device)  # type: ignore[union-attr]
        columns = by_embedding.shape[1]
        values = {}
        for name in modalities:
            share = (by_embedding @ flat[name]) * length[:, None, None]
            summed = share.new_zeros((paths, columns, share.shape[2])).index_add_(0, path, share)
            contributions = (summed * across[name][:, None]).transpose(1, 2)
            values[name] = contributions.reshape(paths, *start[name].shape[1:], columns)
        whole = (by_embedding @ rise[:, :, None])[:, :, 0]  # type: ignore[index]
        total = whole.new_zeros((paths, columns)).index_add_(0, path, whole)
        missed = outer.values(held.raw(end).detach()) - outer.values(held.raw(start).detach()) - total
        found.append(PathIntegral(values, missed.abs()))
    return found


def _sweep() -> ModuleType:
    from survlens.explain.path_rules import knot_sweep  # numba takes 0.5 s to import

    return knot_sweep


@dataclass(frozen=True, slots=True)
class _Walk:
    """Pieces of every knot on every stretch of embeddings, sorted as `knot_sweep` wants them, and nodes between.

    Attributes:
        head: The head.
        pieces: First piece of each stretch, and knot, begin and slopes by the embedding of each piece.
        parts: Stretch, left and right end of each part.
        weights: Weight of each node, two per part.
        raw: The log-risks there.
    """

    head: Any
    pieces: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
    parts: tuple[np.ndarray, np.ndarray, np.ndarray]
    weights: Float[Tensor, " node"]
    raw: Float[Tensor, "node knot"]

    @staticmethod
    def of(
        held: HeldModel,
        start: Float[Tensor, "stretch embedding"],
        end: Float[Tensor, "stretch embedding"],
        calls: int,
        length: Float[Tensor, " stretch"],
        cells: int | None,
    ) -> _Walk:
        """Cuts each stretch, a share `length` of its line, for every knot."""
        model, knots, stretches = _held(_Pairs(held)), len(held.head.baseline.times), len(start)
        knot = torch.arange(knots, device=start.device).repeat(stretches)
        begins, stops = ({"embedding": each.repeat_interleave(knots, 0), "knot": knot} for each in (start, end))
        breaks = breaks_of(model, begins, stops, calls)
        pairs = breaks.pairs
        line, begin, stop = breaks.path[pairs], breaks.where[pairs], breaks.where[pairs + 1]
        middle, slopes = raw_slopes(
            model, points_between(model, begins, stops, line, (begin + stop) / 2), model.modalities
        )
        by_embedding = slopes["embedding"][:, 0].double()
        rise = (by_embedding * (end - start).double()[line // knots]).sum(1)
        value = middle[:, 0].double() - rise * (stop - begin) / 2
        order = begin.argsort()
        order = order[(line // knots)[order].argsort(stable=True)]
        counts = torch.bincount(line // knots, minlength=stretches)
        first = torch.nn.functional.pad(counts.cumsum(0), (1, 0)).cpu().numpy()
        columns = (line % knots, begin, value, rise, by_embedding)
        piece_knot, piece_begin, piece_value, piece_rise, piece_slopes = [_array(each[order]) for each in columns]
        longest = _array(((_LONGEST if cells is None else 1 / cells) / length).clamp(max=1))
        stretch, lefts, rights = _sweep().parts_of(first, piece_begin, longest, cells is None)
        half = (rights - lefts) / 2
        where = np.stack([lefts + half * (1 - 1 / np.sqrt(3)), lefts + half * (1 + 1 / np.sqrt(3))], axis=1).ravel()
        pieces = (first, piece_knot, piece_begin)
        raw = _sweep().values_at(*pieces, piece_value, piece_rise, stretch.repeat(2), where, knots)
        return _Walk(
            held.head,
            (*pieces, piece_slopes),
            (stretch, lefts, rights),
            torch.from_numpy(half.repeat(2)).to(start.device),
            torch.from_numpy(raw).to(start.device),
        )

    def integral(self, outer: OuterMap) -> Float[Tensor, "stretch column embedding"]:
        """Integral over each stretch of the derivatives of the target by the embedding."""
        pieces = (*self.pieces, *self.parts)
        if outer.target.scope is Scope.WHOLE:
            weights = outer.cotangents(self.raw)[:, 0] * self.weights[:, None]
            return torch.from_numpy(_sweep().sums_over_knots(*pieces, _array(weights)))[:, None]
        curves = level_curves(self.head, self.raw, False)
        levels = level_weights(curves, outer.target, outer.times)
        at_right, at_left = (each[:, 0] * self.weights[:, None] for each in (levels.at_right, levels.at_left))
        rises = (self.raw + self.head.baseline.log_jumps.to(self.raw.device)).exp()
        own = -at_right
        if levels.at_rise is not None:  # d log rise = g where d log S = - rise g
            moved = levels.at_rise * self.weights[:, None]
            own = own + moved / rises[:, levels.right].clamp(min=torch.finfo(rises.dtype).tiny)
        factors = (rises, -(at_right + at_left), own, levels.right)
        return torch.from_numpy(_sweep().sums_of_running_hazard(*pieces, *(_array(each) for each in factors)))


def _array(tensor: Tensor) -> Any:
    return tensor.detach().cpu().contiguous().numpy()

"""The closed-form map from raw network output to a target at all times, and its contraction with network slopes.

F(t | x) = A_t(u(x)) with u the raw output, m numbers per point, so dF(t)/dx = (dA_t/du) (du/dx): times, target and
interpolation stand in the first factor only, which needs no network. A sum over points s (of a path, say)

    phi(t) = sum over s of dA_t/du(u_s) g_s,      g_s = weight_s du/dx(x_s) scaled by the features' differences,

is a matrix product of (time, s m) with (s m, feature), taken without ever holding a table of (s, feature, time). Four
things make it cheaper still: for one raw output a table of dA_t/du in u; for several, the slopes of the two levels of
the curve around a time instead of all raw outputs; between two knots phi is smooth in t, so that many times there
follow from a few; and straight pieces of u are integrated in u, never in the network.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from survlens.core.errors import InvalidValueError
from survlens.core.targets import Scope, Target
from survlens.explain.forward import derivative as derivative
from survlens.explain.held import RawCurves
from survlens.explain.memory import MEMORY, rows_at_once, spans
from survlens.explain.outer.between_knots import few_times
from survlens.explain.outer.level_cotangents import mean_cotangents
from survlens.explain.outer.level_curves import level_curves, level_weights
from survlens.explain.outer.level_slopes import level_slopes
from survlens.explain.outer.level_sums import level_sum
from survlens.explain.outer.piece_nodes import growth, nodes_and_parts, reach, rule
from survlens.explain.outer.scalar_table import ScalarTable, scalar_table

_NARROW = 3  # up to so many raw outputs, their cotangents are taken one by one at every time
_BLOCK = 32 * 2**20  # bytes of one block of points: more than this only leaves the cache
_AGREE = 1e-11


@dataclass(frozen=True, slots=True)
class OuterMap:
    """A_t for one head, one target and a set of times.

    Attributes:
        head: A head with `predict_from_raw`.
        target: What is explained.
        times: Times that are asked, in the head's unit; a target of the whole curve ignores them.
        memory: Bytes that intermediate results may take, beside the arguments and the result.
    """

    head: Any
    target: Target
    times: Float[Tensor, " time"]
    memory: int = MEMORY

    @property
    def columns(self) -> Float[Tensor, " column"]:
        """Times of the columns of the result."""
        return self.target.axis(self.times)

    def values(self, raw: Float[Tensor, "point raw"]) -> Float[Tensor, "point column"]:
        """The target of each point, in float64."""
        return self.target(RawCurves(self.head, raw.double()), self.times)

    def cotangents(self, raw: Float[Tensor, "point raw"]) -> Float[Tensor, "point column raw"]:
        """dA_t/du of each point, in float64."""
        return self._mean_cotangents(raw.double()[:, None], (1.0,))

    def accumulate(
        self, raw: Float[Tensor, "group point raw"], slopes: Float[Tensor, "group point raw feature"]
    ) -> Float[Tensor, "group feature column"]:
        """Sum over the points of each group of dA_t/du(raw) times slopes, in float64.

        Args:
            raw: Raw outputs u_s.
            slopes: Weighted slopes g_s of each raw output by each feature.
        """
        return self.accumulate_rules(raw, slopes, raw.new_ones((1, raw.shape[1])))[0]

    def accumulate_rules(
        self,
        raw: Float[Tensor, "group point raw"],
        slopes: Float[Tensor, "group point raw feature"],
        rules: Float[Tensor, "rule point"],
    ) -> Float[Tensor, "rule group feature column"]:
        """Sums over the points of each group of weight times dA_t/du(raw) times slopes, in float64, for several rules.

        Args:
            raw: Raw outputs u_s.
            slopes: Slopes g_s of each raw output by each feature.
            rules: Weights of the points of a group.
        """
        return self._finite(self._filled(raw.detach().double(), None, slopes.detach(), rules.detach().double()))

    def accumulate_pieces(
        self,
        start: Float[Tensor, "group point raw"],
        end: Float[Tensor, "group point raw"],
        slopes: Float[Tensor, "group point raw feature"],
    ) -> Float[Tensor, "group feature column"]:
        """Sum over straight pieces of the mean of dA_t/du along each piece times its slopes, in float64.

        A piece contributes the integral of dA_t/du(start + alpha (end - start)) over alpha in (0, 1), times `slopes`,
        to about 1e-12 of the largest weight; nothing cancels where a piece is short.

        Args:
            start: Raw outputs where each piece begins.
            end: Raw outputs where it ends; in between u is linear.
            slopes: Weighted slopes of the piece, the same all along it.
        """
        once = start.new_ones((1, start.shape[1]), dtype=torch.float64)
        return self._finite(self._filled(start.detach().double(), end.detach().double(), slopes.detach(), once)[0])

    def _finite(self, found: Tensor) -> Tensor:
        """`found`; an error where it is not finite, since nothing further on would tell."""
        if bool(torch.isfinite(found).all()):
            return found
        lost = ~torch.isfinite(found).flatten(0, -2).all(0)
        raise InvalidValueError(
            f"`target` must have a finite derivative by the inputs; {self.target.name} has none at the times "
            f"{[round(float(time), 4) for time in self.columns[lost][:5]]}. Check the inputs and the network's output "
            "there, or explain survival or cumulative_hazard."
        )

    def _filled(self, start: Tensor, end: Tensor | None, slopes: Tensor, rules: Tensor) -> Tensor:
        """The sum at a few times between each two knots, and by interpolation at the others."""
        result = start.new_zeros((len(rules), start.shape[0], slopes.shape[3], len(self.columns)))
        pending = torch.ones(len(self.columns), dtype=torch.bool, device=start.device)
        for nodes in self._node_counts(start):
            asked = self.times[pending]
            fill = few_times(RawCurves(self.head, start[0, :1]).survival().times, asked, nodes)
            if fill is None:
                break
            found = replace(self, times=fill.times)._summed(start, end, slopes, rules)
            spread, failed = fill.spread(found.flatten(0, 1), asked)
            result[..., pending] = spread.unflatten(0, found.shape[:2])
            pending[pending.clone()] = failed
            if not bool(failed.any()):
                return result
        if bool(pending.all()):
            return self._summed(start, end, slopes, rules)
        result[..., pending] = replace(self, times=self.times[pending])._summed(start, end, slopes, rules)
        return result

    def _node_counts(self, raw: Tensor) -> tuple[int, ...]:
        """Numbers of nodes between two knots to try, where that can pay."""
        return () if self.target.scope is Scope.WHOLE or raw.shape[2] == 1 or not raw.numel() else (8, 16)

    def _summed(self, start: Tensor, end: Tensor | None, slopes: Tensor, rules: Tensor) -> Tensor:
        groups, points, width = start.shape
        if not start.numel() or not slopes.numel():
            return start.new_zeros((len(rules), groups, slopes.shape[3], len(self.columns)))
        if width == 1 and (table := self._table(start, end)) is not None:
            return self._by_table(table, start, end, slopes, rules)
        if end is None:
            wide = width > _NARROW and self.target.scope is Scope.AROUND
            return self._by_levels(start, slopes, rules) if wide else self._by_cotangents(start, slopes, rules)
        return self._by_pieces(start, end, slopes)[None]

    def _table(self, start: Tensor, end: Tensor | None) -> ScalarTable | None:
        """A table in the one raw output, where it costs less than all points."""
        ends = start if end is None else torch.stack([start, end])
        low, high = float(ends.min()), float(ends.max())
        most = start.shape[0] * start.shape[1] // (4 if end is None else 1)

        def weights(raw: Tensor) -> Tensor:
            return self.cotangents(raw)[:, :, 0]

        return scalar_table(weights, low, high, most, start.device)

    def _by_table(self, table: ScalarTable, start: Tensor, end: Tensor | None, slopes: Tensor, rules: Tensor) -> Tensor:
        smooth = table.smooth
        found = start.new_zeros((len(rules), start.shape[0], slopes.shape[3], int(smooth.sum())))
        terms, columns = table.coefficients.shape
        each = 8 * (6 * terms + 2 * slopes.shape[3] + (0 if start.shape[1] > terms else columns))
        for group, point in self._blocks(start, each):
            shape = start[group, point].shape[:2]
            ends = None if end is None else end[group, point].flatten()
            basis = table.basis(start[group, point].flatten(), ends).reshape(*shape, terms)
            sloped = slopes[group, point, 0].double()
            for weight, summed in zip(rules[:, point], found, strict=True):
                summed[group] += table.contract(basis * weight[:, None], sloped)
        if bool(smooth.all()):
            return found
        result = start.new_zeros((*found.shape[:3], len(smooth)))
        result[..., smooth] = found
        rest = replace(self, times=self.times[~smooth])
        result[..., ~smooth] = (
            rest._by_cotangents(start, slopes, rules) if end is None else rest._by_pieces(start, end, slopes)[None]
        )
        return result

    def _by_cotangents(self, raw: Tensor, slopes: Tensor, rules: Tensor) -> Tensor:
        """The sum with the cotangent of every point written out."""
        width, features, columns = raw.shape[2], slopes.shape[3], len(self.columns)
        result = raw.new_zeros((len(rules), raw.shape[0], features, columns))
        for group, point in self._blocks(raw, 8 * width * (10 * columns + 2 * features)):
            part = raw[group, point]
            weights = self.cotangents(part.flatten(0, 1)).reshape(*part.shape[:2], columns, width)
            for weight, summed in zip(rules[:, point], result, strict=True):
                summed[group] += _contracted(weights * weight[:, None, None], slopes[group, point])
        return result

    def _by_levels(self, raw: Tensor, slopes: Tensor, rules: Tensor) -> Tensor:
        """The sum where u has many columns: through the values at knots, on two of which each time depends."""
        features, columns, of_causes = slopes.shape[3], len(self.times), self.target.cause is not None
        result = raw.new_zeros((len(rules), raw.shape[0], features, columns))
        for group, point in self._blocks(raw, 8 * (4 * raw.shape[2] * features + 12 * columns)):
            part = raw[group, point]
            curves = level_curves(self.head, part.flatten(0, 1), of_causes)
            weights = level_weights(curves, self.target, self.times)
            result[:, group] += level_sum(self.head, part, slopes[group, point], rules[:, point], weights, of_causes)
        return result

    def _by_pieces(self, start: Tensor, end: Tensor, slopes: Tensor) -> Tensor:
        """The sum over pieces with nodes in u; twice as many until nothing changes where the head's form is unknown."""
        fineness, known = 1, self._piece_form_known()
        result = self._pieces_at(start, end, slopes, fineness)
        while not known and fineness < 64:
            fineness *= 2
            finer = self._pieces_at(start, end, slopes, fineness)
            known = bool((finer - result).abs().max() <= _AGREE * finer.abs().max())
            result = finer
        return result

    def _piece_form_known(self) -> bool:
        return level_slopes.dispatch(type(self.head)) is not level_slopes.dispatch(object)

    def _pieces_at(self, start: Tensor, end: Tensor, slopes: Tensor, fineness: int) -> Tensor:
        width, features, columns = start.shape[2], slopes.shape[3], len(self.columns)
        result = start.new_zeros((start.shape[0], features, columns))
        for group, point in self._blocks(start, 8 * width * (3 * columns + 2 * features)):
            shape = start[group, point].shape[:2]
            weights = self._piece_weights(start[group, point].flatten(0, 1), end[group, point].flatten(0, 1), fineness)
            result[group] += _contracted(weights.reshape(*shape, columns, width), slopes[group, point])
        return result

    def _piece_weights(self, start: Tensor, end: Tensor, fineness: int) -> Tensor:
        """Mean of dA_t/du over each piece, (piece, column, raw): pieces that need as many nodes together."""
        change = end - start
        grown = change.new_zeros(len(change))
        if self.target.cause is None:
            log_survival = [level_curves(self.head, each, False).levels[:, 0] for each in (start, end)]
            grown = growth(*log_survival)
        counts, parts = nodes_and_parts(reach(self.head, change), grown)
        found = start.new_empty((len(start), len(self.columns), start.shape[1]))
        for count, cut in torch.stack([counts, parts], dim=1).unique(dim=0).tolist():
            rows = ((counts == count) & (parts == cut)).nonzero()[:, 0]
            places, weights = rule(count, cut * fineness)
            where = start.new_tensor(places)[:, None]
            each = 8 * len(places) * (12 * len(self.columns) + 3 * start.shape[1] ** 2)
            for span in spans(len(rows), rows_at_once(each, min(self.memory, _BLOCK))):
                chosen = rows[span]
                found[chosen] = self._mean_cotangents(start[chosen, None] + where * change[chosen, None], weights)
        return found

    def _mean_cotangents(self, raw: Float[Tensor, "point node raw"], weights: tuple[float, ...]) -> Tensor:
        """Weighted sum over nodes of dA_t/du, (point, column, raw)."""
        points, nodes, width = raw.shape
        flat, scale = raw.flatten(0, 1), raw.new_tensor(weights)
        if self.target.scope is Scope.WHOLE:
            found = self._whole_cotangent(flat)[:, None]
        elif width <= _NARROW:
            columns = torch.eye(width, dtype=raw.dtype, device=raw.device)
            found = torch.stack([derivative(self.values, flat, column.expand_as(flat)) for column in columns], dim=2)
        else:
            return self._mean_level_cotangents(flat, scale, points)
        return (found.unflatten(0, (points, nodes)) * scale[:, None, None]).sum(1) if nodes > 1 else found * scale

    def _mean_level_cotangents(self, flat: Tensor, scale: Tensor, points: int) -> Tensor:
        curves = level_curves(self.head, flat, self.target.cause is not None)
        weights = level_weights(curves, self.target, self.times)
        form = mean_cotangents.dispatch(type(self.head) if weights.at_rise is None else object)
        return form(self.head, flat, curves, weights, scale, points)

    def _whole_cotangent(self, raw: Tensor) -> Tensor:
        """dA/du of a target with one value, (point, raw)."""
        with torch.enable_grad():
            raw = raw.detach().requires_grad_(True)
            return torch.autograd.grad(self.values(raw).sum(), raw)[0]

    def _blocks(self, raw: Tensor, bytes_per_point: float) -> Iterator[tuple[slice, slice]]:
        """Groups and points, cut so that a block stays within memory."""
        groups, points = raw.shape[:2]
        at_once = rows_at_once(bytes_per_point, min(self.memory, _BLOCK))
        for group in spans(groups, max(1, at_once // max(points, 1))):
            for point in spans(points, at_once):
                yield group, point


def _contracted(weights: Float[Tensor, "group point column raw"], slopes: Tensor) -> Tensor:
    """Sum over points and raw outputs of weights times slopes, (group, feature, column)."""
    by_column = weights.transpose(2, 3).flatten(1, 2)  # (group, point raw, column)
    return slopes.double().flatten(1, 2).transpose(1, 2) @ by_column

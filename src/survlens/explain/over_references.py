"""Means of path integrals over references, with the error of each kind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from survlens.core.attribution import Attribution
from survlens.core.errors import InvalidTypeError
from survlens.core.inputs import count_key, has_bags, row_of_item, rows_of_modality, select_rows
from survlens.core.protocols import Inputs
from survlens.core.targets import Target
from survlens.explain.held import HeldModel, held_still
from survlens.explain.layout import axis_names, checked_times, chosen_modalities, items_of, unit_of
from survlens.explain.memory import MEMORY, rows_at_once, spans
from survlens.explain.outer.few_columns import MANY, FewColumns, few_columns
from survlens.explain.outer.outer_maps import OuterMap
from survlens.explain.path_rules.path_integral import PathIntegral, PathRule
from survlens.explain.references import ReferenceSource

_LINES = 24
_WHERE = (-0.3, 0.0, 0.35, 0.65, 1.0, 1.3)
_BLOCK = 64 * 2**20  # bytes of one block of lines: more than this only leaves the cache
_TOGETHER = 32  # lines at once where one alone leaves the cache, as of a picture: threads share what is wide enough
_CACHE = 2**20
_ROUNDING = 0.1  # of the network's rounding: what contributions at many times may lose


@dataclass(frozen=True, slots=True)
class PathMethod:
    """What a method of path integrals over references is: its parts, and what it is called.

    Attributes:
        references: What each row is compared with.
        rule: How each line is integrated.
        modalities: Inputs to explain; all that the model needs where None.
        memory: Bytes that intermediate results may take.
        method: Name of the method.
        paper: Where it comes from.
    """

    references: ReferenceSource
    rule: PathRule
    modalities: tuple[str, ...] | None = None
    memory: int = MEMORY
    method: str = "IntGrad"
    paper: str = ""

    def attribute(
        self, model: nn.Module, inputs: Inputs, times: Float[Tensor, " time"], targets: Sequence[Target]
    ) -> list[dict[str, Attribution]]:
        """Attributions of every row, by modality, for each target; the network's work is shared by all targets.

        Raises:
            InvalidTypeError: If there are no references, or a model without a network.
            InvalidValueError: If `times` are not increasing, a modality is unknown or missing, or a time lies past the
                range of the model.
        """
        if not isinstance(self.references, ReferenceSource):
            raise InvalidTypeError(
                f"`references` must say what to compare with; got {type(self.references).__name__}. Make them of "
                "training inputs: References.sample(training_inputs, 100)."
            )
        asked = checked_times(times)
        with held_still(model) as held:
            ready, names = held.ready(inputs), chosen_modalities(held, self.modalities)
            outers = [OuterMap(held.head, target, asked.to(held.device), self.memory) for target in targets]
            few = [self._few(held, ready, outer) for outer in outers]
            means = self._means(held, ready, names, outers, few)
            if means is None:  # what was found at a few times does not give the others
                means = self._means(held, ready, names, outers, [None] * len(outers))
            return [self._attributions(held, ready, names, mean) for mean in means or ()]

    def _means(
        self,
        held: HeldModel,
        ready: Inputs,
        names: tuple[str, ...],
        outers: Sequence[OuterMap],
        few: Sequence[FewColumns | None],
    ) -> list[_Means] | None:
        """Means over references at all times, from those at `few` times; None where these do not give them."""
        taken = [outer if each is None else each.outer for outer, each in zip(outers, few, strict=True)]
        means = [_Means(held, outer, ready, names, self.references) for outer in taken]
        for rows, numbers in self._blocks(held, ready, taken, names):
            start = held.ready(self.references.starts(ready, rows, numbers))
            end = select_rows(ready, rows)
            results = self.rule.integrate(held, taken, start, end, names)
            with torch.no_grad():
                raw = held.raw(start)
            weights = self.references.weights.to(held.device)[numbers]
            for mean, result, outer in zip(means, results, taken, strict=True):
                mean.add(rows, weights, result, outer.values(raw))
        for mean, each, whole in zip(means, few, outers, strict=True):
            if each is None:
                continue
            with torch.no_grad():
                one = held.raw(select_rows(ready, torch.zeros(1, dtype=torch.int64, device=held.device)))
            if not mean.spread_out(each, whole, one):
                return None
        return means

    def _few(self, held: HeldModel, ready: Inputs, outer: OuterMap) -> FewColumns | None:
        """A few times that give the others, judged by raw outputs on and beyond some of the lines."""
        rows, each = rows_of_modality(ready, held.modalities[0]), len(self.references.weights)
        if not rows or len(outer.columns) < MANY:
            return None
        line = torch.linspace(0, rows * each - 1, min(rows * each, _LINES), device=held.device).long()
        with torch.no_grad():
            start = held.raw(held.ready(self.references.starts(ready, line // each, line % each)))
            change = held.raw(select_rows(ready, line // each)) - start
        raw = torch.cat([start + where * change for where in _WHERE])
        rounding = _ROUNDING * torch.finfo(held.dtype).eps
        return few_columns(outer, raw, rounding=rounding, products=self.references.drawn)

    def _blocks(
        self, held: HeldModel, ready: Inputs, outers: Sequence[OuterMap], names: tuple[str, ...]
    ) -> list[tuple[Tensor, Tensor]]:
        """Rows and numbers of references, a block of lines at a time, all lines of a row in order."""
        rows, each = rows_of_modality(ready, held.modalities[0]), len(self.references.weights)
        numbers = sum(ready[name].numel() for name in names) / max(rows, 1)
        columns = sum(len(outer.columns) for outer in outers)
        size = 8 * (6 * numbers * columns + 4 * sum(ready[name].numel() for name in held.modalities) / max(rows, 1))
        line = torch.arange(rows * each, device=held.device)
        return [
            (line[span] // each, line[span] % each)
            for span in spans(len(line), rows_at_once(size, min(self.memory, max(_BLOCK, int(_TOGETHER * size)))))
            if span.stop > span.start
        ]

    def _attributions(
        self, held: HeldModel, ready: Inputs, names: tuple[str, ...], means: _Means
    ) -> dict[str, Attribution]:
        with torch.no_grad():
            raw = held.raw(ready)
        outer = means.outer
        prediction = outer.values(raw)
        complete = set(names) == set(held.modalities)
        gap = prediction - means.prediction - sum(means.total(name) for name in names) if complete else None
        return {
            name: Attribution(
                values=means.values[name],
                times=outer.columns,
                unit=unit_of(held, raw),
                target=outer.target.name,
                method=self.method,
                dims=axis_names(ready[name].ndim - 1),
                reference=self.references.description,
                paper=self.paper,
                additive=True,
                prediction=prediction,
                reference_prediction=means.prediction,
                completeness_gap=gap,
                quadrature_error=means.error,
                sampling_error=means.standard_error(name),
                rows=items_of(ready, name),
                notes=tuple(means.notes),
            )
            for name in names
        }


class _Means:
    """Weighted means over references of contributions, and their spread, as blocks of lines come in."""

    def __init__(
        self,
        held: HeldModel,
        outer: OuterMap,
        ready: Inputs,
        names: tuple[str, ...],
        references: ReferenceSource,
    ):
        self.outer, self.ready, self.names = outer, ready, names
        self.references = references
        rows = rows_of_modality(ready, held.modalities[0])
        empty = torch.zeros((rows, len(outer.columns)), dtype=torch.float64, device=held.device)
        self.prediction, self.error = empty.clone(), empty.clone()
        self.values = {name: empty.new_zeros((*ready[name].shape, empty.shape[1])) for name in names}
        self.spread = {name: torch.zeros_like(value) for name, value in self.values.items() if references.drawn}
        self.seen = empty.new_zeros(rows)
        self.totals: dict[str, Tensor] = {}
        self.notes: dict[str, None] = {}

    def add(self, rows: Tensor, weights: Tensor, result: PathIntegral, reference: Tensor) -> None:
        """Takes a block of lines of `rows` in, with the target at their references."""
        self.prediction.index_add_(0, rows, weights[:, None] * reference)
        self.error.index_add_(0, rows, weights[:, None] * result.error)
        self.notes |= dict.fromkeys(result.notes)
        after = self.seen.index_add(0, rows, weights)
        for name in self.names:
            self._merge(name, *self._places(name, rows, weights), result.values[name], after)
        self.seen = after

    def spread_out(self, few: FewColumns, outer: OuterMap, raw: Tensor) -> bool:
        """Goes from a few times to those of `outer`; whether that is right at the times that are checked.

        Differences of the target are sums of contributions, so its values follow from those of one `raw` output.
        """
        if not all(few.holds(value) for value in self.values.values()):
            return False
        self.prediction = few.of_all(self.prediction - self.outer.values(raw)) + outer.values(raw)
        self.totals = {name: few.of_all(self.total(name)) for name in self.names}
        self.outer, self.error = outer, few.bounds_of_all(self.error)
        self.values = {name: few.of_all(value) for name, value in self.values.items()}
        self.spread = {name: few.squares_of_all(value) for name, value in self.spread.items()}
        return True

    def _places(self, name: str, rows: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Position in the result, and weight, of each row of a block's values."""
        if not has_bags(self.ready, name):
            return rows, weights
        counts = self.ready[count_key(name)]
        places = select_rows({name: torch.arange(int(counts.sum()), device=rows.device), count_key(name): counts}, rows)
        return places[name], weights[row_of_item(counts[rows])]

    def _merge(self, name: str, places: Tensor, weights: Tensor, values: Tensor, after: Tensor) -> None:
        """A block joins those before it, by Chan's rule: without differences of large sums."""
        index = items_of(self.ready, name)
        before, whole = (self.seen, after) if index is None else (self.seen[index], after[index])
        chosen, inside = places.unique(return_inverse=True)
        block = (whole - before)[chosen, None]
        share, joined = block / whole[chosen, None], before[chosen, None] * block / whole[chosen, None]
        mean, flat = self.values[name].flatten(1), values.flatten(1)
        spread = self.spread[name].flatten(1) if name in self.spread else None
        for span in spans(flat.shape[1], rows_at_once(8 * len(flat), _CACHE)):
            part = flat[:, span]
            own = part.new_zeros((len(chosen), part.shape[1]))
            own.index_add_(0, inside, part * weights[:, None]).div_(block)
            change = own - mean[chosen, span]
            mean[:, span].index_add_(0, chosen, change * share)
            if spread is not None:
                squares = (part - own[inside]).square_().mul_(weights[:, None])
                spread[:, span].index_add_(0, chosen, change.square_() * joined).index_add_(0, places, squares)

    def total(self, name: str) -> Tensor:
        """Sum of the contributions of a modality to each row."""
        if name in self.totals:
            return self.totals[name]
        summed = self.values[name].flatten(1, -2).sum(1)
        index = items_of(self.ready, name)
        return summed if index is None else torch.zeros_like(self.prediction).index_add(0, index, summed)

    def standard_error(self, name: str) -> Tensor | None:
        """Standard error of the mean over drawn references; None where they are not drawn."""
        count = len(self.references.weights)
        if name not in self.spread or count < 2:
            return None
        found = self.spread.pop(name)
        for row in found:  # one at a time stays in the cache
            row.clamp_(min=0).div_(count - 1).sqrt_()
        return found

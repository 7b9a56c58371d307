"""Gradients of a target over time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

import torch
from jaxtyping import Float
from torch import Tensor, nn

from survlens.core.attribution import Attribution
from survlens.core.inputs import check_inputs, select_rows
from survlens.core.protocols import Inputs
from survlens.core.targets import Scope, Target, survival
from survlens.explain.held import HeldModel, held_still
from survlens.explain.jacobian import Strategy, raw_pullback, raw_slopes
from survlens.explain.layout import axis_names, checked_times, chosen_modalities, items_of, unit_of
from survlens.explain.memory import MEMORY, rows_at_once, spans
from survlens.explain.outer.outer_maps import OuterMap


@dataclass(frozen=True, slots=True)
class Gradient:
    """Grad(t): the derivative of the target at time t by each feature.

    grad_j(t) = dF(t | x) / dx_j. It says what a small change of the feature does; it is no share of the prediction.

    Attributes:
        modalities: Inputs to explain; all that the model needs where None.
        times_input: Whether to multiply by the input (Gradient x Input).
        strategy: How the network is differentiated; the cheapest way where None.
        memory: Bytes that a batch of instances may take, beside the result.

    References:
        Simonyan et al. 2014; Langbein et al. 2025.
    """

    modalities: tuple[str, ...] | None = None
    times_input: bool = False
    strategy: Strategy | None = None
    memory: int = MEMORY

    def __call__(
        self, model: nn.Module, inputs: Inputs, times: Float[Tensor, " time"], target: Target = survival
    ) -> dict[str, Attribution]:
        """The gradients of every row of `inputs` at `times`, by modality.

        Raises:
            InvalidValueError: If `times` are not increasing, a modality is unknown or missing, or a time lies past the
                range of the model.
        """
        asked = checked_times(times)
        with held_still(model) as held:
            ready, names = held.ready(inputs), chosen_modalities(held, self.modalities)
            asked = asked.to(held.device)
            outer = OuterMap(held.head, target, asked, self.memory)
            raw, values = self._gradients(held, outer, ready, names)
            found = {}
            for name in names:
                gradients = values[name]
                if self.times_input:
                    gradients = gradients * ready[name].double()[..., None]
                found[name] = Attribution(
                    values=gradients,
                    times=outer.columns,
                    unit=unit_of(held, raw),
                    target=target.name,
                    method="Gradient x Input" if self.times_input else "Gradient",
                    dims=axis_names(gradients.ndim - 2),
                    paper="Langbein et al. 2025",
                    prediction=outer.values(raw),
                    rows=items_of(ready, name),
                )
            return found

    def _gradients(
        self, held: HeldModel, outer: OuterMap, ready: dict[str, Tensor], names: tuple[str, ...]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Raw outputs, and gradients by modality, over batches of instances."""
        raws, parts = [], {name: [] for name in names}
        for batch in _batches(held, outer, ready, names, self.memory):
            raw, values = self._of_batch(held, outer, batch, names)
            raws.append(raw)
            for name in names:
                parts[name].append(values[name])
        return torch.cat(raws), {name: torch.cat(each) for name, each in parts.items()}

    def _of_batch(
        self, held: HeldModel, outer: OuterMap, batch: dict[str, Tensor], names: tuple[str, ...]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        columns = len(outer.columns)
        if self.strategy is None and columns == 1:  # one number per instance: one reverse pass, however wide u is
            raw, found = raw_pullback(held, batch, lambda raw: outer.cotangents(raw)[:, 0], names)
            return raw, {name: slope.double()[..., None] for name, slope in found.items()}
        raw, slopes = raw_slopes(held, batch, names, strategy=self.strategy)
        values = {}
        for name in names:
            rows, shape = items_of(batch, name), slopes[name].shape
            of_rows = raw if rows is None else raw[rows]
            flat = slopes[name].reshape(*shape[:2], prod(shape[2:]))
            summed = outer.accumulate(of_rows[:, None], flat[:, None])
            values[name] = summed.reshape(shape[0], *shape[2:], columns)
        return raw, values


def _batches(
    held: HeldModel, outer: OuterMap, ready: dict[str, Tensor], names: tuple[str, ...], memory: int
) -> Iterator[dict[str, Tensor]]:
    """Instances in batches that stay within memory; all at once where they do."""
    rows = check_inputs(ready, held.modalities)
    with torch.no_grad():
        width = held.raw(select_rows(ready, torch.zeros(min(rows, 1), dtype=torch.int64, device=held.device))).shape[1]
    passes = width if outer.target.scope is Scope.AROUND else 1
    numbers = sum(ready[name].numel() for name in names) / max(rows, 1)
    at_once = rows_at_once(8 * numbers * (passes + 32), memory)
    if at_once >= rows:
        yield ready
        return
    for span in spans(rows, at_once):
        yield select_rows(ready, torch.arange(span.start, span.stop, device=held.device))

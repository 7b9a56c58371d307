"""Gradients of a target over time."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor, nn

from survlens.core.attribution import Attribution
from survlens.core.protocols import Inputs
from survlens.core.targets import Target, survival
from survlens.explain.held import held_still
from survlens.explain.jacobian import raw_slopes
from survlens.explain.layout import axis_names, checked_times, chosen_modalities, items_of, unit_of
from survlens.explain.outer_maps import OuterMap


@dataclass(frozen=True, slots=True)
class Gradient:
    """Grad(t): the derivative of the target at time t by each feature.

    grad_j(t) = dF(t | x) / dx_j. It says what a small change of the feature does; it is no share of the prediction.

    Attributes:
        modalities: Inputs to explain; all that the model needs where None.
        times_input: Whether to multiply by the input (Gradient x Input).

    References:
        Simonyan et al. 2014; Langbein et al. 2025.
    """

    modalities: tuple[str, ...] | None = None
    times_input: bool = False

    def __call__(
        self, model: nn.Module, inputs: Inputs, times: Float[Tensor, " time"], target: Target = survival
    ) -> dict[str, Attribution]:
        """The gradients of every row of `inputs` at `times`, by modality."""
        asked = checked_times(times)
        with held_still(model) as held:
            ready, names = held.ready(inputs), chosen_modalities(held, self.modalities)
            outer = OuterMap(held.head, target, asked)
            raw, slopes = raw_slopes(held, ready, names)
            prediction, unit = outer.values(raw), unit_of(held, raw)
            found = {}
            for name in names:
                rows = items_of(ready, name)
                of_rows = raw if rows is None else raw[rows]
                shape = slopes[name].shape
                values = outer.accumulate(of_rows[:, None], slopes[name].flatten(2)[:, None])
                values = values.reshape(shape[0], *shape[2:], values.shape[-1])
                found[name] = Attribution(
                    values=values * ready[name].double()[..., None] if self.times_input else values,
                    times=outer.columns,
                    unit=unit,
                    target=target.name,
                    method="Gradient x Input" if self.times_input else "Gradient",
                    dims=axis_names(len(shape) - 2),
                    paper="Langbein et al. 2025",
                    prediction=prediction,
                    rows=rows,
                )
            return found

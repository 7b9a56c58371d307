"""Any model asked for its curves, in batches and without gradients, as a target asks for them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from survlens.core.competing import CompetingRisksPrediction
from survlens.core.errors import InvalidTypeError, InvalidValueError
from survlens.core.inputs import check_inputs, check_tensors, modalities_of, select_rows
from survlens.core.prediction import SurvivalPrediction
from survlens.core.protocols import Inputs, RawHead, SurvivalPredictor
from survlens.core.targets import Curves, Scope, Target
from survlens.explain.held import HeldModel, RawCurves, held_still, told_of_range
from survlens.explain.memory import MEMORY, rows_at_once

_COPIES = 8  # of its inputs and its curves, which a model and a target are taken to hold at a time
_CACHED_ROWS = 8192


@dataclass(frozen=True, slots=True)
class AskedCurves:
    """The curves that a model predicts for some rows; what was asked once is kept."""

    model: Any
    inputs: Inputs
    _kept: dict = field(default_factory=dict)

    def survival(self, times: Float[Tensor, " time"] | None = None) -> SurvivalPrediction:
        """Survival curves at `times`, or at their own knots."""
        return self._once(self.model.predict_survival, times)

    def incidence(self, times: Float[Tensor, " time"] | None = None) -> CompetingRisksPrediction:
        """Cumulative incidences at `times`, or at their own knots.

        Raises:
            InvalidTypeError: If the model does not tell causes apart.
        """
        if not hasattr(self.model, "predict_incidence"):
            raise InvalidTypeError(
                f"`target` speaks of a cause, so the model must have `predict_incidence`; got "
                f"{type(self.model).__name__}. Explain survival, or use a model of competing risks."
            )
        return self._once(self.model.predict_incidence, times)

    def _once(self, predict: Callable, times: Tensor | None) -> Any:
        key = (predict.__name__, None if times is None else tuple(times.tolist()))
        if key not in self._kept:
            with told_of_range(times, lambda: predict(self.inputs, None)):
                self._kept[key] = predict(self.inputs, times)
        return self._kept[key]


@dataclass(frozen=True, slots=True)
class AskedModel:
    """A model that is only asked for predictions.

    A network with a raw output runs once per row, in its own dtype, and its curves are made of that in float64; other
    models are asked by `predict_survival` and `predict_incidence`.

    Attributes:
        model: The model itself, not a copy.
        held: The same model taken apart, where it has a raw output.
    """

    model: Any
    held: HeldModel | None

    def ready(self, inputs: Inputs) -> dict[str, Tensor]:
        """The inputs as the model takes them.

        Raises:
            InvalidValueError: If a modality is missing, there are no rows, or numbers of rows differ.
        """
        check_tensors(inputs)
        names = modalities_of(inputs) if self.held is None else self.held.modalities
        if not names or not check_inputs(inputs, names):
            raise InvalidValueError("`inputs` must hold at least one row of one modality; got none.")
        if self.held is not None:
            return self.held.ready(inputs)
        return {name: tensor.detach() for name, tensor in inputs.items()}

    def curves(self, inputs: Inputs) -> Curves:
        """Curves of the rows of `inputs`, which must be `ready`."""
        if self.held is None:
            return AskedCurves(self.model, inputs)
        return RawCurves(self.held.head, self.held.raw(inputs).double())

    def unit(self, inputs: Inputs) -> str:
        """Unit of time of the curves."""
        return self.curves(select_rows(inputs, torch.zeros(1, dtype=torch.int64))).survival().unit

    @property
    def on_cpu(self) -> bool:
        """Whether the model computes on the CPU."""
        return self.held is None or self.held.device.type == "cpu"

    def rows_at_once(self, inputs: Inputs, columns: int, memory: int) -> int:
        """How many rows like those of `inputs` to ask at a time, within `memory` bytes; at least 1.

        A row is counted by its inputs and its `columns` numbers of a curve, with a few copies of both. On the CPU a
        batch is also kept so small that its curves stay in the cache, which is about twice as fast.

        Raises:
            InvalidValueError: If `memory` is not positive.
        """
        rows = check_inputs(inputs, modalities_of(inputs))
        held = sum(tensor.numel() * tensor.element_size() for tensor in inputs.values()) / max(rows, 1)
        fitting = rows_at_once(_COPIES * (held + 8 * columns), memory)
        return min(fitting, _CACHED_ROWS) if self.on_cpu else fitting

    def values(self, inputs: Inputs, times: Float[Tensor, " time"], target: Target) -> Float[Tensor, "row column"]:
        """The target of every row of `inputs`, in float64, all in one batch."""
        return target(self.curves(inputs), times).double()


@contextmanager
def asked(model: SurvivalPredictor) -> Iterator[AskedModel]:
    """Holds a model in eval mode without gradients while it is asked, and restores it whatever happens.

    Args:
        model: Anything with `predict_survival(inputs, times)`, and `predict_incidence` for a target with a cause.

    Raises:
        InvalidTypeError: If the model has no `predict_survival`.
    """
    if not hasattr(model, "predict_survival"):
        raise InvalidTypeError(
            f"`model` must have `predict_survival(inputs, times)`; got {type(model).__name__}. "
            "Wrap a bare module: SurvivalModel(module, head)."
        )
    with ExitStack() as stack:
        held = None
        if isinstance(model, nn.Module):
            if hasattr(model, "embed") and isinstance(getattr(model, "head", None), RawHead):
                held = stack.enter_context(held_still(model, for_slopes=False))
            else:
                stack.enter_context(_in_eval_mode(model))
        stack.enter_context(torch.no_grad())
        yield AskedModel(model, held)


@contextmanager
def _in_eval_mode(module: nn.Module) -> Iterator[None]:
    training = {each: each.training for each in module.modules()}
    try:
        module.eval()
        yield
    finally:
        for each, mode in training.items():
            each.training = mode


def column_count(times: Tensor, target: Target) -> int:
    """Number of columns that a target has at `times`."""
    return len(times) if target.scope is Scope.AROUND else 1


def values_of(
    model: AskedModel, inputs: Inputs, times: Float[Tensor, " time"], target: Target, memory: int = MEMORY
) -> Float[Tensor, "row column"]:
    """The target of every row of `inputs`, in batches of at most `memory` bytes."""
    rows = check_inputs(inputs, modalities_of(inputs))
    step = model.rows_at_once(inputs, column_count(times, target), memory)
    if rows <= step:
        return model.values(inputs, times, target)
    places = torch.arange(rows).split(step)
    return torch.cat([model.values(select_rows(inputs, each), times, target) for each in places])

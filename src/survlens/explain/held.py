"""A model held still while it is explained, and its network and outer map taken apart."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from survlens.core.competing import CompetingRisksPrediction
from survlens.core.errors import InvalidTypeError, InvalidValueError
from survlens.core.inputs import check_inputs, modalities_of, rows_of_modality, select_rows
from survlens.core.prediction import TIME_ROUNDING, SurvivalPrediction
from survlens.core.protocols import Inputs, RawHead
from survlens.explain.given import check_finite, check_raw, is_suspect, refused_by_network


@dataclass(frozen=True, slots=True)
class HeldModel:
    """A model in eval mode whose parameters ask for no gradient: F(t | x) = A_t(u(x)) with u = `raw`.

    Attributes:
        model: The model itself, not a copy.
        head: Its head; the outer map A_t is the head's `predict_from_raw`.
        modalities: Names of the inputs that it needs.
    """

    model: Any
    head: Any
    modalities: tuple[str, ...]

    def raw(self, inputs: Inputs) -> Float[Tensor, "instance raw"]:
        """The raw output u(x), with its graph.

        Raises:
            InvalidValueError: If the network cannot take inputs of these shapes.
            InvalidTypeError: If it cannot take integers.
        """
        try:
            raw = self.head.raw(self.model.embed(inputs))
        except (RuntimeError, ValueError, IndexError) as error:
            own = type(error) in (RuntimeError, ValueError, IndexError)  # what is more special has its own words
            told = refused_by_network(self.model, inputs, self.modalities, error) if own else error
            if told is error:
                raise
            raise told from error
        return check_raw(raw, rows_of_modality(inputs, self.modalities[0]))

    @property
    def dtype(self) -> torch.dtype:
        """Type of the network's numbers."""
        floating = (each.dtype for each in self.model.parameters() if each.dtype.is_floating_point)
        return next(floating, torch.float64)

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return next((each.device for each in self.model.parameters()), torch.device("cpu"))

    def ready(self, inputs: Inputs) -> dict[str, Tensor]:
        """The inputs that the model needs, on its device and, where they are numbers, of its type.

        Raises:
            InvalidTypeError: If the inputs are no mapping of tensors.
            InvalidValueError: If a modality is missing, numbers of rows differ, or a value is not finite.
        """
        check_inputs(inputs, self.modalities)
        check_finite(inputs, self.modalities)
        beside = [name for name in inputs if name not in modalities_of(inputs)]
        kept = {name: inputs[name] for name in (*self.modalities, *beside)}
        found = {
            name: tensor.detach().to(self.device, self.dtype if tensor.is_floating_point() else tensor.dtype)
            for name, tensor in kept.items()
        }
        # A tensor of inference mode cannot ask for a gradient; its copy can.
        found = {name: tensor.clone() if tensor.is_inference() else tensor for name, tensor in found.items()}
        if is_suspect(self.model, found, self.modalities):  # ask before something else does, in words of its own
            rows = min(rows_of_modality(found, self.modalities[0]), 1)
            with torch.no_grad():
                self.raw(select_rows(found, torch.zeros(rows, dtype=torch.int64, device=self.device)))
        return found


@contextmanager
def held_still(model: nn.Module, *, for_slopes: bool = True) -> Iterator[HeldModel]:
    """Puts a model in eval mode without parameter gradients, and restores every module and parameter whatever happens.

    Args:
        model: A `SurvivalModel`, or any module with `embed(inputs)`, `modalities` and a `head` with a raw output.
        for_slopes: Whether it is to be differentiated, and not only asked.

    Raises:
        InvalidTypeError: If the model has no such parts, computes in half precision, or was made in inference mode.
    """
    head = getattr(model, "head", None)
    if not hasattr(model, "embed") or not isinstance(head, RawHead):
        raise InvalidTypeError(
            "`model` must be a SurvivalModel, or have `embed(inputs)`, `modalities` and a `head` with `raw` and "
            f"`predict_from_raw`; got {type(model).__name__}. Wrap a bare module: SurvivalModel(module, head). Models "
            "without a network are explained by SurvSHAP, SurvLIME, occlusion and the global methods."
        )
    _check_parameters(model, for_slopes)
    training = {module: module.training for module in model.modules()}
    asking = {parameter: parameter.requires_grad for parameter in model.parameters()}
    gradients = {parameter: parameter.grad for parameter in model.parameters()}
    try:
        model.eval()
        for parameter in asking:
            parameter.requires_grad_(False)
        with out_of_inference_mode():
            yield HeldModel(model, head, tuple(model.modalities))  # type: ignore[arg-type]
    finally:
        for module, mode in training.items():
            module.training = mode
        for parameter, asked in asking.items():
            parameter.requires_grad_(asked)
            parameter.grad = gradients[parameter]


def out_of_inference_mode() -> AbstractContextManager[Any]:
    """Leaves inference mode, in which nothing can be differentiated, where it is on; else changes nothing."""
    return torch.inference_mode(False) if torch.is_inference_mode_enabled() else nullcontext()


def _check_parameters(model: nn.Module, for_slopes: bool) -> None:
    for parameter in model.parameters() if for_slopes else ():
        if parameter.dtype in (torch.bfloat16, torch.float16):
            raise InvalidTypeError(
                f"`model` must compute in float32 or float64 to be differentiated; got {parameter.dtype}. "
                "Explain a copy: copy.deepcopy(model).float()."
            )
        if parameter.is_inference():
            raise InvalidTypeError(
                "`model` must be made outside of torch.inference_mode() to be differentiated; got parameters of "
                "inference mode. Build or load it outside."
            )


@dataclass(frozen=True, slots=True)
class RawCurves:
    """The curves that a head makes of raw outputs, as a target asks for them."""

    head: Any
    raw: Float[Tensor, "instance raw"]

    def survival(self, times: Float[Tensor, " time"] | None = None) -> SurvivalPrediction:
        """Survival curves at `times`, or at their own knots."""
        with told_of_range(times, lambda: self.head.predict_from_raw(self.raw[:1], None)):
            return self.head.predict_from_raw(self.raw, times)

    def incidence(self, times: Float[Tensor, " time"] | None = None) -> CompetingRisksPrediction:
        """Cumulative incidences at `times`, or at their own knots.

        Raises:
            InvalidTypeError: If the head does not tell causes apart.
        """
        if not hasattr(self.head, "predict_incidence_from_raw"):
            raise InvalidTypeError(
                f"`target` speaks of a cause, so the head must tell causes apart; got {type(self.head).__name__}. "
                "Explain survival, or use DeepHit with n_causes."
            )
        with told_of_range(times, lambda: self.head.predict_incidence_from_raw(self.raw[:1], None)):
            return self.head.predict_incidence_from_raw(self.raw, times)


@contextmanager
def told_of_range(times: Tensor | None, own: Callable[[], Any]) -> Iterator[None]:
    """Says of a refused time past the range of the model what can be done about it in an explanation.

    Args:
        times: Times asked for.
        own: The curves at their own knots.

    Raises:
        InvalidValueError: If a time lies past the last knot.
    """
    try:
        yield
    except InvalidValueError as error:
        if times is None or not len(times):
            raise
        curves, latest = own(), float(torch.as_tensor(times).max())
        last = float(curves.times[-1])
        if latest <= last * (1 + TIME_ROUNDING):
            raise
        raise InvalidValueError(
            f"`times` must lie in (0, {last:g}] {curves.unit}, the range of the model's curves; got {latest:g}. "
            "Leave later times out: the model says nothing about them."
        ) from error

"""A model held still while it is explained, and its network and outer map taken apart."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from survlens.core.competing import CompetingRisksPrediction
from survlens.core.errors import InvalidTypeError
from survlens.core.inputs import check_inputs, modalities_of
from survlens.core.prediction import SurvivalPrediction
from survlens.core.protocols import Inputs, RawHead


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
        """The raw output u(x), with its graph."""
        return self.head.raw(self.model.embed(inputs))

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
            InvalidValueError: If a modality is missing, or numbers of rows differ.
        """
        check_inputs(inputs, self.modalities)
        beside = [name for name in inputs if name not in modalities_of(inputs)]
        kept = {name: inputs[name] for name in (*self.modalities, *beside)}
        return {
            name: tensor.detach().to(self.device, self.dtype if tensor.is_floating_point() else tensor.dtype)
            for name, tensor in kept.items()
        }


@contextmanager
def held_still(model: nn.Module) -> Iterator[HeldModel]:
    """Puts a model in eval mode without parameter gradients, and restores every module and parameter whatever happens.

    Args:
        model: A `SurvivalModel`, or any module with `embed(inputs)`, `modalities` and a `head` with a raw output.

    Raises:
        InvalidTypeError: If the model has no such parts.
    """
    head = getattr(model, "head", None)
    if not hasattr(model, "embed") or not isinstance(head, RawHead):
        raise InvalidTypeError(
            "`model` must be a SurvivalModel, or have `embed(inputs)`, `modalities` and a `head` with `raw` and "
            f"`predict_from_raw`; got {type(model).__name__}. Wrap a bare module: SurvivalModel(module, head). Models "
            "without a network are explained by SurvSHAP, SurvLIME, occlusion and the global methods."
        )
    training = {module: module.training for module in model.modules()}
    asking = {parameter: parameter.requires_grad for parameter in model.parameters()}
    gradients = {parameter: parameter.grad for parameter in model.parameters()}
    try:
        model.eval()
        for parameter in asking:
            parameter.requires_grad_(False)
        yield HeldModel(model, head, tuple(model.modalities))  # type: ignore[arg-type]
    finally:
        for module, mode in training.items():
            module.training = mode
        for parameter, asked in asking.items():
            parameter.requires_grad_(asked)
            parameter.grad = gradients[parameter]


@dataclass(frozen=True, slots=True)
class RawCurves:
    """The curves that a head makes of raw outputs, as a target asks for them."""

    head: Any
    raw: Float[Tensor, "instance raw"]

    def survival(self, times: Float[Tensor, " time"] | None = None) -> SurvivalPrediction:
        """Survival curves at `times`, or at their own knots."""
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
        return self.head.predict_incidence_from_raw(self.raw, times)

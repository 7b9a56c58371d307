"""What the parts of a survival model must be able to do."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from survlens.core.competing import CompetingRisksPrediction
from survlens.core.grid import TimeGrid
from survlens.core.outcome import SurvivalOutcome
from survlens.core.prediction import SurvivalPrediction

Inputs = Mapping[str, Tensor]
"""Tensors keyed by modality ("image", "table"); a mapping even when there is one."""


class Reduction(Enum):
    """What the sum of an unreduced loss is divided by."""

    PER_EVENT = "event"
    PER_INSTANCE = "instance"


@runtime_checkable
class Head(Protocol):
    """Turns an embedding into a prediction, and scores an embedding against an outcome."""

    grid: TimeGrid | None
    reduction: Reduction

    def loss(
        self, embedding: Float[Tensor, "instance embedding"], outcome: SurvivalOutcome
    ) -> Float[Tensor, " instance"]:
        """Negative log-likelihood terms, one per instance, never reduced."""
        ...

    def predict(
        self, embedding: Float[Tensor, "instance embedding"], times: Float[Tensor, " time"] | None = None
    ) -> SurvivalPrediction:
        """Survival curves at the head's own knots, or at `times`."""
        ...

    def risk(self, embedding: Float[Tensor, "instance embedding"]) -> Float[Tensor, " instance"]:
        """One number per instance; higher is worse."""
        ...


@runtime_checkable
class BaselineHead(Head, Protocol):
    """A head whose curves need a baseline, fitted after the weights."""

    def fit_baseline(self, embedding: Float[Tensor, "instance embedding"], outcome: SurvivalOutcome) -> None:
        """Fits the baseline on training rows and keeps it in buffers."""
        ...


@runtime_checkable
class CompetingRisksHead(Head, Protocol):
    """A head that tells causes apart; `predict` and `risk` speak of an event of any cause."""

    n_causes: int

    def predict_incidence(
        self, embedding: Float[Tensor, "instance embedding"], times: Float[Tensor, " time"] | None = None
    ) -> CompetingRisksPrediction:
        """Cumulative incidences at the head's own knots, or at `times`."""
        ...


@runtime_checkable
class RawHead(Head, Protocol):
    """A head whose curves are a closed-form map, without any network, of a raw output.

    `predict(embedding, times)` equals `predict_from_raw(raw(embedding), times)`. Time enters in the second step only,
    which is what makes explanations at all times cost one derivative of `raw`. A head that tells causes apart also has
    `predict_incidence_from_raw`.
    """

    def raw(self, embedding: Float[Tensor, "instance embedding"]) -> Float[Tensor, "instance raw"]:
        """Output of the head before its link."""
        ...

    def predict_from_raw(
        self, raw: Float[Tensor, "instance raw"], times: Float[Tensor, " time"] | None = None
    ) -> SurvivalPrediction:
        """Survival curves of raw outputs, at the head's own knots or at `times`."""
        ...


@runtime_checkable
class SurvivalPredictor(Protocol):
    """The face that every fitted model shows: neural, classical or fused."""

    def predict_survival(self, inputs: Inputs, times: Float[Tensor, " time"] | None = None) -> SurvivalPrediction:
        """Survival curves of the rows of `inputs`."""
        ...

    def risk(self, inputs: Inputs) -> Float[Tensor, " instance"]:
        """One number per row; higher is worse."""
        ...

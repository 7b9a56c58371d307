"""A survival model: encoders per modality, a fusion, and a head."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from survlens.core.competing import CompetingRisksPrediction
from survlens.core.errors import InvalidTypeError, InvalidValueError
from survlens.core.inputs import (
    check_inputs,
    count_key,
    has_bags,
    item_count,
    present,
    present_values,
    row_of_item,
    states_missing,
)
from survlens.core.outcome import SurvivalOutcome
from survlens.core.prediction import SurvivalPrediction
from survlens.core.protocols import CompetingRisksHead, Inputs
from survlens.encoders.pooling import MultipleInstance
from survlens.models.fusion import Concatenation, GatedFusion


class SurvivalModel(nn.Module):
    """inputs -> one encoder per modality -> fusion -> head.

    A row may lack modalities where the inputs say so (`"image.present"`, see `survlens.core.inputs`). An encoder only
    ever sees the rows that have its modality, and the fusion's rule stands in for the others. A row may have several
    items of a modality (`"image.count"`) where its encoder is a `MultipleInstance`.

    Args:
        encoders: A module per modality, under names of your choice ("image", "table", "mri"), each from its tensor to
            (instance, embedding). A single module is taken as the encoder of "table".
        head: Anything that follows `survlens.core.protocols.Head`.
        fusion: From a mapping of embeddings, and a mapping of presence where something is missing, to one embedding;
            concatenation in the order of `encoders` by default, which needs every modality in every row.
    """

    def __init__(
        self, encoders: Mapping[str, nn.Module] | nn.Module, head: nn.Module, *, fusion: nn.Module | None = None
    ):
        super().__init__()
        if isinstance(encoders, nn.Module) and not isinstance(encoders, nn.ModuleDict):
            encoders = {"table": encoders}
        self.encoders = nn.ModuleDict(dict(encoders))
        self.fusion = Concatenation(tuple(self.encoders)) if fusion is None else fusion
        self.head = head

    @property
    def modalities(self) -> tuple[str, ...]:
        """Names of the inputs that the model needs."""
        return tuple(self.encoders)

    def embed(self, inputs: Inputs) -> Float[Tensor, "instance embedding"]:
        """The joint embedding.

        Raises:
            InvalidValueError: If `inputs` do not hold a modality, a row has none, or one lacks a modality for which the
                fusion has no rule.
        """
        return self._fused(self.fusion, inputs)

    forward = embed

    def loss(self, inputs: Inputs, outcome: SurvivalOutcome) -> Float[Tensor, " instance"]:
        """The head's loss, one value per instance."""
        return self.head.loss(self.embed(inputs), outcome)  # type: ignore[operator]

    def predict_survival(self, inputs: Inputs, times: Float[Tensor, " time"] | None = None) -> SurvivalPrediction:
        """Survival curves, at the head's own knots or at `times`; keeps the graph. Call `eval()` first."""
        return self.head.predict(self.embed(inputs), times)  # type: ignore[operator]

    def predict_incidence(
        self, inputs: Inputs, times: Float[Tensor, " time"] | None = None
    ) -> CompetingRisksPrediction:
        """Cumulative incidence of each cause, at the head's own knots or at `times`; keeps the graph.

        Raises:
            InvalidTypeError: If the head does not tell causes apart.
        """
        if not isinstance(self.head, CompetingRisksHead):
            raise InvalidTypeError(
                f"`head` must tell causes apart to predict incidences; got {type(self.head).__name__}. "
                "Use a head for competing risks, or predict_survival."
            )
        return self.head.predict_incidence(self.embed(inputs), times)

    def risk(self, inputs: Inputs) -> Float[Tensor, " instance"]:
        """The head's risk; higher is worse."""
        return self.head.risk(self.embed(inputs))  # type: ignore[operator]

    def gates(self, inputs: Inputs) -> Float[Tensor, "instance modality"]:
        """Weight of each modality in each row, in the order of `fusion.modalities`; exactly 0 where it is missing.

        Raises:
            InvalidTypeError: If the fusion has no gates.
        """
        if not isinstance(self.fusion, GatedFusion):
            raise InvalidTypeError(f"`fusion` must be a GatedFusion to have gates; got {type(self.fusion).__name__}.")
        return self._fused(self.fusion.gates, inputs)

    def item_weights(self, inputs: Inputs, modality: str) -> Float[Tensor, " item"]:
        """Share of each item in the embedding of its row, in the order of `inputs[modality]`; a row adds up to 1.

        An item of a row that is stated to lack the modality has share 0.

        Raises:
            InvalidValueError: If the encoder of `modality` does not pool items.
        """
        encoder = self.encoders[modality] if modality in self.encoders else None
        if not isinstance(encoder, MultipleInstance):
            raise InvalidValueError(
                f"`modality` must be one with a MultipleInstance encoder; got {modality!r} among "
                f"{', '.join(self.modalities)}."
            )
        check_inputs(inputs, (modality,))
        counts = item_count(inputs, modality)
        weights = encoder.weights(present_values(inputs, modality), counts[counts > 0])
        items = inputs.get(count_key(modality), torch.ones_like(counts))
        is_read = (counts > 0)[row_of_item(items)]
        return weights.new_zeros(is_read.shape[0]).masked_scatter(is_read, weights)

    def _fused(self, fusion: Any, inputs: Inputs) -> Tensor:
        check_inputs(inputs, self.modalities)
        embeddings = {name: self._encoded(name, inputs) for name in self.modalities}
        if not any(states_missing(inputs, name) for name in self.modalities):
            return fusion(embeddings)
        return fusion(embeddings, {name: present(inputs, name) for name in self.modalities})

    def _encoded(self, name: str, inputs: Inputs) -> Float[Tensor, "instance embedding"]:
        """Embeddings of the rows that have a modality, and zeros in the others."""
        encoder = self.encoders[name]
        bags = has_bags(inputs, name)
        if bags and not isinstance(encoder, MultipleInstance):
            raise InvalidValueError(
                f"`inputs` have several items per row in {name!r}; got {type(encoder).__name__} as its encoder. "
                "Wrap it: MultipleInstance(encoder, MeanPooling())."
            )
        if not states_missing(inputs, name):
            return encoder(inputs[name])
        counts = item_count(inputs, name)
        rows = (counts > 0).nonzero()[:, 0]
        if rows.shape[0] == 0:
            return inputs[name].new_zeros((counts.shape[0], self._width(name)))
        seen = (present_values(inputs, name), counts[rows]) if bags else (present_values(inputs, name),)
        with _batch_norm_of_one(encoder, seen[0]):
            embedding = encoder(*seen)
        return embedding.new_zeros((counts.shape[0], embedding.shape[1])).index_copy(0, rows, embedding)

    def _width(self, name: str) -> int:
        width = getattr(self.encoders[name], "out_features", None)
        if not isinstance(width, int):
            raise InvalidValueError(
                f"the encoder of {name!r} must have `out_features` for rows of which none has {name}; got "
                f"{type(self.encoders[name]).__name__} without. Set it to the width of the embedding."
            )
        return width


def check_modalities(inputs: Inputs, modalities: tuple[str, ...]) -> None:
    """Raises if `inputs` lack one of `modalities` in some row, hold several items per row, or differ in rows."""
    check_inputs(inputs, modalities)
    for name in modalities:
        if not states_missing(inputs, name):
            continue
        lacking = int((~present(inputs, name)).sum())
        if lacking or has_bags(inputs, name):
            found = "several items per row" if not lacking else f"{lacking} rows without it"
            raise InvalidValueError(
                f"`inputs` must have {name} once in every row for this model; got {found}. "
                "Leave such rows out, or use a SurvivalModel with a fusion for missing modalities."
            )


@contextmanager
def _batch_norm_of_one(encoder: nn.Module, values: Tensor) -> Iterator[None]:
    """Where a batch holds a single row with the modality, batch norm uses its running statistics for that step."""
    layers = [layer for layer in encoder.modules() if isinstance(layer, _BatchNorm) and layer.training]
    layers = layers if values.shape[0] == 1 else []
    for layer in layers:
        layer.eval()
    try:
        yield
    finally:
        for layer in layers:
            layer.train()

"""A survival model: encoders per modality, a fusion, and a head."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn

from survlens.core.errors import InvalidValueError
from survlens.core.outcome import SurvivalOutcome
from survlens.core.prediction import SurvivalPrediction
from survlens.core.protocols import Inputs
from survlens.models.fusion import Concatenation


class SurvivalModel(nn.Module):
    """inputs -> one encoder per modality -> fusion -> head.

    Args:
        encoders: A module per modality ("image", "table"), each from its tensor to (instance, embedding). A single
            module is taken as the encoder of "table".
        head: Anything that follows `survlens.core.protocols.Head`.
        fusion: From a mapping of embeddings to one; concatenation in the order of `encoders` by default.
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
            InvalidValueError: If a modality is missing from `inputs`.
        """
        check_modalities(inputs, self.modalities)
        return self.fusion({name: encoder(inputs[name]) for name, encoder in self.encoders.items()})

    forward = embed

    def loss(self, inputs: Inputs, outcome: SurvivalOutcome) -> Float[Tensor, " instance"]:
        """The head's loss, one value per instance."""
        return self.head.loss(self.embed(inputs), outcome)  # type: ignore[operator]

    def predict_survival(self, inputs: Inputs, times: Float[Tensor, " time"] | None = None) -> SurvivalPrediction:
        """Survival curves, at the head's own knots or at `times`; keeps the graph. Call `eval()` first."""
        return self.head.predict(self.embed(inputs), times)  # type: ignore[operator]

    def risk(self, inputs: Inputs) -> Float[Tensor, " instance"]:
        """The head's risk; higher is worse."""
        return self.head.risk(self.embed(inputs))  # type: ignore[operator]


def check_modalities(inputs: Inputs, modalities: tuple[str, ...]) -> None:
    """Raises if `inputs` lacks one of `modalities` or holds different numbers of rows."""
    missing = [name for name in modalities if name not in inputs]
    if missing:
        raise InvalidValueError(
            f"`inputs` must hold {', '.join(modalities)}; got {', '.join(inputs) or 'nothing'}. "
            f"Add {', '.join(missing)}."
        )
    rows = {name: int(inputs[name].shape[0]) for name in modalities}
    if len(set(rows.values())) > 1:
        raise InvalidValueError(f"`inputs` must have one number of rows in every modality; got {rows}.")


@torch.no_grad()
def embed_rows(model: nn.Module, batches: list[Inputs]) -> Float[Tensor, "instance embedding"]:
    """Embeddings of many rows, batch by batch, without the graph and in the mode the model is in."""
    return torch.cat([model.embed(inputs) for inputs in batches])  # type: ignore[operator]

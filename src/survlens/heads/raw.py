"""What heads share between an embedding and a curve: checks at the door, the raw output, and the curve of masses."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from survlens.core.errors import InvalidValueError
from survlens.core.grid import TimeGrid
from survlens.core.prediction import Interpolation, SurvivalPrediction
from survlens.core.surfaces import log_softplus, survival_and_hazard_of_masses


def check_in_features(in_features: int) -> None:
    """Raises InvalidValueError unless an embedding can have `in_features` columns."""
    if in_features < 1:
        raise InvalidValueError(f"`in_features` must be >= 1; got {in_features}.")


def check_width(embedding: Float[Tensor, "instance embedding"], in_features: int) -> None:
    """Raises InvalidValueError unless `embedding` is a table of `in_features` columns."""
    if embedding.ndim != 2 or embedding.shape[1] != in_features:
        raise InvalidValueError(
            f"`embedding` must have the shape (instances, {in_features}); got {tuple(embedding.shape)}. "
            "Build the head with in_features = the width of the encoder's output."
        )


def raw_output(
    network: nn.Module, embedding: Float[Tensor, "instance embedding"], *, columns: int
) -> Float[Tensor, "instance raw"]:
    """Output of `network` before any link; raises InvalidValueError unless it has `columns` columns."""
    raw = network(embedding)
    if raw.shape != (embedding.shape[0], columns):
        raise InvalidValueError(
            f"`network` must map (instances, features) to (instances, {columns}); "
            f"got {tuple(raw.shape)} from {tuple(embedding.shape)}. End it with a linear layer of {columns} outputs."
        )
    return raw


def curve_of_masses(
    scores: Float[Tensor, "instance time"], grid: TimeGrid, times: Float[Tensor, " asked"] | None
) -> SurvivalPrediction:
    """Survival curves of the masses softmax(`scores`, 0), of constant density within each interval of `grid`."""
    scores = scores.double()
    knots = grid.edges[1:].to(scores.device)
    log_survival, hazard_logits = survival_and_hazard_of_masses(scores)
    prediction = SurvivalPrediction(
        knots, log_survival, Interpolation.LINEAR, grid.unit, log_rise=log_softplus(hazard_logits)
    )
    return prediction if times is None else prediction.at(times)

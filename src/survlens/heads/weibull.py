"""The head of Weibull times."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from survlens.core.errors import InvalidValueError
from survlens.core.grid import TimeGrid
from survlens.core.outcome import SurvivalOutcome
from survlens.core.prediction import Interpolation, SurvivalPrediction
from survlens.core.protocols import Reduction
from survlens.core.surfaces import log_softplus
from survlens.heads.raw import check_width, raw_output
from survlens.losses.parametric import cumulative_hazard_from_log, weibull_log_hazard, weibull_loss

_RAW_OF_SHAPE_1 = math.log(math.expm1(1.0))


class Weibull(nn.Module):
    """S(t | z) = exp(-(t / scale)^shape) with scale = (middle edge) exp(f(z)): a parametric, accelerated-time head.

    With one shape for all instances, the default, it is both an accelerated-time model (f stretches time) and one of
    proportional hazards (log hazard ratio -shape f). With `shape_depends` each instance has its own shape and hazards
    may cross. The shape is softplus(s + log(e - 1)), with s a weight of the head or the second column of the network:
    s = 0 is shape 1, the exponential distribution, so that training starts there and weight decay pulls towards it.

    The hazard rate is exact. Asked with `times`, the head answers from the formula at any time > 0, also past the last
    edge, where the answer leans on the family alone. Without `times` the curve has its knots at the edges and is
    straight in log S between them (EXPONENTIAL).

    Args:
        in_features: Width of the embedding.
        grid: Knots and unit of the curves; its middle edge is the scale at which f is 0.
        network: Maps (instance, in_features) to (instance, 1), or to (instance, 2) with `shape_depends`; linear where
            None.
        shape_depends: Whether the shape depends on the embedding.

    References:
        Weibull 1951; Kalbfleisch and Prentice 2002.
    """

    reduction = Reduction.PER_INSTANCE

    def __init__(
        self, in_features: int, grid: TimeGrid, *, network: nn.Module | None = None, shape_depends: bool = False
    ):
        super().__init__()
        if in_features < 1:
            raise InvalidValueError(f"`in_features` must be >= 1; got {in_features}.")
        self.in_features, self.grid, self.network, self.shape_depends = in_features, grid, network, shape_depends
        if network is None:
            self.linear = nn.Linear(in_features, 2 if shape_depends else 1)
        if not shape_depends:
            self.raw_shape = nn.Parameter(torch.zeros(()))

    def log_parameters(
        self, embedding: Float[Tensor, "instance embedding"]
    ) -> tuple[Float[Tensor, " instance"], Float[Tensor, " instance"]]:
        """Logs of the scale, in the unit of the grid, and of the shape of each instance, in float64."""
        return self._log_parameters(self.raw(embedding))

    def raw(self, embedding: Float[Tensor, "instance embedding"]) -> Float[Tensor, "instance raw"]:
        """f(z), and with `shape_depends` the raw shape."""
        check_width(embedding, self.in_features)
        network = self.linear if self.network is None else self.network
        return raw_output(network, embedding, columns=2 if self.shape_depends else 1)

    def _log_parameters(self, raw: Tensor) -> tuple[Tensor, Tensor]:
        raw = raw.double()
        log_scale = raw[:, 0] + math.log(float(self.grid.edges[(len(self.grid) + 1) // 2]))
        raw_shape = raw[:, 1] if self.shape_depends else self.raw_shape.double().expand(raw.shape[0])
        return log_scale, log_softplus(raw_shape + _RAW_OF_SHAPE_1)

    def loss(
        self, embedding: Float[Tensor, "instance embedding"], outcome: SurvivalOutcome
    ) -> Float[Tensor, " instance"]:
        """Negative log-likelihood, one value per instance; see `weibull_loss`.

        Raises:
            InvalidValueError: If `outcome` is not in the unit of the grid.
        """
        if outcome.unit != self.grid.unit:
            raise InvalidValueError(
                f"`outcome` must be in the unit of `grid`; got {outcome.unit!r} and {self.grid.unit!r}. "
                "Convert one of them."
            )
        return weibull_loss(*self.log_parameters(embedding), outcome).to(embedding.dtype)

    def predict(
        self, embedding: Float[Tensor, "instance embedding"], times: Float[Tensor, " time"] | None = None
    ) -> SurvivalPrediction:
        """Survival curves with their exact hazard rates, in float64, at the edges or at any `times` > 0."""
        return self.predict_from_raw(self.raw(embedding), times)

    def predict_from_raw(
        self, raw: Float[Tensor, "instance raw"], times: Float[Tensor, " time"] | None = None
    ) -> SurvivalPrediction:
        """What `predict` makes of the `raw` output."""
        log_scale, log_shape = self._log_parameters(raw)
        edges = self.grid.edges.to(log_scale.device)
        knots = edges[1:] if times is None else torch.as_tensor(times).to(edges)
        log_cumulative, log_rate = weibull_log_hazard(log_scale[:, None], log_shape[:, None], knots.log())
        log_survival = -cumulative_hazard_from_log(log_cumulative)
        return SurvivalPrediction(knots, log_survival, Interpolation.EXPONENTIAL, self.grid.unit, log_rate)

    def risk(self, embedding: Float[Tensor, "instance embedding"]) -> Float[Tensor, " instance"]:
        """Minus the restricted mean of the curve up to the last edge: higher is worse, in the unit of the grid."""
        return -self.predict(embedding).restricted_mean(float(self.grid.edges[-1]))

    def extra_repr(self) -> str:
        """Settings, for print."""
        last = float(self.grid.edges[-1])
        return f"in_features={self.in_features}, last={last:g}, shape_depends={self.shape_depends}"

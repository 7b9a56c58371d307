"""The head of piecewise constant hazard rates."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from survlens.core.errors import InvalidValueError
from survlens.core.grid import TimeGrid
from survlens.core.outcome import SurvivalOutcome
from survlens.core.prediction import TIME_ROUNDING, Interpolation, SurvivalPrediction
from survlens.core.protocols import Reduction
from survlens.core.surfaces import log_softplus
from survlens.heads.raw import check_width, raw_output
from survlens.losses.piecewise import exposed_shares, piecewise_hazard_loss


class PCHazard(nn.Module):
    """Hazard rate softplus(z_j) / width_j, constant in interval j of the grid: continuous time, a number per interval.

    The rate is measured per width of its interval, so an interval raises the cumulative hazard by softplus(z_j),
    whatever the unit of time, and an untrained network starts at the same curves in days and in years. The likelihood
    is exact: times are not rounded to the grid. With one interval the model is exponential. Curves are straight in log
    S between the edges (EXPONENTIAL) and carry their exact hazard rate; at an edge it is the rate of the interval that
    ends there. The curve ends at the last edge.

    Args:
        in_features: Width of the embedding.
        grid: Intervals, cut on training data.
        network: Maps (instance, in_features) to (instance, intervals); linear where None.

    References:
        Friedman 1982; Kvamme and Borgan 2021.
    """

    reduction = Reduction.PER_INSTANCE

    def __init__(self, in_features: int, grid: TimeGrid, *, network: nn.Module | None = None):
        super().__init__()
        if in_features < 1:
            raise InvalidValueError(f"`in_features` must be >= 1; got {in_features}.")
        self.in_features, self.grid, self.network = in_features, grid, network
        if network is None:
            self.linear = nn.Linear(in_features, len(grid))

    def raw(self, embedding: Float[Tensor, "instance embedding"]) -> Float[Tensor, "instance time"]:
        """z_j of each interval."""
        check_width(embedding, self.in_features)
        network = self.linear if self.network is None else self.network
        return raw_output(network, embedding, columns=len(self.grid))

    def loss(
        self, embedding: Float[Tensor, "instance embedding"], outcome: SurvivalOutcome
    ) -> Float[Tensor, " instance"]:
        """Negative log-likelihood, one value per instance; see `piecewise_hazard_loss`."""
        return piecewise_hazard_loss(self.raw(embedding), outcome, self.grid)

    def predict(
        self, embedding: Float[Tensor, "instance embedding"], times: Float[Tensor, " time"] | None = None
    ) -> SurvivalPrediction:
        """Survival curves with their exact hazard rates, in float64, at the interval ends or at `times`.

        Raises:
            InvalidValueError: If a time lies past the last edge.
        """
        return self.predict_from_raw(self.raw(embedding), times)

    def predict_from_raw(
        self, raw: Float[Tensor, "instance raw"], times: Float[Tensor, " time"] | None = None
    ) -> SurvivalPrediction:
        """What `predict` makes of the `raw` output."""
        raw = raw.double()
        edges = self.grid.edges.to(raw.device)
        knots = edges[1:] if times is None else self._within(torch.as_tensor(times).to(edges))
        interval = torch.searchsorted(edges[1:], knots).clamp(max=len(self.grid) - 1)
        log_rise = log_softplus(raw)
        log_rate = (log_rise - edges.diff().log())[:, interval]
        rise = -torch.nn.functional.logsigmoid(-raw)
        before = torch.nn.functional.pad(rise.cumsum(1), (1, 0))[:, interval]
        share = exposed_shares(knots, self.grid)[torch.arange(len(knots), device=raw.device), interval]
        log_survival = -(before + share * rise[:, interval])
        return SurvivalPrediction(
            knots,
            log_survival,
            Interpolation.EXPONENTIAL,
            self.grid.unit,
            log_rate,
            log_rise if times is None else None,
        )

    def _within(self, times: Tensor) -> Tensor:
        last = float(self.grid.edges[-1])
        if times.ndim != 1 or bool((times > last * (1 + TIME_ROUNDING)).any()):
            raise InvalidValueError(
                f"`times` must be a vector in (0, {last:g}] {self.grid.unit}, the range of the grid; "
                f'got {times.tolist()}. Predict without `times` and ask `.at(times, extrapolate="hold")` to go further.'
            )
        return times

    def risk(self, embedding: Float[Tensor, "instance embedding"]) -> Float[Tensor, " instance"]:
        """Minus the restricted mean survival time up to the last edge: higher is worse, in the unit of the grid."""
        return -self.predict(embedding).restricted_mean(float(self.grid.edges[-1]))

    def extra_repr(self) -> str:
        """Settings, for print."""
        return f"in_features={self.in_features}, intervals={len(self.grid)}, last={float(self.grid.edges[-1]):g}"

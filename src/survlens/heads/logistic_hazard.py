"""The discrete-time hazard head."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from survlens.core.grid import TimeGrid
from survlens.core.outcome import SurvivalOutcome
from survlens.core.prediction import Interpolation, SurvivalPrediction
from survlens.core.protocols import Reduction
from survlens.core.surfaces import log_softplus, log_survival_from_hazard_logits
from survlens.heads.raw import check_in_features, check_width, raw_output
from survlens.losses.discrete import logistic_hazard_loss


class LogisticHazard(nn.Module):
    """S at the end of interval j = product over l <= j of (1 - sigmoid(z_l)): one log-odds of the hazard per interval.

    Needs no proportional hazards and no baseline. The model says nothing about where in an interval an event falls; we
    take the hazard rate to be constant there (EXPONENTIAL), which is finite for every finite logit, keeps S above 0 and
    makes rates that do not depend on where the knots of a finer question lie. A constant density would let the rate
    rise without bound towards the end of an interval of high hazard. The curve ends at the last edge.

    Censored instances count as having survived the interval of censoring if they were seen at or past its midpoint.
    With delayed entry the likelihood is divided by S(entry) on the head's own curve.

    Args:
        in_features: Width of the embedding.
        grid: Intervals, cut on training data.
        network: Maps (instance, in_features) to (instance, intervals); linear where None.

    References:
        Brown 1975; Gensheimer and Narasimhan 2019; Kvamme and Borgan 2021 (interpolation).
    """

    reduction = Reduction.PER_INSTANCE

    def __init__(self, in_features: int, grid: TimeGrid, *, network: nn.Module | None = None):
        super().__init__()
        check_in_features(in_features)
        self.in_features, self.grid, self.network = in_features, grid, network
        if network is None:
            self.linear = nn.Linear(in_features, len(grid))

    def logits(self, embedding: Float[Tensor, "instance embedding"]) -> Float[Tensor, "instance time"]:
        """Log-odds of the hazard in each interval."""
        check_width(embedding, self.in_features)
        network = self.linear if self.network is None else self.network
        return raw_output(network, embedding, columns=len(self.grid))

    def loss(
        self, embedding: Float[Tensor, "instance embedding"], outcome: SurvivalOutcome
    ) -> Float[Tensor, " instance"]:
        """Negative log-likelihood, one value per instance; see `logistic_hazard_loss`."""
        return logistic_hazard_loss(self.logits(embedding), outcome, self.grid)

    def predict(
        self, embedding: Float[Tensor, "instance embedding"], times: Float[Tensor, " time"] | None = None
    ) -> SurvivalPrediction:
        """Survival curves, in float64, at the interval ends or at `times`.

        Raises:
            InvalidValueError: If a time lies past the last edge.
        """
        return self.predict_from_raw(self.logits(embedding), times)

    raw = logits

    def predict_from_raw(
        self, raw: Float[Tensor, "instance raw"], times: Float[Tensor, " time"] | None = None
    ) -> SurvivalPrediction:
        """What `predict` makes of the `raw` output, the logits."""
        logits = raw.double()
        knots = self.grid.edges[1:].to(logits.device)
        log_survival = log_survival_from_hazard_logits(logits)
        log_rise = log_softplus(logits)
        prediction = SurvivalPrediction(
            knots, log_survival, Interpolation.EXPONENTIAL, self.grid.unit, log_rise=log_rise
        )
        return prediction if times is None else prediction.at(times)

    def risk(self, embedding: Float[Tensor, "instance embedding"]) -> Float[Tensor, " instance"]:
        """Minus the restricted mean survival time up to the last edge: higher is worse, in the unit of the grid."""
        return -self.predict(embedding).restricted_mean(float(self.grid.edges[-1]))

    def extra_repr(self) -> str:
        """Settings, for print."""
        return f"in_features={self.in_features}, intervals={len(self.grid)}, last={float(self.grid.edges[-1]):g}"

"""The head of probability masses."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from survlens.core.grid import TimeGrid
from survlens.core.outcome import SurvivalOutcome
from survlens.core.prediction import SurvivalPrediction
from survlens.core.protocols import Reduction
from survlens.heads.raw import check_in_features, check_width, curve_of_masses, raw_output
from survlens.losses.discrete import pmf_loss


class PMF(nn.Module):
    """P(T in interval j) = softmax(z_1 .. z_K, 0)_j: one logit per interval, and 0 for what lies after the last edge.

    Needs no proportional hazards and no baseline. The model says nothing about where in an interval an event falls; we
    take the density to be constant there (LINEAR), so a curve is made of straight lines. It ends at the last edge,
    where it need not be 0: the tail keeps the probability of surviving the grid.

    Censored instances count as having survived the interval of censoring if they were seen at or past its midpoint.
    With delayed entry the likelihood is divided by S(entry) on the head's own curve.

    Args:
        in_features: Width of the embedding.
        grid: Intervals, cut on training data.
        network: Maps (instance, in_features) to (instance, intervals); linear where None.

    References:
        Kvamme and Borgan 2021.
    """

    reduction = Reduction.PER_INSTANCE

    def __init__(self, in_features: int, grid: TimeGrid, *, network: nn.Module | None = None):
        super().__init__()
        check_in_features(in_features)
        self.in_features, self.grid, self.network = in_features, grid, network
        if network is None:
            self.linear = nn.Linear(in_features, len(grid))

    def logits(self, embedding: Float[Tensor, "instance embedding"]) -> Float[Tensor, "instance time"]:
        """Score of each interval, against 0 for what lies after the last edge."""
        check_width(embedding, self.in_features)
        network = self.linear if self.network is None else self.network
        return raw_output(network, embedding, columns=len(self.grid))

    def loss(
        self, embedding: Float[Tensor, "instance embedding"], outcome: SurvivalOutcome
    ) -> Float[Tensor, " instance"]:
        """Negative log-likelihood, one value per instance; see `pmf_loss`."""
        return pmf_loss(self.logits(embedding), outcome, self.grid)

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
        return curve_of_masses(raw, self.grid, times)

    def risk(self, embedding: Float[Tensor, "instance embedding"]) -> Float[Tensor, " instance"]:
        """Minus the restricted mean survival time up to the last edge: higher is worse, in the unit of the grid."""
        return -self.predict(embedding).restricted_mean(float(self.grid.edges[-1]))

    def extra_repr(self) -> str:
        """Settings, for print."""
        return f"in_features={self.in_features}, intervals={len(self.grid)}, last={float(self.grid.edges[-1]):g}"

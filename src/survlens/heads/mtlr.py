"""The head of multi-task logistic regression."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from survlens.core.grid import TimeGrid
from survlens.core.outcome import SurvivalOutcome
from survlens.core.prediction import SurvivalPrediction
from survlens.core.protocols import Reduction
from survlens.heads.raw import check_in_features, check_width, curve_of_masses, raw_output
from survlens.losses.discrete import pmf_loss, sequence_scores


class MTLR(nn.Module):
    """P(T in interval j) = softmax(f_1 .. f_K, 0)_j with f_j = sum over l >= j of psi_l: a chain of classifiers.

    psi_l is the log-odds of a classifier that says whether the event has happened by the end of interval l; the score
    of an event in interval j adds up those that it switches on. So a logit moves all intervals up to its own
    together, where in `PMF` it moves one. Linear by default, which is the original method; with a `network` it is
    neural MTLR. The smoothing penalty on neighbouring weights of the original is left to weight decay.

    The density is constant within an interval (LINEAR), and the curve ends at the last edge, where it need not be 0.
    Censored instances count as having survived the interval of censoring if they were seen at or past its midpoint.
    With delayed entry the likelihood is divided by S(entry) on the head's own curve.

    Args:
        in_features: Width of the embedding.
        grid: Intervals, cut on training data.
        network: Maps (instance, in_features) to (instance, intervals); linear where None.

    References:
        Yu et al. 2011; Fotso 2018; Kvamme and Borgan 2021.
    """

    reduction = Reduction.PER_INSTANCE

    def __init__(self, in_features: int, grid: TimeGrid, *, network: nn.Module | None = None):
        super().__init__()
        check_in_features(in_features)
        self.in_features, self.grid, self.network = in_features, grid, network
        if network is None:
            self.linear = nn.Linear(in_features, len(grid))

    def logits(self, embedding: Float[Tensor, "instance embedding"]) -> Float[Tensor, "instance time"]:
        """psi, the log-odds of the classifier of each interval."""
        check_width(embedding, self.in_features)
        network = self.linear if self.network is None else self.network
        return raw_output(network, embedding, columns=len(self.grid))

    def loss(
        self, embedding: Float[Tensor, "instance embedding"], outcome: SurvivalOutcome
    ) -> Float[Tensor, " instance"]:
        """Negative log-likelihood, one value per instance: `pmf_loss` of the `sequence_scores`."""
        return pmf_loss(sequence_scores(self.logits(embedding)), outcome, self.grid)

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
        return curve_of_masses(sequence_scores(raw.double()), self.grid, times)

    def risk(self, embedding: Float[Tensor, "instance embedding"]) -> Float[Tensor, " instance"]:
        """Minus the restricted mean survival time up to the last edge: higher is worse, in the unit of the grid."""
        return -self.predict(embedding).restricted_mean(float(self.grid.edges[-1]))

    def extra_repr(self) -> str:
        """Settings, for print."""
        return f"in_features={self.in_features}, intervals={len(self.grid)}, last={float(self.grid.edges[-1]):g}"

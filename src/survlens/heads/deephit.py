"""The head of probability masses by cause, with a ranking loss."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import pad

from survlens.core.competing import CompetingRisksPrediction
from survlens.core.errors import InvalidValueError
from survlens.core.grid import TimeGrid
from survlens.core.outcome import SurvivalOutcome
from survlens.core.prediction import Interpolation, SurvivalPrediction
from survlens.core.protocols import Reduction
from survlens.core.surfaces import log_survival_from_pmf_logits
from survlens.heads.raw import check_in_features, check_width, curve_of_masses, raw_output
from survlens.losses.discrete import competing_pmf_loss
from survlens.losses.ranking import check_sigma, ranking_loss


class DeepHit(nn.Module):
    """P(T in interval j, cause k) = softmax(z_11 .. z_CK, 0)_kj, trained by likelihood and by ranking.

    One softmax over all causes and intervals, with one more entry, of logit 0, for no event up to the last edge. The
    paper has no such entry, so its curves must reach 0 at the end of the grid; here they need not. The loss is

        `alpha` (negative log-likelihood) + (1 - `alpha`) (ranking loss with `sigma`),

    see `competing_pmf_loss` and `ranking_loss`. With `alpha` = 1 the head is the competing-risks form of `PMF`. The
    ranking term compares instances, so the loss of an instance depends on its batch. It improves discrimination and
    costs calibration: the lower `alpha`, the further the predicted probabilities may lie from the observed shares.

    `alpha` and `sigma` mean the same as in pycox, whose defaults these are. The paper weighs its second loss, L2, by a
    factor of its own: that is (1 - `alpha`) / `alpha` here, the same for every cause.

    The density is constant within an interval (LINEAR). Censored instances count as having survived the interval of
    censoring if they were seen at or past its midpoint. With delayed entry the likelihood is divided by S(entry) on the
    head's own curve, and the ranking compares an event with those that had entered before it. `predict` and `risk`
    speak of an event of any cause.

    Args:
        in_features: Width of the embedding.
        grid: Intervals, cut on training data.
        n_causes: Number of causes; events are coded 1 .. n_causes.
        network: Maps (instance, in_features) to (instance, n_causes * intervals), all intervals of cause 1 first;
            linear where None.
        alpha: Weight of the likelihood, in [0, 1].
        sigma: Scale of the differences that the ranking loss punishes, >= 0.02.

    Raises:
        InvalidValueError: If an argument lies outside its range.

    References:
        Lee et al. 2018; Kvamme and Borgan 2021.
    """

    reduction = Reduction.PER_INSTANCE

    def __init__(
        self,
        in_features: int,
        grid: TimeGrid,
        *,
        n_causes: int = 1,
        network: nn.Module | None = None,
        alpha: float = 0.2,
        sigma: float = 0.1,
    ):
        super().__init__()
        check_in_features(in_features)
        if n_causes < 1:
            raise InvalidValueError(f"`n_causes` must be >= 1; got {n_causes}.")
        if not 0 <= alpha <= 1:
            raise InvalidValueError(f"`alpha` must lie in [0, 1]; got {alpha}. At 1 there is no ranking loss.")
        check_sigma(sigma)
        self.in_features, self.grid, self.n_causes, self.network = in_features, grid, n_causes, network
        self.alpha, self.sigma = alpha, sigma
        if network is None:
            self.linear = nn.Linear(in_features, n_causes * len(grid))

    def logits(self, embedding: Float[Tensor, "instance embedding"]) -> Float[Tensor, "instance cause time"]:
        """Score of each cause and interval, against 0 for what lies after the last edge."""
        check_width(embedding, self.in_features)
        network = self.linear if self.network is None else self.network
        raw = raw_output(network, embedding, columns=self.n_causes * len(self.grid))
        return raw.unflatten(1, (self.n_causes, len(self.grid)))

    def loss(
        self, embedding: Float[Tensor, "instance embedding"], outcome: SurvivalOutcome
    ) -> Float[Tensor, " instance"]:
        """The two losses, weighed by `alpha`, one value per instance.

        Raises:
            InvalidValueError: If an event has a cause past `n_causes`.
        """
        logits = self.logits(embedding)
        likelihood = competing_pmf_loss(logits, outcome, self.grid)
        if self.alpha == 1:
            return likelihood
        ranking = ranking_loss(_incidence(logits), outcome, self.grid, sigma=self.sigma)
        return self.alpha * likelihood + (1 - self.alpha) * ranking

    def predict_incidence(
        self, embedding: Float[Tensor, "instance embedding"], times: Float[Tensor, " time"] | None = None
    ) -> CompetingRisksPrediction:
        """Cumulative incidence of every cause, in float64, at the interval ends or at `times`.

        Raises:
            InvalidValueError: If a time lies past the last edge.
        """
        return self.predict_incidence_from_raw(self.raw(embedding), times)

    def raw(self, embedding: Float[Tensor, "instance embedding"]) -> Float[Tensor, "instance raw"]:
        """The logits in a row, all intervals of cause 1 first."""
        return self.logits(embedding).flatten(1)

    def predict_incidence_from_raw(
        self, raw: Float[Tensor, "instance raw"], times: Float[Tensor, " time"] | None = None
    ) -> CompetingRisksPrediction:
        """What `predict_incidence` makes of the `raw` output."""
        logits = raw.double().unflatten(1, (self.n_causes, len(self.grid)))
        incidence = _incidence(logits).transpose(0, 1)
        knots = self.grid.edges[1:].to(logits.device)
        prediction = CompetingRisksPrediction(
            knots, incidence, Interpolation.LINEAR, self.grid.unit, log_survival_from_pmf_logits(logits.logsumexp(1))
        )
        return prediction if times is None else prediction.at(times)

    def predict(
        self, embedding: Float[Tensor, "instance embedding"], times: Float[Tensor, " time"] | None = None
    ) -> SurvivalPrediction:
        """Survival curves of every cause together, in float64, at the interval ends or at `times`.

        Raises:
            InvalidValueError: If a time lies past the last edge.
        """
        return self.predict_from_raw(self.raw(embedding), times)

    def predict_from_raw(
        self, raw: Float[Tensor, "instance raw"], times: Float[Tensor, " time"] | None = None
    ) -> SurvivalPrediction:
        """What `predict` makes of the `raw` output."""
        logits = raw.double().unflatten(1, (self.n_causes, len(self.grid)))
        return curve_of_masses(logits.logsumexp(1), self.grid, times)

    def risk(self, embedding: Float[Tensor, "instance embedding"]) -> Float[Tensor, " instance"]:
        """Minus the restricted mean survival time up to the last edge: higher is worse, in the unit of the grid."""
        return -self.predict(embedding).restricted_mean(float(self.grid.edges[-1]))

    def cause_risk(self, embedding: Float[Tensor, "instance embedding"], cause: int) -> Float[Tensor, " instance"]:
        """Mean time lost to `cause` up to the last edge, the area under its incidence: higher is worse.

        Raises:
            InvalidValueError: If there is no such cause.
        """
        last = float(self.grid.edges[-1])
        return self.predict_incidence(embedding).restricted_mean_time_lost(last, cause)

    def extra_repr(self) -> str:
        """Settings, for print."""
        settings = f"in_features={self.in_features}, intervals={len(self.grid)}, last={float(self.grid.edges[-1]):g}"
        return f"{settings}, n_causes={self.n_causes}, alpha={self.alpha:g}, sigma={self.sigma:g}"


def _incidence(logits: Float[Tensor, "instance cause time"]) -> Float[Tensor, "instance cause time"]:
    """F_k at the interval ends: running sums of the softmax over causes, intervals and the tail."""
    mass = pad(logits.flatten(1), (0, 1)).softmax(1)[:, :-1]
    return mass.unflatten(1, logits.shape[1:]).cumsum(2)

"""The proportional-hazards head."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from survlens.core.choices import check_choice
from survlens.core.errors import InvalidValueError
from survlens.core.outcome import SurvivalOutcome
from survlens.core.prediction import SurvivalPrediction
from survlens.core.protocols import Reduction
from survlens.core.ties import Ties
from survlens.heads.baseline import BaselineHazard
from survlens.heads.raw import check_width, raw_output
from survlens.losses.cox import cox_partial_likelihood


class CoxPH(nn.Module):
    """S(t | z) = exp(-H0(t) exp(f(z))): the hazard of every instance is a constant multiple of one baseline.

    By default f is linear without bias, so that one unit of embedding dimension i multiplies the hazard by
    exp(weight_i); with a `network` it is DeepSurv. A bias would cancel in the likelihood. H0 is a step function fitted
    by `fit_baseline` once the weights are final; curves are steps with knots at the training event times and at the
    last training time. Entries and weights of the training rows are honoured; where they stand in strata, risk sets
    stay within a stratum and each has its own H0.

    Args:
        in_features: Width of the embedding.
        network: Maps (instance, in_features) to (instance, 1); linear where None.
        ties: Rule for equal event times, in the loss and in the baseline.

    References:
        Cox 1972; Katzman et al. 2018.
    """

    reduction = Reduction.PER_EVENT

    def __init__(self, in_features: int, *, network: nn.Module | None = None, ties: Ties = Ties.EFRON):
        super().__init__()
        if in_features < 1:
            raise InvalidValueError(f"`in_features` must be >= 1; got {in_features}.")
        check_choice("ties", ties, Ties)
        self.in_features, self.network, self.ties = in_features, network, ties
        if network is None:
            self.linear = nn.Linear(in_features, 1, bias=False)
        self.baseline = BaselineHazard()
        self.grid = None

    def log_risk(self, embedding: Float[Tensor, "instance embedding"]) -> Float[Tensor, " instance"]:
        """f(z), the log hazard ratio against an instance whose f is 0."""
        check_width(embedding, self.in_features)
        return raw_output(self.linear if self.network is None else self.network, embedding, columns=1)[:, 0]

    def loss(
        self, embedding: Float[Tensor, "instance embedding"], outcome: SurvivalOutcome
    ) -> Float[Tensor, " instance"]:
        """Negative log partial likelihood, one contribution per instance; see `cox_partial_likelihood`."""
        return cox_partial_likelihood(self.log_risk(embedding), outcome, ties=self.ties)

    def risk(self, embedding: Float[Tensor, "instance embedding"]) -> Float[Tensor, " instance"]:
        """The log-risk: it orders instances the same way at every time."""
        return self.log_risk(embedding)

    def fit_baseline(self, embedding: Float[Tensor, "instance embedding"], outcome: SurvivalOutcome) -> None:
        """Fits H0 on training rows and keeps it in buffers, one curve per stratum of `outcome` where it has strata.

        Rows without any event give H0 = 0 up to the last observed time.

        Args:
            embedding: Embeddings of the training rows, by the final weights and in eval mode.
            outcome: What was observed of the same instances.
        """
        with torch.no_grad():
            self.baseline.fit(self.log_risk(embedding), outcome, self.ties)

    def predict(
        self,
        embedding: Float[Tensor, "instance embedding"],
        times: Float[Tensor, " time"] | None = None,
        *,
        stratum: Int[Tensor, " instance"] | None = None,
    ) -> SurvivalPrediction:
        """Survival curves, in float64, at the knots of the baseline or at `times`.

        Args:
            embedding: One row per instance.
            times: Times to predict at; without them, the knots of the strata asked for, up to the earliest end.
            stratum: Stratum of each instance; needed where the training rows stood in several.

        Raises:
            NotFittedError: Before `fit_baseline`.
            InvalidValueError: If a time lies past the last training time of a stratum that is asked for, or a stratum
                is missing or unknown.
        """
        return self.baseline.predict(self.log_risk(embedding), times, stratum)

    def raw(self, embedding: Float[Tensor, "instance embedding"]) -> Float[Tensor, "instance raw"]:
        """The log-risk as one column."""
        return self.log_risk(embedding)[:, None]

    def predict_from_raw(
        self,
        raw: Float[Tensor, "instance raw"],
        times: Float[Tensor, " time"] | None = None,
        *,
        stratum: Int[Tensor, " instance"] | None = None,
    ) -> SurvivalPrediction:
        """What `predict` makes of the `raw` output."""
        return self.baseline.predict(raw[:, 0], times, stratum)

    def extra_repr(self) -> str:
        """Settings, for print."""
        return f"in_features={self.in_features}, ties={self.ties.name}"

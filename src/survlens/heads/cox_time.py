"""The head of time-dependent relative risks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from survlens.core.choices import check_choice
from survlens.core.errors import InvalidValueError
from survlens.core.outcome import SurvivalOutcome
from survlens.core.prediction import Interpolation, SurvivalPrediction
from survlens.core.protocols import Reduction
from survlens.core.ties import Ties
from survlens.heads.jumps import BaselineJumps
from survlens.heads.pair_network import PairNetwork
from survlens.heads.raw import check_width
from survlens.losses.cox_time import cox_time_loss, log_baseline_jumps, sampled_cox_time_loss
from survlens.losses.event_risk_sets import PAIRS_AT_ONCE, PAIRS_KEPT
from survlens.losses.parametric import cumulative_hazard_from_log


class CoxTime(nn.Module):
    """h(t | z) = h0(t) exp(g(t, z)): a Cox model whose relative risks change with time.

    g is a network of the embedding and of one number for the time, log2(1 + t / time_scale) - 1, which is -1 at 0, 0 at
    the time scale and 1 at three times of it. By default it is a multilayer perceptron with ReLU on the two joined; its
    first layer is computed once per instance and once per time, and only what follows once per pair of both.
    `fit_baseline` estimates the jumps of H0 at the training event times u once the weights are final, and

        S(t | z) = exp(- sum over u <= t of exp(g(u, z)) dH0(u)),

    a step function with knots at the training event times and at the last training time. Curves take one evaluation of
    g per instance and training event time, of which none is left out.

    Args:
        in_features: Width of the embedding.
        hidden: Widths of the hidden layers of the default network; one at least, or no risk would change with time.
        time_scale: A typical time, such as the median training time, in the unit of the outcomes.
        controls: None: in training, each event is compared with its whole risk set in the batch. A number: with as many
            drawn from it, which costs less on large batches. In eval mode always with the whole risk set.
        ties: Rule for equal event times, in the loss of whole risk sets and in the baseline.
        network: Takes the place of the default network: maps (pair, in_features) and (pair,) numbers for the time to
            (pair,) log-risks.

    References:
        Kvamme, Borgan and Scheel 2019.
    """

    reduction = Reduction.PER_EVENT

    def __init__(
        self,
        in_features: int,
        *,
        time_scale: float,
        hidden: Sequence[int] = (32,),
        controls: int | None = None,
        ties: Ties = Ties.EFRON,
        network: nn.Module | None = None,
    ):
        super().__init__()
        if in_features < 1:
            raise InvalidValueError(f"`in_features` must be >= 1; got {in_features}.")
        if not 0 < time_scale < float("inf"):
            raise InvalidValueError(
                f"`time_scale` must be finite and > 0; got {time_scale}. Give the median training time."
            )
        if controls is not None and controls < 1:
            raise InvalidValueError(f"`controls` must be >= 1 or None; got {controls}.")
        if not hidden:
            raise InvalidValueError("`hidden` must name at least one layer; got none. For fixed risks use CoxPH.")
        check_choice("ties", ties, Ties)
        self.in_features, self.hidden, self.time_scale = in_features, tuple(hidden), float(time_scale)
        self.controls, self.ties, self.network = controls, ties, network
        if network is None:
            self.pair_network = PairNetwork(in_features, self.hidden)
        self.baseline = BaselineJumps()
        self.grid = None

    def log_risk(
        self, embedding: Float[Tensor, "instance embedding"], times: Float[Tensor, " time"]
    ) -> Float[Tensor, "instance time"]:
        """g(t, z) of every instance at each of `times`: differences between instances are log hazard ratios."""
        return self._of_pairs(torch.as_tensor(times, dtype=torch.float64)[:, None], self._rows(embedding)).T

    def log_risk_of_pairs(
        self, embedding: Float[Tensor, "pair embedding"], times: Float[Tensor, " pair"]
    ) -> Float[Tensor, " pair"]:
        """g(t, z) of each row at a time of its own."""
        return self._of_pairs(times, self._rows(embedding))

    def loss(
        self, embedding: Float[Tensor, "instance embedding"], outcome: SurvivalOutcome
    ) -> Float[Tensor, " instance"]:
        """Negative log partial likelihood, one contribution per instance.

        See `cox_time_loss`, and `sampled_cox_time_loss` for training with `controls`.
        """
        rows = self._rows(embedding)
        if self.controls is not None and self.training:
            return sampled_cox_time_loss(self._of_pairs, rows, outcome, controls=self.controls)
        return cox_time_loss(self._of_pairs, rows, outcome, ties=self.ties)

    def fit_baseline(self, embedding: Float[Tensor, "instance embedding"], outcome: SurvivalOutcome) -> None:
        """Estimates the jumps of H0 on training rows and keeps them in buffers; entries and weights count.

        Args:
            embedding: Embeddings of the training rows, by the final weights and in eval mode.
            outcome: What was observed of the same instances.

        Raises:
            InvalidValueError: If there are no rows, a log-risk is not finite, or there is more than one stratum.
        """
        if outcome.stratum is not None and len(outcome.stratum.unique()) > 1:
            raise InvalidValueError(
                f"`outcome` must have one stratum for a common baseline; got {len(outcome.stratum.unique())}. "
                "Give the stratum to the encoder as an input: risks may change with time, so hazards may cross."
            )
        with torch.no_grad():
            times, log_jumps = log_baseline_jumps(self._of_pairs, self._rows(embedding), outcome, ties=self.ties)
        self.baseline.keep(times, log_jumps, outcome)

    def predict(
        self, embedding: Float[Tensor, "instance embedding"], times: Float[Tensor, " time"] | None = None
    ) -> SurvivalPrediction:
        """Survival curves, in float64, at the knots of the baseline or at `times`.

        Raises:
            NotFittedError: Before `fit_baseline`.
            InvalidValueError: If a time lies past the last training time.
        """
        unit, asked = self.baseline.knots(times)
        rows = self._rows(embedding)
        if torch.compiler.is_compiling():  # a graph has no number of rows to cut into blocks
            return SurvivalPrediction(asked, self._log_survival(rows, asked), Interpolation.STEP, unit)
        share = max(1, PAIRS_AT_ONCE // len(self.baseline.times))
        kept = len(rows) * len(self.baseline.times) <= PAIRS_KEPT or not torch.is_grad_enabled()
        curves = [
            self._log_survival(part, asked)
            if kept
            else checkpoint(self._log_survival, part, asked, use_reentrant=False)
            for part in rows.split(share)
        ]
        return SurvivalPrediction(asked, torch.cat(curves), Interpolation.STEP, unit)  # type: ignore[arg-type]

    def raw(self, embedding: Float[Tensor, "instance embedding"]) -> Float[Tensor, "instance raw"]:
        """The log-risk at each knot of the baseline.

        Raises:
            NotFittedError: Before `fit_baseline`.
        """
        _, knots = self.baseline.knots(None)
        return self._of_pairs(knots[:, None], self._rows(embedding)).T

    def raw_by_knot(self, embeddings: Float[Tensor, "instance #knot embedding"]) -> Float[Tensor, "instance knot"]:
        """The log-risk at each knot of the baseline, each of an embedding of its own, or of one for all knots.

        Equal embeddings at all knots give `raw`; one backward pass of the sum gives the slope of every knot.

        Raises:
            NotFittedError: Before `fit_baseline`.
        """
        _, knots = self.baseline.knots(None)
        rows = embeddings if self.network is not None else self.pair_network.of_instances(embeddings)
        return self._of_pairs(knots, rows)

    def predict_from_raw(
        self, raw: Float[Tensor, "instance raw"], times: Float[Tensor, " time"] | None = None
    ) -> SurvivalPrediction:
        """What `predict` makes of the `raw` output."""
        unit, asked = self.baseline.knots(times)
        log_rise = raw.double() + self.baseline.log_jumps if times is None else None
        log_survival = self._from_log_risk(raw, asked)
        return SurvivalPrediction(asked, log_survival, Interpolation.STEP, unit, log_rise=log_rise)

    def risk(self, embedding: Float[Tensor, "instance embedding"]) -> Float[Tensor, " instance"]:
        """Minus the restricted mean survival time up to the last knot: higher is worse.

        Risks at different times order instances differently, so the whole curve decides.

        Raises:
            NotFittedError: Before `fit_baseline`.
        """
        prediction = self.predict(embedding)
        return -prediction.restricted_mean(float(prediction.times[-1]))

    def extra_repr(self) -> str:
        """Settings, for print."""
        return (
            f"in_features={self.in_features}, hidden={self.hidden}, time_scale={self.time_scale:g}, "
            f"controls={self.controls}, ties={self.ties.name}"
        )

    def _rows(self, embedding: Tensor) -> Tensor:
        check_width(embedding, self.in_features)
        return self.pair_network.of_instances(embedding) if self.network is None else embedding

    def _of_pairs(self, times: Tensor, rows: Tensor) -> Tensor:
        """The values of g of rows at times, whose shapes broadcast as in `survlens.losses.event_risk_sets`."""
        when = (torch.log2(1 + times.to(rows.device) / self.time_scale) - 1).to(rows.dtype)
        if self.network is None:
            return self.pair_network(rows, when)
        shape = torch.broadcast_shapes(when.shape, rows.shape[:-1])
        pairs = rows.expand(*shape, rows.shape[-1]).reshape(-1, rows.shape[-1])
        found = self.network(pairs, when.expand(shape).reshape(-1))
        if found.shape != pairs.shape[:1]:
            raise InvalidValueError(
                f"`network` must map (pairs, {self.in_features}) and (pairs,) to (pairs,); "
                f"got {tuple(found.shape)} from {tuple(pairs.shape)}. Index the column of its last layer."
            )
        return found.reshape(shape)

    def _log_survival(self, rows: Tensor, asked: Tensor) -> Tensor:
        return self._from_log_risk(self._of_pairs(self.baseline.times[:, None], rows).T, asked)

    def _from_log_risk(self, log_risk: Tensor, asked: Tensor) -> Tensor:
        baseline = self.baseline
        log_rise = log_risk.double() + baseline.log_jumps
        total = torch.nn.functional.pad(cumulative_hazard_from_log(log_rise).cumsum(1), (1, 0))
        return -total[:, torch.searchsorted(baseline.times, asked, right=True)]

"""The Cox likelihood where the cumulative hazard is known from elsewhere: a loss that needs no risk set."""

from __future__ import annotations

import math

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from survlens.core.errors import InvalidValueError
from survlens.core.nonparametric import StepCurve
from survlens.core.outcome import SurvivalOutcome


def cox_martingale_loss(
    log_risk: Float[Tensor, " instance"],
    outcome: SurvivalOutcome,
    log_hazard: StepCurve,
    *,
    most: float = 1000.0,
) -> Float[Tensor, " instance"]:
    """W * (L(time) exp(log_risk) - event * log_risk): minus the likelihood of Cox's model with a known baseline L.

    L is the cumulative baseline hazard whose logarithm is `log_hazard`; it gets no gradient. The derivative by the
    log-risk of an instance is minus its martingale residual, w * (event - L(time) exp(log_risk)). Where L is Breslow's
    estimate at the same log-risks of all training instances, that equals the derivative of the partial likelihood
    (Breslow ties) exactly; where it comes from a memory, every instance contributes by itself, so a batch of one is no
    worse than another, and a batch without events still says that its instances survived. With delayed entry L(time)
    becomes L(time) - L(entry).

    A constant added to all log-risks, and its exponential divided out of L, changes no gradient. Where an instance
    would have more than `most` expected events L(time) exp(log_risk), the exponential goes on as its tangent, so that a
    stale baseline cannot throw the weights away.

    Args:
        log_risk: One log-risk per instance.
        outcome: What was observed of the same instances; any cause is an event.
        log_hazard: Such as `survlens.core.nonparametric.log_breslow_baseline(..., ties=Ties.BRESLOW)`, without strata.
        most: Expected events from which the loss is linear, > 0.

    Raises:
        InvalidValueError: If `log_risk` is not one value per instance, `most` is not > 0, or there are several strata.

    References:
        Cox 1972; Breslow 1972; Therneau, Grambsch and Fleming 1990.
    """
    if log_risk.ndim != 1 or log_risk.shape != outcome.time.shape:
        raise InvalidValueError(
            "`log_risk` must have one value per instance; "
            f"got shape {tuple(log_risk.shape)} for {len(outcome)} outcomes. "
            "Index a column (log_risk[:, 0]) to drop an axis."
        )
    if not 0 < most < math.inf:
        raise InvalidValueError(f"`most` must be finite and > 0; got {most}.")
    if outcome.stratum is not None and len(outcome) and bool((outcome.stratum != outcome.stratum[0]).any()):
        raise InvalidValueError(
            "`outcome` must have one stratum for this loss; got several. Use cox_partial_likelihood."
        )
    log_expected = log_risk.double() + torch.from_numpy(_log_exposure(outcome, log_hazard)).to(log_risk.device)
    capped = log_expected.clamp(max=math.log(most))
    expected = capped.exp() + most * (log_expected.clamp(min=math.log(most)) - math.log(most))
    loss = expected - (outcome.event > 0).to(log_risk.device) * log_risk.double()
    if outcome.weight is not None:
        loss = loss * outcome.weight.to(log_risk.device)
    return loss.to(log_risk.dtype)


def _log_exposure(outcome: SurvivalOutcome, log_hazard: StepCurve) -> np.ndarray:
    """log(L(time) - L(entry)); minus infinity where nothing was at stake."""
    at_end = log_hazard.at(outcome.time.detach().cpu().numpy())
    if outcome.entry is None:
        return at_end
    at_entry = log_hazard.at(outcome.entry.detach().cpu().numpy())
    with np.errstate(divide="ignore", invalid="ignore"):
        share = np.where(at_end > at_entry, -np.expm1(at_entry - at_end), 0.0)
        return np.where(share > 0, at_end + np.log(share), -np.inf)

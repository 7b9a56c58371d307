"""Likelihoods of parametric families."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from survlens.core.errors import InvalidValueError
from survlens.core.outcome import SurvivalOutcome

_TANGENT_FROM = 30.0


def cumulative_hazard_from_log(log_hazard: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """H = e^x of each value x of `log_hazard`; from x = 30 on its tangent, e^30 (1 + x - 30).

    At x = 30 survival is exp(-10^13), which is 0 in every float, so no curve can tell the two apart. The tangent is
    there for training: e^x overflows float32 at 88 and float64 at 709, and an instance whose fitted scale is absurdly
    short would then make the loss infinite and its gradient NaN. On the tangent both stay finite, and the gradient
    points the same way.
    """
    low = log_hazard.clamp(max=_TANGENT_FROM).exp()
    return low * (1 + torch.relu(log_hazard - _TANGENT_FROM))


def weibull_log_hazard(
    log_scale: Float[Tensor, "..."], log_shape: Float[Tensor, "..."], log_time: Float[Tensor, "..."]
) -> tuple[Float[Tensor, "..."], Float[Tensor, "..."]]:
    """Logarithms of the cumulative hazard H(t) = (t / scale)^shape and of the hazard rate shape H(t) / t.

    Args:
        log_scale: log of the time at which S = 1/e.
        log_shape: log of the shape; the hazard rises where shape > 1, falls where shape < 1.
        log_time: log of the times; all three broadcast.
    """
    log_cumulative = log_shape.exp() * (log_time - log_scale)
    return log_cumulative, log_shape + log_cumulative - log_time


def weibull_loss(
    log_scale: Float[Tensor, " instance"], log_shape: Float[Tensor, " instance"], outcome: SurvivalOutcome
) -> Float[Tensor, " instance"]:
    """Negative log-likelihood of Weibull times, one value per instance.

    With H(t) = (t / scale)^shape and h(t) = shape H(t) / t, an event at t gives w (H(t) - H(entry) - log h(t)) and
    censoring w (H(t) - H(entry)), with w the weight and H(0) = 0. Any cause counts as an event; strata play no part.
    Computed in float64 from log H = shape (log t - log scale); H beyond e^30 is continued by its tangent, see
    `cumulative_hazard_from_log`.

    Args:
        log_scale: One value per instance, in the log of the unit of `outcome`.
        log_shape: One value per instance.
        outcome: What was observed of the same instances.

    Raises:
        InvalidValueError: If `log_scale` or `log_shape` is not one value per instance of `outcome`.

    References:
        Weibull 1951; Kalbfleisch and Prentice 2002.
    """
    for name, values in (("log_scale", log_scale), ("log_shape", log_shape)):
        if values.shape != outcome.time.shape:
            raise InvalidValueError(
                f"`{name}` must have one value per instance; "
                f"got shape {tuple(values.shape)} for {len(outcome)} outcomes. Expand a common value to all of them."
            )
    outcome = outcome.to(log_scale.device)
    log_time = outcome.time.log()
    log_cumulative, log_rate = weibull_log_hazard(log_scale.double(), log_shape.double(), log_time)
    gone = cumulative_hazard_from_log(log_cumulative)
    if outcome.entry is not None:
        # H(t) - H(e) = H(t) (1 - (e / t)^shape): no difference of two large numbers.
        late = outcome.entry > 0
        ratio = torch.where(late, outcome.entry, outcome.time).log() - log_time
        share = -torch.expm1(log_shape.double().exp() * ratio)
        gone = gone * torch.where(late, share, torch.ones_like(share))
    loss = gone - torch.where(outcome.event > 0, log_rate, torch.zeros_like(log_rate))
    return (loss * outcome.weights()).to(log_scale.dtype)

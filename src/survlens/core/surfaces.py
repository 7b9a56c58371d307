"""Formulas between survival, hazard, probability mass and cumulative hazard on a grid.

All work on logarithms where it matters, keep the graph, and take (instance, time) tensors; columns are interval ends.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

_SERIES_BELOW = -20.0
_RANGE = 650.0


def log_survival_from_hazard_logits(logits: Float[Tensor, "instance time"]) -> Float[Tensor, "instance time"]:
    """Log S_j = sum over l <= j of log(1 - sigmoid(z_l)), where log(1 - sigmoid(z)) = logsigmoid(-z).

    An epsilon inside the logarithm lets S rise above 1 in float32 and loses the tail; `logsigmoid` keeps both.
    """
    return torch.nn.functional.logsigmoid(-logits).cumsum(-1)


def log_softplus(logits: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """The logarithm of log(1 + e^x) for each value x of `logits`, with its gradient, for x of any size.

    Of the log-odds of a hazard it is the logarithm of the rise of the cumulative hazard. Far below 0, log(1 + e^x)
    leaves the range of floats while its logarithm is x - e^x / 2 + O(e^2x): from -20 down these two terms are exact
    in float64.
    """
    direct = torch.log(-torch.nn.functional.logsigmoid(-logits.clamp(min=_SERIES_BELOW)))
    low = logits.clamp(max=_SERIES_BELOW)
    return torch.where(logits < _SERIES_BELOW, low - low.exp() / 2, direct)


def log_hazard_from_log_rise(log_rise: Float[Tensor, "instance time"]) -> Float[Tensor, "instance time"]:
    """Log h_j = log(1 - exp(-r_j)), with r_j the rise of the cumulative hazard, of any size, given by its logarithm."""
    rise = log_rise.clamp(min=_SERIES_BELOW).exp()
    low = log_rise.clamp(max=_SERIES_BELOW)
    return torch.where(log_rise < _SERIES_BELOW, low - low.exp() / 2, torch.log(-torch.expm1(-rise)))


def log_survival_from_pmf_logits(logits: Float[Tensor, "instance time"]) -> Float[Tensor, "instance time"]:
    """Log S_j where the masses are softmax(z_1 .. z_K, 0) and the last is that of everything after the last column.

    S_j = A / (A + D), with A the sum of exp(z_l) over l > j and the tail, and D that over l <= j. So log S_j is
    logsigmoid(log A - log D): `1 - cumsum` would lose S in its tail, and log A - log(A + D) would lose 1 - S at its
    start.
    """
    before, later = _log_sums(logits)
    return torch.nn.functional.logsigmoid(later - before)


def hazard_logits_from_pmf_logits(logits: Float[Tensor, "instance time"]) -> Float[Tensor, "instance time"]:
    """Log-odds of the hazard h_j = p_j / (p_j + all later masses), with masses softmax(z_1 .. z_K, 0): z_j - log A_j.

    Neither is a small h_j lost, as in S_(j-1) - S_j, nor one close to 1.
    """
    return logits - _log_sums(logits)[1]


def survival_and_hazard_of_masses(
    logits: Float[Tensor, "instance time"],
) -> tuple[Float[Tensor, "instance time"], Float[Tensor, "instance time"]]:
    """What `log_survival_from_pmf_logits` and `hazard_logits_from_pmf_logits` give, from the same sums."""
    before, later = _log_sums(logits)
    return torch.nn.functional.logsigmoid(later - before), logits - later


def _log_sums(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Log D_j and log A_j: of the sum of exp(z_l) over l <= j, and over l > j with 1 for the tail.

    In float64 on a processor, where the exponentials span less than its range, sums of exponentials are taken, each
    after one shift by the row's largest logit: all terms are positive, so no digits cancel, and it is three times as
    fast. A traced graph, as of an export, knows no values and keeps the logarithms.
    """
    padded = torch.nn.functional.pad(logits, (0, 1))
    traced = torch.compiler.is_compiling() or type(logits) is not Tensor or torch._C._are_functorch_transforms_active()
    if not traced and logits.dtype == torch.float64 and logits.device.type == "cpu" and logits.numel():
        largest = padded.detach().amax(-1, keepdim=True)
        shifted = padded - largest
        if shifted.detach().numpy().min() > -_RANGE:  # not a question to the tensor: both ways give one graph
            masses = shifted.exp()
            before, later = masses[..., :-1].cumsum(-1), masses.flip(-1).cumsum(-1).flip(-1)[..., 1:]
            return before.log() + largest, later.log() + largest
    return logits.logcumsumexp(-1), padded.flip(-1).logcumsumexp(-1).flip(-1)[..., 1:]


def previous(log_survival: Float[Tensor, "instance time"]) -> Float[Tensor, "instance time"]:
    """The log-survival at the start of each interval, with log S(0) = 0."""
    return torch.nn.functional.pad(log_survival[:, :-1], (1, 0))


def hazard_from_log_survival(log_survival: Float[Tensor, "instance time"]) -> Float[Tensor, "instance time"]:
    """h_j = 1 - S_j / S_(j-1): the probability of an event in interval j, given survival to its start."""
    before = previous(log_survival)
    step = torch.where(torch.isinf(before), torch.zeros_like(before), log_survival - before)
    hazard = -torch.expm1(step)
    return torch.where(torch.isinf(before), torch.ones_like(hazard), hazard)


def log_survival_from_hazard(hazard: Float[Tensor, "instance time"]) -> Float[Tensor, "instance time"]:
    """Log S_j = sum over l <= j of log(1 - h_l)."""
    return torch.log1p(-hazard).cumsum(-1)


def pmf_from_log_survival(log_survival: Float[Tensor, "instance time"]) -> Float[Tensor, "instance time"]:
    """p_j = S_(j-1) - S_j, as S_(j-1) * h_j so that no digits cancel."""
    return torch.exp(previous(log_survival)) * hazard_from_log_survival(log_survival)


def log_survival_from_pmf(pmf: Float[Tensor, "instance time"]) -> Float[Tensor, "instance time"]:
    """Log S_j = log(1 - sum over l <= j of p_l)."""
    return torch.log1p(-pmf.cumsum(-1).clamp(max=1.0))

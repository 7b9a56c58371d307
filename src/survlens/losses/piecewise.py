"""The likelihood of hazard rates that are constant in each interval."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from survlens.core.errors import InvalidValueError
from survlens.core.grid import TimeGrid
from survlens.core.outcome import SurvivalOutcome
from survlens.core.surfaces import log_softplus


def piecewise_hazard_loss(
    raw: Float[Tensor, "instance time"], outcome: SurvivalOutcome, grid: TimeGrid
) -> Float[Tensor, " instance"]:
    """Negative log-likelihood of continuous time under rates softplus(z_j) / width_j, one value per instance.

    With z the `raw` values and a_ij the share of interval j that instance i spent at risk, that is from its entry to
    its time, the cumulative hazard it went through is H_i = sum over j of a_ij softplus(z_ij). An event in interval j
    gives w_i (H_i - log softplus(z_ij) + log width_j), censoring w_i H_i, with w_i the weight of the instance. Events
    after the last edge are censored at the last edge. Any cause counts as an event; strata play no part.

    Args:
        raw: One value per interval of `grid`, any real number.
        outcome: What was observed of the same instances, in the unit of `grid`.
        grid: The intervals.

    Raises:
        InvalidValueError: If the shape of `raw` is not (instances, intervals), or the units differ.

    References:
        Friedman 1982; Kvamme and Borgan 2021.
    """
    if raw.shape != (len(outcome), len(grid)):
        raise InvalidValueError(
            "`raw` must have one row per instance and one column per interval; "
            f"got {tuple(raw.shape)} for {len(outcome)} instances and {len(grid)} intervals."
        )
    if outcome.unit != grid.unit:
        raise InvalidValueError(
            f"`outcome` must be in the unit of `grid`; got {outcome.unit!r} and {grid.unit!r}. Convert one of them."
        )
    outcome = outcome.to(raw.device)
    exposure = exposed_shares(outcome.time, grid)
    if outcome.entry is not None:
        exposure = exposure - exposed_shares(outcome.entry, grid)
    rise = -torch.nn.functional.logsigmoid(-raw)
    loss = (rise * exposure.to(raw.dtype)).sum(1)
    interval = grid.discretise(outcome)
    died = (outcome.event > 0) & (interval < len(grid))
    column = interval.clamp(max=len(grid) - 1)
    log_width = grid.edges.to(raw.device).diff().log().to(raw.dtype)[column]
    log_rate = log_softplus(raw.gather(1, column[:, None])[:, 0]) - log_width
    loss = loss - torch.where(died, log_rate, torch.zeros_like(log_rate))
    return loss if outcome.weight is None else loss * outcome.weight.to(loss.dtype)


def exposed_shares(times: Float[Tensor, " time"], grid: TimeGrid) -> Float[Tensor, "time interval"]:
    """Share of each interval of `grid` that lies before each of `times`, in [0, 1]."""
    edges = grid.edges.to(times)
    return ((times[:, None] - edges[:-1]) / edges.diff()).clamp(0, 1)

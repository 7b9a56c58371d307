"""The partial likelihood of log-risks that change with time."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from survlens.core.choices import check_choice
from survlens.core.errors import InvalidValueError
from survlens.core.outcome import SurvivalOutcome
from survlens.core.ties import Ties
from survlens.losses.event_risk_sets import EventRiskSets, LogRisk


def cox_time_loss(
    log_risk: LogRisk, rows: Float[Tensor, "instance width"], outcome: SurvivalOutcome, *, ties: Ties = Ties.EFRON
) -> Float[Tensor, " instance"]:
    """Negative log partial likelihood of g(t, row), one contribution per instance, in any row order.

    An instance with an event at time u, one of `d` of its stratum with that time, contributes

        w ((1/d) sum over l = 0 .. d-1 of log(R - (l/d) D)  -  g(u, row)),

    where R sums w_k exp(g(u, row_k)) over the instances k of its stratum with entry_k < u <= time_k and D over the `d`
    tied events (Efron; Breslow leaves out D). Censored instances contribute 0, on the graph. Any cause counts as an
    event. With a g that does not depend on the time this is `cox_partial_likelihood`. Sums run in float64, relative to
    the largest log-risk of each risk set. Work is the number of event times times the size of their risk sets; memory
    is bounded.

    Args:
        log_risk: g, see `survlens.losses.event_risk_sets`.
        rows: One row per instance.
        outcome: What was observed of the same instances.
        ties: Rule for equal event times.

    Raises:
        InvalidValueError: If `rows` and `outcome` differ in length.

    References:
        Cox 1972; Efron 1977; Kvamme, Borgan and Scheel 2019.
    """
    check_choice("ties", ties, Ties)
    outcome = _on_device(rows, outcome)
    if outcome.n_events == 0:
        return log_risk(outcome.time, rows) * 0
    sets, efron = EventRiskSets.of(outcome), ties is Ties.EFRON
    terms = sets.over_blocks(lambda value, block: block.terms(value, efron), log_risk, rows)
    position = torch.from_numpy(sets.order[sets.events]).to(rows.device)
    if outcome.weight is not None:
        terms = terms * outcome.weight[position]
    return torch.zeros_like(outcome.time).index_copy(0, position, terms).to(rows.dtype)


def sampled_cox_time_loss(
    log_risk: LogRisk, rows: Float[Tensor, "instance width"], outcome: SurvivalOutcome, *, controls: int
) -> Float[Tensor, " instance"]:
    """`cox_time_loss` with each risk set replaced by the event itself and a few of the others, drawn at random.

    An event at u contributes w (log sum of w_k exp(g(u, row_k)) over itself and its controls - g(u, row)). Its
    `controls` are drawn uniformly, with replacement, from the instances of its stratum with time >= u; draws of itself
    and of instances that had not entered by u are left out, so there may be fewer. Each event stands alone, tied or
    not. Work is the number of events times (1 + `controls`). Draws come from torch's own generator, like those of
    dropout.

    Args:
        log_risk: g, see `survlens.losses.event_risk_sets`.
        rows: One row per instance.
        outcome: What was observed of the same instances.
        controls: Draws per event, >= 1.

    Raises:
        InvalidValueError: If `rows` and `outcome` differ in length, or `controls` < 1.

    References:
        Goldstein and Langholz 1992; Kvamme, Borgan and Scheel 2019.
    """
    if controls < 1:
        raise InvalidValueError(f"`controls` must be >= 1; got {controls}.")
    outcome = _on_device(rows, outcome)
    if outcome.n_events == 0:
        return log_risk(outcome.time, rows) * 0
    case, drawn, left_out = _draws(outcome, controls)
    chosen = torch.from_numpy(np.concatenate([case[:, None], drawn], 1)).to(rows.device)
    case = chosen[:, 0]
    # index_select: its gradient adds rows up several times as fast as that of advanced indexing.
    picked = rows.index_select(0, chosen.flatten()).unflatten(0, chosen.shape)
    value = log_risk(outcome.time[case][:, None], picked).double()
    scored = value if outcome.weight is None else value + outcome.weight[chosen].log()
    if left_out.any():
        absent = torch.from_numpy(left_out).to(rows.device)
        scored = scored.masked_fill(torch.nn.functional.pad(absent, (1, 0)), -torch.inf)
    terms = torch.logsumexp(scored, 1) - value[:, 0]
    if outcome.weight is not None:
        terms = terms * outcome.weight[case]
    return torch.zeros_like(outcome.time).index_copy(0, case, terms).to(rows.dtype)


def _draws(outcome: SurvivalOutcome, controls: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows with an event, the rows drawn for each of them, and which of these are to be left out."""
    time, event = outcome.numpy()
    stratum = outcome.strata().cpu().numpy()
    # By stratum, and latest first within: a risk set runs from the first row of its stratum to the last of its time.
    order = np.argsort(-time, kind="stable") if outcome.stratum is None else np.lexsort((-time, stratum))
    time, stratum = time[order], stratum[order]
    case = np.flatnonzero(event[order] > 0)
    start, end = _runs(stratum)[0][case][:, None], _runs(time, stratum)[1][case][:, None]
    position = torch.rand((len(case), controls), dtype=torch.float64).numpy()
    drawn = start + np.minimum((position * (end - start)).astype(np.int64), end - start - 1)
    left_out = drawn == case[:, None]
    if outcome.entry is not None:
        left_out |= outcome.entry.cpu().numpy()[order][drawn] >= time[case][:, None]
    return order[case], order[drawn], left_out


def log_baseline_jumps(
    log_risk: LogRisk, rows: Float[Tensor, "instance width"], outcome: SurvivalOutcome, *, ties: Ties = Ties.EFRON
) -> tuple[Float[Tensor, " time"], Float[Tensor, " time"]]:
    """Distinct event times and the log of the jump of the baseline hazard at each, for log-risk 0.

    Breslow: the jump at u is d_u / R_u, with d_u the weight of the events at u and R_u as in `cox_time_loss`; Efron:
    the mean weight of the tied events times the sum over l = 0 .. d - 1 of 1 / (R_u - (l/d) D_u).

    Args:
        log_risk: g, see `survlens.losses.event_risk_sets`.
        rows: One row per instance.
        outcome: What was observed of the same instances, in one stratum.
        ties: Rule for equal event times; use the one of the fit.

    References:
        Breslow 1972; Efron 1977.
    """
    check_choice("ties", ties, Ties)
    outcome = _on_device(rows, outcome)
    if outcome.n_events == 0:
        return outcome.time[:0], outcome.time[:0]
    sets, efron = EventRiskSets.of(outcome), ties is Ties.EFRON

    def log_jumps(value: Tensor, block: EventRiskSets) -> Tensor:
        peak, denominators = block.denominators(value, efron)
        group, sizes = block.groups(value.device)
        weight = torch.from_numpy(np.exp(block.rows.log_weight[block.events])).to(value.device)
        inverse = torch.zeros_like(peak).index_add(0, group, 1 / denominators)
        mean = torch.zeros_like(peak).index_add(0, group, weight) / sizes
        return mean.log() + inverse.log() - peak

    jumps = sets.over_blocks(log_jumps, log_risk, rows)
    return torch.from_numpy(sets.times).to(rows.device).flip(0), jumps.flip(0)


def _on_device(rows: Tensor, outcome: SurvivalOutcome) -> SurvivalOutcome:
    if rows.shape[0] != len(outcome):
        raise InvalidValueError(
            f"`rows` must have one row per instance of `outcome`; got {rows.shape[0]} rows for {len(outcome)} outcomes."
        )
    return outcome.to(rows.device)


def _runs(*keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each position, where its run of equal keys starts and where it ends (exclusive)."""
    change = np.ones(len(keys[0]), dtype=bool)
    change[1:] = np.logical_or.reduce([key[1:] != key[:-1] for key in keys])
    starts = np.flatnonzero(change)
    run = np.cumsum(change) - 1
    return starts[run], np.append(starts[1:], len(change))[run]

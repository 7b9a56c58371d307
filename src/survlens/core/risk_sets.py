"""Who is at risk when: counts at distinct times, and sums over the ranges on which instances are at risk."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from survlens.core.outcome import SurvivalOutcome
from survlens.core.row_order import by_value

_BAND = 500.0


class Counts(NamedTuple):
    """Sums of weights at the distinct observed times; numbers of instances where there are no weights.

    Attributes:
        times: Every distinct observed time, increasing.
        at_risk: At risk just before each time: entry < time <= own time.
        staying: Of these, those without an event at that time.
        events: With an event at each time.
        censored: Censored at each time.
    """

    times: np.ndarray
    at_risk: np.ndarray
    staying: np.ndarray
    events: np.ndarray
    censored: np.ndarray


def counts(outcome: SurvivalOutcome) -> Counts:
    """Counts of an outcome, pooled over its strata."""
    time, event = outcome.numpy()
    order, ordered = by_value(time)
    starts = np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1])))[: len(time)]
    if outcome.weight is None:
        totals = np.diff(starts, append=len(time)).astype(np.float64)
        events = np.add.reduceat((event[order] > 0).astype(np.float64), starts) if len(time) else totals
        at_risk = (len(time) - starts).astype(np.float64)
        if outcome.entry is not None:  # whole numbers: their difference is exact
            entry = np.sort(_entries(outcome))
            at_risk -= len(time) - np.searchsorted(entry, ordered[starts], "left")
        return Counts(ordered[starts], at_risk, at_risk - events, events, totals - events)
    weight = outcome.weight.detach().cpu().numpy()
    if not len(time):
        return Counts(time, weight, weight, weight, weight)
    events, censored = (
        np.add.reduceat(np.where(died == (event[order] > 0), weight[order], 0.0), starts) for died in (True, False)
    )
    if outcome.entry is None:
        totals = events + censored
        later = np.append(totals[:0:-1].cumsum()[::-1], 0.0)
    else:
        first = np.searchsorted(ordered[starts], _entries(outcome), "right")
        last = np.searchsorted(ordered[starts], time, "left") - 1
        later = sums_over_ranges(first, last, weight, len(starts))
    # Exactly the events where nobody else is at risk, so that survival is exactly 0 then.
    return Counts(ordered[starts], (later + censored) + events, later + censored, events, censored)


def _entries(outcome: SurvivalOutcome) -> np.ndarray:
    return outcome.entries().detach().cpu().numpy()


def sums_over_ranges(first: np.ndarray, last: np.ndarray, values: np.ndarray, size: int) -> np.ndarray:
    """At each of `size` positions the sum of `values` over the rows with first <= position <= last.

    Nothing is subtracted, so nothing cancels and an uncovered position has exactly 0. The highest bit in which first
    and last differ names one place where the range crosses from the lower to the upper half of an aligned stretch of
    positions; from there it covers the lower half from `first` on and the upper half up to `last`. Running sums over
    the halves, one sweep per bit, add up all ranges.
    """
    rows = first <= last
    first, last, values = first[rows], last[rows], values[rows]
    bits = np.frexp((first ^ last).astype(np.float64))[1]
    total = np.zeros(size)
    total += np.bincount(first[bits == 0], values[bits == 0], minlength=size)
    for bit in np.unique(bits[bits > 0]).tolist():
        here, half = bits == bit, 1 << (bit - 1)
        padded = -(-size // (2 * half)) * 2 * half
        slots = np.bincount(first[here], values[here], padded) + np.bincount(last[here], values[here], padded)
        slots = slots.reshape(-1, 2, half)
        halves = np.stack([slots[:, 0].cumsum(1), slots[:, 1, ::-1].cumsum(1)[:, ::-1]], 1)
        total += halves.reshape(-1)[:size]
    return total


class LogRiskSets(NamedTuple):
    """Sums of exp(log_risk) at the distinct event times.

    Attributes:
        times: Distinct event times, increasing.
        deaths: Number of events at each.
        log_total: log R, with `R` the sum over everybody at risk.
        others: Share of R of everybody at risk but the tied events.
        tied: Share of R of the tied events.
    """

    times: np.ndarray
    deaths: np.ndarray
    log_total: np.ndarray
    others: np.ndarray
    tied: np.ndarray


def log_risk_sets(log_risk: np.ndarray, outcome: SurvivalOutcome) -> LogRiskSets:
    """Risk sets of an outcome, pooled over its strata, whatever finite log-risks come in."""
    return _growing(log_risk, outcome) if outcome.entry is None else _on_ranges(log_risk, outcome)


def _growing(log_risk: np.ndarray, outcome: SurvivalOutcome) -> LogRiskSets:
    time, event = outcome.numpy()
    # Latest first, and at one time events last: the risk set is all that stands up to the last event of a time.
    order = np.lexsort((event > 0, -time))
    running = np.logaddexp.accumulate(log_risk[order]) if len(order) else log_risk
    events = np.flatnonzero(event[order] > 0)
    times, deaths = np.unique(time[order][events], return_counts=True)
    number = deaths[::-1]
    end = number.cumsum()
    log_total, first = running[events[end - 1]], events[end - number]
    others = np.where(first > 0, np.exp(running[np.maximum(first - 1, 0)] - log_total), 0.0)
    group = np.repeat(np.arange(len(number)), number)
    tied = np.bincount(group, weights=np.exp(log_risk[order][events] - log_total[group]), minlength=len(number))
    return LogRiskSets(times, deaths, log_total[::-1], others[::-1], tied[::-1])


def _on_ranges(log_risk: np.ndarray, outcome: SurvivalOutcome) -> LogRiskSets:
    """With delayed entry a row is at risk on a range of event times.

    Log-risks further apart than a band of floats can hold are summed band by band, and put together at each time
    relative to the highest band at risk there.
    """
    time, event = outcome.numpy()
    died = event > 0
    times, deaths = np.unique(time[died], return_counts=True)
    first = np.searchsorted(times, _entries(outcome), "right")
    last = np.searchsorted(times, time, "right") - 1 - died
    peak, others, tied = np.full(len(times), np.nan), np.zeros(len(times)), np.zeros(len(times))
    top = log_risk.max(initial=-np.inf)
    band = np.floor((top - log_risk) / _BAND)
    for number in np.unique(band).tolist():  # from the highest
        rows, scale = band == number, top - _BAND * number
        share = np.exp(log_risk[rows] - scale)
        apart = sums_over_ranges(first[rows], last[rows], share, len(times))
        events = np.bincount(last[rows & died] + 1, share[died[rows]], minlength=len(times))
        peak[np.isnan(peak) & (apart + events > 0)] = scale
        factor = np.exp(np.fmin(scale - peak, 0.0))
        others += apart * factor
        tied += events * factor
    total = others + tied
    return LogRiskSets(times, deaths, peak + np.log(total), others / total, tied / total)

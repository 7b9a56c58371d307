"""Observed probability of an event by a horizon, for many weightings of the same rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit

from survlens.core.errors import InvalidValueError
from survlens.core.outcome import SurvivalOutcome


@dataclass(frozen=True, slots=True, eq=False)
class IncidenceRows:
    """Rows in order of time, prepared to ask for the observed risk by one horizon.

    Attributes:
        order: Position in the data of each row here.
        time: Sorted times.
        kind: 0 censored, 1 the event of interest, 2 another cause.
        weight: Weight of each row.
        horizon: End point.
    """

    order: np.ndarray
    time: np.ndarray
    kind: np.ndarray
    weight: np.ndarray
    horizon: float

    @staticmethod
    def of(outcome: SurvivalOutcome, horizon: float, cause: int | None = None) -> IncidenceRows:
        """Rows of `outcome`; without a cause any event is of interest.

        Raises:
            InvalidValueError: If `cause` < 1.
        """
        if cause is not None and cause < 1:
            raise InvalidValueError(f"`cause` must be >= 1; got {cause}.")
        time, event = outcome.numpy()
        order = np.argsort(time, kind="stable")
        event = event[order]
        kind = np.where(event == 0, 0, np.where((event == cause) | (cause is None), 1, 2))
        weight = outcome.weights().detach().cpu().numpy()[order]
        return IncidenceRows(order, time[order], kind.astype(np.int64), weight, float(horizon))

    def risk(self, multiplicity: np.ndarray | None = None) -> float:
        """Aalen-Johansen estimate of the risk of all rows: 1 - Kaplan-Meier where there is one cause.

        NaN where nobody is followed to the horizon and some are left alive.
        """
        weight = self.weight if multiplicity is None else self.weight * multiplicity[self.order]
        everyone = np.ones(len(weight), dtype=np.int64)
        return float(risk_above(self.time, self.kind, everyone, 1, weight, self.horizon)[0][0])

    def risk_above(
        self, band: np.ndarray, levels: int, multiplicity: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Risk among the rows with `band` > k, for k = 0 .. levels - 1, and the share of all weight that they hold."""
        weight = self.weight if multiplicity is None else self.weight * multiplicity[self.order]
        risks, held = risk_above(self.time, self.kind, band[self.order], levels, weight, self.horizon)
        return risks, held / weight.sum()


@njit(cache=True)
def risk_above(
    time: np.ndarray, kind: np.ndarray, band: np.ndarray, levels: int, weight: np.ndarray, horizon: float
) -> tuple[np.ndarray, np.ndarray]:
    """Aalen-Johansen risk by `horizon` of the event of kind 1 among rows with `band` > k, for each level k.

    Rows are sorted by time. F gains S d_1 / n and S loses its share d / n at each time, events before censorings. The
    risk is NaN where it is unknown, and the second array holds the weight of each group.
    """
    n = len(time)
    held = np.zeros(levels + 1)
    last_seen = np.zeros(levels + 1)
    for i in range(n):
        if band[i] > 0 and weight[i] > 0.0:
            held[band[i] - 1] += weight[i]
            last_seen[band[i] - 1] = time[i]
    for level in range(levels - 2, -1, -1):
        held[level] += held[level + 1]
        last_seen[level] = max(last_seen[level], last_seen[level + 1])
    at_risk = held.copy()
    survival, incidence = np.ones(levels), np.zeros(levels)
    # Sums by band since the last event time; those of higher bands belong to every lower level too.
    gone, events, own = np.zeros(levels + 1), np.zeros(levels + 1), np.zeros(levels + 1)
    i = 0
    while i < n and time[i] <= horizon:
        now, anybody = time[i], False
        first = i
        while i < n and time[i] == now:
            if kind[i] > 0 and band[i] > 0:
                anybody = True
                events[band[i] - 1] += weight[i]
                if kind[i] == 1:
                    own[band[i] - 1] += weight[i]
            i += 1
        if anybody:
            left, died, of_kind = 0.0, 0.0, 0.0
            for level in range(levels - 1, -1, -1):
                left += gone[level]
                died += events[level]
                of_kind += own[level]
                at_risk[level] -= left
                if died > 0.0:
                    incidence[level] += survival[level] * of_kind / at_risk[level]
                    whole = died >= at_risk[level] * (1 - 1e-12)
                    survival[level] = 0.0 if whole else survival[level] * (1 - died / at_risk[level])
            gone[:], events[:], own[:] = 0.0, 0.0, 0.0
        for k in range(first, i):
            if band[k] > 0:
                gone[band[k] - 1] += weight[k]
    risks = np.full(levels, np.nan)
    for level in range(levels):
        if survival[level] <= 0.0 or last_seen[level] >= horizon:
            risks[level] = incidence[level]
    return risks, held[:levels]

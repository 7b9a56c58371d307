"""Cutting the time axis into intervals."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from survlens.core.errors import InvalidValueError
from survlens.core.nonparametric import StepCurve, survival_curve
from survlens.core.outcome import SurvivalOutcome


class EmptyIntervalWarning(UserWarning):
    """An interval of a time grid holds no event, so nothing is learnt about it."""


@dataclass(frozen=True, slots=True, eq=False)
class TimeGrid:
    """Boundaries of consecutive intervals; interval j is (edges[j], edges[j + 1]].

    Attributes:
        edges: Boundaries in `unit`; `edges[0]` is 0 and they increase strictly.
        unit: Unit of time.
    """

    edges: Float64[Tensor, " edge"]
    unit: str

    def __post_init__(self) -> None:
        edges = self.edges
        if edges.dtype != torch.float64 or edges.ndim != 1 or edges.shape[0] < 2:
            raise InvalidValueError(
                f"`edges` must be a float64 vector of at least two; got {edges.dtype} of shape {tuple(edges.shape)}."
            )
        if not bool(torch.isfinite(edges).all()) or float(edges[0]) != 0.0 or bool((edges.diff() <= 0).any()):
            raise InvalidValueError(f"`edges` must start at 0 and increase strictly; got {edges.tolist()}.")

    def __len__(self) -> int:
        return int(self.edges.shape[0]) - 1

    @staticmethod
    def equidistant(last: float, intervals: int, unit: str) -> TimeGrid:
        """Intervals of equal width from 0 to `last`."""
        return TimeGrid(torch.linspace(0.0, float(last), intervals + 1, dtype=torch.float64), unit)

    @staticmethod
    def quantile(outcome: SurvivalOutcome, intervals: int) -> TimeGrid:
        """Intervals in which the Kaplan-Meier curve of `outcome` falls by about the same amount.

        Ties and few events merge intervals, so the grid may be shorter than asked for. Under delayed entry small early
        risk sets may send Kaplan-Meier to 0, which would leave one interval for all that comes after; intervals then
        hold about as many events each, by weight.

        Args:
            outcome: Training outcome; the last edge is its largest time.
            intervals: Number of intervals asked for.

        Raises:
            InvalidValueError: If `intervals` < 1 or `outcome` has no events.
        """
        if intervals < 1:
            raise InvalidValueError(f"`intervals` must be >= 1; got {intervals}.")
        if outcome.n_events == 0:
            raise InvalidValueError("`outcome` must hold at least one event to cut time by events; got none.")
        curve = survival_curve(outcome) if outcome.entry is None else _events_to_come(outcome)
        survival = curve.values
        levels = np.linspace(1.0, float(survival[-1]), intervals + 1)[1:-1]
        reached = [float(curve.times[np.argmax(survival <= level + 1e-12)]) for level in levels]
        last_event = float(outcome.time[outcome.event > 0].max())
        inner = [time for time in reached if time < last_event]  # the last interval holds the last event
        edges = np.unique(np.array([0.0, *inner, float(outcome.time.max())]))
        return TimeGrid(torch.from_numpy(edges), outcome.unit)

    def discretise(self, outcome: SurvivalOutcome) -> Int64[Tensor, " instance"]:
        """Index of the interval that holds each time; times past the last edge give `len(grid)`."""
        edges = self.edges.to(outcome.time.device)
        return torch.searchsorted(edges, outcome.time, right=False) - 1

    def events_per_interval(self, outcome: SurvivalOutcome) -> Int64[Tensor, " time"]:
        """Number of events of any cause in each interval; events past the last edge are in none."""
        interval = self.discretise(outcome)
        return torch.bincount(interval[(outcome.event > 0) & (interval < len(self))], minlength=len(self))

    def warn_if_empty(self, outcome: SurvivalOutcome) -> None:
        """Warns where intervals hold no event of the training outcome.

        Warns:
            EmptyIntervalWarning: Names the intervals. `TimeGrid.quantile` makes grids without empty ones.
        """
        empty = (self.events_per_interval(outcome) == 0).nonzero()[:, 0].tolist()
        if empty:
            spans = ", ".join(f"({float(self.edges[j]):g}, {float(self.edges[j + 1]):g}]" for j in empty[:3])
            warnings.warn(
                f"`grid` has {len(empty)} of {len(self)} intervals without an event, such as {spans} {self.unit}; "
                "nothing is learnt there. Use fewer intervals, or TimeGrid.quantile(outcome, intervals).",
                EmptyIntervalWarning,
                stacklevel=3,
            )


def _events_to_come(outcome: SurvivalOutcome) -> StepCurve:
    """Of all events, the share by weight that is yet to come."""
    time, event = outcome.numpy()
    times, place = np.unique(time[event > 0], return_inverse=True)
    gone = np.cumsum(np.bincount(place, outcome.weights().detach().cpu().numpy()[event > 0]))
    return StepCurve(times, 1 - gone / gone[-1], 1.0, outcome.unit)

"""A prediction that tells causes apart."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from survlens.core import surfaces
from survlens.core.errors import InvalidValueError
from survlens.core.outcome import row_index
from survlens.core.prediction import Extrapolate, Interpolation, SurvivalPrediction, Times


@dataclass(frozen=True, slots=True, eq=False)
class CompetingRisksPrediction:
    """Cumulative incidences F_k(t) = P(T <= t, cause k) of a set of instances.

    F_k(0) = 0 always and is not stored. Survival of every cause is S = 1 - sum over k of F_k. Between two knots S
    follows `interpolation`, and the causes share its fall as they share the fall over the whole interval.

    Attributes:
        times: Knots, > 0 and increasing, in `unit`.
        cumulative_incidence: F_k at the knots; cause k is row k - 1. Never falling, and at most 1 in sum.
        interpolation: What the overall survival curve does between knots.
        unit: Unit of `times`.
        log_survival: log S at the knots, from heads that know it without the cancellation of 1 - sum F_k; None
            otherwise.

    Raises:
        InvalidValueError: If shapes disagree, times do not increase, an incidence falls, or their sum leaves [0, 1].
    """

    times: Float[Tensor, " time"]
    cumulative_incidence: Float[Tensor, "cause instance time"]
    interpolation: Interpolation
    unit: str
    log_survival: Float[Tensor, "instance time"] | None = None

    def __post_init__(self) -> None:
        incidence = self.cumulative_incidence
        if incidence.ndim != 3 or incidence.shape[0] < 1 or incidence.shape[2] != self.times.shape[0]:
            raise InvalidValueError(
                "`cumulative_incidence` must have one layer per cause, one row per instance and one column per time; "
                f"got {tuple(incidence.shape)} for {tuple(self.times.shape)} times."
            )
        if self.log_survival is not None and self.log_survival.shape != incidence.shape[1:]:
            raise InvalidValueError(
                "`log_survival` must have one row per instance and one column per time; "
                f"got {tuple(self.log_survival.shape)} for incidences of shape {tuple(incidence.shape)}."
            )
        values = incidence.detach()
        if bool(torch.isnan(values).any()):
            raise InvalidValueError("`cumulative_incidence` must not be NaN. Check the inputs of these instances.")
        slack = 1e-5 if values.dtype in (torch.float32, torch.bfloat16, torch.float16) else 1e-10
        steps = torch.nn.functional.pad(values, (1, 0)).diff(dim=2)
        if bool((steps < -slack).any()) or bool((values.sum(0) > 1 + slack).any()):
            raise InvalidValueError("`cumulative_incidence` must be >= 0, never fall, and sum to at most 1.")
        self.overall()  # checks the times and the curve

    def __len__(self) -> int:
        return int(self.cumulative_incidence.shape[1])

    def __getitem__(self, index: slice | Tensor | np.ndarray | list[int]) -> CompetingRisksPrediction:
        rows = row_index(index)
        log_survival = None if self.log_survival is None else self.log_survival[rows]
        incidence = self.cumulative_incidence[:, rows]
        return CompetingRisksPrediction(self.times, incidence, self.interpolation, self.unit, log_survival)

    @property
    def n_causes(self) -> int:
        """Number of causes."""
        return int(self.cumulative_incidence.shape[0])

    @property
    def pmf(self) -> Float[Tensor, "cause instance time"]:
        """Probability of an event of each cause between the knot before (or 0) and each knot."""
        return torch.nn.functional.pad(self.cumulative_incidence, (1, 0)).diff(dim=2)

    @property
    def hazard(self) -> Float[Tensor, "cause instance time"]:
        """Cause-specific conditional probability of an event in each interval, given survival to its start."""
        return self.pmf / surfaces.previous(self._log_survival()).exp()

    def incidence(self, cause: int) -> Float[Tensor, "instance time"]:
        """F_k at the knots.

        Raises:
            InvalidValueError: If there is no such cause.
        """
        return self.cumulative_incidence[self._layer(cause)]

    def overall(self) -> SurvivalPrediction:
        """Survival of every cause: S = 1 - sum over k of F_k."""
        return SurvivalPrediction(self.times, self._log_survival(), self.interpolation, self.unit)

    def _log_survival(self) -> Tensor:
        if self.log_survival is not None:
            return self.log_survival
        return torch.log1p(-self.cumulative_incidence.sum(0).clamp(max=1.0))

    def at(self, times: Times, *, extrapolate: Extrapolate | str | None = None) -> CompetingRisksPrediction:
        """The prediction at other times, by the stored rule.

        Args:
            times: Where to ask, > 0 and strictly increasing, in `unit`.
            extrapolate: "hold" keeps the last values past the last knot; by default that is an error.

        Raises:
            InvalidValueError: If a time lies past the last knot and `extrapolate` is None.
        """
        there = self.overall().at(times, extrapolate=extrapolate)
        asked = there.times
        padded = torch.nn.functional.pad(self.cumulative_incidence, (1, 0))
        knots = torch.nn.functional.pad(self.times, (1, 0))
        if self.interpolation is Interpolation.STEP:
            incidence = padded[:, :, torch.searchsorted(knots, asked, right=True) - 1]
        else:
            right = torch.searchsorted(knots, asked, right=False).clamp(1, len(self.times))
            log_start = torch.nn.functional.pad(self._log_survival(), (1, 0))[:, right - 1]
            log_end = self._log_survival()[:, right - 1]
            fallen = _fall(log_start, there.log_survival) / _fall(log_start, log_end)
            flat = log_start <= log_end
            fallen = torch.where(flat, torch.zeros_like(fallen), fallen).clamp(0, 1)
            # At a knot its own value, also where so little is left that the share of the fall is 0 / 0.
            fallen = torch.where(asked >= knots[right], torch.ones_like(fallen), fallen)
            start, end = padded[:, :, right - 1], padded[:, :, right]
            incidence = start + fallen * (end - start)
        return CompetingRisksPrediction(asked, incidence, self.interpolation, self.unit, there.log_survival)

    def risk(self, horizon: float, cause: int) -> Float[Tensor, " instance"]:
        """F_k(horizon): the probability of an event of `cause` by `horizon`."""
        return self.at([horizon]).incidence(cause)[:, 0]

    def restricted_mean_time_lost(self, horizon: float, cause: int) -> Float[Tensor, " instance"]:
        """Mean time lost to `cause` within `horizon`: the integral of F_k from 0 to `horizon`.

        Exact under STEP and LINEAR; under EXPONENTIAL too, as F_k is an affine function of S within each interval.

        Raises:
            InvalidValueError: If `horizon` lies outside (0, last knot], or there is no such cause.
        """
        last = float(self.times[-1])
        if not 0 < horizon <= last * (1 + 1e-12):
            raise InvalidValueError(f"`horizon` must lie in (0, {last:g}] {self.unit}; got {horizon:g}.")
        inner = self.times[: int((self.times < horizon).sum())]
        ends = torch.cat([inner, inner.new_tensor([horizon])])
        there = self.at(ends)
        width = torch.nn.functional.pad(ends, (1, 0)).diff().to(self.cumulative_incidence.dtype)
        final = there.incidence(cause)
        start = surfaces.previous(final)
        if self.interpolation is Interpolation.STEP:
            return (start * width).sum(1)
        share: Tensor | float = 0.5  # mean share of the interval's fall that has happened
        if self.interpolation is Interpolation.EXPONENTIAL:
            log_end = there._log_survival()
            share = _mean_share(surfaces.previous(log_end), log_end)
        return ((start + share * (final - start)) * width).sum(1)

    def to(self, device: torch.device | str) -> CompetingRisksPrediction:
        """The same prediction on another device."""
        log_survival = None if self.log_survival is None else self.log_survival.to(device)
        incidence = self.cumulative_incidence.to(device)
        return CompetingRisksPrediction(self.times.to(device), incidence, self.interpolation, self.unit, log_survival)

    def detach(self) -> CompetingRisksPrediction:
        """The same prediction without its graph."""
        log_survival = None if self.log_survival is None else self.log_survival.detach()
        incidence = self.cumulative_incidence.detach()
        return CompetingRisksPrediction(self.times.detach(), incidence, self.interpolation, self.unit, log_survival)

    def _layer(self, cause: int) -> int:
        if not 1 <= cause <= self.n_causes:
            raise InvalidValueError(f"`cause` must lie in 1 .. {self.n_causes}; got {cause}.")
        return cause - 1


def _fall(log_start: Tensor, log_end: Tensor) -> Tensor:
    """The fall of S relative to where it starts: 1 - exp(log_end - log_start)."""
    dead = torch.isinf(log_start)
    step = torch.where(dead, torch.zeros_like(log_start), log_end - torch.where(dead, log_end, log_start))
    return -torch.expm1(step)


def _mean_share(log_start: Tensor, log_end: Tensor) -> Tensor:
    """Mean over an interval of (S_start - S) / (S_start - S_end) where log S is straight: 1 / (1 - e^-f) - 1 / f."""
    dead = torch.isinf(log_start)
    fall = torch.where(dead, torch.zeros_like(log_start), log_start) - torch.where(
        dead, torch.zeros_like(log_end), log_end
    )
    small = fall < 1e-2
    safe = torch.where(small, torch.ones_like(fall), fall)
    return torch.where(small, 0.5 + fall / 12 - fall**3 / 720, -1 / torch.expm1(-safe) - 1 / safe)

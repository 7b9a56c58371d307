"""A prediction is an object that can be asked at any time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from survlens.core import surfaces
from survlens.core.choices import check_choice
from survlens.core.errors import InvalidValueError
from survlens.core.outcome import row_index


class Interpolation(Enum):
    """What a survival curve does between its knots.

    STEP: constant, right-continuous (Kaplan-Meier, Cox). LINEAR: straight in S (constant density).
    EXPONENTIAL: straight in log S (constant hazard rate).
    """

    STEP = "step"
    LINEAR = "linear"
    EXPONENTIAL = "exponential"


class Extrapolate(Enum):
    """What to answer past the last knot."""

    HOLD = "hold"


Times = Sequence[float] | np.ndarray | Tensor | float

TIME_ROUNDING = 2.0**-23
"""A time past the last knot by no more than this share of it, the rounding of float32, is the last knot."""


@dataclass(frozen=True, slots=True, eq=False)
class SurvivalPrediction:
    """Survival curves of a set of instances.

    S(0) = 1 always and is not stored. Everything is derived from one primitive, `log_survival`, and keeps its graph.

    Attributes:
        times: Knots, > 0 and increasing, in `unit`.
        log_survival: log S at the knots, one row per instance; never above 0 and never rising.
        interpolation: What the curve does between knots.
        unit: Unit of `times`.
        log_hazard_rate: log of the exact hazard rate at the knots, from heads that know it; None otherwise.
        log_rise: log of the rise of -log S from the knot before (or 0) to each knot, from heads that know it; None
            otherwise. A rise too small for the difference of `log_survival` keeps its digits here.

    Raises:
        InvalidValueError: If shapes disagree, times do not increase, or a curve rises or leaves [0, 1].
    """

    times: Float[Tensor, " time"]
    log_survival: Float[Tensor, "instance time"]
    interpolation: Interpolation
    unit: str
    log_hazard_rate: Float[Tensor, "instance time"] | None = None
    log_rise: Float[Tensor, "instance time"] | None = None

    def __post_init__(self) -> None:
        check_choice("interpolation", self.interpolation, Interpolation)
        times, log_survival = self.times, self.log_survival
        if times.ndim != 1 or log_survival.ndim != 2 or log_survival.shape[1] != times.shape[0] or not times.shape[0]:
            raise InvalidValueError(
                "`log_survival` must have one row per instance and one column per time; "
                f"got {tuple(log_survival.shape)} for {tuple(times.shape)} times."
            )
        for name, known in (("log_hazard_rate", self.log_hazard_rate), ("log_rise", self.log_rise)):
            if known is not None and known.shape != log_survival.shape:
                raise InvalidValueError(
                    f"`{name}` must have the shape of `log_survival`; "
                    f"got {tuple(known.shape)} and {tuple(log_survival.shape)}."
                )
        if bool((times <= 0).any()) or bool((times.diff() <= 0).any()) or not bool(torch.isfinite(times).all()):
            raise InvalidValueError(
                "`times` must be finite, > 0 and strictly increasing, since S(0) = 1 is not stored; "
                f"got {times.tolist()[:8]}. Sort them, drop duplicates, and leave out 0."
            )
        values = log_survival.detach()
        if bool(torch.isnan(values).any()):
            rows = torch.isnan(values).any(1).nonzero()[:, 0].tolist()
            raise InvalidValueError(
                f"`log_survival` must not be NaN; got NaN in rows {rows[:5]}. Check these instances' inputs."
            )
        slack = 1e-5 if values.dtype in (torch.float32, torch.bfloat16, torch.float16) else 1e-12
        room = slack * (1 + values[:, :-1].abs().clamp(max=1e30))  # rounding grows with the size of the values
        if bool((values > slack).any()) or bool((values[:, 1:] > values[:, :-1] + room).any()):
            raise InvalidValueError("`log_survival` must be <= 0 and never rise along the times.")

    def __len__(self) -> int:
        return int(self.log_survival.shape[0])

    def __getitem__(self, index: slice | Tensor | np.ndarray | Sequence[int]) -> SurvivalPrediction:
        rows = row_index(index)
        known = (None if each is None else each[rows] for each in (self.log_hazard_rate, self.log_rise))
        return SurvivalPrediction(self.times, self.log_survival[rows], self.interpolation, self.unit, *known)

    @property
    def survival(self) -> Float[Tensor, "instance time"]:
        """S at the knots."""
        return self.log_survival.exp()

    @property
    def cumulative_hazard(self) -> Float[Tensor, "instance time"]:
        """H = -log S at the knots."""
        return -self.log_survival

    @property
    def hazard(self) -> Float[Tensor, "instance time"]:
        """Conditional probability of an event between the knot before (or 0) and each knot."""
        return surfaces.hazard_from_log_survival(self.log_survival)

    @property
    def pmf(self) -> Float[Tensor, "instance time"]:
        """Probability of an event between the knot before (or 0) and each knot; with the last S it sums to 1."""
        return surfaces.pmf_from_log_survival(self.log_survival)

    @property
    def hazard_rate(self) -> Float[Tensor, "instance time"]:
        """Hazard rate at the knots, per `unit`: the head's own where it is known, else the slope that the rule implies.

        Raises:
            InvalidValueError: Under STEP, where no rate exists.
        """
        if self.log_hazard_rate is not None:
            return self.log_hazard_rate.exp()
        return self._log_rate(torch.arange(self.times.shape[0], device=self.times.device), self.log_survival).exp()

    def _log_rate(self, interval: Tensor, log_survival_there: Tensor) -> Tensor:
        """Log of the slope of -log S just before a time that lies in `interval` (index of the knot that ends it)."""
        if self.interpolation is Interpolation.STEP:
            raise InvalidValueError(
                "`hazard_rate` must not be asked of a step curve, which jumps; got interpolation=STEP. "
                "Use `hazard` (per interval) or `cumulative_hazard`, or predict with a head that has a rate."
            )
        before = surfaces.previous(self.log_survival)
        width = torch.nn.functional.pad(self.times[:-1], (1, 0))
        width = (self.times - width).to(self.log_survival.dtype)
        if self.interpolation is Interpolation.EXPONENTIAL:
            log_rise = (before - self.log_survival).log() if self.log_rise is None else self.log_rise
            return (log_rise - width.log())[:, interval]
        if self.log_rise is None:
            density = (surfaces.pmf_from_log_survival(self.log_survival) / width)[:, interval]
            return (density / log_survival_there.exp()).log()
        log_density = before + surfaces.log_hazard_from_log_rise(self.log_rise) - width.log()
        return log_density[:, interval] - log_survival_there

    def at(self, times: Times, *, extrapolate: Extrapolate | str | None = None) -> SurvivalPrediction:
        """The prediction at other times, by the stored rule.

        Args:
            times: Where to ask, > 0 and strictly increasing, in `unit`.
            extrapolate: "hold" keeps the last value past the last knot; by default that is an error.

        Raises:
            InvalidValueError: If a time lies past the last knot and `extrapolate` is None.
        """
        asked = torch.as_tensor(times, dtype=self.times.dtype, device=self.times.device).reshape(-1)
        last = float(self.times[-1])
        if extrapolate is None and bool((asked > last * (1 + TIME_ROUNDING)).any()):
            raise InvalidValueError(
                f"`times` must lie in (0, {last:g}] {self.unit}, the predicted range; got {float(asked.max()):g}. "
                'Leave later times out, or keep the last value: prediction.at(times, extrapolate="hold").'
            )
        if extrapolate is not None:
            Extrapolate(extrapolate)
        log_survival = self._log_survival_at(asked)
        rate = None
        if self.log_hazard_rate is not None or self.interpolation is not Interpolation.STEP:
            rate = self._log_rate_at(asked, log_survival)
        return SurvivalPrediction(asked, log_survival, self.interpolation, self.unit, rate)

    def _log_survival_at(self, asked: Tensor) -> Tensor:
        padded = torch.nn.functional.pad(self.log_survival, (1, 0))
        knots = torch.nn.functional.pad(self.times, (1, 0))
        if self.interpolation is Interpolation.STEP:
            return padded[:, torch.searchsorted(knots, asked, right=True) - 1]
        right = torch.searchsorted(knots, asked, right=False).clamp(1, len(self.times))
        left = right - 1
        share = ((asked - knots[left]) / (knots[right] - knots[left])).clamp(max=1.0).to(padded.dtype)
        start, end = padded[:, left], padded[:, right]
        if self.interpolation is Interpolation.EXPONENTIAL:
            dead = torch.isinf(end)
            mixed = start + share * (torch.where(dead, start, end) - start)
            return torch.where(dead & (share > 0), end, mixed)
        # S = S0 + share (S1 - S0) = S0 (1 - share * hazard): in logarithms nothing underflows, except at the knot
        # itself after a deep fall, where the hazard rounds to 1.
        hazard = surfaces.hazard_from_log_survival(self.log_survival)[:, left]
        there = share >= 1
        inside = torch.where(there, torch.zeros_like(share), share)
        return torch.where(there, end, start + torch.log1p(-inside * hazard))

    def _log_rate_at(self, asked: Tensor, log_survival: Tensor) -> Tensor | None:
        interval = torch.searchsorted(self.times, asked, right=False).clamp(max=len(self.times) - 1)
        exact = self.times[interval] == asked
        if self.log_hazard_rate is not None and (bool(exact.all()) or self.interpolation is Interpolation.STEP):
            return self.log_hazard_rate[:, interval] if bool(exact.all()) else None
        implied = self._log_rate(interval, log_survival)
        implied = torch.where(asked > self.times[-1], torch.full_like(implied, -torch.inf), implied)
        if self.log_hazard_rate is None:
            return implied
        return torch.where(exact, self.log_hazard_rate[:, interval], implied)

    def quantile(self, probability: float) -> Float[Tensor, " instance"]:
        """Time by which a share `probability` has had the event: the smallest time with S <= 1 - probability.

        Infinite where the curve ends above that level. `quantile(0.5)` is median survival.
        """
        if not 0 < probability < 1:
            raise InvalidValueError(f"`probability` must lie in (0, 1); got {probability}.")
        level = float(np.log1p(-probability))
        knots = torch.nn.functional.pad(self.times, (1, 0)).to(self.log_survival.dtype)
        padded = torch.nn.functional.pad(self.log_survival, (1, 0))
        reached = self.log_survival <= level + 1e-12
        end = torch.where(reached.any(1), reached.to(torch.int64).argmax(1), len(self.times) - 1) + 1
        right = knots[end]
        if self.interpolation is not Interpolation.STEP:
            rows = torch.arange(len(self), device=padded.device)
            start_value, end_value = padded[rows, end - 1], padded[rows, end]
            if self.interpolation is Interpolation.EXPONENTIAL:
                share = (level - start_value) / (end_value - start_value)
            else:
                share = torch.expm1(level - start_value) / torch.expm1(end_value - start_value)
            right = knots[end - 1] + share.clamp(0, 1) * (right - knots[end - 1])
        return torch.where(reached.any(1), right, torch.full_like(right, torch.inf))

    def restricted_mean(self, horizon: float) -> Float[Tensor, " instance"]:
        """Mean survival time within `horizon`: the integral of S from 0 to `horizon`, exact for the stored rule.

        Raises:
            InvalidValueError: If `horizon` lies outside (0, last knot].
        """
        last = float(self.times[-1])
        if not 0 < horizon <= last * (1 + 1e-12):
            raise InvalidValueError(f"`horizon` must lie in (0, {last:g}] {self.unit}; got {horizon:g}.")
        inner = self.times[: int((self.times < horizon).sum())]
        ends = torch.cat([inner, inner.new_tensor([horizon])])
        starts = torch.nn.functional.pad(inner, (1, 0))
        width = (ends - starts).to(self.log_survival.dtype)
        log_end = self._log_survival_at(ends)
        log_start = torch.nn.functional.pad(log_end[:, :-1], (1, 0))
        start = log_start.exp()
        if self.interpolation is Interpolation.STEP:
            mean = start
        elif self.interpolation is Interpolation.LINEAR:
            mean = (start + log_end.exp()) / 2
        else:
            fall = torch.where(torch.isinf(log_start), torch.zeros_like(log_start), log_start - log_end)
            small = fall < 1e-4
            safe = torch.where(small | torch.isinf(fall), torch.ones_like(fall), fall)
            mean = start * torch.where(small, 1 - fall / 2 + fall**2 / 6, -torch.expm1(-safe) / safe)
            mean = torch.where(torch.isinf(fall), torch.zeros_like(mean), mean)
        return (mean * width).sum(1)

    def risk(self, horizon: float) -> Float[Tensor, " instance"]:
        """1 - S(horizon): the probability of an event by `horizon`."""
        return -torch.expm1(self.at([horizon]).log_survival[:, 0])

    def to(self, device: torch.device | str) -> SurvivalPrediction:
        """The same prediction on another device."""
        known = (None if each is None else each.to(device) for each in (self.log_hazard_rate, self.log_rise))
        return SurvivalPrediction(
            self.times.to(device), self.log_survival.to(device), self.interpolation, self.unit, *known
        )

    def detach(self) -> SurvivalPrediction:
        """The same prediction without its graph."""
        known = (None if each is None else each.detach() for each in (self.log_hazard_rate, self.log_rise))
        return SurvivalPrediction(
            self.times.detach(), self.log_survival.detach(), self.interpolation, self.unit, *known
        )

    def numpy(self) -> tuple[np.ndarray, np.ndarray]:
        """Knots and survival as float64 arrays."""
        return self.times.detach().cpu().double().numpy(), self.survival.detach().cpu().double().numpy()

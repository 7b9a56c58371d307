"""The baseline hazard of a Cox-like head."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float64, Int, Int64
from torch import Tensor, nn

from survlens.core.errors import InvalidValueError, NotFittedError
from survlens.core.nonparametric import log_breslow_baseline
from survlens.core.outcome import SurvivalOutcome
from survlens.core.prediction import TIME_ROUNDING, Interpolation, SurvivalPrediction
from survlens.core.ties import Ties

_BUFFERS = ("times", "log_cumulative_hazard", "unit_code", "strata", "last_times")
_SINCE_STRATA = _BUFFERS[3:]


class BaselineHazard(nn.Module):
    """H0(t), a step function per stratum in buffers: it moves with its head and is saved with it.

    It is kept as a logarithm, so a log-risk of any size can be added before the exponential; always in float64, also
    where the module around it is cast to another type; and its unit travels as bytes, so a state dict is all that is
    needed.

    Attributes:
        times: Distinct event times and the last observed time, of all strata together; empty before `fit`.
        log_cumulative_hazard: log H0 at `times`, for log-risk 0; one row per stratum where there are strata.
        unit_code: UTF-8 bytes of the unit of `times`.
        strata: Numbers of the strata, increasing; empty where the training rows had none.
        last_times: Last observed time of each stratum; its curve ends there.
    """

    times: Float64[Tensor, " time"]
    log_cumulative_hazard: Float64[Tensor, "*stratum time"]
    unit_code: Tensor
    strata: Int64[Tensor, " stratum"]
    last_times: Float64[Tensor, " stratum"]

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("times", torch.empty(0, dtype=torch.float64))
        self.register_buffer("log_cumulative_hazard", torch.empty(0, dtype=torch.float64))
        self.register_buffer("unit_code", torch.empty(0, dtype=torch.uint8))
        self.register_buffer("strata", torch.empty(0, dtype=torch.int64))
        self.register_buffer("last_times", torch.empty(0, dtype=torch.float64))

    @property
    def fitted(self) -> bool:
        """Whether there is a baseline."""
        return self.times.shape[0] > 0

    @property
    def unit(self) -> str | None:
        """Unit of `times`; None before `fit`."""
        return bytes(self.unit_code.tolist()).decode("utf-8") if self.fitted else None

    @property
    def cumulative_hazard(self) -> Float64[Tensor, "*stratum time"]:
        """H0 at `times`, for log-risk 0; one row per stratum where there are strata."""
        return self.log_cumulative_hazard.exp()

    def fit(self, log_risk: Float[Tensor, " instance"], outcome: SurvivalOutcome, ties: Ties) -> None:
        """Estimates H0 from log-risks and outcomes of training rows, by Breslow's estimator under `ties`.

        Entries and weights of `outcome` are honoured. Where it has strata, each gets a curve of its own.

        Raises:
            InvalidValueError: If there are no rows, or a log-risk is not finite.
        """
        if len(outcome) == 0:
            raise InvalidValueError("`outcome` must hold at least one instance to fit a baseline; got none.")
        parts = [torch.arange(len(outcome))]
        strata = outcome.strata().new_empty(0)
        if outcome.stratum is not None:
            strata = outcome.stratum.unique()
            parts = [(outcome.stratum == number).nonzero()[:, 0] for number in strata]
        curves = [log_breslow_baseline(log_risk[rows], outcome[rows], ties=ties) for rows in parts]
        last = torch.stack([outcome.time[rows].max() for rows in parts]).cpu()
        # Follow-up goes on after the last event, so it ends with a knot.
        times = np.unique(np.concatenate([*(curve.times for curve in curves), last.numpy()]))
        values = np.stack([curve.at(times) for curve in curves])
        device = self.times.device
        self.times = torch.from_numpy(times).to(device)
        self.log_cumulative_hazard = torch.from_numpy(values if len(strata) else values[0]).to(device)
        self.unit_code = torch.tensor(list(outcome.unit.encode("utf-8")), dtype=torch.uint8, device=device)
        self.strata = strata.to(device)
        self.last_times = (last if len(strata) else last[:0]).to(device)

    def predict(
        self,
        log_risk: Float[Tensor, " instance"],
        times: Float[Tensor, " time"] | None = None,
        stratum: Int[Tensor, " instance"] | None = None,
    ) -> SurvivalPrediction:
        """Log S = -exp(log H0(t) + log_risk) at the knots, or at `times` only.

        Args:
            log_risk: One value per instance.
            times: Times to predict at; without them, the knots up to the earliest end of the strata asked for.
            stratum: Stratum of each instance; needed where the training rows stood in several.

        Raises:
            NotFittedError: Before `fit`.
            InvalidValueError: If a time lies past the last knot or past the end of a stratum that is asked for, a
                stratum had no training rows, or strata are needed and not given.
        """
        if self.unit is None:
            raise NotFittedError(
                "The baseline hazard must be fitted before curves are predicted; got none. "
                "Call `fit_baseline(embedding, outcome)` on the training rows."
            )
        rows = self._rows(stratum, log_risk.shape[0])
        last = self.times[-1] if not len(self.strata) or not len(rows) else self.last_times[rows].min()
        if times is None:
            asked = self.times[: int((self.times <= last).sum())]
        else:
            asked = self._within(torch.as_tensor(times).to(self.times), float(last))
        padded = torch.nn.functional.pad(self.log_cumulative_hazard, (1, 0), value=-torch.inf)
        log_hazard = padded[..., torch.searchsorted(self.times, asked, right=True)]
        log_hazard = log_hazard[rows] if len(self.strata) else log_hazard
        log_survival = -torch.exp(log_hazard + log_risk.double()[:, None])
        return SurvivalPrediction(asked, log_survival, Interpolation.STEP, self.unit)

    def _rows(self, stratum: Tensor | None, count: int) -> Tensor:
        """The curve of each instance; without strata there is one, and it is that of stratum 0."""
        known = self.strata if len(self.strata) else self.strata.new_zeros(1)
        if stratum is None:
            if len(known) > 1:
                raise InvalidValueError(
                    f"`stratum` must be given, as the baseline was fitted on strata {known.tolist()}; got None. "
                    "Pass the stratum of each instance."
                )
            return known.new_zeros(count)
        asked = torch.as_tensor(stratum, device=known.device)
        if asked.shape != (count,):
            raise InvalidValueError(
                f"`stratum` must have one value per instance; got shape {tuple(asked.shape)} for {count}."
            )
        unknown = asked[~torch.isin(asked, known)].unique()
        if len(unknown):
            raise InvalidValueError(
                f"`stratum` must be one of the fitted strata {known.tolist()}; got {unknown.tolist()}. "
                "A stratum without training rows has no baseline hazard."
            )
        return torch.searchsorted(known, asked.to(known.dtype))

    def _within(self, times: Tensor, last: float) -> Tensor:
        if times.ndim != 1 or bool((times > last * (1 + TIME_ROUNDING)).any()):
            raise InvalidValueError(
                f"`times` must be a vector in (0, {last:g}] {self.unit}, the fitted range; "
                f'got {times.tolist()}. Predict without `times` and ask `.at(times, extrapolate="hold")` to go further.'
            )
        return times

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> BaselineHazard:
        kept = {name: getattr(self, name) for name in _BUFFERS}
        super()._apply(fn, recurse)
        for name, value in kept.items():  # follow to another device, but not to another type
            if not value.is_meta:
                setattr(self, name, value.to(getattr(self, name).device))
        return self

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any) -> None:
        for name in _BUFFERS:  # as long as what is saved, whatever is here now
            saved = state_dict.get(prefix + name)
            if saved is None and name in _SINCE_STRATA and prefix + "times" in state_dict:
                saved = state_dict[prefix + name] = getattr(self, name)[:0]  # saved when there were no strata
            if saved is not None:
                mine = getattr(self, name)
                setattr(self, name, torch.empty(saved.shape, dtype=mine.dtype, device=mine.device))
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

"""The baseline hazard of a Cox-like head."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor, nn

from survlens.core.errors import InvalidValueError, NotFittedError
from survlens.core.nonparametric import log_breslow_baseline
from survlens.core.outcome import SurvivalOutcome
from survlens.core.prediction import Interpolation, SurvivalPrediction
from survlens.core.ties import Ties

_BUFFERS = ("times", "log_cumulative_hazard", "unit_code")


class BaselineHazard(nn.Module):
    """H0(t), a step function in buffers: it moves with its head and is saved with it.

    It is kept as a logarithm, so a log-risk of any size can be added before the exponential; always in float64, also
    where the module around it is cast to another type; and its unit travels as bytes, so a state dict is all that is
    needed.

    Attributes:
        times: Distinct event times and the last observed time; empty before `fit`.
        log_cumulative_hazard: log H0 at `times`, for log-risk 0.
        unit_code: UTF-8 bytes of the unit of `times`.
    """

    times: Float64[Tensor, " time"]
    log_cumulative_hazard: Float64[Tensor, " time"]
    unit_code: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("times", torch.empty(0, dtype=torch.float64))
        self.register_buffer("log_cumulative_hazard", torch.empty(0, dtype=torch.float64))
        self.register_buffer("unit_code", torch.empty(0, dtype=torch.uint8))

    @property
    def fitted(self) -> bool:
        """Whether there is a baseline."""
        return self.times.shape[0] > 0

    @property
    def unit(self) -> str | None:
        """Unit of `times`; None before `fit`."""
        return bytes(self.unit_code.tolist()).decode("utf-8") if self.fitted else None

    @property
    def cumulative_hazard(self) -> Float64[Tensor, " time"]:
        """H0 at `times`, for log-risk 0."""
        return self.log_cumulative_hazard.exp()

    def fit(self, log_risk: Float[Tensor, " instance"], outcome: SurvivalOutcome, ties: Ties) -> None:
        """Estimates H0 from log-risks and outcomes of training rows, by Breslow's estimator under `ties`.

        Raises:
            InvalidValueError: If there are no rows, or a log-risk is not finite.
        """
        if len(outcome) == 0:
            raise InvalidValueError("`outcome` must hold at least one instance to fit a baseline; got none.")
        curve = log_breslow_baseline(log_risk, outcome, ties=ties)
        last = float(outcome.time.max())
        times, values = curve.times, curve.values
        if not len(times) or times[-1] < last:  # follow-up goes on after the last event
            times, values = np.append(times, last), np.append(values, curve.at(np.array([last])))
        device = self.times.device
        self.times = torch.from_numpy(times.copy()).to(device)
        self.log_cumulative_hazard = torch.from_numpy(values.copy()).to(device)
        self.unit_code = torch.tensor(list(outcome.unit.encode("utf-8")), dtype=torch.uint8, device=device)

    def predict(
        self, log_risk: Float[Tensor, " instance"], times: Float[Tensor, " time"] | None = None
    ) -> SurvivalPrediction:
        """Log S = -exp(log H0(t) + log_risk) at the knots, or at `times` only.

        Raises:
            NotFittedError: Before `fit`.
            InvalidValueError: If a time lies past the last knot.
        """
        if self.unit is None:
            raise NotFittedError(
                "The baseline hazard must be fitted before curves are predicted; got none. "
                "Call `fit_baseline(embedding, outcome)` on the training rows."
            )
        asked = self.times if times is None else self._within(torch.as_tensor(times).to(self.times))
        padded = torch.nn.functional.pad(self.log_cumulative_hazard, (1, 0), value=-torch.inf)
        log_hazard = padded[torch.searchsorted(self.times, asked, right=True)]
        log_survival = -torch.exp(log_hazard + log_risk.double()[:, None])
        return SurvivalPrediction(asked, log_survival, Interpolation.STEP, self.unit)

    def _within(self, times: Tensor) -> Tensor:
        last = float(self.times[-1])
        if times.ndim != 1 or bool((times > last * (1 + 1e-12)).any()):
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
            if saved is not None:
                mine = getattr(self, name)
                setattr(self, name, torch.empty(saved.shape, dtype=mine.dtype, device=mine.device))
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

"""The baseline of a head whose relative risks change with time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float64
from torch import Tensor, nn

from survlens.core.errors import InvalidValueError, NotFittedError
from survlens.core.outcome import SurvivalOutcome
from survlens.core.prediction import TIME_ROUNDING

_BUFFERS = ("times", "log_jumps", "unit_code")


class BaselineJumps(nn.Module):
    """Jumps of H0 in buffers, as logarithms: they move with their head, stay in float64 and are saved with it.

    Where risks change with time each jump is multiplied by its own relative risk, so the jumps are kept apart, not
    their sum as in `BaselineHazard`.

    Attributes:
        times: Distinct event times and the last observed time; empty before `keep`.
        log_jumps: log dH0 at `times`, for log-risk 0; minus infinity where nothing happened.
        unit_code: UTF-8 bytes of the unit of `times`.
    """

    times: Float64[Tensor, " time"]
    log_jumps: Float64[Tensor, " time"]
    unit_code: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("times", torch.empty(0, dtype=torch.float64))
        self.register_buffer("log_jumps", torch.empty(0, dtype=torch.float64))
        self.register_buffer("unit_code", torch.empty(0, dtype=torch.uint8))

    def keep(
        self, times: Float64[Tensor, " event_time"], log_jumps: Float64[Tensor, " event_time"], outcome: SurvivalOutcome
    ) -> None:
        """Keeps the jumps at the event `times` of `outcome`, and its last time as a knot.

        Raises:
            InvalidValueError: If `outcome` is empty or a jump is not finite.
        """
        if len(outcome) == 0:
            raise InvalidValueError("`outcome` must hold at least one instance to fit a baseline; got none.")
        if not bool(torch.isfinite(log_jumps).all()):
            raise InvalidValueError("The log-risks must be finite. The fit has diverged: lower the learning rate.")
        last = outcome.time.max().to(times)
        if not len(times) or bool(times[-1] < last):  # follow-up goes on after the last event
            times = torch.cat([times, last[None]])
            log_jumps = torch.nn.functional.pad(log_jumps, (0, 1), value=-torch.inf)
        device = self.times.device
        self.times, self.log_jumps = times.detach().to(device), log_jumps.detach().to(device)
        self.unit_code = torch.tensor(list(outcome.unit.encode("utf-8")), dtype=torch.uint8, device=device)

    def knots(self, asked: Tensor | None) -> tuple[str, Float64[Tensor, " asked"]]:
        """The unit, and `asked` as a vector within the fitted range; all knots where None.

        Raises:
            NotFittedError: Before `keep`.
            InvalidValueError: If a time lies past the last knot.
        """
        if not len(self.times):
            raise NotFittedError(
                "The baseline hazard must be fitted before curves are predicted; got none. "
                "Call `fit_baseline(embedding, outcome)` on the training rows."
            )
        unit, last = bytes(self.unit_code.tolist()).decode("utf-8"), float(self.times[-1])
        times = self.times if asked is None else torch.as_tensor(asked).to(self.times)
        if times.ndim != 1 or bool((times > last * (1 + TIME_ROUNDING)).any()):
            raise InvalidValueError(
                f"`times` must be a vector in (0, {last:g}] {unit}, the fitted range; got {times.tolist()}. "
                'Predict without `times` and ask `.at(times, extrapolate="hold")` to go further.'
            )
        return unit, times

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> BaselineJumps:
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

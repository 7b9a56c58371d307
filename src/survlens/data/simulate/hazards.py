"""Survival times drawn from a stated hazard."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from survlens.core.errors import InvalidValueError
from survlens.core.outcome import SurvivalOutcome


@dataclass(frozen=True, slots=True)
class CensoringTarget:
    """How many instances independent exponential censoring shall end.

    Attributes:
        share: Share of censored instances in the drawn sample, in [0, 1).
    """

    share: float

    def __post_init__(self) -> None:
        if not 0 <= self.share < 1:
            raise InvalidValueError(f"`share` must lie in [0, 1); got {self.share}.")


def exponential_outcome(
    log_hazard: np.ndarray, censoring: CensoringTarget, generator: np.random.Generator, *, unit: str = "days"
) -> SurvivalOutcome:
    """Times T ~ Exponential(h) with h = exp(log_hazard), under independent exponential censoring.

    The censoring times are C = c * E with E ~ Exponential(1); the scale c is found on the drawn sample so that the
    share with C < T comes as near `censoring.share` as the sample allows.

    Args:
        log_hazard: log of the constant hazard rate of each instance, per `unit`.
        censoring: Share to censor.
        generator: Source of the draws.
        unit: Unit of time.
    """
    event_time = generator.exponential(size=log_hazard.shape) * np.exp(-log_hazard)
    standard = generator.exponential(size=log_hazard.shape)
    if censoring.share == 0:
        return SurvivalOutcome.from_arrays(event_time, np.ones(len(event_time), dtype=np.int64), unit)
    # C < T exactly where T / E > c: the wanted share is a quantile of the ratio.
    scale = float(np.quantile(event_time / standard, 1 - censoring.share))
    censoring_time = scale * standard
    event = (event_time <= censoring_time).astype(np.int64)
    return SurvivalOutcome.from_arrays(np.minimum(event_time, censoring_time), event, unit)

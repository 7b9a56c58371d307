"""What `survlens explain` can be asked: model, method, target, patients and times, each with its rule."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum

from survlens.core.errors import UsageError
from survlens.core.targets import (
    Target,
    cumulative_hazard,
    density,
    hazard_rate,
    incidence_of,
    log_hazard_rate,
    restricted_mean,
    risk_at,
    survival,
    survival_quantile,
    time_lost_to,
)
from survlens.study.rules import above, at_least, check_rules, increasing_times, inside, not_empty, plain_name, setting
from survlens.training.settings import Device


class KeptImages(Enum):
    """Whose image attributions are written: those of the two chosen patients, or of all who are explained."""

    CHOSEN = "chosen"
    ALL = "all"


@dataclass(frozen=True, slots=True, kw_only=True)
class ExplainSettings:
    """What is explained, and how.

    Attributes:
        model: A model of the run.
        method: Name of a method.
        target: Name of a target.
        patients: "all" held-out patients of the fold, the two "chosen" ones, a number of them, or names with commas
            between (one name that is a number ends with a comma).
        times: Times in the unit of the study; empty: 20 equal steps to its last horizon.
        references: Number of training patients that each patient is compared with, for methods that compare.
        seed: Seed of the draws of references and of the method.
        fold: Number of the split, from 1.
        training_seed: Seed of the fit that is explained; None: the first of the model.
        cause: Cause that the target speaks of.
        horizon: End of the time that the target sums up.
        probability: Share of patients with the event, of a quantile.
        tolerance: Numerical error of a path integral, as a share of the largest contribution, that is small enough.
        keep_images: Whose image attributions are written.
        checks: Number of patients on whom the explanation is checked; 0 leaves the checks out.
        memory: Megabytes that a block of patients may take.
        device: Where networks are run.
        name: Name of the folder; None: method and target.
    """

    model: str = setting(rule=not_empty())
    method: str = setting("gradshap", not_empty())
    target: str = setting("survival", not_empty())
    patients: str = setting("all", not_empty())
    times: tuple[float, ...] = setting((), increasing_times())
    references: int = setting(50, at_least(1))
    seed: int = setting(0, at_least(0))
    fold: int = setting(1, at_least(1))
    training_seed: int | None = setting(None, at_least(0))
    cause: int | None = setting(None, at_least(1))
    horizon: float | None = setting(None, above(0))
    probability: float = setting(0.5, inside(0.001, 1))
    tolerance: float = setting(1e-3, above(0))
    keep_images: KeptImages = KeptImages.CHOSEN
    checks: int = setting(8, at_least(0))
    memory: int = setting(1024, at_least(1))
    device: Device = Device.CPU
    name: str | None = setting(None, plain_name())

    def __post_init__(self) -> None:
        check_rules(self)

    def explained(self) -> Target:
        """The target.

        Raises:
            UsageError: If it is unknown, or lacks its cause or horizon.
        """
        if self.target not in TARGETS:
            raise UsageError(f"`target` must be one of {', '.join(TARGETS)}; got {self.target!r}.")
        return TARGETS[self.target](self)

    @property
    def folder(self) -> str:
        """Name of the folder of the explanation."""
        if self.name is not None:
            return self.name
        parts = [self.method, self.explained().name, *([f"{self.horizon:g}"] if self.horizon is not None else [])]
        return "-".join(parts)


def _given(settings: ExplainSettings, key: str, example: str) -> float:
    value = getattr(settings, key)
    if value is None:
        raise UsageError(f"`{key}` must be given for the target {settings.target!r}; got none. Add --{key} {example}.")
    return value


TARGETS: Mapping[str, Callable[[ExplainSettings], Target]] = {
    "survival": lambda settings: survival,
    "cumulative_hazard": lambda settings: cumulative_hazard,
    "hazard_rate": lambda settings: hazard_rate,
    "log_hazard_rate": lambda settings: log_hazard_rate,
    "density": lambda settings: density,
    "incidence": lambda settings: incidence_of(int(_given(settings, "cause", "1"))),
    "restricted_mean": lambda settings: restricted_mean(_given(settings, "horizon", "24")),
    "risk": lambda settings: risk_at(_given(settings, "horizon", "24")),
    "time_lost": lambda settings: time_lost_to(int(_given(settings, "cause", "1")), _given(settings, "horizon", "24")),
    "quantile": lambda settings: survival_quantile(settings.probability),
}
"""The targets by the name that a user gives."""

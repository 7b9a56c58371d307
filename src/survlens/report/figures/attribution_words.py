"""What the pictures of attributions call things: targets with their units, times, features, instances."""

from __future__ import annotations

import math

import numpy as np

from survlens.core.attribution import Attribution
from survlens.core.errors import InvalidValueError
from survlens.report.wording import compact

PROBABILITY = "probability"
"""Unit of what lies between 0 and 1."""

_TARGETS = {
    "survival": ("survival", PROBABILITY),
    "cumulative_hazard": ("cumulative hazard", "no unit"),
    "hazard_rate": ("hazard rate", "per {one}"),
    "log_hazard_rate": ("log-hazard", "natural logarithm"),
    "density": ("event density", "per {one}"),
    "incidence": ("cumulative incidence", PROBABILITY),
    "restricted_mean": ("restricted mean survival time", "{unit}"),
    "risk": ("risk", PROBABILITY),
    "survival_quantile": ("survival quantile", "{unit}"),
    "time_lost_to": ("mean time lost", "{unit}"),
}
_UP_TO = frozenset(("restricted_mean", "time_lost_to"))


def target_words(target: str) -> str:
    """A target for people: "cumulative incidence of cause 1", "survival quantile (0.5)"."""
    stem, cause = _parts(target)
    said = _TARGETS.get(stem, (stem.replace("_", " "), ""))[0]
    _, bracket, rest = target.partition("(")
    qualified = f"{said} ({rest}" if bracket else said
    return f"{qualified} of cause {cause}" if cause else qualified


def target_unit(target: str, unit: str) -> str:
    """Unit in which a target is measured, where times have the unit `unit`; empty where it is not known."""
    one = unit.removesuffix("s") or "unit of time"
    return _TARGETS.get(_parts(target)[0], ("", ""))[1].format(unit=unit or "unit of time", one=one)


def _parts(target: str) -> tuple[str, str]:
    target = target.partition("(")[0]
    stem, _, last = target.rpartition("_")
    return (stem, last) if stem and last.isdigit() else (target, "")


def with_unit(words: str, unit: str) -> str:
    """An axis label: words, and the unit in brackets."""
    said = words[:1].upper() + words[1:]
    return f"{said} ({unit})" if unit else said


def time_label(unit: str) -> str:
    """Label of a time axis."""
    return with_unit("time", unit)


def value_label(attribution: Attribution) -> str:
    """Label of an axis of attributions, with the unit that they have."""
    target = target_words(attribution.target)
    if attribution.additive:
        return with_unit(f"contribution to {target}", target_unit(attribution.target, attribution.unit))
    return f"Attribution to {target} (scale of {attribution.method})"


def prediction_label(attribution: Attribution) -> str:
    """Label of an axis of predictions."""
    return with_unit(target_words(attribution.target), target_unit(attribution.target, attribution.unit))


def when(attribution: Attribution, column: int) -> str:
    """When a column is: "at 12 months"; "over the whole curve" where it has no time."""
    return moment(float(attribution.times[column]), attribution.target, attribution.unit)


def moment(time: float, target: str, unit: str) -> str:
    """When a target is asked: "at 12 months", of a mean time "up to 12 months", without a time the whole curve."""
    word = "up to" if _parts(target)[0] in _UP_TO else "at"
    return "over the whole curve" if math.isnan(time) else f"{word} {compact(time)} {unit}".strip()


def nearest(attribution: Attribution, time: float | None) -> int:
    """Column of the stored time that is nearest to `time`; the last where it is None."""
    times = attribution.times.detach().cpu().numpy()
    if time is None or len(times) == 1:
        return len(times) - 1
    return int(np.argmin(np.abs(times - time)))


def names_of(attribution: Attribution) -> list[str]:
    """Names of the features."""
    if (given := attribution.coords.get(attribution.dims[0])) is not None:
        return [str(name) for name in given]
    return [f"{attribution.dims[0]} {number + 1}" for number in range(attribution.values.shape[1])]


def listed(attribution: Attribution) -> np.ndarray:
    """Attributions (instance, feature, time) of features in a list, items of an instance added up.

    Raises:
        InvalidValueError: If the features are not a list, but a picture.
    """
    if len(attribution.dims) != 1:
        raise InvalidValueError(
            f"`attribution` must have one axis of features; got {', '.join(attribution.dims)}. "
            "Draw pictures by draw_attribution_maps, or attributions summed over groups."
        )
    values = attribution.numpy().astype(np.float64)
    if attribution.rows is None:
        return values
    summed = np.zeros((attribution.instances, *values.shape[1:]))
    np.add.at(summed, attribution.rows.cpu().numpy(), values)
    return summed


def one_row(attribution: Attribution, row: int) -> np.ndarray:
    """Attributions (feature, time) of one instance.

    Raises:
        InvalidValueError: If there is no such instance, or the features are a picture.
    """
    check_row(attribution, row)
    return listed(attribution)[row]


def check_row(attribution: Attribution, row: int) -> None:
    """Raises unless `row` is the position of an instance.

    Raises:
        InvalidValueError: If it is not.
    """
    if not 0 <= row < attribution.instances:
        raise InvalidValueError(
            f"`row` must be the position of an instance, 0 to {attribution.instances - 1}; got {row}. "
            "Count from 0 in the order of the attribution."
        )


def signed_text(value: float, scale: float | None = None) -> str:
    """A number with its sign, at three digits of `scale`, which is the largest beside it."""
    size = abs(value if scale is None else scale)
    digits = 2 if not size > 0 else min(max(2 - math.floor(math.log10(size)), 0), 8)
    text = f"{value:+.{digits}f}".replace("-", "−")
    return text[1:] if float(f"{value:.{digits}f}") == 0 else text

"""What the report says, as pure functions: numbers for people, and sentences for clinicians.

An association is never worded as an effect. An interval that covers "no difference" reads "unclear".
"""

from __future__ import annotations

import math

from survlens.core.score import Score

MISSING = "–"
_MINUS = "−"


def decimal(value: float | None, digits: int = 2) -> str:
    """A number with a fixed count of decimals and a true minus sign; a dash where there is none."""
    if value is None or not math.isfinite(value):
        return MISSING
    text = f"{value:,.{digits}f}"
    return text.replace("-", _MINUS) if float(f"{value:.{digits}f}") != 0 else text.replace("-", "")


def whole(value: float | None) -> str:
    """A count with thousands separated."""
    return MISSING if value is None or not math.isfinite(value) else f"{int(value):,}"


def time_text(value: float | None, unit: str) -> str:
    """A time with its unit; "not reached" where it is infinite."""
    if value is None or math.isnan(value):
        return MISSING
    return "not reached" if math.isinf(value) else f"{compact(value)} {unit}".strip()


def compact(value: float) -> str:
    """A number as short as it can be read: four significant digits, no exponent where that fits."""
    if value == 0 or 1e-3 <= abs(value) < 1e7:
        text = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    else:
        text = f"{value:.3g}"
    return text.replace("-", _MINUS)


def range_text(lower: float | None, upper: float | None, digits: int = 2) -> str:
    """Both ends of an interval; a dash where it was not estimated."""
    if lower is None or upper is None or not (math.isfinite(lower) and math.isfinite(upper)):
        return MISSING
    return f"{decimal(lower, digits)} to {decimal(upper, digits)}"


def level_text(confidence: float = 0.95) -> str:
    """The name of an interval: "95 % CI"."""
    return f"{100 * confidence:g} % CI"


def p_value(p: float | None) -> str:
    """A p-value as journals print it."""
    if p is None or not math.isfinite(p):
        return "p not available"
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}" if p < 0.1 else f"p = {p:.2f}"


def is_unclear(lower: float | None, upper: float | None, neutral: float) -> bool:
    """Whether an interval covers the value that means "no difference", or is missing."""
    if lower is None or upper is None or not (math.isfinite(lower) and math.isfinite(upper)):
        return True
    return lower <= neutral <= upper


def _ratio(value: float, *, neutral: bool) -> str:
    """A ratio with two decimals, with more where rounding would hide on which side of 1 it stands."""
    if value >= 1000:
        return "over 1,000"
    if 0 <= value < 0.005:
        return "under 0.01"
    digits = next((d for d in (2, 3, 4) if neutral or float(f"{value:.{d}f}") != 1), 5)
    return decimal(value, digits)


def hazard_ratio_range(lower: float | None, upper: float | None) -> str:
    """Both ends of the interval of a ratio; never rounded onto 1 unless the interval covers 1."""
    if lower is None or upper is None:
        return MISSING
    unclear = is_unclear(lower, upper, 1.0)
    return f"{_ratio(lower, neutral=unclear)} to {_ratio(upper, neutral=unclear)}"


def hazard_ratio_text(
    ratio: float | None,
    lower: float | None,
    upper: float | None,
    *,
    per: str = "standard deviation",
    confidence: float = 0.95,
) -> str:
    """Says a hazard ratio: "hazard 1.86 times as high per standard deviation (95 % CI 1.40 to 2.47)".

    Args:
        ratio: exp(coefficient); None where the fit failed.
        lower: Lower confidence limit.
        upper: Upper confidence limit.
        per: The step that the ratio belongs to.
        confidence: Level of the interval.
    """
    if ratio is None or not math.isfinite(ratio):
        return "not estimated"
    unclear = is_unclear(lower, upper, 1.0)
    said = f"hazard {_ratio(ratio, neutral=unclear)} times as high per {per}"
    if lower is None or upper is None:
        return f"unclear: {said} (no interval)"
    said = f"{said} ({level_text(confidence)} {hazard_ratio_range(lower, upper)})"
    return f"unclear: {said}" if unclear else said


def score_text(score: Score | None, *, digits: int = 2, name: str = "C") -> str:
    """Says a score with its interval: "C 0.79 (95 % CI 0.77 to 0.81)"."""
    if score is None or math.isnan(score.value):
        return f"{name} not estimated"
    if score.interval is None:
        return f"{name} {decimal(score.value, digits)} (no interval)"
    interval = score.interval
    doubt = f"{level_text(interval.confidence)} {range_text(interval.lower, interval.upper, digits)}"
    return f"{name} {decimal(score.value, digits)} ({doubt})"


def difference_text(difference: float, lower: float | None, upper: float | None, *, digits: int = 3) -> str:
    """Says a paired difference with its interval: "+0.041 (95 % CI 0.012 to 0.071)"."""
    sign = "+" if float(f"{difference:.{digits}f}") > 0 else ""
    doubt = "no interval" if lower is None or upper is None else f"95 % CI {range_text(lower, upper, digits)}"
    return f"{sign}{decimal(difference, digits)} ({doubt})"


def logrank_text(chi2: float | None, df: float | None, p: float | None) -> str:
    """Says a log-rank test."""
    if chi2 is None or p is None:
        return "Log-rank test not available."
    degrees = "" if df is None else f" on {df:g} degree{'' if df == 1 else 's'} of freedom"
    return f"Log-rank test between the groups: χ² = {chi2:.1f}{degrees}, {p_value(p)}."


def share_text(share: float) -> str:
    """A share as a percentage: "93 %"."""
    return "under 1 %" if 0 < share < 0.005 else f"{100 * share:.0f} %"


def overlap_text(variance_inflation: float | None) -> str:
    """Says that a dimension repeats others, "overlaps with others (VIF 86)"; empty up to a VIF of 10."""
    if variance_inflation is None or variance_inflation <= 10:
        return ""
    size = "over 1,000" if variance_inflation > 1000 else f"{variance_inflation:.0f}"
    return f"overlaps with others (VIF {size})"


def pixel_change_text(change: float | None) -> str:
    """Mean absolute pixel change, and whether it can be seen: under 0.02 it cannot."""
    if change is None or not math.isfinite(change):
        return MISSING
    return f"{decimal(change, 3)}{', no visible change' if is_invisible(change) else ''}"


def is_invisible(change: float | None) -> bool:
    """Whether a mean absolute pixel change is known and under 0.02."""
    return change is not None and change < 0.02


def reliability_text(reliability: float | None) -> str:
    """Says how well a dimension was found again in repeats with other seeds."""
    if reliability is None or not math.isfinite(reliability):
        return "not assessed"
    return "stable" if reliability >= 0.8 else "partly stable" if reliability >= 0.5 else "not stable"


def calibration_text(observed_expected: float | None, slope: float | None = None) -> str:
    """Says whether predicted risks are of the right size on average, and spread as far as observed ones.

    Args:
        observed_expected: Events observed over events expected.
        slope: Calibration slope; outside 0.8 to 1.25 it is remarked.
    """
    if observed_expected is None or not math.isfinite(observed_expected):
        return "not estimated"
    share = f"{abs(observed_expected - 1) * 100:.0f} %"
    said = f"{share} {'more' if observed_expected > 1 else 'fewer'} events than predicted"
    if abs(observed_expected - 1) <= 0.05:
        said = "right on average"
    if slope is not None and math.isfinite(slope) and not 0.8 <= slope <= 1.25:
        said += ", risks too extreme" if slope < 0.8 else ", risks too alike"
    return said

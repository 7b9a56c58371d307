"""What a check of an explanation says, in words: passed, not shown, failed, or described only."""

from __future__ import annotations

import math
from collections.abc import Sequence
from enum import Enum

from survlens.core.score import Direction
from survlens.report.over_time_records import Check
from survlens.report.wording import compact


class CheckVerdict(Enum):
    """What the interval of a check says against its standard."""

    PASSED = "passed"
    NOT_SHOWN = "not shown"
    FAILED = "failed"
    DESCRIBED = "described, not judged"


_SIMILAR = 0.5
_STANDARDS = {
    "deletion_area": 0.0,
    "insertion_area": 0.0,
    "relative_infidelity": 1.0,
    "mass_ratio": 1.0,
    "mass_against": 0.5,
    "weight_randomisation": _SIMILAR,
    "label_randomisation": _SIMILAR,
    "seed_rank_correlation": _SIMILAR,
    "refit_rank_correlation": _SIMILAR,
}
"""Value of no better than chance, or for correlations the half that is asked for; other checks have no standard."""

_CONTROLLED, _CONTROL = frozenset(("weight_randomisation", "label_randomisation")), "refit_similarity"


def standard_of(check: Check, checks: Sequence[Check] = ()) -> float | None:
    """Value on the better side of which the whole interval must lie; None where there is none.

    Similarity after randomisation must also lie below that to models trained again, where `checks` hold it.
    """
    standard = _STANDARDS.get(check.name) if check.standard is None else check.standard
    limits = [each.lower for each in checks if each.name == _CONTROL and each.lower is not None]
    if standard is not None and check.name in _CONTROLLED and limits:
        return min([standard, *limits])
    return standard


def standard_text(check: Check, checks: Sequence[Check] = ()) -> str:
    """The standard in words: "above 0"."""
    standard = standard_of(check, checks)
    if standard is None or check.direction not in _SIDES:
        return "none"
    return f"{_SIDES[check.direction]} {compact(standard)}"


_SIDES = {Direction.HIGHER: "above", Direction.LOWER: "below"}


def check_verdict(check: Check, checks: Sequence[Check] = ()) -> CheckVerdict:
    """Passed where the whole interval lies on the better side of the standard, failed where on the worse side.

    Not shown where it covers the standard, or where there is no value or no interval.

    Args:
        check: The check.
        checks: All checks of the explanation, which may hold a control.
    """
    standard = standard_of(check, checks)
    if standard is None or check.direction not in _SIDES:
        return CheckVerdict.DESCRIBED
    ends = (check.value, check.lower, check.upper)
    if any(each is None or not math.isfinite(each) for each in ends) or check.lower is None or check.upper is None:
        return CheckVerdict.NOT_SHOWN
    if check.lower <= standard <= check.upper:
        return CheckVerdict.NOT_SHOWN
    higher = check.lower > standard
    return CheckVerdict.PASSED if higher == (check.direction is Direction.HIGHER) else CheckVerdict.FAILED

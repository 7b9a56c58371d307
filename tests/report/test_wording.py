"""The words that clinicians read."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from survlens.core.score import Interval, Score
from survlens.report import wording

ratios = st.floats(0.01, 900).filter(lambda x: x > 0)


@st.composite
def hazard_ratios(draw) -> tuple[float, float, float]:
    lower, ratio, upper = sorted(draw(st.tuples(ratios, ratios, ratios)))
    return ratio, lower, upper


def test_hazard_ratio_reads_as_agreed():
    said = wording.hazard_ratio_text(1.86, 1.40, 2.47)
    assert said == "hazard 1.86 times as high per standard deviation (95 % CI 1.40 to 2.47)"


def test_hazard_ratio_below_one_reads_the_same_way():
    assert wording.hazard_ratio_text(0.5, 0.4, 0.6) == (
        "hazard 0.50 times as high per standard deviation (95 % CI 0.40 to 0.60)"
    )


@settings(max_examples=25)
@given(hazard_ratios())
def test_unclear_exactly_when_the_interval_covers_one(case):
    ratio, lower, upper = case
    assert wording.hazard_ratio_text(ratio, lower, upper).startswith("unclear") == (lower <= 1 <= upper)


@settings(max_examples=25)
@given(st.floats(1.0, 1.02, exclude_min=True))
def test_rounding_never_puts_a_clear_limit_onto_one(lower):
    if lower - 1 > 1e-5:
        assert float(wording.hazard_ratio_range(lower, 2.0).split(" to ")[0]) > 1


@pytest.mark.parametrize(("ratio", "lower", "upper"), [(None, None, None), (math.inf, 1, 2), (math.nan, None, None)])
def test_ratio_that_was_not_estimated_says_so(ratio, lower, upper):
    assert wording.hazard_ratio_text(ratio, lower, upper) == "not estimated"


def test_ratio_without_interval_is_unclear():
    assert wording.hazard_ratio_text(3.0, None, None).startswith("unclear")


def test_no_decimal_prints_minus_zero():
    assert wording.decimal(-0.0004, 3) == "0.000"
    assert wording.decimal(-0.04, 2) == "−0.04"
    assert wording.decimal(None) == wording.decimal(math.nan) == "–"


def test_p_values_read_as_in_journals():
    assert [wording.p_value(p) for p in (1e-9, 0.0312, 0.41, None)] == [
        "p < 0.001",
        "p = 0.031",
        "p = 0.41",
        "p not available",
    ]


def test_scores_carry_their_interval():
    score = Score("concordance_index", 0.79, Interval(0.77, 0.81))
    assert wording.score_text(score) == "C 0.79 (95 % CI 0.77 to 0.81)"
    assert wording.score_text(None) == "C not estimated"
    assert "no interval" in wording.score_text(Score("concordance_index", 0.79))


def test_times_carry_their_unit():
    assert wording.time_text(1432.0, "days") == "1,432 days"
    assert wording.time_text(math.inf, "days") == "not reached"


def test_calibration_says_on_which_side_it_errs():
    assert wording.calibration_text(1.2) == "20 % more events than predicted"
    assert wording.calibration_text(0.8) == "20 % fewer events than predicted"
    assert wording.calibration_text(1.02) == "right on average"
    assert wording.calibration_text(1.02, 0.5) == "right on average, risks too extreme"
    assert wording.calibration_text(1.2, 3.1) == "20 % more events than predicted, risks too alike"


@pytest.mark.parametrize(
    ("inflation", "said"),
    [(None, ""), (10.0, ""), (86.1, "overlaps with others (VIF 86)"), (1e6, "overlaps with others (VIF over 1,000)")],
)
def test_overlap_is_said_above_ten(inflation, said):
    assert wording.overlap_text(inflation) == said


def test_pixel_change_under_two_hundredths_is_not_visible():
    assert wording.pixel_change_text(0.0199).endswith("no visible change")
    assert wording.pixel_change_text(0.02) == "0.020"
    assert wording.pixel_change_text(None) == wording.MISSING

"""A score says what it is."""

from __future__ import annotations

import json
import math

import pytest

from survlens.core.errors import InvalidValueError
from survlens.core.score import Category, Direction, Interval, Score


def test_a_score_prints_its_value_with_its_interval() -> None:
    score = Score("concordance_index", 0.70449)
    assert str(score) == "concordance_index 0.704"
    assert str(score.with_interval(Interval(0.65, 0.75))) == "concordance_index 0.704 (0.650 to 0.750)"
    assert float(score) == 0.70449
    assert str(Score("brier_score", math.nan)) == "brier_score undefined"


def test_adding_an_interval_keeps_everything_else() -> None:
    score = Score("brier_score", 0.2, direction=Direction.LOWER, category=Category.ACCURACY, settings={"horizon": 5.0})
    added = score.with_interval(Interval(0.1, 0.3, 0.9, "bootstrap"))
    assert (added.name, added.value, added.direction, added.category) == (
        *("brier_score", 0.2),
        *(Direction.LOWER, Category.ACCURACY),
    )
    assert added.settings == {"horizon": 5.0}
    assert score.interval is None


def test_a_score_goes_through_json() -> None:
    score = Score("brier_score", 0.25, Interval(0.2, math.nan), Direction.LOWER, Category.ACCURACY, {"unit": "days"})
    found = json.loads(json.dumps(score.to_json(), allow_nan=False))
    assert found["value"] == 0.25
    assert (found["lower"], found["upper"], found["direction"]) == (0.2, None, "lower")
    assert (found["category"], found["settings"]) == ("accuracy", {"unit": "days"})
    assert json.loads(json.dumps(Score("x", math.nan).to_json(), allow_nan=False))["value"] is None


def test_an_interval_holds_its_ends_and_refuses_nonsense() -> None:
    interval = Interval(0.2, 0.4)
    assert 0.2 in interval
    assert 0.4 in interval
    assert 0.5 not in interval
    with pytest.raises(InvalidValueError, match="`lower`"):
        Interval(0.5, 0.4)
    with pytest.raises(InvalidValueError, match="`confidence`"):
        Interval(0.2, 0.4, confidence=95)

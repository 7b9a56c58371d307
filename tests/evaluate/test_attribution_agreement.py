"""Agreement between explanations, and their complexity."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch

import survlens.evaluate as scores
from evaluate.attribution_toys import TIMES, attribution, drawn
from survlens.core.errors import InvalidValueError
from survlens.core.score import Category, Direction, Score
from survlens.evaluate.attribution_agreement import agreement_between
from survlens.evaluate.attribution_definitions import ATTRIBUTION_DEFINITIONS, check_record, checks_to_json
from survlens.evaluate.complexity import attribution_complexity
from survlens.evaluate.score_over_time import Intervals

FEW = Intervals(draws=200)
VALUES = drawn(25, 8, 3)


def values_of(found) -> list[float]:
    return [score.value for score in found.scores]


def test_an_explanation_agrees_with_itself_and_not_with_its_inverse():
    same = agreement_between(attribution(VALUES), attribution(VALUES), intervals=FEW)
    assert values_of(same) == pytest.approx([1, 1, 1, 0])
    inverse = agreement_between(attribution(VALUES), attribution(-VALUES), intervals=FEW)
    assert values_of(inverse) == pytest.approx([-1, 0, 1, 2])
    assert {score.category for score in inverse.scores} == {Category.AGREEMENT}
    assert {score.direction for score in inverse.scores} == {Direction.NONE}


def test_increasing_transformations_keep_order_signs_and_largest_features():
    cubed = agreement_between(attribution(VALUES), attribution(VALUES**3), intervals=FEW)
    assert values_of(cubed)[:3] == pytest.approx([1, 1, 1])
    assert cubed.distance.score.value > 0.5


def test_unrelated_explanations_agree_by_chance():
    first, second = drawn(400, 8, 3, seed=1), drawn(400, 8, 3, seed=2)
    found = agreement_between(attribution(first), attribution(second), top=4, intervals=FEW)
    for score, chance in zip(found.scores[:3], (0, 0.5, 0.5), strict=True):
        assert score.value == pytest.approx(chance, abs=0.05)
        assert score.interval.upper - score.interval.lower < 0.1


def test_intervals_cover_the_truth():
    covered = 0
    for seed in range(60):
        first, second = drawn(40, 8, 1, seed=2 * seed), drawn(40, 8, 1, seed=2 * seed + 1)
        found = agreement_between(attribution(first), attribution(second), intervals=FEW)
        covered += 0.5 in found.sign.score.interval
    assert covered >= 52


def test_the_score_is_the_trapezoidal_mean_over_times():
    other = VALUES.clone()
    other[..., 1] *= -1
    found = agreement_between(attribution(VALUES), attribution(other), intervals=FEW)
    np.testing.assert_allclose(found.sign.values, [1, 0, 1])
    assert found.sign.score.value == pytest.approx(0.5)  # times 1, 2, 4: weights 1/6, 1/2, 1/3
    assert np.isfinite(found.sign.lower).all()
    assert (found.sign.lower <= found.sign.values).all()


def test_degenerate_explanations_have_scores():
    zero = torch.zeros(1, 4, 2, dtype=torch.float64)
    for first, second in ((zero, zero), (zero, zero + 1), (zero + 1, drawn(1, 4, 2)), (zero[:, :1], zero[:, :1])):
        found = agreement_between(attribution(first), attribution(second), intervals=FEW)
        assert np.isfinite(values_of(found)).all()
        assert np.isfinite(values_of(attribution_complexity(attribution(first), intervals=FEW))).all()


def test_several_modalities_and_items_count_together():
    image, table = drawn(5, 1, 2, 2, 3), drawn(2, 3, 3, seed=1)
    rows = torch.tensor([0, 0, 1, 1, 1])
    parts = {"image": attribution(image, rows=rows), "table": attribution(table)}
    other = {"image": attribution(2 * image, rows=rows), "table": attribution(table)}
    found = agreement_between(parts, other, intervals=FEW)
    moved, size = (image**2).flatten(1, 3).sum(1), (table**2).sum(1)
    per_row = torch.zeros(2, 3, dtype=torch.float64).index_add(0, rows, moved)
    np.testing.assert_allclose(found.distance.per_instance, (per_row / (per_row + size)).sqrt().numpy())


def test_explanations_of_other_rows_or_times_are_refused():
    with pytest.raises(InvalidValueError, match="same instances, features and times"):
        agreement_between(attribution(VALUES), attribution(VALUES[:, :5]))
    with pytest.raises(InvalidValueError, match="same instances, features and times"):
        agreement_between(attribution(VALUES), attribution(VALUES, TIMES + 1))
    with pytest.raises(InvalidValueError, match="same instances and times in every modality"):
        agreement_between({"a": attribution(VALUES), "b": attribution(VALUES[:3])}, attribution(VALUES))
    with pytest.raises(InvalidValueError, match="at least one instance"):
        agreement_between(attribution(VALUES[:0]), attribution(VALUES[:0]))
    with pytest.raises(InvalidValueError, match="`top`"):
        agreement_between(attribution(VALUES), attribution(VALUES), top=0)


def test_targets_of_one_number_have_no_time_to_average_over():
    single = attribution(VALUES[..., :1], torch.tensor([math.nan], dtype=torch.float64))
    assert values_of(agreement_between(single, single, intervals=FEW)) == [1, 1, 1, 0]


@pytest.mark.parametrize("count", [1, 3, 8])
def test_features_that_share_all_equally_are_so_many(count):
    values = torch.zeros(4, 8, 3, dtype=torch.float64)
    values[:, :count] = -2.0
    found = attribution_complexity(attribution(values), intervals=FEW)
    assert values_of(found) == pytest.approx([count, 1 - count / 8])


def test_sparseness_is_the_gini_index():
    size = VALUES.abs().numpy()
    pairs = np.abs(size[:, :, None] - size[:, None]).mean((1, 2)) / (2 * size.mean(1))
    np.testing.assert_allclose(
        attribution_complexity(attribution(VALUES), intervals=FEW).sparseness.per_instance, pairs
    )


def test_seeds_decide_the_interval():
    first, second = attribution(VALUES), attribution(drawn(25, 8, 3, seed=5))
    one, same, other = (
        agreement_between(first, second, intervals=Intervals(100, seed)).rank.score for seed in (0, 0, 1)
    )
    assert one.interval == same.interval != other.interval
    assert one.value == other.value


def test_every_definition_is_whole():
    for name, definition in ATTRIBUTION_DEFINITIONS.items():
        assert all((definition.label, definition.meaning, definition.formula, definition.paper)), name
        assert definition.meaning.endswith(".")


def test_scores_go_through_json():
    found = agreement_between(attribution(VALUES), attribution(VALUES**3), intervals=FEW)
    curves = {"deletion": {"share": np.array([0.0, 1.0]), "value": [0.0, math.nan]}}
    plain = json.loads(json.dumps(checks_to_json(found.scores, curves), allow_nan=False))
    assert plain["scores"][0]["direction"] == "none"
    assert plain["scores"][0]["category"] == "agreement"
    assert {"name", "label", "value", "lower", "upper", "direction", "category", "meaning"} <= set(plain["scores"][0])
    assert plain["curves"] == {"deletion": {"share": [0.0, 1.0], "value": [0.0, None]}}
    assert check_record(Score("distance", math.nan))["value"] is None


def test_intervals_are_refused_where_they_make_no_sense():
    with pytest.raises(InvalidValueError, match="`draws` must be >= 1"):
        Intervals(draws=0)


def test_what_users_need_is_public():
    for name in ("deletion_curve", "mask_localisation", "weight_randomisation", "agreement_between", "Removal"):
        assert hasattr(scores, name)

"""Explanations against masks, where the right answer is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from evaluate.attribution_toys import attribution, drawn
from survlens.core.errors import InvalidTypeError, InvalidValueError
from survlens.core.score import Category
from survlens.evaluate.attribution_values import Part
from survlens.evaluate.localisation import mask_localisation
from survlens.evaluate.score_over_time import Intervals

FEW = Intervals(draws=200)
MASK = np.zeros((5, 6), dtype=bool)
MASK[1:3, 2:5] = True
SECOND = np.zeros((5, 6), dtype=bool)
SECOND[4, :] = True


def picture(inside: float, outside: float, rows: int = 3) -> torch.Tensor:
    plane = torch.as_tensor(np.where(MASK, float(inside), float(outside)))
    return plane[None, None, :, :, None].repeat(rows, 2, 1, 1, 3)


def values_of(found) -> list[float]:
    return [score.value for score in found.scores]


def test_what_lies_inside_and_nowhere_else_is_inside():
    found = mask_localisation(attribution(picture(1, 0)), MASK, against=SECOND, intervals=FEW)
    assert values_of(found) == pytest.approx([1, 1, 5, 1, 1])
    assert {score.category for score in found.scores} == {Category.LOCALISATION}
    outside = mask_localisation(attribution(picture(0, -1)), MASK, against=SECOND, intervals=FEW)
    assert values_of(outside) == pytest.approx([0, 0, 0, 0, 0])


@pytest.mark.parametrize("level", [0.0, 1.0, -3.0])
def test_a_constant_map_is_at_chance(level):
    found = mask_localisation(attribution(picture(level, level)), MASK, against=SECOND, intervals=FEW)
    assert values_of(found) == pytest.approx([0.2, 0.2, 1, 0.2, 0.5])


def test_mass_is_counted_by_place():
    found = mask_localisation(attribution(picture(3, 1)), MASK, against=SECOND, intervals=FEW)
    assert values_of(found) == pytest.approx([1, 18 / 42, 5 * 18 / 42, 1, 0.75])


def test_noise_is_at_chance_and_its_interval_says_so():
    found = mask_localisation(attribution(drawn(400, 1, 5, 6, 2)), MASK, against=SECOND, intervals=FEW)
    for score, chance in zip(found.scores, (0.2, 0.2, 1, 0.2, 0.5), strict=True):
        assert score.value == pytest.approx(chance, rel=0.2)
        assert score.interval.upper - score.interval.lower < 0.4 * chance


def test_signs_can_be_told_apart():
    values = attribution(picture(-2, 1))
    lowering = mask_localisation(values, MASK, part=Part.LOWERING, intervals=FEW)
    raising = mask_localisation(values, MASK, part=Part.RAISING, intervals=FEW)
    assert values_of(lowering)[:2] == [1, 1]
    assert values_of(raising)[:2] == [0, 0]
    assert lowering.scores[0].settings["part"] == "contributions that lower the target"


def test_every_time_has_its_own_value():
    values = picture(1, 0)
    values[..., 1] = 1 - values[..., 1]
    found = mask_localisation(attribution(values), MASK, intervals=FEW)
    np.testing.assert_allclose(found.pointing.values, [1, 0, 1])


def test_masks_may_have_rows_and_channels():
    values = attribution(drawn(4, 2, 5, 6, 3))
    plain = mask_localisation(values, MASK, intervals=FEW)
    per_row = mask_localisation(values, torch.from_numpy(np.repeat(MASK[None], 4, 0)), intervals=FEW)
    assert values_of(plain) == values_of(per_row)
    channels = np.stack([MASK, ~MASK])
    found = mask_localisation(values, channels, intervals=FEW)
    size = values.values.abs().numpy()
    expected = size[:, channels].sum(1) / size.sum((1, 2, 3))
    np.testing.assert_allclose(found.mass.per_instance, expected)
    repeated = mask_localisation(values, np.repeat(channels[None], 4, 0), intervals=FEW)
    assert values_of(found) == values_of(repeated)


def test_planted_features_of_a_table():
    values = torch.zeros(3, 10, 2, dtype=torch.float64)
    values[:, 4] = 1.0
    mask = np.arange(10) == 4
    assert values_of(mask_localisation(attribution(values), mask, intervals=FEW)) == pytest.approx([1, 1, 10, 1])


def test_items_of_an_instance_are_one_picture():
    values = torch.zeros(3, 1, 5, 6, 1, dtype=torch.float64)
    values[0, 0, 0, 0] = 1.0
    values[1, 0, 1, 2] = 3.0
    values[2, 0, 1, 2] = 1.0
    masks = np.stack([MASK & False, MASK, MASK])
    found = mask_localisation(attribution(values, rows=torch.tensor([0, 0, 1])), masks, intervals=FEW)
    np.testing.assert_allclose(found.pointing.per_instance[:, 0], [1, 1])
    np.testing.assert_allclose(found.mass.per_instance[:, 0], [0.75, 1])
    np.testing.assert_allclose(found.mass_ratio.per_instance[:, 0], [7.5, 5])


def test_an_instance_without_a_mask_is_left_out():
    masks = np.stack([MASK, MASK & False])
    found = mask_localisation(attribution(picture(1, 0, 2)), masks, intervals=FEW)
    assert found.scores[0].value == 1
    assert found.scores[0].settings["undefined_instances"] == 1
    nothing = mask_localisation(attribution(picture(1, 0, 2)), masks & False, intervals=FEW)
    assert np.isnan(nothing.scores[0].value)
    assert "undefined" in nothing.scores[0].settings


def test_permuting_instances_changes_no_value():
    values, order = drawn(6, 1, 5, 6, 2), torch.tensor([3, 1, 5, 0, 2, 4])
    plain, turned = (
        mask_localisation(attribution(values[rows]), MASK, intervals=FEW) for rows in (torch.arange(6), order)
    )
    assert values_of(plain) == pytest.approx(values_of(turned))


@pytest.mark.parametrize("wrong", [MASK[:3], MASK.astype(float), np.zeros((7, 5, 6), bool)])
def test_a_mask_that_does_not_fit_is_refused(wrong):
    with pytest.raises(InvalidValueError, match="`mask` must be boolean"):
        mask_localisation(attribution(picture(1, 0)), wrong)


def test_two_masks_have_the_same_axes_and_parts_are_chosen_among_members():
    with pytest.raises(InvalidValueError, match="same axes"):
        mask_localisation(attribution(picture(1, 0)), MASK, against=np.stack([MASK, MASK]))
    with pytest.raises(InvalidTypeError, match="`part` must be a Part"):
        mask_localisation(attribution(picture(1, 0)), MASK, part="absolute")  # type: ignore[arg-type]

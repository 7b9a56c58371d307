"""Portraits: drawn faces whose hazard is known."""

import numpy as np
import pandas as pd
import pytest
import torch

from survlens.core.errors import DataError, InvalidTypeError, InvalidValueError
from survlens.core.pair_counts import pair_counts
from survlens.data.simulate.portrait_drawing import draw, landmarks_of
from survlens.data.simulate.portrait_factors import FACTORS, FactorScope, draw_factors
from survlens.data.simulate.portraits import (
    Known,
    expected_log_hazard,
    portrait_cohort,
    portrait_patients,
)


@pytest.fixture(scope="module")
def factors() -> pd.DataFrame:
    return draw_factors(24, seed=3)


def altered(factors: pd.DataFrame, **values: float) -> pd.DataFrame:
    return factors.assign(**values)


def test_the_same_factors_give_the_same_picture_whatever_stands_beside_them(factors):
    whole = draw(factors, size=32).pictures
    assert torch.equal(whole, draw(factors, size=32).pictures)
    alone = draw(factors.iloc[[7]], size=32).pictures
    torch.testing.assert_close(alone[0], whole[7], rtol=0, atol=1e-6)


def test_a_longer_cohort_begins_with_the_faces_of_the_shorter_and_another_seed_has_others():
    short, long, other = (portrait_cohort(n, size=16, seed=seed) for n, seed in ((5, 1), (9, 1), (5, 2)))
    pd.testing.assert_frame_equal(short.factors, long.factors.iloc[:5])
    torch.testing.assert_close(short.pictures, long.pictures[:5], rtol=0, atol=1e-6)
    assert not torch.allclose(short.pictures, other.pictures, atol=0.05)
    again = portrait_cohort(5, size=16, seed=1)
    assert torch.equal(short.pictures, again.pictures)
    assert torch.equal(short.outcome.time, again.outcome.time)


def test_a_smaller_picture_is_about_the_mean_of_a_larger_one(factors):
    large = draw(factors.iloc[:6], size=128).pictures
    for size in (16, 32, 64):
        small, shrunk = draw(factors.iloc[:6], size=size).pictures, torch.nn.functional.avg_pool2d(large, 128 // size)
        assert small.shape == shrunk.shape == (6, 3, size, size)
        assert (small - shrunk).abs().mean() < 0.012


def test_every_factor_changes_the_picture_and_no_two_do_it_alike(factors):
    plain = altered(factors.iloc[:6], beard=0, glasses=0, hair_style=1, sex=1, roll=0, shift_x=0, shift_y=0, scale=1)
    ends = {"roll": (-5, 5), "shift_x": (-0.05, 0.05), "shift_y": (-0.05, 0.05), "scale": (0.95, 1.05)}
    changes = {}
    for factor in FACTORS:
        low, high = ends.get(factor.name, (factor.low, factor.high))
        if factor.name == "background_hue":
            high = 0.5
        pictures = [draw(altered(plain, **{factor.name: end}), size=32).pictures for end in (low, high)]
        changes[factor.name] = (pictures[1] - pictures[0]).flatten().double().numpy()
    assert min(np.abs(each).max() for each in changes.values()) > 0.05
    table = np.corrcoef(np.stack(list(changes.values())))
    assert np.abs(table - np.eye(len(table))).max() < 0.75
    names = list(changes)
    assert abs(table[names.index("illness"), names.index("skin_tone")]) < 0.5
    assert abs(table[names.index("illness"), names.index("age")]) < 0.5


def test_illness_takes_the_colour_out_of_a_face_and_skin_tone_its_lightness(factors):
    base = altered(factors, roll=0, shift_x=0, shift_y=0, scale=1, beard=0, glasses=0)

    def colour(**values: float) -> np.ndarray:
        drawing = draw(altered(base, **values), size=64)
        shown = drawing.face[:, None].float()
        return ((drawing.pictures * shown).sum((2, 3)) / shown.sum((2, 3))).numpy()

    weights = np.array([0.299, 0.587, 0.114])
    well, ill, light, dark = (
        colour(**each) for each in ({"illness": -2.5}, {"illness": 2.5}, {"skin_tone": 0}, {"skin_tone": 1})
    )
    chroma = [np.ptp(each / (each @ weights)[:, None], axis=1).mean() for each in (well, ill, light, dark)]
    bright = [(each @ weights).mean() for each in (well, ill, light, dark)]
    assert chroma[1] < 0.35 * chroma[0]
    assert bright[1] > 0.8 * bright[0]
    assert bright[3] < 0.5 * bright[2]


def test_masks_part_face_and_background_and_the_background_does_not_know_the_face(factors):
    base = altered(factors, hair_style=0, beard=0)
    drawing = draw(base, size=64)
    assert not (drawing.face & drawing.background).any()
    assert 0.15 < drawing.face.float().mean() < 0.45 < drawing.background.float().mean() < 0.65
    for name, value in (("illness", 2.5), ("age", 90.0), ("skin_tone", 0.9), ("glasses", 1.0)):
        other = draw(altered(base, **{name: value}), size=64)
        outside = (drawing.background & other.background)[:, None].expand(-1, 3, -1, -1)
        assert (drawing.pictures - other.pictures)[outside].abs().max() < 1 / 255
    hue = draw(altered(base, background_hue=(base["background_hue"] + 0.5) % 1), size=64)
    inside = drawing.face[:, None].expand(-1, 3, -1, -1)
    assert (drawing.pictures - hue.pictures)[inside].abs().mean() < 0.01


def test_landmarks_stand_where_eyes_and_mouth_are_drawn(factors):
    """Found by another route: pupils and lips are the places that change with what is painted there."""
    base = altered(factors, illness=-2.5, glasses=0, beard=0, light=0, light_side=0, hair_style=0, age=40, yaw=0.0)
    base["yaw"] = np.linspace(-1, 1, len(base))
    size = 128
    brown, blue = (draw(altered(base, eye_colour=end), size=size).pictures for end in (0, 1))
    change = (brown - blue).abs().sum(1).double().numpy()
    middles = np.arange(size) + 0.5
    for row, points in enumerate(landmarks_of(base, size=size)):
        for eye in points[:2]:
            near = np.hypot(middles[None] - eye[0], middles[:, None] - eye[1]) < 0.09 * size
            weight = change[row] * near
            found = np.array([(weight.sum(0) * middles).sum(), (weight.sum(1) * middles).sum()]) / weight.sum()
            assert np.hypot(*(found - eye)) < 0.02 * size
        tilt = np.degrees(np.arctan2(*(points[1] - points[0])[::-1]))
        assert tilt == pytest.approx(base["roll"].iloc[row], abs=1e-6)


def test_photographs_of_a_patient_share_the_patient_and_nothing_of_the_photograph():
    cohort = portrait_cohort(6, size=16, patients_photos=3, seed=2)
    assert len(cohort) == 18
    assert cohort.patient.tolist() == np.repeat(np.arange(6), 3).tolist()
    assert cohort.first_photographs.tolist() == [0, 3, 6, 9, 12, 15]
    for factor in FACTORS:
        spread = cohort.factors.groupby(cohort.patient)[factor.name].nunique()
        assert (spread == (1 if factor.scope is FactorScope.PATIENT else 3)).all(), factor.name
    for values in (cohort.outcome.time.numpy(), cohort.outcome.event.numpy(), cohort.stage, cohort.log_hazard):
        assert (values.reshape(6, 3) == values.reshape(6, 3)[:, :1]).all()
    part = cohort[np.array([4, 0])]
    assert torch.equal(part.pictures[0], cohort.pictures[4])
    assert part.log_hazard.tolist() == cohort.log_hazard[[4, 0]].tolist()


def test_the_hazard_is_the_stated_one_and_times_follow_it():
    factors, stage, outcome = portrait_patients(3000, seed=4)
    log_hazard = expected_log_hazard(factors, stage, Known.EVERYTHING)
    stated = 0.9 * factors["illness"] + 0.5 * (factors["age"] - 62) / 12 + 0.7 * (stage - 1.5)
    np.testing.assert_allclose(log_hazard, np.log(np.log(2) / 24) + stated)
    time, event = outcome.numpy()
    assert 1 - event.mean() == pytest.approx(0.57, abs=0.001)
    # Martingale residuals of the true hazard have mean 0 and no relation with any factor, visible or not.
    residual = event - time * np.exp(log_hazard)
    assert abs(residual.mean()) < 0.05
    columns = np.column_stack([factors.to_numpy(), stage])
    assert np.abs(np.corrcoef(residual, columns.T)[0, 1:]).max() < 0.07


def test_photograph_and_table_together_know_more_than_either():
    factors, stage, outcome = portrait_patients(2000, seed=5)
    known = {each: pair_counts(expected_log_hazard(factors, stage, each), outcome).concordance for each in Known}
    assert known[Known.EVERYTHING] > max(known[Known.PHOTOGRAPH], known[Known.CLINICAL]) + 0.03
    assert known[Known.EVERYTHING] == pytest.approx(0.80, abs=0.02)
    age = pair_counts(factors["age"].to_numpy(), outcome).concordance
    assert age + 0.04 < known[Known.PHOTOGRAPH]


def test_what_is_expected_of_the_log_hazard_is_its_mean_given_what_is_known():
    factors, stage, _ = portrait_patients(4000, seed=6)
    truth = expected_log_hazard(factors, stage, Known.EVERYTHING)
    for known in (Known.PHOTOGRAPH, Known.CLINICAL):
        expected = expected_log_hazard(factors, stage, known)
        slope, level = np.polyfit(expected, truth, 1)
        assert slope == pytest.approx(1, abs=0.06)
        assert level + slope * expected.mean() == pytest.approx(expected.mean(), abs=0.06)


def test_illness_goes_with_age_and_with_nothing_else():
    factors = draw_factors(2000, seed=7)
    table = factors.corr()["illness"].drop("illness")
    assert table["age"] == pytest.approx(0.4, abs=0.06)
    assert table.drop("age").abs().max() < 0.08


def test_bad_arguments_are_named(factors):
    with pytest.raises(InvalidValueError, match="power of two"):
        draw(factors, size=48)
    with pytest.raises(DataError, match="lacks age"):
        draw(factors.drop(columns="age"))
    with pytest.raises(DataError, match=r"`illness` .* got 3.0 in row 0"):
        draw(altered(factors, illness=3.0))
    with pytest.raises(DataError, match="whole numbers"):
        draw(altered(factors, hair_style=0.5))
    with pytest.raises(DataError, match="nan"):
        draw(altered(factors, light=np.nan))
    with pytest.raises(InvalidValueError, match="patients"):
        portrait_cohort(0)
    with pytest.raises(InvalidValueError, match="share"):
        portrait_cohort(3, censored=1.0)
    with pytest.raises(InvalidTypeError, match="known"):
        expected_log_hazard(factors, np.zeros(24, dtype=np.int64), "everything")  # pyright: ignore[reportArgumentType]
    with pytest.raises(InvalidValueError, match="24 and 3"):
        expected_log_hazard(factors, np.zeros(3, dtype=np.int64), Known.CLINICAL)

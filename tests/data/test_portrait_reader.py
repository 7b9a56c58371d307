"""The reader of drawn portraits reads what is drawn."""

import numpy as np
import pandas as pd
import pytest
import torch

from survlens.core.errors import InvalidValueError
from survlens.data.simulate.portrait_drawing import draw
from survlens.data.simulate.portrait_factors import draw_factors
from survlens.data.simulate.portrait_reader import READABLE, PortraitReader, portrait_reader, read_factors, softened


def r2(read: pd.DataFrame, factors: pd.DataFrame) -> pd.Series:
    rest = ((read - factors[list(READABLE)]) ** 2).mean()
    return 1 - rest / factors[list(READABLE)].var(ddof=0)


@pytest.mark.parametrize("size", [16, 32])
def test_illness_and_age_are_read_from_unseen_drawings(size):
    factors = draw_factors(150, seed=11)
    found = r2(read_factors(draw(factors, size=size).pictures), factors)
    assert found["illness"] > 0.95
    assert found["age"] > 0.9
    assert found[["skin_tone", "glasses", "yaw", "background_light"]].min() > 0.88


def test_soft_and_noisy_pictures_are_read_nearly_as_well():
    factors = draw_factors(200, seed=12)
    for size in (16, 32):
        pictures = softened(draw(factors, size=size).pictures, generator=torch.Generator().manual_seed(0))
        found = r2(read_factors(pictures), factors)
        assert found["illness"] > 0.92
        assert found["age"] > 0.85


def test_the_told_r2_is_that_of_fresh_drawings():
    factors = draw_factors(400, seed=13)
    found = r2(read_factors(draw(factors, size=16).pictures), factors)
    told = portrait_reader().r2
    assert list(told.index) == list(READABLE)
    assert (found - told).abs().max() < 0.12
    assert abs(found["illness"] - told["illness"]) < 0.02
    assert (portrait_reader().r2_soft < told).all()


def test_a_face_that_becomes_iller_is_read_so_and_its_age_and_skin_tone_stay():
    faces = draw_factors(20, seed=14)
    grid = np.linspace(-2.5, 2.5, 6)
    read = [read_factors(draw(faces.assign(illness=value), size=32).pictures) for value in grid]
    illness, age, tone = (np.stack([each[name] for each in read]) for name in ("illness", "age", "skin_tone"))
    assert (np.diff(illness, axis=0) > 0).all()
    slopes = np.polyfit(grid, illness, 1)[0]
    assert (np.abs(slopes - 1) < 0.3).all()
    assert np.abs(np.polyfit(grid, age, 1)[0]).mean() < 2.5
    assert np.abs(np.polyfit(grid, tone, 1)[0]).mean() < 0.05


def test_the_same_seed_fits_the_same_reader_and_too_little_is_refused():
    first, again, other = (PortraitReader.fit(faces=40, held_out=10, seed=seed) for seed in (1, 1, 2))
    assert np.array_equal(first.weights, again.weights)
    assert not np.allclose(first.weights, other.weights)
    with pytest.raises(InvalidValueError, match="faces"):
        PortraitReader.fit(faces=5)


@pytest.mark.parametrize("shape", [(2, 3, 24, 24), (2, 3, 32, 16)])
def test_pictures_of_another_size_are_refused(shape):
    with pytest.raises(InvalidValueError, match="square"):
        read_factors(torch.zeros(shape))


def test_pictures_that_are_not_finite_are_refused():
    with pytest.raises(InvalidValueError, match="finite"):
        read_factors(torch.full((1, 3, 16, 16), torch.nan))

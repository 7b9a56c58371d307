"""Preprocessing learns from training rows only, and gives the same features for ever."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from survlens.core.errors import DataError, InvalidValueError
from survlens.data.cohort import Cohort
from survlens.data.preprocessing import Channels, ImageScaling, Preprocessing, PreprocessingSettings, Unseen
from survlens.data.schema import CohortSchema

NUMBERS = st.one_of(st.none(), st.floats(-1e6, 1e6, width=32))
ROWS = st.fixed_dictionaries({
    "age": NUMBERS,
    "lab": NUMBERS,
    "sex": st.sampled_from(["f", "m", "x", None]),
    "stage": st.sampled_from(["I", "II", "III", None]),
    "died": st.integers(0, 1),
    "time": st.floats(0.1, 100),
})  # fmt: skip
SCHEMA = CohortSchema(
    time="time",
    event="died",
    unit="years",
    numeric=("age", "lab"),
    categorical=("sex",),
    ordered={"stage": ("I", "II", "III")},
)
LENIENT = PreprocessingSettings(unseen=Unseen.AS_MISSING)


def _cohort(rows: list[dict]) -> Cohort:
    frame = pd.DataFrame(rows, columns=["age", "lab", "sex", "stage", "died", "time"])
    frame[["age", "lab"]] = frame[["age", "lab"]].astype(float)
    return Cohort.from_frame(frame, SCHEMA)


def _pictures(count: int, height: int = 6, width: int = 5, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 3, height, width), dtype=np.uint8)


def _with_images(images: np.ndarray) -> Cohort:
    return Cohort.from_arrays((np.arange(1.0, len(images) + 1), np.ones(len(images), int)), unit="days", images=images)


FULL = {"age": 50.0, "lab": 1.0, "sex": "f", "stage": "I", "died": 1, "time": 1.0}


@settings(max_examples=25, deadline=None)
@given(st.lists(ROWS, min_size=2, max_size=12), st.lists(ROWS, max_size=8), st.lists(ROWS, max_size=8))
def test_no_test_row_can_move_what_training_rows_gave(train, test, other):
    train = [FULL, *train]
    rows = np.arange(len(train))
    fitted = [Preprocessing.fit(_cohort(train + rest)[rows], LENIENT) for rest in ([], test, other)]
    assert fitted[0] == fitted[1] == fitted[2]
    alone = fitted[0].transform(_cohort(train))["table"]
    beside = fitted[1].transform(_cohort(train + test))["table"]
    assert torch.equal(alone, beside[rows])
    assert torch.isfinite(beside).all()


@settings(max_examples=25, deadline=None)
@given(st.lists(ROWS, min_size=1, max_size=12))
def test_saved_preprocessing_gives_the_same_features(train):
    cohort = _cohort([FULL, *train])
    fitted = Preprocessing.fit(cohort)
    again = Preprocessing.from_json(json.loads(json.dumps(fitted.to_json())))
    assert again == fitted
    assert torch.equal(again.transform(cohort)["table"], fitted.transform(cohort)["table"])
    assert fitted.transform(cohort)["table"].shape == (len(cohort), len(fitted.feature_names))


def test_images_of_test_rows_move_nothing():
    images = _pictures(6)
    changed = images.copy()
    changed[4:] = 255 - changed[4:]
    settings_ = PreprocessingSettings(image_scaling=ImageScaling.STANDARDISE)
    fitted = [Preprocessing.fit(_with_images(pixels)[:4], settings_) for pixels in (images, changed)]
    assert fitted[0] == fitted[1]
    inputs = fitted[0].transform(_with_images(images)[:4])["image"]
    assert inputs.mean((0, 2, 3)).abs().max() < 1e-6
    assert (inputs.std((0, 2, 3), correction=0) - 1).abs().max() < 1e-5


def test_features_by_hand():
    rows = [
        {"age": 40.0, "lab": 1.0, "sex": "m", "stage": "I"},
        {"age": None, "lab": 0.0, "sex": "f", "stage": "III"},
        {"age": 60.0, "lab": 1.0, "sex": None, "stage": None},
        {"age": 80.0, "lab": 1.0, "sex": "x", "stage": "II"},
    ]
    cohort = _cohort([row | {"died": 1, "time": 1.0 + i} for i, row in enumerate(rows)])
    fitted = Preprocessing.fit(cohort)
    assert fitted.feature_names == (
        "age", "age missing", "lab", "sex=m", "sex=x", "sex missing", "stage", "stage missing",
    )  # fmt: skip
    table = fitted.transform(cohort)["table"].double().numpy()
    age, lab, stage = np.array([40.0, 60, 60, 80]), np.array([1.0, 0, 1, 1]), np.array([0.0, 2, 1, 1])
    expected = np.column_stack([
        (age - 60) / age.std(),
        [0, 1, 0, 0],
        (lab - lab.mean()) / lab.std(),
        [1, 0, 0, 0],
        [0, 0, 0, 1],
        [0, 0, 1, 0],
        (stage - 1) / stage.std(),
        [0, 0, 1, 0],
    ])  # fmt: skip
    np.testing.assert_allclose(table, expected, atol=1e-6)
    raw = Preprocessing.fit(cohort, PreprocessingSettings(scale_table=False)).transform(cohort)["table"]
    assert raw[:, 0].tolist() == [40, 60, 60, 80]
    assert raw[:, 6].tolist() == [0, 2, 1, 1]


def test_a_value_missing_only_later_is_imputed_without_a_feature():
    train = _cohort([FULL, FULL | {"age": 70.0, "sex": "m"}, FULL | {"sex": "m"}])
    fitted = Preprocessing.fit(train, PreprocessingSettings(scale_table=False))
    later = _cohort([{"age": None, "lab": None, "sex": None, "stage": None, "died": 0, "time": 1.0}])
    assert fitted.feature_names == ("age", "lab", "sex=m", "stage")
    assert fitted.transform(later)["table"].tolist() == [[50.0, 1.0, 1.0, 0.0]]


def test_an_unseen_category_is_an_error_or_missing():
    train = [FULL, FULL | {"sex": "m", "time": 2.0}, FULL | {"sex": None, "time": 3.0}]
    new = _cohort([FULL | {"sex": "d"}])
    with pytest.raises(DataError, match=r"`sex` must be one of the levels seen in training, f, m; got 'd'"):
        Preprocessing.fit(_cohort(train)).transform(new)
    lenient = Preprocessing.fit(_cohort(train), LENIENT)
    assert (
        dict(zip(lenient.feature_names, lenient.transform(new)["table"][0].tolist(), strict=True))["sex missing"] == 1
    )


def test_a_constant_column_gives_zeros():
    fitted = Preprocessing.fit(_cohort([FULL, FULL, FULL]))
    assert fitted.transform(_cohort([FULL]))["table"][0, 0] == 0


@pytest.mark.parametrize(
    ("make", "fragment"),
    [
        (lambda: Preprocessing.fit(_cohort([FULL])[[]]), "training rows must not be empty"),
        (lambda: Preprocessing.fit(_cohort([FULL | {"age": None}])), "`age` must have a value in some training row"),
        (lambda: Preprocessing.fit(_cohort([FULL | {"sex": None}])), "`sex` must have a value in some training row"),
        (lambda: Preprocessing.fit(_cohort([FULL])).transform_table(pd.DataFrame({"Age": [1]})), "Did you mean 'Age'"),
        (lambda: Preprocessing.fit(_cohort([FULL])).transform_image(np.zeros((4, 4))), "fitted without images"),
        (lambda: Preprocessing.fit(_with_images(_pictures(2))).transform(_cohort([FULL])), "must have images"),
        (
            lambda: Preprocessing.fit(_cohort([FULL]), PreprocessingSettings(mask_channel=True)),
            "`mask_channel` needs masks",
        ),
        (
            lambda: Preprocessing.fit(_with_images(_pictures(2))).transform(_with_images(_pictures(2, 7, 5))),
            "image 0 must have the size of the first training image, 6 x 5; got 7 x 5. Set image_size",
        ),
        (
            lambda: Preprocessing.fit(_with_images(_pictures(2)[:, :2])).transform(_with_images(_pictures(2))),
            "image 0 must have 2 channels; got 3",
        ),
        (lambda: Preprocessing.from_json({"columns": []}), "saved preprocessing must be whole"),
        (
            lambda: Preprocessing.fit(_cohort([FULL])).transform_table(
                pd.DataFrame({"age": ["old"], "lab": [1], "sex": ["f"], "stage": ["I"]})
            ),
            "`age` must hold numbers; got 'old'",
        ),
    ],
)
def test_what_does_not_fit_is_refused(make, fragment):
    with pytest.raises(DataError) as caught:
        make()
    assert fragment in str(caught.value)


@pytest.mark.parametrize("size", [0, (4,), (4, 0)])
def test_a_size_must_be_a_size(size):
    with pytest.raises(InvalidValueError, match="`image_size`"):
        PreprocessingSettings(image_size=size)


def test_images_take_size_and_colour():
    cohort = _with_images(_pictures(2, 8, 8))
    grey = Preprocessing.fit(cohort, PreprocessingSettings(image_size=(4, 2), channels=Channels.GREY))
    assert grey.image_shape == (1, 4, 2)
    pixels = grey.transform(cohort)["image"]
    assert pixels.shape == (2, 1, 4, 2)
    assert pixels.min() >= 0
    assert pixels.max() <= 1
    whole = Preprocessing.fit(cohort, PreprocessingSettings(channels=Channels.GREY)).transform(cohort)["image"]
    weights = torch.tensor([0.299, 0.587, 0.114])[:, None, None]
    expected = (torch.from_numpy(_pictures(2, 8, 8)) / 255 * weights).sum(1, keepdim=True)
    torch.testing.assert_close(whole, expected)
    rgb = Preprocessing.fit(_with_images(_pictures(2)[:, 0]), PreprocessingSettings(channels=Channels.RGB))
    assert rgb.transform_image(np.full((6, 5), 0.5, np.float32)).shape == (3, 6, 5)


def test_downsizing_keeps_the_mean():
    ramp = np.linspace(0, 1, 64 * 64, dtype=np.float32).reshape(64, 64)
    cohort = _with_images(ramp[None])
    small = Preprocessing.fit(cohort, PreprocessingSettings(image_size=8)).transform(cohort)["image"]
    assert float(small.mean()) == pytest.approx(float(ramp.mean()), abs=1e-3)
    expected = ramp.reshape(8, 8, 8, 8).mean((1, 3))
    np.testing.assert_allclose(small[0, 0].numpy()[1:-1, 1:-1], expected[1:-1, 1:-1], atol=0.01)


def test_the_mask_is_a_last_channel_of_zero_and_one():
    cohort = _with_images(_pictures(2))
    masks = _with_images((_pictures(2, seed=1)[:, 0] > 128).astype(np.uint8) * 7)
    names = ("instance", "patient", "outcome", "table", "covariates", "images")
    both = Cohort(*[getattr(cohort, name) for name in names], masks.images, cohort.groups)
    scaled = PreprocessingSettings(mask_channel=True, image_scaling=ImageScaling.STANDARDISE)
    fitted = Preprocessing.fit(both, scaled)
    inputs = fitted.transform(both)["image"]
    assert inputs.shape == (2, *fitted.image_shape) == (2, 4, 6, 5)
    assert torch.equal(inputs[:, 3], torch.from_numpy(_pictures(2, seed=1)[:, 0] > 128).float())


def test_each_image_gets_mean_zero_and_standard_deviation_one_whatever_its_exposure():
    pictures = _pictures(2)
    faint = (pictures // 2 + 60).astype(np.uint8)
    fitted = Preprocessing.fit(_with_images(pictures), PreprocessingSettings(image_scaling=ImageScaling.EACH_IMAGE))
    usual, other = (fitted.transform(_with_images(images))["image"] for images in (pictures, faint))
    assert usual.mean((2, 3)).abs().max() < 1e-5
    torch.testing.assert_close(usual.std((2, 3), correction=0), torch.ones(2, 3))
    torch.testing.assert_close(usual, other, rtol=0, atol=0.05)  # halving loses a bit
    assert Preprocessing.from_json(json.loads(json.dumps(fitted.to_json()))) == fitted


def test_stains_are_the_amounts_that_made_the_colour():
    amounts = np.random.default_rng(0).uniform(0.1, 1.2, (2, 6, 5))
    vectors = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11]])
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    light = np.exp(-np.einsum("shw,sc->chw", amounts, vectors))
    pictures = np.round(255 * light).astype(np.uint8)[None]
    fitted = Preprocessing.fit(_with_images(pictures), PreprocessingSettings(channels=Channels.STAINS))
    assert fitted.image_shape == (2, 6, 5)
    np.testing.assert_allclose(fitted.transform(_with_images(pictures))["image"][0].numpy(), amounts, atol=0.03)
    with pytest.raises(DataError, match="3 channels to tell stains apart; got 1"):
        fitted.transform_image(np.zeros((6, 5), np.float32))

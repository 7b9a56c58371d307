"""Neural models keep scikit-learn's manners."""

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from survlens.core.errors import CorruptFileError, FitError, InvalidTypeError, InvalidValueError
from survlens.core.outcome import SurvivalOutcome
from survlens.encoders.mlp import MLP
from survlens.heads.cox import CoxPH
from survlens.models.estimator import restore
from survlens.models.survival_model import SurvivalModel
from survlens.training.estimator import NeuralSurvival
from survlens.training.image_estimators import CoxVAESurvival, ImageSurvival
from survlens.training.settings import FitSettings
from survlens.training.table_estimators import DeepHazard, DeepSurv

QUICK = {"epochs": 12, "batch": 32, "learning_rate": 5e-3}
TABLES = [DeepSurv(**QUICK), DeepHazard(intervals=8, **QUICK)]
IMAGES = [ImageSurvival(channels=(8,), **QUICK), CoxVAESurvival(latent=3, **QUICK)]
EVERY = [*TABLES, *IMAGES]


def named(estimator):
    return type(estimator).__name__


@pytest.fixture(scope="module")
def table():
    generator = np.random.default_rng(0)
    values = generator.normal(size=(240, 3))
    time = generator.exponential(np.exp(-values[:, 0])) + 1e-3
    y = np.array(list(zip(generator.random(240) > 0.3, time, strict=True)), dtype=[("event", bool), ("time", float)])
    return pd.DataFrame(values, columns=["a", "b", "c"]), y


@pytest.fixture(scope="module")
def digits():
    images, labels = load_digits(return_X_y=True)
    rows = np.random.default_rng(0).permutation(len(labels))[:240]
    time = np.random.default_rng(1).exponential(np.exp(-0.6 * labels[rows])) + 1e-6
    y = SurvivalOutcome.from_arrays(time, np.ones(240, int), "days")
    return (images[rows] / 16).reshape(-1, 8, 8), y


def data_for(estimator, table, digits):
    return table if estimator in TABLES else digits


@pytest.mark.parametrize("estimator", EVERY, ids=named)
def test_every_estimator_learns_predicts_and_comes_back(estimator, table, digits):
    X, y = data_for(estimator, table, digits)
    model = clone(estimator).fit(X, y)
    assert model.score(X, y) > 0.65
    prediction = model.predict_survival(X)
    survival = prediction.survival
    assert survival.shape[0] == 240
    assert bool((survival.diff(dim=1) <= 1e-12).all())
    assert prediction.unit == model.unit_
    again = restore(model.state())
    assert np.array_equal(again.predict(X), model.predict(X))
    assert torch.equal(again.predict_survival(X).log_survival, prediction.log_survival)
    assert model.embed(X).shape == (240, model.model_.head.in_features)


@pytest.mark.parametrize("estimator", EVERY, ids=named)
def test_params_come_back_and_clones_are_equal_and_unfitted(estimator):
    params = estimator.get_params()
    assert clone(estimator).get_params() == params
    assert clone(estimator).set_params(seed=5).seed == 5


@pytest.mark.parametrize("estimator", TABLES, ids=named)
def test_the_same_seed_gives_the_same_model(estimator, table):
    def risks(seed):
        return clone(estimator).set_params(seed=seed, epochs=3).fit(*table).predict(table[0])

    assert np.array_equal(risks(0), risks(0))
    assert not np.array_equal(risks(0), risks(1))


def test_cross_validation_grid_search_and_pipelines_work(table):
    X, y = table
    pipeline = make_pipeline(StandardScaler(), DeepSurv(**QUICK))
    scores = cross_val_score(pipeline, X * 50 + 7, y, cv=3)
    assert scores.shape == (3,)
    assert scores.mean() > 0.6
    search = GridSearchCV(DeepSurv(**QUICK), {"hidden": [(4,), (16, 16)]}, cv=2).fit(X, y)
    assert search.best_estimator_.predict(X).shape == (240,)


def test_images_are_cross_validated_as_arrays(digits):
    images, y = digits
    time, event = y.numpy()
    pairs = np.column_stack([time, event])
    scores = cross_val_score(ImageSurvival(channels=(8,), **QUICK), images[:, None], pairs, cv=2)
    assert np.isfinite(scores).all()


def test_the_columns_of_a_frame_are_taken_by_name(table):
    X, y = table
    model = DeepSurv(**QUICK).fit(X, y)
    assert np.array_equal(model.predict(X[["c", "a", "b"]]), model.predict(X))


def test_no_patient_is_on_both_sides_of_early_stopping(table):
    X, y = table
    patients = np.repeat(np.arange(60), 4)
    model = DeepSurv(**QUICK)
    seen = []
    original = model._parts

    def parts(source, groups):
        seen.extend(original(source, groups))
        return seen

    model._parts = parts
    model.fit(X.assign(a=patients), y, groups=patients)
    sides = [set(part.inputs["table"][:, 0].tolist()) for part in seen]
    assert sides[0].isdisjoint(sides[1])
    assert len(sides[1]) == 12


def test_without_a_share_kept_back_all_epochs_are_run(table):
    model = DeepSurv(**QUICK, validation_fraction=0).fit(*table)
    assert len(model.history_.rows) == 12
    assert model.history_.rows[0].validation is None


def test_images_and_table_go_together(digits, table):
    images, y = digits
    inputs = {"image": images[:, None], "table": table[0].to_numpy()}
    for estimator in IMAGES:
        model = clone(estimator).set_params(epochs=2).fit(inputs, y)
        assert model.embed(inputs).shape[1] == {"ImageSurvival": 8 + 3, "CoxVAESurvival": 3 + 3}[named(model)]
    assert model.transform(inputs).shape == (240, 3)


def test_your_own_network_has_the_same_manners(table):
    def build(shapes, outcome):
        assert len(outcome) == 240
        return SurvivalModel(MLP(shapes["table"][0], (6,)), CoxPH(6))

    settings = FitSettings(epochs=12, batch=32, learning_rate=5e-3, patience=5)
    estimator = clone(NeuralSurvival(build, settings))
    assert estimator.fit(*table).score(*table) > 0.65
    assert (
        cross_val_score(
            NeuralSurvival(lambda shapes, _: SurvivalModel(MLP(3, (6,)), CoxPH(6)), settings), *table, cv=2
        ).min()
        > 0.5
    )
    with pytest.raises(InvalidTypeError, match="save_model"):
        estimator.state()


def test_no_training_row_stays_in_a_model(table):
    model = DeepSurv(**QUICK).fit(*table)
    assert "_training_outcome" not in vars(model)
    rows = len(table[0])
    assert not any(rows in np.shape(array) for name, array in model.weights_.items() if "baseline" not in name)


def test_what_does_not_fit_is_refused(table, digits):
    X, y = table
    images, _ = digits
    with pytest.raises(FitError, match="at least one event"):
        DeepSurv(**QUICK).fit(X, SurvivalOutcome.from_arrays(np.ones(240), np.zeros(240, int), "days"))
    with pytest.raises(InvalidValueError, match="one row per instance"):
        DeepSurv(**QUICK).fit(X[:100], y)
    with pytest.raises(InvalidValueError, match="`X` must hold images; got table"):
        ImageSurvival(**QUICK).fit(X, y)
    broken = images.copy()
    broken[3, 2, 2] = np.nan
    with pytest.raises(InvalidValueError, match="finite; got NaN or infinity in 'image'"):
        ImageSurvival(**QUICK).fit(broken, y)
    model = ImageSurvival(channels=(4,), **QUICK | {"epochs": 1}).fit(images, y)
    with pytest.raises(InvalidValueError, match=r"shape \(1, 8, 8\) in 'image' as in the fit; got \(1, 8, 6\)"):
        model.predict(images[:, :, :6])
    with pytest.raises(InvalidValueError, match="as in the fit"):
        model.predict(X)
    state = model.state() | {"weights_": {"stem": np.zeros(2)}}
    with pytest.raises(CorruptFileError, match="weights that fit"):
        restore(state)

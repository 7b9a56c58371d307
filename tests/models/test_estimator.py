"""The scikit-learn face: every estimator of survlens keeps every contract."""

from __future__ import annotations

import inspect
import pickle
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, GroupKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from survlens.core.errors import (
    CorruptFileError,
    FitError,
    InvalidTypeError,
    InvalidValueError,
    MissingDependencyError,
    NotFittedError,
)
from survlens.core.outcome import SurvivalOutcome
from survlens.core.prediction import Interpolation
from survlens.core.protocols import SurvivalPredictor
from survlens.core.ties import Ties
from survlens.models.classical import CoxRegression, KaplanMeierModel
from survlens.models.estimator import SurvivalEstimator, restore
from survlens.models.estimator_files import ARRAYS, DESCRIPTION, KNOWN, load_estimator, save_estimator
from survlens.models.forest import RandomSurvivalForest
from survlens.models.late_fusion import LateFusion
from survlens.models.penalised import LassoCox, PartialRidgeCox, PenaltyRule, RidgeCox

ROWS = {
    "kaplan_meier": lambda: KaplanMeierModel(unit="months"),
    "cox": lambda: CoxRegression(unit="months", ties=Ties.BRESLOW),
    "cox_penalty": lambda: CoxRegression(penalty=0.1, unit="months"),
    "ridge": lambda: RidgeCox(penalties=5, folds=3, unit="months"),
    "partial_ridge": lambda: PartialRidgeCox(unpenalised=(1,), penalties=5, folds=3, unit="months"),
    "lasso": lambda: LassoCox(penalties=8, folds=3, rule=PenaltyRule.ONE_STANDARD_ERROR, unit="months"),
    "forest": lambda: RandomSurvivalForest(trees=10, min_leaf=5, unit="months"),
    "fusion": lambda: LateFusion(
        {"first": CoxRegression(unit="months"), "second": RandomSurvivalForest(trees=5, unit="months")},
        columns={"first": ["x0", "x1"], "second": ["x2", "x3"]},
        folds=3,
        unit="months",
    ),
}
every = pytest.mark.parametrize("make", ROWS.values(), ids=ROWS)
with_risk = pytest.mark.parametrize("make", [v for k, v in ROWS.items() if k != "kaplan_meier"], ids=list(ROWS)[1:])


@pytest.fixture(scope="module")
def rows() -> tuple[pd.DataFrame, SurvivalOutcome]:
    rng = np.random.default_rng(3)
    X = rng.normal(size=(120, 4))
    time = np.ceil(20 * rng.exponential(np.exp(-X[:, 0] - 0.5 * X[:, 2])))
    stop = np.ceil(40 * rng.exponential(size=120))
    outcome = SurvivalOutcome.from_arrays(np.minimum(time, stop), time <= stop, "months")
    return pd.DataFrame(X, columns=[f"x{i}" for i in range(4)]), outcome


def structured(outcome: SurvivalOutcome) -> np.ndarray:
    time, event = outcome.numpy()
    return np.array(list(zip(event > 0, time, strict=True)), dtype=[("event", bool), ("time", float)])


def test_every_estimator_has_a_row():
    assert {type(make()) for make in ROWS.values()} == set(KNOWN)


@every
def test_survival_never_rises_and_starts_at_one(make, rows):
    X, outcome = rows
    prediction = make().fit(X, outcome).predict_survival(X)
    first_event = float(outcome.time[outcome.event > 0].min())
    assert prediction.interpolation is Interpolation.STEP
    assert prediction.unit == "months"
    assert prediction.log_survival.dtype == torch.float64
    assert bool((prediction.survival >= 0).all())
    assert bool((prediction.survival.diff(dim=1) <= 0).all())
    assert float(prediction.times[-1]) == float(outcome.time.max())
    assert torch.equal(prediction.at([first_event / 2]).survival, torch.ones(len(X), 1, dtype=torch.float64))
    assert bool((prediction.at([first_event]).survival < 1).any())


@every
def test_curves_may_be_asked_up_to_the_last_observed_time(make, rows):
    X, outcome = rows
    model = make().fit(X, outcome)
    last = float(outcome.time.max())
    times = torch.tensor([1.0, 10.0, last])
    assert torch.equal(model.predict_survival(X, times).survival, model.predict_survival(X).at(times).survival)
    with pytest.raises(InvalidValueError, match="predicted range"):
        model.predict_survival(X, [last + 1])


@every
def test_risk_is_predict_and_higher_is_worse(make, rows):
    X, outcome = rows
    model = make().fit(X, outcome)
    risk = model.predict(X)
    assert isinstance(model, SurvivalPredictor)
    assert risk.dtype == np.float64
    assert risk.shape == (len(X),)
    assert torch.equal(model.risk(X), torch.from_numpy(risk))
    expected_life = model.predict_survival(X).restricted_mean(30.0).numpy()
    if np.ptp(risk) > 0:
        assert np.corrcoef(risk, expected_life)[0, 1] < -0.8


@with_risk
def test_score_is_harrells_concordance_and_beats_chance(make, rows):
    X, outcome = rows
    score = make().fit(X, outcome).score(X, outcome)
    assert type(score) is float
    assert 0.65 < score < 1


def test_kaplan_meier_scores_one_half(rows):
    assert ROWS["kaplan_meier"]().fit(*rows).score(*rows) == 0.5


@every
def test_a_clone_is_unfitted_and_fits_the_same(make, rows):
    X, outcome = rows
    model = make().fit(X, outcome)
    twin = clone(model)
    with pytest.raises(NotFittedError, match=r"Call fit\(X, y\)"):
        twin.predict(X)
    assert repr(twin) == repr(model)
    np.testing.assert_array_equal(twin.fit(X, outcome).predict(X), model.predict(X))
    assert twin.fit(X, outcome) is twin


@every
def test_parameters_are_those_of_the_constructor(make):
    model = make()
    names = set(inspect.signature(type(model)).parameters)
    assert set(model.get_params(deep=False)) == names
    assert len(names) <= 6
    assert model.set_params(unit="days").get_params()["unit"] == "days"


@every
def test_fit_does_not_change_parameters_or_data(make, rows):
    X, outcome = rows
    model, frame = make(), X.copy()
    before = repr(model.get_params(deep=False))
    model.fit(frame, outcome)
    assert repr(model.get_params(deep=False)) == before
    pd.testing.assert_frame_equal(frame, X)


@every
def test_outcome_comes_in_every_shape(make, rows):
    X, outcome = rows
    time, event = outcome.numpy()
    expected = make().fit(X, outcome).predict(X)
    for y in (structured(outcome), (time, event), pd.DataFrame({"time": time, "event": event})):
        model = make().fit(X, y)
        np.testing.assert_array_equal(model.predict(X), expected)
        assert model.unit_ == "months"


@pytest.mark.parametrize("make", [v for k, v in ROWS.items() if k != "fusion"], ids=[k for k in ROWS if k != "fusion"])
def test_covariates_come_in_every_shape(make, rows):
    X, outcome = rows
    array = X.to_numpy()
    expected = make().fit(X, outcome).predict(X)
    inputs = {"image": torch.from_numpy(array[:, :2].reshape(-1, 1, 1, 2)), "table": torch.from_numpy(array[:, 2:])}
    for shape in (array, torch.from_numpy(array), inputs):
        np.testing.assert_array_equal(make().fit(shape, outcome).predict(shape), expected)
    model = make().fit(inputs, outcome)
    swapped = {"other": torch.zeros(120, 3), "table": inputs["table"], "image": inputs["image"]}
    np.testing.assert_array_equal(model.predict(swapped), expected)
    assert model.feature_names_ == ("image_0", "image_1", "table_0", "table_1")
    with pytest.raises(InvalidValueError, match="modalities of the fit"):
        model.predict({"table": inputs["table"]})


@every
def test_a_frame_is_taken_by_names(make, rows):
    X, outcome = rows
    model = make().fit(X, outcome)
    shuffled = X[["x3", "x1", "x0", "x2"]].assign(more=1.0)
    np.testing.assert_array_equal(model.predict(shuffled), model.predict(X))
    with pytest.raises(InvalidValueError, match="x2"):
        model.predict(X.drop(columns="x2"))


@every
def test_a_batch_equals_its_members(make, rows):
    X, outcome = rows
    model = make().fit(X, outcome)
    whole, risk = model.predict_survival(X).survival.numpy(), model.predict(X)
    for row in (57,):
        one = X.iloc[[row]]
        np.testing.assert_allclose(model.predict(one), risk[[row]], rtol=1e-13, atol=1e-14)
        np.testing.assert_allclose(model.predict_survival(one).survival.numpy(), whole[[row]], rtol=1e-13, atol=1e-14)


@every
def test_missing_values_are_named(make, rows):
    X, outcome = rows
    broken = X.copy()
    broken.iloc[[4, 9], 1] = np.nan
    with pytest.raises(InvalidValueError, match=r"'x1' \(2 of 120 rows\), first in row 4"):
        make().fit(broken, outcome)
    with pytest.raises(InvalidValueError, match="'x1'"):
        make().fit(X, outcome).predict(broken)


@every
def test_bad_input_is_refused_with_a_reason(make, rows):
    X, outcome = rows
    with pytest.raises(InvalidTypeError, match="'x0'"):
        make().fit(X.assign(x0="a"), outcome)
    with pytest.raises(InvalidTypeError, match=r"\(120,\)"):
        make().fit(np.zeros(120), outcome)
    with pytest.raises((FitError, InvalidValueError), match="event"):
        make().fit(X, (outcome.time.numpy(), np.zeros(120, dtype=int)))
    model = make().set_params(columns=None) if isinstance(make(), LateFusion) else make()
    with pytest.raises(InvalidValueError, match="120"):
        model.fit(X.to_numpy()[:119], outcome)
    with pytest.raises(InvalidValueError, match="4 columns"):
        model.fit(X.to_numpy(), outcome).predict(X.to_numpy()[:, :3])


@every
def test_a_saved_model_predicts_the_same_bits(make, rows, tmp_path):
    X, outcome = rows
    model = make().fit(X, outcome)
    loaded = load_estimator(save_estimator(model, tmp_path / "model"))
    assert type(loaded) is type(model)
    if not isinstance(model, LateFusion):
        assert repr(loaded.get_params()) == repr(model.get_params())
    np.testing.assert_array_equal(loaded.predict(X), model.predict(X))
    assert torch.equal(loaded.predict_survival(X).log_survival, model.predict_survival(X).log_survival)
    again, state = loaded.state(), model.state()
    assert sorted(again) == sorted(state)
    for name in state:
        np.testing.assert_array_equal(again[name], state[name], err_msg=name)  # type: ignore[arg-type]
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(model)).predict(X), model.predict(X))


@every
def test_no_training_row_is_saved(make, rows):
    X, outcome = rows
    values = X.to_numpy().ravel()
    held = [v.ravel() for v in make().fit(X, outcome).state().values() if isinstance(v, np.ndarray)]
    assert not np.isin(np.concatenate(held).astype(np.float64), values).any()


def test_a_damaged_state_is_refused(rows, tmp_path):
    folder = save_estimator(CoxRegression().fit(*rows), tmp_path / "model")
    with pytest.raises(CorruptFileError, match="known estimator"):
        restore({"kind": "os.system"})
    state = CoxRegression().fit(*rows).state()
    with pytest.raises(CorruptFileError, match="centre_"):
        restore({name: value for name, value in state.items() if name != "centre_"})
    with pytest.raises(CorruptFileError, match="LassoCox"):
        LassoCox.from_state(state)
    (folder / DESCRIPTION).write_text((folder / DESCRIPTION).read_text().replace('"breslow"', '"x"')
                                      .replace('"efron"', '"x"'))  # fmt: skip
    with pytest.raises(CorruptFileError, match="damaged"):
        load_estimator(folder)
    (folder / ARRAYS).write_bytes((folder / ARRAYS).read_bytes()[:50])
    with pytest.raises(CorruptFileError):
        load_estimator(folder)


def test_a_class_of_ones_own_is_restored_by_name(rows):
    class HalfCox(CoxRegression):
        """A user's subclass."""

    X, outcome = rows
    model = HalfCox().fit(X, outcome)
    assert isinstance(restore(model.state()), HalfCox)


@with_risk
def test_pipeline_and_cross_validation(make, rows):
    X, outcome = rows
    y = structured(outcome)
    model = make()
    if isinstance(model, LateFusion):
        model = model.set_params(columns={"first": [0, 1], "second": [2, 3]})
    scores = cross_val_score(make_pipeline(StandardScaler(), model), X.to_numpy(), y, cv=3)
    assert scores.shape == (3,)
    assert scores.mean() > 0.55


def test_grid_search_by_patient(rows):
    X, outcome = rows
    frame = pd.DataFrame({"time": outcome.time.numpy(), "event": outcome.event.numpy()})
    search = GridSearchCV(
        make_pipeline(StandardScaler(), CoxRegression()),
        {"coxregression__penalty": [0.01, 1.0], "coxregression__ties": list(Ties)},
        cv=GroupKFold(3),
    )
    search.fit(X, frame, groups=np.arange(120) // 2)
    assert search.best_score_ > 0.6
    assert search.predict(X).shape == (120,)


@pytest.mark.parametrize("make", [ROWS["lasso"], ROWS["forest"]], ids=["lasso", "forest"])
def test_a_missing_library_names_its_extra(make, rows, monkeypatch):
    for name in ("sksurv", "sksurv.linear_model", "sksurv.ensemble", "sksurv.util"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingDependencyError, match=r'pip install "survlens\[baselines\]"'):
        make().fit(*rows)


def test_the_estimator_is_abstract():
    with pytest.raises(TypeError):
        SurvivalEstimator()  # type: ignore[abstract]


@every
def test_one_event_is_fitted_or_explained(make, rows):
    X, outcome = rows
    event = np.zeros(120, dtype=int)
    event[int(outcome.time.argmin())] = 1
    one = SurvivalOutcome.from_arrays(outcome.time, event, "months")
    model = make()
    if isinstance(model, RidgeCox | LassoCox | LateFusion):
        with pytest.raises(FitError, match="at least two patients"):
            model.fit(X, one)
        return
    model.fit(X, one)
    assert bool(torch.isfinite(model.predict_survival(X).survival).all())

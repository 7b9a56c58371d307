"""Every family of models can be fitted in scikit-learn's manners, on whatever an outcome holds."""

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from survlens.core.errors import InvalidTypeError, InvalidValueError
from survlens.core.grid import EmptyIntervalWarning
from survlens.core.outcome import SurvivalOutcome
from survlens.heads.pmf import PMF
from survlens.models.estimator import restore
from survlens.training.estimator import HeadedEstimator
from survlens.training.head_choice import GridRule, HeadKind
from survlens.training.image_estimators import ImageSurvival
from survlens.training.table_estimators import DeepHazard, DeepSurv, TableSurvival

QUICK = {"epochs": 30, "batch": 64, "learning_rate": 1e-2, "intervals": 6, "hidden": (16,)}
ROWS = 240
every_head = pytest.mark.parametrize("head", HeadKind, ids=lambda head: head.name)


def rows(*, causes=1, **optional):
    random = np.random.default_rng(0)
    X = random.normal(size=(ROWS, 3))
    time = 12 * random.exponential(np.exp(-X[:, 0])) + 0.1
    cause = 1 + (random.random(ROWS) < 1 / (1 + np.exp(-2 * X[:, 1]))) * (causes - 1)
    event = np.where(random.random(ROWS) < 0.75, cause, 0).astype(int)
    columns = {name: make(time) for name, make in optional.items()}
    return pd.DataFrame(X, columns=["a", "b", "c"]), SurvivalOutcome.from_arrays(time, event, "weeks", **columns)


@every_head
def test_every_family_learns_predicts_and_comes_back(head):
    X, y = rows()
    model = clone(TableSurvival(head=head, **QUICK)).fit(X, y)
    assert model.score(X, y) > 0.68
    prediction = model.predict_survival(X, [1.0, 10.0, 20.0])
    assert prediction.times.tolist() == [1.0, 10.0, 20.0]
    assert prediction.unit == "weeks"
    assert bool((prediction.survival.diff(dim=1) <= 1e-9).all())
    assert len(model.predict_survival(X.iloc[:2], 5.0).times) == 1
    again = restore(model.state())
    assert again.get_params() == model.get_params()
    assert np.array_equal(again.predict(X), model.predict(X))
    assert torch.equal(again.predict_survival(X).log_survival, model.predict_survival(X).log_survival)


@every_head
def test_every_family_takes_entries_and_weights(head):
    X, y = rows(entry=lambda time: time / 3, weight=lambda time: 1 + time)
    model = TableSurvival(head=head, **QUICK | {"epochs": 2}).fit(X, y)
    assert np.isfinite(model.predict(X)).all()


def test_what_an_outcome_holds_reaches_every_batch(monkeypatch):
    X, y = rows(entry=lambda time: time / 3, weight=lambda time: 1 + time, causes=2)
    seen, original = [], PMF.loss
    monkeypatch.setattr(PMF, "loss", lambda self, z, outcome: seen.append(outcome) or original(self, z, outcome))
    TableSurvival(head=HeadKind.PMF, **QUICK | {"epochs": 1}).fit(X, y)
    assert sum(len(part) for part in seen) == ROWS  # training rows in batches, then those kept back
    whole = SurvivalOutcome.concatenate(seen)
    torch.testing.assert_close(whole.entry, whole.time / 3)
    torch.testing.assert_close(whole.weight, whole.time + 1)
    assert whole.n_causes == 2


@pytest.mark.parametrize("head", [HeadKind.COX, HeadKind.LOGISTIC_HAZARD, HeadKind.WEIBULL], ids=lambda head: head.name)
def test_a_weight_of_two_is_the_row_twice(head):
    X, y = rows()
    twice = np.arange(ROWS) % 3 == 0
    weighted = SurvivalOutcome.from_arrays(*y.numpy(), "weeks", weight=np.where(twice, 2.0, 1.0))
    order = np.concatenate([np.arange(ROWS), np.flatnonzero(twice)])
    same = QUICK | {"epochs": 5, "batch": 1000, "validation_fraction": 0, "edges": (0.0, 3.0, 8.0, 20.0, 200.0)}
    settings = {"head": head, "dropout": 0.0, **same}
    by_weight = TableSurvival(**settings).fit(X, weighted)
    by_rows = TableSurvival(**settings).fit(X.iloc[order], y[order])
    atol = 2e-3 if head is HeadKind.COX else 1e-4  # Efron's rule takes copies for ties
    np.testing.assert_allclose(by_weight.predict(X), by_rows.predict(X), rtol=atol, atol=atol)


def test_causes_are_told_apart():
    X, y = rows(causes=2)
    model = TableSurvival(head=HeadKind.DEEP_HIT, **QUICK).fit(X, y)
    prediction = model.predict_incidence(X, [5.0, 15.0])
    assert prediction.n_causes == 2
    torch.testing.assert_close(
        prediction.cumulative_incidence.sum(0), 1 - model.predict_survival(X, [5.0, 15.0]).survival
    )
    second = prediction.risk(15.0, 2) / (prediction.risk(15.0, 1) + prediction.risk(15.0, 2))
    assert np.corrcoef(second.numpy(), X["b"])[0, 1] > 0.6  # `b` decides which cause it is
    again = restore(model.state())
    assert torch.equal(again.predict_incidence(X).cumulative_incidence, model.predict_incidence(X).cumulative_incidence)


def test_a_head_of_one_cause_has_no_incidences():
    model = TableSurvival(**QUICK | {"epochs": 1}).fit(*rows(causes=2))
    with pytest.raises(InvalidTypeError, match="tell causes apart.*got CoxPH"):
        model.predict_incidence(rows()[0])


def test_intervals_are_cut_as_asked():
    X, y = rows()
    settings = {"head": HeadKind.LOGISTIC_HAZARD, **QUICK | {"epochs": 1, "intervals": 4}}
    last = float(y.time.max())
    quantile = TableSurvival(**settings).fit(X, y).edges_
    assert len(quantile) == 5
    assert (quantile[0], quantile[-1]) == (0.0, last)
    given = TableSurvival(**settings, edges=[0.0, 2.0, 9.0, last]).fit(X, y)
    assert given.edges_.tolist() == [0.0, 2.0, 9.0, last]
    with pytest.warns(EmptyIntervalWarning):
        equal = TableSurvival(**settings | {"intervals": 30}, grid=GridRule.EQUIDISTANT).fit(X, y).edges_
    np.testing.assert_allclose(np.diff(equal), last / 30)
    with pytest.raises(InvalidValueError, match="`edges` must start at 0"):
        TableSurvival(**settings, edges=[1.0, 2.0]).fit(X, y)
    with pytest.raises(InvalidValueError, match="`intervals` must be >= 1; got 0"):
        TableSurvival(**settings | {"intervals": 0}).fit(X, y)


@pytest.mark.parametrize(
    ("named", "head"),
    [(DeepSurv, HeadKind.COX), (DeepHazard, HeadKind.LOGISTIC_HAZARD)],
    ids=["DeepSurv", "DeepHazard"],
)
def test_the_named_classes_are_rows_of_the_table(named, head):
    X, y = rows()
    settings = {"epochs": 2, "hidden": (8,)} | ({"intervals": 5} if named is DeepHazard else {})
    assert "head" not in named().get_params()
    risks = [model.fit(X, y).predict(X) for model in (named(**settings), TableSurvival(head=head, **settings))]
    assert np.array_equal(*risks)


def test_every_setting_is_told_once():
    assert set(DeepSurv().get_params()) == {
        *("epochs", "batch", "learning_rate", "weight_decay", "patience", "validation_fraction", "seed", "device"),
        *("unit", "hidden", "dropout", "batch_norm"),
    }
    assert set(TableSurvival().get_params()) == set(DeepSurv().get_params()) | {
        *("head", "intervals", "grid", "edges", "n_causes", "alpha", "sigma")
    }
    assert issubclass(ImageSurvival, HeadedEstimator)
    with pytest.raises(TypeError, match="positional"):
        DeepSurv((32,))


def test_the_family_is_a_setting_like_any_other():
    X, y = rows()
    heads = [HeadKind.PMF, HeadKind.WEIBULL]
    search = GridSearchCV(TableSurvival(**QUICK | {"epochs": 4}), {"head": heads, "batch_norm": [True]}, cv=2).fit(X, y)
    assert search.best_params_["head"] in heads
    pipeline = make_pipeline(StandardScaler(), TableSurvival(head=HeadKind.MTLR, **QUICK))
    assert cross_val_score(pipeline, X * 40 - 3, y, cv=2).mean() > 0.6


@pytest.mark.parametrize("head", [HeadKind.DEEP_HIT, HeadKind.COX_TIME], ids=lambda head: head.name)
def test_images_and_tables_take_every_family(head):
    X, y = rows(causes=2)
    image = np.random.default_rng(1).random((ROWS, 1, 8, 8))
    inputs = {"image": image, "table": X.to_numpy()}
    model = ImageSurvival(head=head, channels=(4,), epochs=8, learning_rate=1e-2, intervals=5).fit(inputs, y)
    assert model.score(inputs, y) > 0.6
    assert model.embed(inputs).shape == (ROWS, 4 + 3)


def test_cox_time_needs_a_layer():
    with pytest.raises(InvalidValueError, match="at least one layer under COX_TIME"):
        TableSurvival(head=HeadKind.COX_TIME, hidden=()).fit(*rows())


def test_strata_of_a_cox_network_are_asked_for_and_give_curves_of_their_own():
    X, y = rows(stratum=lambda time: np.arange(len(time)) % 2)
    model = TableSurvival(head=HeadKind.COX, **QUICK | {"epochs": 2}).fit(X, y)
    with pytest.raises(InvalidValueError, match="`stratum` must be given"):
        model.predict_survival(X, [5.0])
    whole = model.predict_survival(X, [5.0], stratum=y.strata()).survival
    parts = [model.predict_survival(X, [5.0], stratum=k).survival for k in (0, 1)]
    assert torch.equal(whole, torch.where(y.strata()[:, None] == 0, parts[0], parts[1]))
    assert bool((parts[0] != parts[1]).any())
    assert torch.equal(restore(model.state()).predict_survival(X, [5.0], stratum=1).survival, parts[1])


def test_a_stratum_is_refused_where_no_baseline_knows_it():
    X, y = rows()
    for head in (HeadKind.COX, HeadKind.PMF):
        model = TableSurvival(head=head, **QUICK | {"epochs": 1}).fit(X, y)
        with pytest.raises(InvalidValueError, match="`stratum` must be None"):
            model.predict_survival(X, [5.0], stratum=0)


def test_cox_time_refuses_strata_before_it_trains(monkeypatch):
    def trained(*_):
        raise AssertionError

    X, y = rows(stratum=lambda time: np.arange(len(time)) % 2)
    monkeypatch.setattr("survlens.training.estimator.fit", trained)
    with pytest.raises(InvalidValueError, match="one stratum for a CoxTime head; got 2"):
        TableSurvival(head=HeadKind.COX_TIME, **QUICK).fit(X, y)


def test_a_rare_cause_that_the_fit_lacks_has_its_layer_where_the_number_of_causes_is_given():
    X = np.random.default_rng(0).normal(size=(40, 2))
    outcome = SurvivalOutcome.from_arrays(np.arange(1.0, 41.0), np.arange(40) % 2, "days")
    given = TableSurvival(head=HeadKind.DEEP_HIT, n_causes=2, alpha=0.9, sigma=0.3, epochs=1, intervals=4).fit(
        X, outcome
    )
    assert given.predict_incidence(X).n_causes == 2
    assert (given.model_.head.alpha, given.model_.head.sigma) == (0.9, 0.3)
    assert TableSurvival(head=HeadKind.DEEP_HIT, epochs=1, intervals=4).fit(X, outcome).n_causes_ == 1

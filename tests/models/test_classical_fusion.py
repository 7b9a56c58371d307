"""Late fusion weighs members by what they know about patients they never saw."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from survlens.core.errors import InvalidValueError
from survlens.core.outcome import SurvivalOutcome
from survlens.models.classical import CoxRegression
from survlens.models.cross_fitting import patient_folds
from survlens.models.late_fusion import LateFusion, fuse_risks
from survlens.models.penalised import RidgeCox


@pytest.fixture(scope="module")
def rows() -> tuple[dict[str, torch.Tensor], SurvivalOutcome]:
    rng = np.random.default_rng(1)
    image, table = rng.normal(size=(300, 2, 3)), rng.normal(size=(300, 2))
    time = rng.exponential(np.exp(-image[:, 0, 0] - table[:, 0]))
    stop = rng.exponential(2.0, size=300)
    inputs = {"image": torch.from_numpy(image).float(), "table": torch.from_numpy(table).float()}
    return inputs, SurvivalOutcome.from_arrays(np.minimum(time, stop), time <= stop, "months")


def test_members_of_a_mapping_see_the_modality_of_their_name(rows):
    inputs, outcome = rows
    fusion = LateFusion({"image": CoxRegression(penalty=0.01), "table": CoxRegression()}).fit(inputs, outcome)
    assert fusion.members_["image"].feature_names_[0] == "image_0"
    assert fusion.members_["table"].n_features_in_ == 2
    alone = [fusion.members_[name].score(inputs, outcome) for name in ("image", "table")]
    assert fusion.score(inputs, outcome) > max(alone) + 0.03
    assert all(weight > 0.5 for weight in fusion.weights_.values())


def test_weights_are_a_cox_fit_on_out_of_fold_risks(rows):
    inputs, outcome = rows
    fusion = LateFusion({"image": CoxRegression(), "table": CoxRegression()}, penalty=0.05, folds=4, seed=2)
    fusion.fit(inputs, outcome)
    fold, risks = patient_folds(outcome, None, folds=4, seed=2), np.zeros((300, 2))
    for column, name in enumerate(("image", "table")):
        X = inputs[name].double().flatten(1).numpy()
        for k in range(4):
            member = CoxRegression().fit(X[fold != k], outcome[fold != k])
            risks[fold == k, column] = member.predict(X[fold == k])
    scaled = pd.DataFrame((risks - risks.mean(0)) / risks.std(0), columns=["image", "table"])
    by_hand = CoxRegression(penalty=0.05).fit(scaled, outcome)
    np.testing.assert_allclose(list(fusion.weights_.values()), by_hand.coef_, rtol=1e-10)


def test_a_member_that_overfits_gains_no_weight():
    rng = np.random.default_rng(3)
    frame = pd.DataFrame(rng.normal(size=(150, 41))).rename(columns=lambda i: "signal" if i == 40 else f"noise{i}")
    time = rng.exponential(np.exp(-frame["signal"].to_numpy()))
    y = (time, np.ones(150, dtype=int))
    noise = [name for name in frame if name != "signal"]
    members = {"noise": CoxRegression(penalty=0.01), "signal": CoxRegression()}
    fusion = LateFusion(members, columns={"noise": noise, "signal": ["signal"]}).fit(frame, y)
    assert abs(fusion.weights_["noise"]) < 0.25 < 0.7 < fusion.weights_["signal"]
    in_sample = pd.DataFrame({name: fusion.members_[name].predict(frame) for name in members})
    naive = CoxRegression().fit((in_sample - in_sample.mean()) / in_sample.std(), y)
    assert naive.coef_[0] > 0.4


def test_rows_of_one_patient_stay_together(rows):
    inputs, outcome = rows
    twice = np.repeat(np.arange(300), 2)
    doubled = {name: values[torch.from_numpy(twice)] for name, values in inputs.items()}
    members = {"image": CoxRegression(), "table": RidgeCox(penalties=3, folds=3)}
    by_patient = LateFusion(members, folds=3).fit(doubled, outcome[twice], groups=twice)
    by_row = LateFusion(members, folds=3).fit(doubled, outcome[twice])
    assert by_patient.weights_ != by_row.weights_


def test_wrong_members_and_columns_are_refused(rows):
    inputs, outcome = rows
    with pytest.raises(InvalidValueError, match="members"):
        LateFusion({}).fit(inputs, outcome)
    with pytest.raises(InvalidValueError, match="'scan'"):
        LateFusion({"scan": CoxRegression()}).fit(inputs, outcome)
    frame = pd.DataFrame({"age": np.arange(300.0)})
    with pytest.raises(InvalidValueError, match="'sex'"):
        LateFusion({"clinical": CoxRegression()}, columns={"clinical": ["sex"]}).fit(frame, outcome)


def _lacking(inputs, name, rows):
    """The same inputs in which some rows lack a modality, with values that must not be read."""
    spoilt = inputs[name].clone()
    spoilt[rows] = torch.nan
    present = torch.ones(len(spoilt), dtype=torch.bool)
    present[rows] = False
    return {**inputs, name: spoilt, f"{name}.present": present}


def test_a_member_that_is_missing_stands_at_its_mean_risk(rows):
    inputs, outcome = rows
    some = torch.arange(0, 300, 4)
    lacking = _lacking(inputs, "image", some)
    members = {"image": CoxRegression(penalty=0.01), "table": CoxRegression()}
    fusion = LateFusion(members).fit(lacking, outcome)
    assert fusion.fusion_.feature_names_ == ("image", "table", "image missing")
    assert set(fusion.weights_) == {"image", "table"}
    kept = torch.from_numpy(np.setdiff1d(np.arange(300), some.numpy()))
    image = CoxRegression(penalty=0.01).fit({"image": inputs["image"][kept]}, outcome[kept])
    np.testing.assert_array_equal(fusion.members_["image"].coef_, image.coef_)
    seen = fusion._matrix(lacking)
    assert (seen[some.numpy(), 0] == 0).all()
    assert (seen[:, 2] == ~lacking["image.present"].numpy()).all()
    assert fusion.score(lacking, outcome) > fusion.members_["table"].score({"table": inputs["table"]}, outcome) + 0.03
    again = LateFusion.from_state(fusion.state())
    np.testing.assert_array_equal(again.predict(lacking), fusion.predict(lacking))


def test_a_member_may_be_missing_only_where_it_was_not_in_training(rows):
    inputs, outcome = rows
    fusion = LateFusion({"image": CoxRegression(penalty=0.01), "table": CoxRegression()}).fit(inputs, outcome)
    risk = fusion.predict(_lacking(inputs, "image", torch.tensor([0, 7])))
    whole = fusion.predict(inputs)
    assert (risk != whole).nonzero()[0].tolist() == [0, 7]
    nobody = _lacking(_lacking(inputs, "image", torch.tensor([3])), "table", torch.tensor([3]))
    with pytest.raises(InvalidValueError, match="1 of 300 rows with none, such as row 3"):
        fusion.predict(nobody)


def test_risks_that_are_out_of_fold_are_fused_as_they_are(rows):
    inputs, outcome = rows
    risks = {"a": inputs["image"][:, 0, 0].double().numpy(), "b": inputs["table"][:, 0].double().numpy()}
    fused = fuse_risks(risks, outcome)
    scaled = pd.DataFrame({name: (risk - risk.mean()) / risk.std() for name, risk in risks.items()})
    by_hand = CoxRegression(penalty=0.01).fit(scaled, outcome)
    np.testing.assert_allclose(list(fused.weights.values()), by_hand.coef_)
    np.testing.assert_allclose(fused.risk(risks), by_hand.predict(scaled))
    shifted = {"a": 5 * risks["a"] + 1, "b": risks["b"]}
    np.testing.assert_allclose(fuse_risks(shifted, outcome).risk(shifted), fused.risk(risks))
    curves = fused.predict_survival(risks, [0.5, 1.0])
    assert curves.survival.shape == (300, 2)


def test_every_patient_counts_once_in_the_weights(rows):
    inputs, outcome = rows
    risks = {"a": inputs["image"][:, 0, 0].double().numpy(), "b": inputs["table"][:, 0].double().numpy()}
    copies = np.repeat(np.arange(300), np.random.default_rng(0).integers(1, 4, size=300))
    many = {name: risk[copies] for name, risk in risks.items()}
    fused, plain = fuse_risks(many, outcome[copies], groups=copies), fuse_risks(risks, outcome)
    np.testing.assert_allclose(list(fused.weights.values()), list(plain.weights.values()))
    np.testing.assert_allclose(fused.regression.baseline_hazard_, plain.regression.baseline_hazard_)
    some = many["a"].copy()
    some[::2] = np.nan
    assert np.isfinite(fuse_risks({**many, "a": some}, outcome[copies], groups=copies).risk({**many, "a": some})).all()


def test_risks_that_cannot_be_fused_are_refused(rows):
    _, outcome = rows
    risk = np.linspace(0, 1, 300)
    for risks, match in (
        ({}, "at least one member"),
        ({"a": risk[:5]}, "one number of rows"),
        ({"a": np.where(risk > 0.5, np.inf, risk)}, "infinity"),
        ({"a": np.where(risk > 0.5, np.nan, risk)}, "rows with none"),
    ):
        with pytest.raises(InvalidValueError, match=match):
            fuse_risks(risks, outcome)
    with pytest.raises(InvalidValueError, match="`groups`"):
        fuse_risks({"a": risk}, outcome, groups=[1, 2])
    with pytest.raises(InvalidValueError, match="none of b"):
        fuse_risks({"a": risk, "b": -risk}, outcome).risk({"a": risk})

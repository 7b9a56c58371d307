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
from survlens.models.late_fusion import LateFusion
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

"""A cohort keeps rows, patients, outcomes, covariates and images together."""

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from survlens.core.errors import DataError
from survlens.data.cohort import Cohort, concatenate
from survlens.data.loaders import CohortSource
from survlens.data.preprocessing import Preprocessing, PreprocessingSettings
from survlens.data.schema import CohortSchema, ZeroTimes
from survlens.data.splits import check_leak, holdout
from survlens.data.table import CovariateKind

SCHEMA = CohortSchema(
    time="months",
    event="died",
    unit="months",
    patient="id",
    numeric=("age",),
    categorical=("sex",),
    ordered={"stage": ("I", "II", "III")},
    site="hospital",
    keep=("arm",),
)


def frame() -> pd.DataFrame:
    return pd.DataFrame({
        "id": ["a", "a", "b", "c"],
        "months": [5.0, 5.0, 2.0, 9.5],
        "died": ["dead", "dead", "alive", "alive"],
        "age": [61, 61, np.nan, 40],
        "sex": ["f", "f", "m", None],
        "stage": ["I", "I", "III", None],
        "hospital": ["x", "x", "y", "y"],
        "arm": [1, 1, 0, 0],
        "other": [1, 2, 3, 4],
    })  # fmt: skip


def test_glioma_loads_splits_and_gives_a_batch(shared):
    schema = CohortSchema(
        time="followup_years",
        event="died",
        unit="years",
        patient="patient_id",
        image="image",
        numeric=("age_years", "male", "idh_mutation", "codeletion_1p19q"),
        zero_times=ZeroTimes.DROP,
    )
    cohort = Cohort.from_csv(shared("data", "tcga_glioma", "clinical.csv"), schema)
    assert (len(cohort), cohort.n_patients) == (1237, 615)
    assert cohort[cohort.per_patient()].outcome.n_events == 302
    split = holdout(cohort, test_fraction=0.2, seed=0, validation_fraction=0.1)[0]
    check_leak(split, cohort.patient)
    preprocessing = Preprocessing.fit(cohort[split.train], PreprocessingSettings(image_size=32))
    inputs, outcome = CohortSource(cohort, preprocessing).batch(split.train[:16])
    assert inputs["image"].shape == (16, 3, 32, 32)
    assert inputs["table"].shape == (16, 6)
    assert inputs["image"].dtype == inputs["table"].dtype == torch.float32
    assert len(outcome) == 16


def test_columns_take_their_places():
    cohort = Cohort.from_frame(frame(), SCHEMA)
    assert cohort.instance.tolist() == ["a#1", "a#2", "b#1", "c#1"]
    assert cohort.outcome.event.tolist() == [1, 1, 0, 0]
    assert cohort.table.columns.tolist() == ["age", "sex", "stage"]
    assert cohort.table["sex"].tolist() == ["f", "f", "m", None]
    assert [covariate.kind for covariate in cohort.covariates] == list(CovariateKind)
    assert cohort.covariates[1].levels == ("f", "m")
    assert cohort.groups.columns.tolist() == ["hospital", "arm"]
    assert cohort.per_patient().tolist() == [0, 2, 3]
    assert cohort.n_patients == 3


def test_rows_without_patient_column_are_patients():
    schema = CohortSchema(time="months", event="died", unit="months")
    assert Cohort.from_frame(frame(), schema).patient.tolist() == ["2", "3", "4", "5"]


@pytest.mark.parametrize(
    "index", [slice(1, 3), [1, 2], np.array([1, 2]), torch.tensor([1, 2]), np.array([False, True, True, False])]
)
def test_indexing_keeps_all_parts_aligned(index):
    part = Cohort.from_frame(frame(), SCHEMA)[index]
    assert part.instance.tolist() == ["a#2", "b#1"]
    assert part.outcome.time.tolist() == [5.0, 2.0]
    assert part.table["stage"].tolist() == ["I", "III"]
    assert part.groups["arm"].tolist() == [1, 0]


def test_one_row_and_no_rows_are_cohorts():
    cohort = Cohort.from_frame(frame(), SCHEMA)
    assert len(cohort[2]) == 1
    assert len(cohort[[]]) == 0


def test_zero_times_are_dropped_or_moved():
    table = frame().assign(id=["a", "b", "c", "d"], months=[0.0, 5.0, 2.0, 9.5])
    plain = {"time": "months", "event": "died", "unit": "months", "patient": "id"}
    dropped = Cohort.from_frame(table, CohortSchema(**plain, zero_times=ZeroTimes.DROP))
    assert dropped.patient.tolist() == ["b", "c", "d"]
    moved = Cohort.from_frame(table, CohortSchema(**plain, zero_times=ZeroTimes.SMALLEST))
    assert moved.outcome.time.tolist() == [1.0, 5.0, 2.0, 9.5]


def test_fingerprint_sees_every_change_but_no_name():
    cohort = Cohort.from_frame(frame(), SCHEMA)
    same = Cohort.from_frame(frame().assign(id=["p", "p", "q", "r"]), SCHEMA)
    assert cohort.fingerprint() == same.fingerprint()
    changes = [
        frame().assign(age=[61, 61, 70, 40]),
        frame().assign(sex=["f", "f", "f", None]),
        frame().assign(months=[5.0, 5.0, 2.0, 9.6]),
        frame().assign(died=["dead", "dead", "dead", "alive"]),
        frame().assign(id=["a", "a", "b", "b"], months=[5.0, 5.0, 2.0, 2.0]),
    ]
    prints = {Cohort.from_frame(change, SCHEMA).fingerprint() for change in changes}
    assert len(prints | {cohort.fingerprint()}) == len(changes) + 1


def test_fingerprint_sees_the_images():
    y = (np.array([1.0, 2.0]), np.array([1, 0]))
    images = np.zeros((2, 4, 4), dtype=np.uint8)
    changed = images.copy()
    changed[1, 0, 0] = 1
    prints = [Cohort.from_arrays(y, unit="days", images=pixels).fingerprint() for pixels in (images, changed)]
    assert prints[0] != prints[1]


def test_arrays_and_categories_become_a_cohort():
    table = pd.DataFrame({
        "n": [1, 2, 3],
        "flag": [True, False, True],
        "word": ["a", "b", "a"],
        "rank": pd.Categorical(["lo", "hi", "lo"], categories=["lo", "hi"], ordered=True),
    })  # fmt: skip
    cohort = Cohort.from_arrays(
        (np.array([1.0, 2.0, 2.0]), np.array([1, 0, 0])), unit="days", table=table, patient=[1, 2, 2]
    )
    kinds = {covariate.name: covariate.kind for covariate in cohort.covariates}
    numeric, categorical, ordered = CovariateKind
    assert kinds == {"n": numeric, "flag": numeric, "word": categorical, "rank": ordered}
    assert cohort.n_patients == 2
    assert cohort.covariates[-1].levels == ("lo", "hi")
    array = Cohort.from_arrays((np.ones(3), np.ones(3, int)), unit="days", table=np.eye(3))
    assert array.table.columns.tolist() == ["x0", "x1", "x2"]


def test_images_resolve_against_the_folder_of_the_table(tmp_path):
    (tmp_path / "images").mkdir()
    Image.new("L", (6, 4), 255).save(tmp_path / "images" / "a.png")
    Image.new("L", (6, 4), 0).save(tmp_path / "images" / "mask.png")
    (tmp_path / "t.csv").write_text("months,died,image,mask\n1,1,images/a.png,images/mask.png\n")
    schema = CohortSchema(time="months", event="died", unit="months", image="image", mask="mask")
    cohort = Cohort.from_csv(tmp_path / "t.csv", schema)
    assert cohort.images is not None
    assert cohort.masks is not None
    assert cohort.images[0].shape() == (1, 4, 6)
    assert cohort.images[0].read().min() == 1.0
    assert cohort.masks[0].read().max() == 0.0


def test_two_cohorts_join_where_they_agree():
    cohort = Cohort.from_frame(frame(), SCHEMA)
    other = Cohort.from_frame(frame().assign(id=["k", "k", "l", "m"], sex="d"), SCHEMA)
    joined = concatenate(cohort, other)
    assert len(joined) == 8
    assert joined.covariates[1].levels == ("d", "f", "m")
    twice = concatenate(cohort, cohort)
    assert len(set(twice.instance)) == 8
    days = Cohort.from_frame(frame(), CohortSchema(time="months", event="died", unit="days", patient="id"))
    with pytest.raises(DataError, match="agree in `unit`"):
        concatenate(cohort, days)


def test_names_of_patients_are_in_no_repr():
    cohort = Cohort.from_arrays(np.array([[1.0, 1], [2.0, 0]]), unit="days", patient=["Jane Doe", "John Roe"])
    assert repr(cohort) == "<Cohort: 2 instances, 2 patients, 0 covariates, no images>"

"""Sources of patients: all their images, the table once, and what they lack is said."""

import numpy as np
import pandas as pd
import pytest
import torch

from survlens.core.errors import DataError, InvalidValueError
from survlens.core.inputs import select_rows
from survlens.core.outcome import SurvivalOutcome
from survlens.data.bags import BagSource, JoinedSource
from survlens.data.cohort import Cohort
from survlens.data.loaders import ItemSource, TensorSource, subset
from survlens.data.preprocessing import Preprocessing

PATIENT = ["b", "a", "b", "c", "b", "a"]
TIME = {"a": 1.0, "b": 2.0, "c": 3.0, "d": 4.0}


def _cohort(patient=PATIENT, *, images=True, table=True, age=None):
    time = np.array([TIME[name] for name in patient])
    pixels = np.arange(len(patient), dtype=np.uint8)[:, None, None] * np.ones((4, 4), np.uint8)
    frame = pd.DataFrame({"age": 10 * time if age is None else age}) if table else None
    outcome = (time, np.ones(len(patient), int))
    return Cohort.from_arrays(outcome, unit="days", table=frame, images=pixels if images else None, patient=patient)


def _source(cohort=None, **settings):
    cohort = _cohort() if cohort is None else cohort
    return BagSource(cohort, Preprocessing.fit(cohort), **settings)


def test_a_row_is_a_patient_with_all_images_and_the_table_once():
    cohort = _cohort()
    source, whole = _source(cohort), Preprocessing.fit(cohort).transform(cohort)
    assert source.patient.tolist() == ["b", "a", "c"]
    assert source.items.tolist() == [3, 2, 1]
    inputs, outcome = source.batch([2, 0])
    assert inputs["image.count"].tolist() == [1, 3]
    assert torch.equal(inputs["image"], whole["image"][[3, 0, 2, 4]])
    assert torch.equal(inputs["table"], whole["table"][[3, 0]])
    assert outcome.time.tolist() == [3.0, 2.0]
    assert source.batch([])[0]["image"].shape == (0, 1, 4, 4)


def test_batches_are_the_rows_of_the_whole():
    source = _source(cache_bytes=2 * 64)
    whole, _ = source.batch([0, 1, 2])
    for rows in ([1], [2, 1, 1], [0, 2]):
        found, _ = source.batch(rows)
        assert {name: value.tolist() for name, value in found.items()} == {
            name: value.tolist() for name, value in select_rows(whole, torch.tensor(rows)).items()
        }


def test_an_epoch_reads_a_few_images_and_predictions_read_all():
    source = _source(max_items=2)
    assert isinstance(source, ItemSource)
    drawn = [source.for_epoch(torch.Generator().manual_seed(seed)).batch([0, 1, 2])[0] for seed in (0, 0, 1, 2, 3)]
    assert all(each["image.count"].tolist() == [2, 2, 1] for each in drawn)
    assert torch.equal(drawn[0]["image"], drawn[1]["image"])
    assert len({tuple(each["image"][:, 0, 0, 0].tolist()) for each in drawn}) > 1
    assert source.batch([0])[0]["image.count"].tolist() == [3]
    part = subset(source, [0, 2])
    assert part.items.tolist() == [3, 1]
    assert part.for_epoch(torch.Generator().manual_seed(0)).batch([0, 1])[0]["image.count"].tolist() == [2, 1]


def test_covariates_of_a_patient_must_agree():
    with pytest.raises(DataError, match=r"`age` must have one value per patient.*several for 1 patients"):
        _source(_cohort(age=[2.0, 1.0, 2.5, 3.0, 2.0, 1.0]))
    assert len(_source(_cohort(age=[np.nan, 1.0, np.nan, 3.0, np.nan, 1.0]))) == 3


def test_sources_of_different_patients_join_and_say_what_is_missing():
    images = _source(_cohort(table=False), image="slide")
    scans = _source(_cohort(["d", "a"], table=False), image="scan")
    table = _source(_cohort(["c", "d", "a"], images=False), table="blood")
    joined = JoinedSource([images, scans, table])
    assert joined.patient.tolist() == ["b", "a", "c", "d"]
    assert joined.outcome.time.tolist() == [2.0, 1.0, 3.0, 4.0]
    assert joined.items.tolist() == [3, 3, 1, 1]
    inputs, outcome = joined.batch([3, 0, 1])
    assert inputs["slide.count"].tolist() == [0, 3, 2]
    assert inputs["scan.count"].tolist() == [1, 0, 1]
    assert inputs["blood.present"].tolist() == [True, False, True]
    own, _ = table.batch([1, 2])
    assert torch.equal(inputs["blood"][[0, 2]], own["blood"])
    assert outcome.time.tolist() == [4.0, 2.0, 1.0]
    few = _source(_cohort(table=False), image="slide", max_items=1)
    epoch = JoinedSource([few, table]).for_epoch(torch.Generator().manual_seed(0))
    assert epoch.batch([0, 1, 3])[0]["slide.count"].tolist() == [1, 1, 0]
    assert len(epoch) == 4


def test_sources_that_do_not_join_are_refused():
    with pytest.raises(InvalidValueError, match="at least one"):
        JoinedSource([])
    with pytest.raises(InvalidValueError, match="got image, table twice"):
        JoinedSource([_source(), _source()])
    other = _cohort(["a"], images=False)
    other = Cohort.from_arrays(([9.0], [1]), unit="days", table=other.table, patient=["a"])
    with pytest.raises(DataError, match="got two for 1 of the 1 patients of source 2"):
        JoinedSource([_source(_cohort(table=False)), _source(other)])
    with pytest.raises(InvalidValueError, match="max_items"):
        _source(max_items=0)


def test_tensors_of_bags_are_a_source():
    outcome = SurvivalOutcome.from_arrays([1.0, 2.0, 3.0], [1, 0, 1], "days")
    inputs = {"image": torch.arange(4.0)[:, None], "image.count": torch.tensor([1, 0, 3])}
    found, _ = TensorSource(inputs, outcome).batch([2, 1])
    assert found["image"][:, 0].tolist() == [1.0, 2.0, 3.0]
    assert found["image.count"].tolist() == [3, 0]
    with pytest.raises(InvalidValueError, match="one number of rows"):
        TensorSource(inputs, outcome[:2])

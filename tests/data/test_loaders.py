"""A source gives the rows asked for, in their order, however it holds them."""

from dataclasses import dataclass, field

import numpy as np
import pytest
import torch

from survlens.core.errors import InvalidValueError
from survlens.core.outcome import SurvivalOutcome
from survlens.data.cohort import Cohort
from survlens.data.loaders import CohortSource, Source, TensorSource, subset
from survlens.data.preprocessing import Preprocessing
from survlens.data.raster import ArrayImage

N, IMAGE_BYTES = 7, 4 * 3 * 3


@dataclass
class CountedImage:
    """An image that counts how often it is read."""

    array: np.ndarray
    reads: list[int] = field(default_factory=list)
    name: str = "counted"
    identity: str = "counted"

    def shape(self):
        return ArrayImage(self.array).shape()

    def read(self):
        self.reads.append(1)
        return ArrayImage(self.array).read()

    def thumbnail(self, side):
        return ArrayImage(self.array).thumbnail(side)


def _cohort() -> Cohort:
    table = np.arange(N, dtype=float)[:, None]
    cohort = Cohort.from_arrays((np.arange(1.0, N + 1), np.arange(N) % 2), unit="days", table=table)
    images = tuple(CountedImage(np.full((3, 3), i, dtype=np.uint8)) for i in range(N))
    names = ("instance", "patient", "outcome", "table", "covariates")
    return Cohort(*[getattr(cohort, name) for name in names], images, None, cohort.groups)


@pytest.mark.parametrize("kept", [0, 3, N, 100])
@pytest.mark.parametrize("rows", [[4, 0, 4, 6], [], [-1, 2]])
def test_batches_are_the_rows_of_the_whole(kept, rows):
    cohort = _cohort()
    preprocessing = Preprocessing.fit(cohort)
    whole = preprocessing.transform(cohort)
    source = CohortSource(cohort, preprocessing, cache_bytes=kept * IMAGE_BYTES)
    for _ in range(2):
        inputs, outcome = source.batch(rows)
        if rows:
            assert all(torch.equal(inputs[name], whole[name][rows]) for name in whole)
        assert outcome.time.tolist() == cohort.outcome.time[rows].tolist()
        assert inputs["image"].shape == (len(rows), 1, 3, 3)


def test_images_are_decoded_once_while_memory_allows():
    cohort = _cohort()
    source = CohortSource(cohort, Preprocessing.fit(cohort), cache_bytes=3 * IMAGE_BYTES)
    for _ in range(3):
        source.batch(range(N))
    assert [len(image.reads) for image in cohort.images] == [1, 1, 1, 3, 3, 3, 3]


def test_a_change_of_a_batch_does_not_reach_the_cache():
    source = CohortSource(_cohort(), Preprocessing.fit(_cohort()))
    source.batch([1, 2])[0]["image"].zero_()
    assert source.batch([2])[0]["image"].max() > 0


def test_a_subset_counts_its_own_rows():
    outcome = SurvivalOutcome.from_arrays(np.arange(1.0, 6), np.ones(5, int), "days")
    source = TensorSource({"table": torch.arange(5.0)[:, None]}, outcome)
    part = subset(subset(source, np.array([True, False, True, True, True])), torch.tensor([3, 1]))
    assert isinstance(source, Source)
    assert isinstance(part, Source)
    assert len(part) == 2
    assert part.outcome.time.tolist() == [5.0, 3.0]
    assert part.batch([1, 0])[0]["table"][:, 0].tolist() == [2.0, 4.0]


def test_rows_that_do_not_match_are_refused():
    outcome = SurvivalOutcome.from_arrays([1.0], [1], "days")
    with pytest.raises(InvalidValueError, match="one number of rows"):
        TensorSource({"table": torch.zeros(2, 1)}, outcome)
    with pytest.raises(InvalidValueError, match="`indices`"):
        TensorSource({"table": torch.zeros(1, 1)}, outcome).batch(np.array([0.0]))

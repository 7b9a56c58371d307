"""Photographs of two patients that are one picture are found; pictures of two people are not."""

import io
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from survlens.data.near_copies import near_copies
from survlens.data.simulate.portraits import portrait_cohort


def compressed(picture: torch.Tensor) -> torch.Tensor:
    """The picture at half its size and back, as a JPEG file keeps it, a little brighter."""
    bytes_ = (picture * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    whole = Image.fromarray(bytes_)
    small = whole.resize((whole.width // 2, whole.height // 2), Image.Resampling.BILINEAR)
    file = io.BytesIO()
    small.resize(whole.size, Image.Resampling.BILINEAR).save(file, "JPEG", quality=70)
    read = np.asarray(Image.open(file), dtype=np.float32) / 255 + 0.03
    return torch.from_numpy(read).permute(2, 0, 1).clamp(0, 1)


@pytest.fixture(scope="module")
def cohort():
    return portrait_cohort(120, size=64, seed=4)


def test_changed_copies_of_other_patients_are_found_and_nothing_else(cohort):
    pictures, patient = cohort.pictures, [f"P-{name}" for name in cohort.patient]
    changed = [compressed(pictures[3]), pictures[7].flip(2), pictures[11]]
    found = near_copies(torch.cat([pictures, torch.stack(changed)]), [*patient, "x", "y", "z"])
    assert found.pairs == ((3, 120), (7, 121), (11, 122))
    assert found.rows == (3, 7, 11, 120, 121, 122)
    assert found.remark().startswith("6 photographs look like a photograph of another patient (3 pairs)")
    assert not any(name in found.remark() for name in patient)


def test_copies_of_one_patient_are_not_looked_at(cohort):
    pictures, patient = cohort.pictures, [f"P-{name}" for name in cohort.patient]
    same = near_copies(torch.cat([pictures, pictures[:3]]), [*patient, *patient[:3]])
    assert same.pairs == ()
    assert same.remark() == ""


def test_blocks_give_the_pairs_of_the_whole(cohort, monkeypatch):
    pictures = torch.cat([cohort.pictures[:40], cohort.pictures[:9]])
    patient = [*range(40), *range(100, 109)]
    whole = near_copies(pictures, patient)
    monkeypatch.setattr(sys.modules[near_copies.__module__], "_ROWS", 7)
    assert near_copies(pictures, patient) == whole
    assert len(whole.pairs) == 9


def test_two_photographs_are_too_few_for_a_mean():
    assert near_copies(torch.zeros(2, 3, 16, 16), ["a", "b"]).pairs == ()


def under(cohort, pictures: torch.Tensor, patient: list[object]) -> set[tuple[int, int]]:
    """Pairs among 40 other faces and these, which come last, numbered from 0."""
    found = near_copies(torch.cat([cohort.pictures[40:80], pictures]), [*range(40), *patient])
    assert all(row >= 40 for row in found.rows)
    return {(one - 40, two - 40) for one, two in found.pairs}


def every_pair(first: range, second: range) -> set[tuple[int, int]]:
    return {(one, two) for one in first for two in second if one < two}


def test_one_picture_under_many_patients_is_found_under_each(cohort):
    picture, names = cohort.pictures[0], [f"n{k}" for k in range(8)]
    changed = [picture, compressed(picture), picture.flip(2), *(picture * (1 - 0.01 * k) for k in range(1, 6))]
    assert under(cohort, torch.stack(changed), names) == every_pair(range(8), range(8))
    assert under(cohort, picture.expand(8, -1, -1, -1), names) == every_pair(range(8), range(8))


def test_a_series_of_one_face_under_two_patients_is_found(cohort):
    noise = 0.02 * torch.randn(12, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    series = (cohort.pictures[0] + noise).clamp(0, 1)
    assert under(cohort, series, ["a"] * 6 + ["b"] * 6) == every_pair(range(6), range(6, 12))


@pytest.mark.parametrize("side", [0.05, 0.25])
def test_mirrored_copies_and_no_others_are_found_where_all_faces_are_lit_from_one_side(cohort, side):
    light = torch.linspace(-side, side, 64)
    lit = ((1 - 2 * side) * cohort.pictures[:60] + side + light).clamp(0, 1)
    found = near_copies(torch.cat([lit, lit[:5].flip(3)]), range(65))
    assert found.pairs == tuple((row, 60 + row) for row in range(5))

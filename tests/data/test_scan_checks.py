"""The audit of scans: laws of volumes that are filled, PET, and every finding of the table."""

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("pydicom", reason="reading DICOM needs the extra `imaging`")

from data import tiny_dicom as tiny
from survlens.core.errors import DataError
from survlens.data.contours import Structure
from survlens.data.dicom import SeriesFault, dicom_files, one_series, read_volume
from survlens.data.findings import Severity
from survlens.data.geometry import Volume
from survlens.data.nifti import write_nifti
from survlens.data.pet import UptakeFacts, uptake_factor
from survlens.data.privacy import SALT_VARIABLE, KnownIdentifiers, Pseudonyms, read_salt
from survlens.data.scan_checks import (
    ScanFacts,
    cohort_findings,
    geometry_findings,
    identifier_findings,
    mask_findings,
    reference_findings,
    series_findings,
    structure_findings,
)
from survlens.data.scan_rows import scan_findings
from survlens.data.scans import ScanReference
from survlens.data.schema import CohortSchema

SALT = Pseudonyms(b"a salt for tests, which is long enough")


def codes(found):
    return {(one.code, one.severity) for one in found}


def linear(folder, keep):
    """A series whose values rise linearly from slice to slice, of which some slices are kept."""

    def change(data, number):
        data.PixelData = (np.arange(64) + 100 * number).astype(np.uint16).tobytes()

    for number, path in enumerate(tiny.write_series(folder, "p", change=change)):
        if number not in keep:
            path.unlink()
    return one_series(dicom_files(folder))


def test_missing_slices_are_filled_linearly_and_in_their_place(tmp_path):
    whole = read_volume(linear(tmp_path / "whole", range(6)))
    gap = linear(tmp_path / "gap", (0, 1, 4, 5))
    assert list(gap.found_faults()) == [SeriesFault.MISSING]
    with pytest.raises(DataError, match="2 slices of 3 mm are missing"):
        read_volume(gap)
    filled = read_volume(gap, fill_missing=True)
    np.testing.assert_allclose(filled.values, whole.values, atol=1e-3)
    np.testing.assert_allclose(filled.affine, whole.affine, atol=1e-12)


def test_filling_changes_nothing_where_nothing_is_missing(tmp_path):
    series = linear(tmp_path, range(6))
    np.testing.assert_array_equal(read_volume(series).values, read_volume(series, fill_missing=True).values)


def test_a_series_with_most_slices_missing_is_not_made_up(tmp_path):
    def change(data, number):
        if number == 5:
            data.ImagePositionPatient = [*tiny.PLACE[:2], 2000]

    tiny.write_series(tmp_path, "p", change=change)
    with pytest.raises(DataError, match="too many to fill"):
        read_volume(one_series(dicom_files(tmp_path)), fill_missing=True)


def test_inverted_pictures_are_turned_round_alike_in_every_slice(tmp_path):
    tiny.write_series(tmp_path / "a", "p")
    tiny.write_series(
        tmp_path / "b", "p", change=lambda data, _: setattr(data, "PhotometricInterpretation", "MONOCHROME1")
    )
    plain, inverted = (read_volume(one_series(dicom_files(tmp_path / each))) for each in "ab")
    np.testing.assert_array_equal(inverted.values, plain.values.max() + plain.values.min() - plain.values)
    assert (plain.unit, inverted.unit) == ("HU", "arbitrary")


def test_pet_becomes_uptake_per_weight(tmp_path):
    from pydicom.dataset import Dataset
    from pydicom.sequence import Sequence

    def change(data, number):
        drug = Dataset()
        drug.RadionuclideTotalDose, drug.RadionuclideHalfLife = 3.0e8, 6586.2
        drug.RadiopharmaceuticalStartTime = "233000.00"
        data.Modality, data.Units, data.DecayCorrection, data.PatientWeight = "PT", "BQML", "START", 80
        data.RadiopharmaceuticalInformationSequence = Sequence([drug])
        data.SeriesTime, data.AcquisitionTime = "003000.5", f"00{31 + number}00"
        data.RescaleIntercept = 0

    tiny.write_series(tmp_path, "p", change=change)
    found = read_volume(one_series(dicom_files(tmp_path)))
    stored = tiny.voxels() + 1024.0
    expected = stored * 80_000 / (3.0e8 * 0.5 ** (3600.5 / 6586.2))
    np.testing.assert_allclose(found.values, expected, rtol=1e-6)
    assert found.unit == "SUV"


def facts(**changed):
    given = {"units": "BQML", "decay": "START", "weight": 70.0, "dose": 3e8, "half_life": 6586.0, "given": 0.0}
    return UptakeFacts(**(given | {"series": 3600.0, "acquired": 3700.0} | changed))


def test_uptake_of_corrected_and_of_finished_units():
    assert uptake_factor([facts(decay="ADMIN")], "scan") == pytest.approx(70_000 / 3e8)
    assert uptake_factor([facts(units="GML")], "scan") == 1
    assert uptake_factor([facts(series=None)], "scan") > uptake_factor([facts()], "scan")


def test_a_scan_over_midnight_starts_before_it():
    late = {"given": 82_000.0, "series": 86_300.0}  # 22:47 and 23:58
    alone = uptake_factor([facts(**late, acquired=86_300.0)], "scan")
    assert uptake_factor([facts(**late, acquired=at) for at in (86_350.0, 60.0)], "scan") == alone
    assert alone == pytest.approx(70_000 / (3e8 * 2 ** (-4300 / 6586)))


@pytest.mark.parametrize(
    ("changed", "words"),
    [({"weight": None}, "PatientWeight"), ({"decay": ""}, "DecayCorrection"), ({"units": "CNTS"}, "BQML or GML")],
)
def test_pet_without_its_facts_is_refused(changed, words):
    with pytest.raises(DataError, match=words):
        uptake_factor([facts(**changed)], "scan")


def test_a_sound_series_has_no_findings(tmp_path):
    tiny.write_series(tmp_path, "p")
    assert codes(series_findings(one_series(dicom_files(tmp_path)), "p")) == set()


def test_faults_become_errors_unless_they_are_filled(tmp_path):
    series = linear(tmp_path, (0, 1, 2, 4, 5))
    assert codes(series_findings(series, "p")) == {("slices-missing", Severity.ERROR)}
    assert codes(series_findings(series, "p", fill_missing=True)) == {("slices-missing", Severity.WARNING)}


@pytest.mark.parametrize(
    ("shape", "spacing", "code"),
    [
        ((64, 64, 16), (1, 1, 60), "spacing-absurd"),
        ((64, 64, 64), (0.001, 1, 1), "spacing-absurd"),
        ((64, 64, 3), (1, 1, 1), "size-absurd"),
        ((512, 512, 600), (1, 1, 5), "size-absurd"),
    ],
)
def test_geometry_that_no_scan_has_is_an_error(shape, spacing, code):
    assert codes(geometry_findings(shape, spacing, "p")) == {(code, Severity.ERROR)}


def test_geometry_that_scans_have_is_fine():
    for shape, spacing in (((512, 512, 111), (0.977, 0.977, 3)), ((1024, 1024, 900), (0.4, 0.4, 0.6))):
        assert codes(geometry_findings(shape, spacing, "p")) == set()


def test_masks_that_are_empty_large_or_at_the_edge_are_found():
    mask = np.zeros((4, 5, 6), bool)
    assert codes(mask_findings(mask, "p")) == {("mask-empty", Severity.ERROR)}
    mask[1, 1, 2] = True
    assert codes(mask_findings(mask, "p")) == set()
    mask[1, 1, 5] = True
    assert codes(mask_findings(mask, "p")) == {("mask-at-edge", Severity.WARNING)}
    assert ("mask-large", Severity.WARNING) in codes(mask_findings(~mask, "p"))


def test_contours_over_the_edge_are_found():
    volume = Volume(np.zeros((10, 10, 4)), np.eye(4))
    inside = Structure("a", (np.array([[1.0, 1, 1], [5, 1, 1], [5, 5, 1]]),))
    beside = Structure("b", (np.array([[1.0, 1, 1], [5, 1, 1], [5, 12, 1], [1, 12, 1]]),))
    assert codes(structure_findings([inside], volume, "p")) == set()
    (found,) = structure_findings([inside, beside], volume, "p")
    assert found.code == "mask-cut-off"
    assert "29%" in found.message


def test_what_differs_in_a_cohort_is_found():
    same = [ScanFacts(str(at), "CT", "HU", (1, 1, 3), (-1024.0,)) for at in range(3)]
    assert codes(cohort_findings(same)) == set()
    other = [
        *same,
        ScanFacts("odd", "CT", "arbitrary", (1, 1, 7), (0.0,)),
        ScanFacts("mr", "MR", "arbitrary", (1, 1, 3)),
    ]
    found = list(cohort_findings(other))
    assert codes(found) == {
        ("modalities-mixed", Severity.WARNING),
        ("units-differ", Severity.ERROR),
        ("intercepts-of-cohort", Severity.NOTE),
        ("spacings-differ", Severity.ADVICE),
    }
    assert "odd" in next(one.message for one in found if one.code == "units-differ")


def test_identifiers_are_counted_and_not_shown():
    assert list(identifier_findings({"a": 0})) == []
    (found,) = identifier_findings({"a": 0, "b": 7})
    assert "1 of 2 patients hold up to 7" in found.message


def test_every_fault_of_a_table_of_scans_is_found_in_its_row(tmp_path):
    scan = Volume(np.random.default_rng(0).normal(size=(8, 8, 8)).astype(np.float32), np.eye(4))
    mask = np.zeros((8, 8, 8), np.uint8)
    mask[2:4, 2:4, 2:4] = 1
    sheared, shifted = np.eye(4), np.eye(4)
    sheared[0, 2], shifted[:3, 3] = 0.4, 100
    volumes = {
        "good": scan,
        "blank": Volume(0 * scan.values, np.eye(4)),
        "left": Volume(scan.values, np.diag([-1.0, 1, 1, 1])),
        "sheared": Volume(scan.values, sheared),
        "far": Volume(scan.values, np.diag([1.0, 1, 70, 1])),
        "mask": Volume(mask, np.eye(4)),
        "empty": Volume(0 * mask, np.eye(4)),
        "off": Volume(mask, shifted),
        "coarse": Volume(mask[::2, ::2, ::2], np.diag([2.0, 2, 2, 1])),
        "left mask": Volume(mask, np.diag([-1.0, 1, 1, 1])),
    }
    for name, volume in volumes.items():
        write_nifti(volume, tmp_path / f"{name}.nii.gz")
    tiny.write_series(tmp_path / "dicom", "p", change=lambda data, _: setattr(data, "BurnedInAnnotation", "YES"))
    rows = [
        ("good.nii.gz", "mask", set()),
        ("blank.nii.gz", "mask", {"scan-blank"}),
        ("left.nii.gz", "left mask", {"left-handed"}),
        ("sheared.nii.gz", None, {"gantry-tilt"}),
        ("far.nii.gz", None, {"spacing-absurd"}),
        ("lost.nii.gz", "mask", {"scan-unreadable"}),
        ("good.nii.gz", "lost", {"mask-unusable"}),
        ("good.nii.gz", "empty", {"mask-unusable"}),
        ("good.nii.gz", "off", {"mask-unusable"}),
        ("good.nii.gz", "coarse", {"mask-grid"}),
        ("dicom", None, {"burned-in"}),
    ]
    references = {
        at: ScanReference(tmp_path / path, None if drawn is None else tmp_path / f"{drawn}.nii.gz", name=path)
        for at, (path, drawn, _) in enumerate(rows)
    }
    found = list(reference_findings(references, "scan", "mask"))
    for at, (_, _, expected) in enumerate(rows):
        assert {one.code for one in found if one.rows == (at + 2,)} == expected, rows[at]
    assert {one.column for one in found if one.code == "mask-unusable"} == {"mask"}
    assert {one.code for one in found if not one.rows} == {"spacings-differ", "identifiers"}
    assert list(reference_findings({0: references[0]}, "scan", "mask")) == []


def test_salted_names_depend_on_salt_name_and_kind():
    other = Pseudonyms(b"another salt, which is long enough")
    assert SALT.of("12") == SALT.of("12")
    assert len({SALT.of("12"), SALT.of("13"), other.of("12"), SALT.of("12", "path")}) == 4
    assert len(SALT.of("12")) == 12
    assert "salt" not in repr(SALT)
    with pytest.raises(ValueError, match="at least 16 characters"):
        Pseudonyms(b"short")


def test_the_salt_is_kept_for_its_owner_alone(tmp_path, monkeypatch):
    monkeypatch.delenv(SALT_VARIABLE, raising=False)
    first = read_salt(tmp_path / "out")
    (kept,) = (tmp_path / "out").iterdir()
    assert kept.stat().st_mode & 0o777 == 0o600
    assert read_salt(tmp_path / "out").salt == first.salt
    assert read_salt(tmp_path / "other").salt != first.salt
    monkeypatch.setenv(SALT_VARIABLE, "a salt of the environment")
    assert read_salt(tmp_path / "third").salt == b"a salt of the environment"
    assert not (tmp_path / "third").exists()
    with pytest.raises(ValueError, match="can be read"):
        read_salt(tmp_path, tmp_path / "no such file")


def test_free_text_and_paths_with_identifiers_are_held_back():
    from pathlib import PurePath

    from pydicom.dataset import Dataset

    header = Dataset()
    header.PatientName, header.PatientID, header.InstitutionName = "Doe^John", "4711", "Hill Clinic"
    known = KnownIdentifiers(SALT)
    assert known.add(header) == 3
    assert known.free_text("B30f") == "B30f"
    assert known.free_text("GTV john") == "(withheld)"
    assert known.free_text("at Hill Clinic") == "(withheld)"
    assert known.free_text("<b>x</b>") == "(withheld)"
    shown = known.path(PurePath("DOE_JOHN/20170101/CT/IM0001.dcm")).split("/")
    assert shown[2:] == ["CT", "IM0001.dcm"]
    assert all(part.startswith("~") for part in shown[:2])
    assert known.path(PurePath("4711/1-002.dcm")).startswith("~")
    assert known.path(PurePath("4712/1-002.dcm")) == "4712/1-002.dcm"


def test_matrices_that_disagree_and_every_kind_of_fault_are_told(tmp_path):
    import nibabel

    values = np.random.default_rng(0).normal(size=(6, 6, 6)).astype(np.float32)
    away = np.diag([2.0, 2.0, 2.0, 1.0])
    mirrored = np.diag([-2.0, 2.0, 2.0, 1.0])
    for number, qform in enumerate((away, mirrored)):
        image = nibabel.Nifti1Image(values + number, away)
        image.set_sform(away, 1)
        image.set_qform(qform, 1)
        nibabel.save(image, tmp_path / f"{number}.nii")
    for number, wrong in ((2, np.full_like(values, np.nan)), (3, np.stack([values, values], -1)), (4, values * np.inf)):
        nibabel.save(nibabel.Nifti1Image(wrong, away), tmp_path / f"{number}.nii")
    table = pd.DataFrame(
        {"patient": list("abcde"), "time": [1.0, 2, 3, 4, 5], "event": [1, 0, 1, 1, 1],
         "scan": [f"{number}.nii" for number in range(5)]}
    )  # fmt: skip
    schema = CohortSchema(time="time", event="event", unit="months", patient="patient", scan="scan")
    found = list(scan_findings(table, schema, table["patient"].to_numpy(), root=tmp_path))
    assert [(each.code, each.rows) for each in found] == [("scan-unreadable", (4, 6)), ("scan-unreadable", (5,))]
    *unreadable, found = scan_findings(table, schema, table["patient"].to_numpy(), root=tmp_path, quality=True)
    assert [each.code for each in unreadable] == ["scan-unreadable", "scan-unreadable"]
    assert (found.code, found.rows, found.severity) == ("places-disagree", (3,), Severity.WARNING)

"""What an import must not pass on, or must say: names in names of structures, years in paths, one person twice."""

from pathlib import Path, PurePath

import numpy as np
import pytest

pytest.importorskip("pydicom", reason="reading DICOM needs the extra `imaging`")
pytest.importorskip("highdicom", reason="reading DICOM-SEG needs the extra `imaging`")

from pydicom.dataset import Dataset

from data import tiny_dicom as tiny
from survlens.data.contours import read_structures, structure_mask
from survlens.data.dicom import grouped, read_volume, series_of
from survlens.data.dicom_headers import read_header
from survlens.data.geometry import Volume
from survlens.data.privacy import KnownIdentifiers, Pseudonyms
from survlens.study.import_scans import ImportSettings, import_dicom


def written(folder: Path) -> str:
    return "\n".join(each.read_text(errors="replace") for each in folder.rglob("*") if each.is_file())


@pytest.mark.parametrize("far", [False, True])
def test_a_name_in_the_name_of_a_structure_stays_out_of_every_message(tmp_path, far):
    def spoil(data: Dataset) -> None:
        for roi in data.ROIContourSequence:
            for contour in roi.ContourSequence:
                numbers = [float(each) for each in contour.ContourData]
                contour.ContourData = [each + 5000 for each in numbers] if far else numbers[:-1]

    tiny.write_series(tmp_path / "in/ct", "a", planted=True)
    tiny.write_structures(tmp_path / "in/rt.dcm", "a", names=("GTV d'Dulcinea",), planted=True, change=spoil)
    imported = import_dicom(tmp_path / "in", tmp_path / "out", ImportSettings())
    assert [each.code for each in imported.report.findings if each.severity.value == "error"] == ["mask-unusable"]
    assert "(withheld)" in written(tmp_path / "out")
    assert "dulcinea" not in written(tmp_path / "out").lower()


def test_a_text_that_turns_out_to_be_a_name_later_is_not_taken_from_an_earlier_run(tmp_path):
    tiny.write_series(tmp_path / "in/a", "a", change=lambda data, _: setattr(data, "ConvolutionKernel", "Rozinante"))
    tiny.write_structures(tmp_path / "in/rt.dcm", "a", names=("Rozinante",))
    import_dicom(tmp_path / "in", tmp_path / "out", ImportSettings())
    assert "Rozinante" in written(tmp_path / "out")
    assert import_dicom(tmp_path / "in", tmp_path / "out", ImportSettings()).reused == 1
    tiny.write_series(tmp_path / "in/b", "b", change=lambda data, _: setattr(data, "PatientName", "Rozinante^La"))
    assert import_dicom(tmp_path / "in", tmp_path / "out", ImportSettings()).reused == 0
    assert "rozinante" not in written(tmp_path / "out").lower()


def test_one_person_under_two_identifiers_is_a_warning(tmp_path):
    def person(name: str, born: str):
        def change(data: Dataset, number: int) -> None:
            data.PatientName, data.PatientBirthDate = name, born

        return change

    for patient, name, born in (
        ("a", "Quixote^Alonso", "19321107"), ("b", "QUIXOTE^Alonso^^", "19321107"), ("c", "Quixote^Alonso", "19400101"),
        ("d", "ANON", ""), ("e", "ANON", ""),
    ):  # fmt: skip
        tiny.write_series(tmp_path / "in" / patient, patient, change=person(name, born))
    imported = import_dicom(tmp_path / "in", tmp_path / "out", ImportSettings(), link=tmp_path / "link.csv")
    (found,) = [each for each in imported.report.findings if each.code == "person-twice"]
    lines = [line.split(",") for line in (tmp_path / "link.csv").read_text().splitlines()]
    names = {original.strip('"'): shown for kind, original, shown in lines if kind == "patient"}
    assert {name for name in names if names[name] in found.message} == {"a", "b"}
    assert "quixote" not in written(tmp_path / "out").lower()


def test_a_year_of_the_study_in_a_path_is_not_shown():
    known, header = KnownIdentifiers(Pseudonyms(b"0123456789abcdef")), Dataset()
    header.StudyDate = "20170823"
    known.add(header)
    assert known.path(PurePath("CT/IM0007")) == "CT/IM0007"
    assert known.path(PurePath("1-001.dcm")) == "1-001.dcm"
    for part in ("2017", "08-2017", "st_2017", "2017.zip"):
        assert "2017" not in known.path(PurePath(part))


def test_orientations_and_spacings_that_are_rounded_differently_are_one_series(tmp_path):
    def rounded(data: Dataset, number: int) -> None:
        tilt = 0.34202 if number % 2 else 0.342
        data.ImageOrientationPatient = [1, 0, 0, 0, 0.93969, tilt]
        data.PixelSpacing = [2.0, 1.5 if number % 2 else 1.50004]
        normal = np.array([0, -0.3420201, 0.9396926])
        data.ImagePositionPatient = [f"{each:.6f}" for each in np.array(tiny.PLACE) + normal * 3 * number]

    (series,) = series_of(tiny.write_series(tmp_path, "a", change=rounded))
    volume = read_volume(series)
    np.testing.assert_array_equal(volume.values, tiny.voxels())
    np.testing.assert_allclose(volume.spacing, tiny.SPACING, rtol=1e-3)


def test_slices_of_another_orientation_are_another_series(tmp_path):
    def turned(data: Dataset, number: int) -> None:
        if number >= 4:
            data.ImageOrientationPatient = [1, 0, 0, 0, 0, -1]

    slices = [read_header(each) for each in tiny.write_series(tmp_path, "a", change=turned)]
    assert [len(each.slices) for each in grouped(one for one in slices if one is not None)] == [4, 2]


def test_contours_of_the_exclusive_kind_are_drawn(tmp_path):
    def kind(data: Dataset) -> None:
        for contour in data.ROIContourSequence[0].ContourSequence:
            contour.ContourGeometricType = "CLOSEDPLANAR_XOR"

    (series,) = series_of(tiny.write_series(tmp_path, "a"))
    volume: Volume = read_volume(series)
    structures = read_structures(tiny.write_structures(tmp_path / "rt.dcm", "a", change=kind))
    np.testing.assert_array_equal(structure_mask(structures, "gtv-1", volume), tiny.box())


def test_masks_of_an_earlier_choice_do_not_stay(tmp_path):
    tiny.write_series(tmp_path / "in/ct", "a")
    tiny.write_structures(tmp_path / "in/rt.dcm", "a")
    import_dicom(tmp_path / "in", tmp_path / "out", ImportSettings(structures=("GTV-1",)))
    assert len(list((tmp_path / "out/masks").iterdir())) == 1
    import_dicom(tmp_path / "in", tmp_path / "out", ImportSettings(structures=("Heart",)))
    assert not list((tmp_path / "out/masks").iterdir())
    assert len(list((tmp_path / "out/scans").iterdir())) == 1

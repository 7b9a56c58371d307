"""`survlens import dicom`: from an export of any shape to a table without identifiers."""

import gzip
import json
import stat

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("pydicom", reason="reading DICOM needs the extra `imaging`")
pytest.importorskip("highdicom", reason="reading DICOM-SEG needs the extra `imaging`")

from data import tiny_dicom as tiny
from survlens.data.geometry import Volume
from survlens.data.nifti import read_nifti, write_nifti

DATA_ERROR, USAGE = 3, 2


@pytest.fixture(autouse=True)
def _no_salt(monkeypatch):
    monkeypatch.delenv("SURVLENS_SALT", raising=False)


@pytest.fixture
def export(tmp_path):
    """Three patients as a hospital sends them: nested, without endings, with other files in between."""
    folder = tmp_path / "export"
    tiny.write_series(folder / "PAT0" / "ST0" / "SE1", "id-a", name="IM{:04d}".format, seed=0)
    tiny.write_structures(folder / "PAT0" / "ST0" / "SE2" / "IM0001", "id-a", names=("gtv-1", "Heart"))
    tiny.write_series(folder / "deep" / "er" / "still", "id-b", name=lambda at: f"{(at * 5) % 6}.dcm", seed=1)
    tiny.write_structures(folder / "deep" / "rt.dcm", "id-b", names=("GTV-1",))
    slices = tiny.write_series(folder / "c", "id-c", seed=2)
    tiny.write_segmentation(folder / "seg.dcm", slices, tiny.box())
    (folder / "DICOMDIR").write_bytes(bytes(128) + b"DICM" + bytes(20))
    (folder / "PAT0" / "readme.txt").write_text("nothing")
    (folder / "viewer.exe").write_bytes(b"MZ" + bytes(300))
    return folder


def table(folder):
    return pd.read_csv(folder / "scans.csv", dtype={"patient": str})


def placed(values):
    """Values by place in the patient: as `canonical` turns them."""
    x, y, step = tiny.SPACING[1], tiny.SPACING[0], tiny.SPACING[2]
    affine = np.array([[0, -x, 0, 10], [-y, 0, 0, 20], [0, 0, step, 100], [0, 0, 0, 1.0]])
    return Volume(values, affine).canonical()


def test_an_export_becomes_a_table_of_scans_and_masks(survlens, export, tmp_path):
    done = survlens("--traceback", "import", "dicom", export, "--out", tmp_path / "out", "--structure", "GTV-1",
                    "--link", tmp_path / "link.csv")  # fmt: skip
    assert done.exit_code == 0, done.output
    found, link = table(tmp_path / "out"), pd.read_csv(tmp_path / "link.csv")
    assert stat.S_IMODE((tmp_path / "link.csv").stat().st_mode) == 0o600
    of = dict(link[link["kind"] == "patient"][["original", "shown"]].to_numpy())
    assert sorted(of) == ["id-a", "id-b", "id-c"]
    assert sorted(found["patient"]) == sorted(of.values())
    for seed, patient in enumerate(("id-a", "id-b", "id-c")):
        row = found[found["patient"] == of[patient]].iloc[0]
        volume, mask = (read_nifti(tmp_path / "out" / row[each]) for each in ("scan", "mask"))
        expected = placed(tiny.voxels(seed))
        np.testing.assert_array_equal(volume.values, expected.values)
        np.testing.assert_allclose(volume.affine, expected.affine, atol=1e-5)
        np.testing.assert_array_equal(mask.values, placed(tiny.box().astype(np.uint8)).values)
        assert (row["modality"], row["unit"], row["slices"], row["kernel"], row["kvp"]) == ("CT", "HU", 6, "B30f", 120)
        assert (row["spacing"], row["size"], row["mask_voxels"]) == ("1.5 x 2 x 3", "8 x 8 x 6", 32)
        assert row["structure"].lower() == "gtv-1"
    report = json.loads((tmp_path / "out" / "import_report.json").read_text())
    assert report["counts"] == {"files": 24, "skipped": 3, "patients": 3, "scans": 3, "masks": 3}
    shown = dict(link[link["kind"] == "file"][["original", "shown"]].to_numpy())
    assert sorted(report["skipped"]) == sorted(shown[each] for each in ("DICOMDIR", "PAT0/readme.txt", "viewer.exe"))
    assert "## Scans" in (tmp_path / "out" / "import_report.md").read_text()


def test_a_second_run_reads_finished_patients_no_more(survlens, export, tmp_path):
    out = tmp_path / "out"
    first = survlens("import", "dicom", export, "--out", out, "--structure", "GTV-1")
    assert first.exit_code == 0, first.output
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in sorted(out.rglob("*.nii.gz"))}
    report = (out / "import_report.json").read_bytes()
    again = survlens("import", "dicom", export, "--out", out, "--structure", "GTV-1")
    assert again.output.count("done before") == 3
    assert {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in sorted(out.rglob("*.nii.gz"))} == before
    assert (out / "import_report.json").read_bytes() == report
    next(iter(before)).unlink()
    (export / "c" / "003.dcm").touch()
    assert survlens("import", "dicom", export, "--out", out, "--structure", "GTV-1").output.count("done before") in (
        1,
        2,
    )
    assert {path: path.read_bytes() for path in before} == {path: both[0] for path, both in before.items()}
    other = survlens("import", "dicom", export, "--out", out, "--structure", "GTV-1", "--structure", "Heart")
    assert other.output.count("done before") == 0


def test_several_series_are_listed_until_one_is_chosen(survlens, tmp_path):
    tiny.write_series(tmp_path / "in" / "a", "p", seed=1)
    tiny.write_series(tmp_path / "in" / "b", "p", series="2", seed=2,
                      change=lambda data, _: setattr(data, "SeriesDescription", "Lung sharp"))  # fmt: skip
    tiny.write_series(tmp_path / "in" / "b", "p", series="3", seed=3, name="third{}.dcm".format)[5].unlink()
    asked = survlens("import", "dicom", tmp_path / "in", "--out", tmp_path / "0")
    assert asked.exit_code == DATA_ERROR
    words = " ".join(asked.stdout.split())
    assert "series-several" in words
    assert "number 1: CT, 6 slices of 8 x 8" in words
    assert "--series NUMBER|WORDS or --largest" in words
    assert "Lung" not in words
    for number, (rule, seed) in enumerate(
        ((("--series", "2"), 2), (("--series", "SHARP"), 2), (("--series", "3"), 3)), 1
    ):
        done = survlens("import", "dicom", tmp_path / "in", "--out", tmp_path / str(number), *rule)
        assert done.exit_code == 0, done.output
        found = read_nifti(tmp_path / str(number) / table(tmp_path / str(number))["scan"][0])
        np.testing.assert_array_equal(found.values, placed(tiny.voxels(seed)[:, :, : found.values.shape[2]]).values)
    assert (
        survlens("import", "dicom", tmp_path / "in", "--out", tmp_path / "4", "--series", "9").exit_code == DATA_ERROR
    )
    assert survlens("import", "dicom", tmp_path / "in", "--out", tmp_path / "5", "--largest").exit_code == DATA_ERROR
    (tmp_path / "in" / "a" / "000.dcm").unlink()
    assert survlens("import", "dicom", tmp_path / "in", "--out", tmp_path / "6", "--largest").exit_code == 0


def test_one_number_of_two_series_is_said_to_choose_none(survlens, tmp_path):
    def numbered(words, kernel="B30f"):
        def change(data, _):
            data.SeriesNumber, data.SeriesDescription, data.ConvolutionKernel = 7, words, kernel

        return change

    tiny.write_series(tmp_path / "in" / "a", "p", seed=1, change=numbered("soft"))
    tiny.write_series(tmp_path / "in" / "b", "p", series="2", seed=2, change=numbered("sharp"))
    asked = survlens("import", "dicom", tmp_path / "in", "--out", tmp_path / "0", "--series", "7")
    assert asked.exit_code == DATA_ERROR
    (said,) = [each["message"] for each in json.loads((tmp_path / "0/import_report.json").read_text())["findings"]
               if each["code"] == "series-several"]  # fmt: skip
    assert "Number 7 stands for several of them, so that it chooses none." in said
    assert "--series WORDS" in said
    assert survlens("import", "dicom", tmp_path / "in", "--out", tmp_path / "1", "--series", "sharp").exit_code == 0
    tiny.write_series(tmp_path / "in" / "b", "p", series="2", seed=2, change=numbered("soft"))
    survlens("import", "dicom", tmp_path / "in", "--out", tmp_path / "2", "--series", "7")
    assert "leave only one of them in the export" in (tmp_path / "2/import_report.md").read_text()
    (tmp_path / "in" / "b" / "000.dcm").unlink()
    survlens("import", "dicom", tmp_path / "in", "--out", tmp_path / "3", "--series", "7")
    assert "choose by --largest" in (tmp_path / "3/import_report.md").read_text()


def test_the_link_says_what_stands_behind_files_without_a_patient(survlens, tmp_path):
    tiny.write_series(tmp_path / "in/a", "id-a")
    tiny.write_series(tmp_path / "in/b", "id-b", seed=1, change=lambda data, _: setattr(data, "PatientID", ""))
    tiny.write_series(tmp_path / "in/c", "id-c", seed=2, change=without_study)
    survlens("import", "dicom", tmp_path / "in", "--out", tmp_path / "out", "--link", tmp_path / "link.csv")
    link = pd.read_csv(tmp_path / "link.csv", keep_default_na=False)
    named = link[link["kind"] != "file"]
    assert set(named["kind"]) == {"patient", "study", "folder"}
    assert (link["original"] != "").all()
    of = dict(named[["kind", "original"]].to_numpy())
    assert (of["patient"], of["folder"]) == ("id-a", "c")
    assert set(named["shown"]) == set(table(tmp_path / "out")["patient"])


def without_study(data, _):
    data.PatientID = ""
    data.StudyInstanceUID = ""


def test_structures_are_united_and_all_of_them_listed(survlens, tmp_path):
    tiny.write_series(tmp_path / "in", "p")

    def change(data):
        for contour in data.ROIContourSequence[1].ContourSequence:
            contour.ContourData = [v + 1.5 * (at % 3 == 0) for at, v in enumerate(contour.ContourData)]

    tiny.write_structures(tmp_path / "in" / "rt.dcm", "p", names=("GTV-1", "gtv-2", "Heart"), change=change)
    done = survlens("import", "dicom", tmp_path / "in", "--out", tmp_path / "a", "--structure", "gtv-1", "--structure",
                    "GTV-2")  # fmt: skip
    assert done.exit_code == 0, done.output
    row = table(tmp_path / "a").iloc[0]
    assert (row["structure"], row["mask_voxels"]) == ("GTV-1 + gtv-2", 40)
    plain = survlens("import", "dicom", tmp_path / "in", "--out", tmp_path / "b")
    assert plain.exit_code == 0
    assert "Heart (1 patients)" in " ".join(plain.output.split())
    assert table(tmp_path / "b")["mask"].isna().all()


def test_kept_dicom_is_named_from_the_root(survlens, export, tmp_path):
    arguments = ("import", "dicom", export, "--out", tmp_path / "out", "--keep-dicom", "--structure", "GTV-1")
    refused = survlens(*arguments)
    assert refused.exit_code == USAGE
    assert "--root must be a folder that FOLDER lies in" in refused.output
    done = survlens(*arguments, "--root", tmp_path)
    assert done.exit_code == 0, done.output
    found = table(tmp_path / "out")
    assert sorted(found["scan"]) == ["export/PAT0/ST0/SE1", "export/c", "export/deep/er/still"]
    assert all((tmp_path / path).exists() for path in [*found["scan"], *found["mask"]])
    assert not (tmp_path / "out" / "scans").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--out", "export"), "must be another folder"),
        (("--out", "other"), "must be empty or hold an earlier import"),
        (("--out", "out", "--link", "out/link.csv"), "must lie outside --out"),
        (("--out", "out", "--root", "export"), "must be a folder that --out lies in"),
        (("--out", "out", "--salt-file", "none.txt"), "must be a file that can be read"),
        (("--out", "out", "--salt-file", "short.txt"), "at least 16 characters"),
    ],
)
def test_wrong_usage_writes_nothing(survlens, export, tmp_path, monkeypatch, arguments, words):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").write_text("years of work")
    (tmp_path / "short.txt").write_text("short")
    monkeypatch.chdir(tmp_path)
    done = survlens("import", "dicom", export, *arguments)
    assert done.exit_code == USAGE, done.output
    assert words in " ".join(done.output.split())
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


def test_a_folder_without_dicom_and_another_salt_are_refused(survlens, export, tmp_path):
    (tmp_path / "empty").mkdir()
    assert survlens("import", "dicom", tmp_path / "empty", "--out", tmp_path / "a").exit_code == USAGE
    (tmp_path / "salt.txt").write_text("a salt that is long enough")
    assert (
        survlens("import", "dicom", export, "--out", tmp_path / "b", "--salt-file", tmp_path / "salt.txt").exit_code
        == 0
    )
    other = survlens("import", "dicom", export, "--out", tmp_path / "b")
    assert other.exit_code == USAGE
    assert "names would change" in other.output


STUDY = """\
[study]
name = "imported"

[data]
table = "clinical.csv"
time = "months"
event = "died"
unit = "months"
patient = "shown"
scan = "scan"
mask = "mask"
numeric = ["mask_ml"]

[split]
kind = "holdout"
test_fraction = 0.4
"""


def test_an_import_is_checked_as_a_study_without_a_word_that_identifies(survlens, tmp_path, capfd):
    for number in range(5):
        folder, name = tmp_path / "in" / f"Dulcinea {number}", f"MRN0048821{number}"
        tiny.write_series(folder, name, planted=True, seed=number)
        tiny.write_structures(folder / "rt.dcm", name, planted=True)
    out, link = tmp_path / "out", tmp_path / "link.csv"
    done = survlens("import", "dicom", tmp_path / "in", "--out", out, "--link", link)
    assert done.exit_code == 0, done.output
    names = pd.read_csv(link)["shown"][:5]
    clinical = pd.DataFrame({"shown": names, "months": [3.0, 5, 8, 9, 12], "died": [1, 0, 1, 1, 0]})
    clinical.merge(table(out), left_on="shown", right_on="patient").to_csv(out / "clinical.csv", index=False)
    (out / "study.toml").write_text(STUDY)
    sound = survlens("check", out / "study.toml")
    scan, mask = (out / table(out)[each][0] for each in ("scan", "mask"))
    values = read_nifti(mask)
    write_nifti(Volume(0 * values.values, values.affine), mask)
    spoilt = survlens("check", out / "study.toml", "--json")
    assert spoilt.exit_code == DATA_ERROR
    assert "mask-unusable" in {one["code"] for one in json.loads(spoilt.stdout)["findings"]}
    scan.unlink()
    lost = survlens("check", out / "study.toml")
    assert lost.exit_code == DATA_ERROR
    said = capfd.readouterr()
    text = (sound.output + spoilt.output + lost.output + said.out + said.err).lower()
    for word in ("dulcinea", "quixote", "mrn0048821", "19321107", "20170823", "toboso", "acc99817263"):
        assert word not in text
        assert not [name for name, content in everything_written(out) if word.encode() in content.lower()]


def everything_written(folder):
    """The bytes of every file, and of what is compressed in it, and the names of files."""
    for path in sorted(folder.rglob("*")):
        yield path.name, path.relative_to(folder).as_posix().encode()
        if path.is_file():
            content = path.read_bytes()
            yield path.name, content
            if content[:2] == b"\x1f\x8b":
                yield path.name, gzip.decompress(content)


@pytest.mark.parametrize("broken", [False, True])
def test_nothing_that_identifies_is_written_or_said(survlens, tmp_path, capfd, caplog, broken):
    def plant(data, number):
        data.SeriesNumber = 1
        if broken and number == 3:
            data.PixelSpacing = [-1, 1]
        data.ConvolutionKernel = "B30f Panza" if number == 0 else "B30f"

    folder = tmp_path / "Dulcinea_19321107"
    home = folder / "Quixote^Dulcinea" / "20170823"
    tiny.write_series(home / "ACC99817263", "MRN00488213", planted=True, change=plant, name="DULCINEA{}".format)
    tiny.write_structures(home / "rt Quixote.dcm", "MRN00488213", names=("GTV-1", "Dulcinea mark"), planted=True)
    slices = tiny.write_series(folder / "Aldonza", "MRN00488214", planted=True, seed=3)
    tiny.write_segmentation(folder / "Aldonza" / "seg Panza.dcm", slices, tiny.box())
    (folder / "Quixote letter.txt").write_text("dear Dulcinea")
    (folder / "Aldonza" / "MRN00488214.dcm").write_bytes(b"Quixote^Dulcinea" * 20 if broken else slices[0].read_bytes())
    done = survlens("import", "dicom", folder, "--out", tmp_path / "out", "--structure", "GTV-1")
    again = survlens("import", "dicom", folder, "--out", tmp_path / "out", "--structure", "GTV-1")
    assert done.exit_code == DATA_ERROR, "of the copy of a slice, or of the broken files"
    assert len(table(tmp_path / "out")) == (0 if broken else 1)
    said = capfd.readouterr()
    words = [word for value in tiny.PLANTED.values() for word in value.replace("^", " ").split() if len(word) > 3]
    common = {"Chest", "lives", "Hospital", "General", "Lane", "Thorax"}
    words = [word for word in words if word not in common] + list(tiny.PLANTED.values())
    words += [
        "MRN0048821",
        tiny.uid("series MRN00488213 1"),
        tiny.uid("study MRN00488213"),
        tiny.uid("frame MRN00488214"),
    ]
    shown = {"output": done.output + again.output, "stream": said.out + said.err, "log": caplog.text}
    texts = [(name, text.encode()) for name, text in shown.items()] + list(everything_written(tmp_path / "out"))
    assert len(texts) > 8
    for name, text in texts:
        for word in words:
            assert word.lower().encode() not in text.lower(), (name, word)
            assert word.encode("utf-16-le") not in text, (name, word)


@pytest.mark.slow
def test_a_real_export_equals_the_golden_values(survlens, shared, tmp_path):
    folder, golden = shared("data", "lung1", "dicom"), shared("golden", "radiomics_LUNG1-002.json")
    done = survlens("import", "dicom", folder, "--out", tmp_path / "out", "--structure", "GTV-1")
    assert done.exit_code == 0, done.output
    row, facts = table(tmp_path / "out").iloc[0], json.loads(golden.read_text())
    volume, mask = (read_nifti(tmp_path / "out" / row[each]) for each in ("scan", "mask"))
    there = facts["volume"]
    assert [volume.values.shape[axis] for axis in (2, 1, 0)] == there["shape_zyx"]
    np.testing.assert_allclose(volume.spacing[::-1], there["spacing_zyx_mm"], atol=1e-6)
    assert (volume.values.min(), volume.values.max()) == (there["hu_min"], there["hu_max"])
    means = volume.values.mean((0, 1), dtype=np.float64)
    np.testing.assert_allclose(means[:3], there["slice_means_first_three"], rtol=1e-12)
    np.testing.assert_allclose(means[-3:], there["slice_means_last_three"], rtol=1e-12)
    assert int(mask.values.sum()) == facts["mask"]["voxels"] == row["mask_voxels"]
    inside = np.array(np.nonzero(mask.values)).mean(axis=1)
    x, y, z = inside[0], inside[1], inside[2]
    turned = [z, volume.values.shape[1] - 1 - y, volume.values.shape[0] - 1 - x]
    np.testing.assert_allclose(turned, facts["mask"]["centroid_zyx_voxel"], atol=1e-9)
    np.testing.assert_allclose(volume.values[mask.values > 0].mean(), facts["mask"]["mean_hu_inside"], rtol=1e-9)

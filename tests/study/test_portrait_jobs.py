"""From photographs in a folder to edited pictures in a report, one restartable job after another."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from survlens.cli.main import main
from survlens.core.errors import CorruptFileError, DataError, UsageError
from survlens.data.simulate.portraits import portrait_cohort
from survlens.report.portrait_reader import read_portraits
from survlens.study.portrait_edit_job import edit_job
from survlens.study.portrait_edits import EditPlan
from survlens.study.portrait_embed import EmbedPlan, recorded_settings
from survlens.study.portrait_files import PhotoTable, write_frame, write_picture
from survlens.training.inversion_encoder import EncoderSettings
from survlens.training.inversion_settings import LatentSpace, Start

PATIENTS, SIZE = 60, 16


def command(*words: object) -> str:
    result = CliRunner().invoke(main, ["portrait", *map(str, words)])
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    cohort = portrait_cohort(PATIENTS, size=SIZE, seed=3, censored=0.2)
    for row, picture in enumerate(cohort.pictures):
        write_picture(folder / f"face{row}.png", picture)
    time, event = cohort.outcome.numpy()
    part = np.where(np.arange(PATIENTS) < 45, "train", "test")
    frame = {"photo": [f"face{row}.png" for row in range(PATIENTS)], "patient": [f"P{k}" for k in cohort.patient]}
    frame |= {"part": part, "time": time, "event": event, "age": cohort.factors["age"]}
    write_frame(folder / "photos.csv", frame)
    landmarks = cohort.landmarks
    points = ("left_eye", "right_eye", "left_mouth", "right_mouth")
    columns = {f"{name}_{axis}": landmarks[:, k, a] for k, name in enumerate(points) for a, axis in enumerate("xy")}
    write_frame(folder / "landmarks.csv", {"photo": frame["photo"]} | columns)
    return folder / "photos.csv"


@pytest.fixture(scope="module")
def generator(photos: Path) -> Path:
    out = photos.parent / "generator"
    small = ("--channel-base", 64, "--latent", 8, "--batch", 4)
    command("finetune", photos, "--out", out, "--from-scratch", SIZE, *small, "--steps", 2)
    return out


@pytest.fixture(scope="module")
def embedding(photos: Path, generator: Path) -> Path:
    out = photos.parent / "embedding"
    command("embed", photos, "--generator", generator, "--out", out, "--steps", 2, "--encoder-steps", 2, "--batch", 64)
    return out


def test_aligned_photographs_come_with_what_became_of_each(photos: Path):
    out = photos.parent / "aligned"
    told = command("align", photos, "--landmarks", photos.parent / "landmarks.csv", "--size", SIZE, "--out", out)
    assert "aligned" in told
    outcomes, kept = pd.read_csv(out / "alignment.csv"), PhotoTable.read(out / "photos.csv")
    assert len(outcomes) == len(kept) == PATIENTS
    assert kept.pictures(SIZE).shape == (PATIENTS, 3, SIZE, SIZE)
    assert f"{PATIENTS} aligned before" in command(
        "align", photos, "--landmarks", photos.parent / "landmarks.csv", "--size", SIZE, "--out", out
    )
    pd.testing.assert_frame_equal(pd.read_csv(out / "alignment.csv"), outcomes)


def test_changed_landmarks_and_photographs_are_aligned_again(photos: Path, tmp_path: Path):
    table = pd.read_csv(photos).head(4)
    landmarks = pd.read_csv(photos.parent / "landmarks.csv").head(4)
    for name in table["photo"]:
        (tmp_path / name).write_bytes((photos.parent / name).read_bytes())
    write_frame(tmp_path / "photos.csv", table)
    place = [name for name in landmarks if name != "photo"]
    landmarks.loc[0, place] = np.nan
    out = tmp_path / "aligned"

    def align() -> str:
        write_frame(tmp_path / "l.csv", landmarks)
        return command("align", tmp_path / "photos.csv", "--landmarks", tmp_path / "l.csv", "--size", 16, "--out", out)

    align()
    assert list(pd.read_csv(out / "alignment.csv")["outcome"]) == ["no face", "aligned", "aligned", "aligned"]
    whole = pd.read_csv(photos.parent / "landmarks.csv").head(4)
    landmarks.loc[0, place] = whole.loc[0, place]
    landmarks.loc[1, place] = whole.loc[1, place] + 1
    (tmp_path / table["photo"][2]).write_bytes((tmp_path / table["photo"][3]).read_bytes())
    before = PhotoTable.read(out / "photos.csv").pictures(16)
    assert "1 aligned before" in align()
    after = PhotoTable.read(out / "photos.csv").pictures(16)
    assert len(after) == 4
    assert not (after[1] == before[0]).all()
    assert (after[3] == before[2]).all()


def test_what_networks_saw_before_stays_seen(photos: Path, generator: Path, tmp_path: Path):
    small = ("--channel-base", 64, "--latent", 8, "--batch", 4, "--steps", 1)
    command("finetune", photos, "--out", tmp_path / "all", "--from-scratch", SIZE, *small, "--everybody")
    told = command(
        "finetune", photos, "--out", tmp_path / "g", "--checkpoint", tmp_path / "all", "--steps", 1, "--batch", 4
    )
    assert "15 patients of the test part were trained on" in told
    assert json.loads((tmp_path / "g" / "patients.json").read_text())["held_out_trained_on"] == 15
    command("embed", photos, "--generator", tmp_path / "g", "--out", tmp_path / "e", "--steps", 0, "--start", "cold")
    assert json.loads((tmp_path / "e" / "embedding.json").read_text())["transductive"]


def test_the_generator_says_on_whom_it_was_trained(generator: Path, photos: Path):
    record = json.loads((generator / "patients.json").read_text())
    assert record == {"patients": 45, "held_out": 15, "held_out_trained_on": 0}
    assert "P3" not in (generator / "fitted_on.json").read_text()


def test_embedded_photographs_stand_beside_their_rows(embedding: Path, photos: Path, generator: Path):
    frame = pd.read_csv(embedding / "embedding.csv")
    assert list(frame["photo"]) == list(pd.read_csv(photos)["photo"])
    assert {f"w{k}" for k in range(1, 9)} <= set(frame.columns)
    assert frame["restart_agreement"].between(-1, 1).all()
    said = json.loads((embedding / "embedding.json").read_text())
    assert not said["transductive"]
    assert "discriminator features" in said["summary"]["distance"]
    again = command(
        "embed", photos, "--generator", generator, "--out", embedding, "--steps", 2, "--encoder-steps", 2, "--batch", 64
    )
    assert "fitted before" in again
    pd.testing.assert_frame_equal(pd.read_csv(embedding / "embedding.csv"), frame)


def test_an_encoder_of_other_photographs_is_refused(photos: Path, generator: Path, tmp_path: Path):
    table = pd.read_csv(photos)
    how = ("--generator", generator, "--out", tmp_path / "e", "--steps", 0, "--restarts", 0, "--encoder-steps", 2)
    write_frame(photos.parent / "split.csv", table)
    command("embed", photos.parent / "split.csv", *how)
    table["part"] = np.where(np.arange(PATIENTS) < 15, "test", "train")
    write_frame(photos.parent / "split.csv", table)
    for words, told in ((how, "training photographs"), ((*how[:-1], 3), "encoder settings")):
        result = CliRunner().invoke(main, ["portrait", "embed", str(photos.parent / "split.csv"), *map(str, words)])
        assert result.exit_code == 2
        assert told in result.output
        write_frame(photos.parent / "split.csv", pd.read_csv(photos))


def test_copies_under_two_patients_and_taken_columns_are_refused(photos: Path, generator: Path, tmp_path: Path):
    table = pd.read_csv(photos)
    (photos.parent / "copy.png").write_bytes((photos.parent / table["photo"][0]).read_bytes())
    copied = table.assign(photo=[*table["photo"][:-1], "copy.png"])
    for frame, told in ((copied, "one patient"), (table.assign(w2=1.0), "'w2'")):
        write_frame(photos.parent / "wrong.csv", frame)
        words = ["portrait", "embed", photos.parent / "wrong.csv", "--generator", generator, "--out", tmp_path / "e"]
        result = CliRunner().invoke(main, [*map(str, words), "--steps", "0", "--start", "cold"])
        assert result.exit_code == 3
        assert told in result.output


@pytest.fixture(scope="module")
def other(photos: Path) -> Path:
    """Another generator, from another seed."""
    out = photos.parent / "other"
    small = ("--channel-base", 64, "--latent", 8, "--batch", 4, "--steps", 1, "--seed", 5)
    command("finetune", photos, "--out", out, "--from-scratch", SIZE, *small)
    return out


def test_one_picture_under_two_patients_is_warned_of_without_names(photos: Path, generator: Path, tmp_path: Path):
    table = pd.read_csv(photos).head(30)
    for name in table["photo"]:
        (tmp_path / name).write_bytes((photos.parent / name).read_bytes())
    brighter = (PhotoTable.read(photos).pictures(SIZE)[0] * 0.97 + 0.02).clamp(0, 1)
    write_picture(tmp_path / table["photo"][29], brighter)
    write_frame(tmp_path / "photos.csv", table)
    landmarks = pd.read_csv(photos.parent / "landmarks.csv").head(30)
    place = [name for name in landmarks if name != "photo"]
    landmarks.loc[29, place] = landmarks.loc[0, place]
    landmarks.loc[12, place] = np.nan
    write_frame(tmp_path / "l.csv", landmarks)
    aligned = ("align", tmp_path / "photos.csv", "--landmarks", tmp_path / "l.csv", "--size", SIZE)
    embedded = ("embed", tmp_path / "photos.csv", "--generator", generator, "--start", "cold", "--restarts", 0)
    for words, out, beside, last in (
        (aligned, tmp_path / "a", "photos.csv", 29),
        ((*embedded, "--steps", 0), tmp_path / "e", "embedding.csv", 30),
    ):
        told = " ".join(command(*words, "--out", out).split())
        assert f"Which rows they are in {beside} stands in near_copies.csv in the same folder" in told
        assert "2 photographs look like a photograph of another patient (1 pairs)" in told
        assert "face29" not in told
        pairs, rows = pd.read_csv(out / "near_copies.csv"), pd.read_csv(out / beside)
        assert list(pairs) == [f"row of {beside} in this folder", f"other row of {beside}"]
        assert pairs.to_numpy().tolist() == [[1, last]]
        assert rows["patient"].iloc[[0, last - 1]].tolist() == table["patient"].iloc[[0, 29]].tolist()
    said = json.loads((tmp_path / "e" / "embedding.json").read_text())["remarks"]
    assert len(said) == 1
    assert "another patient" in said[0]


def test_edits_with_another_generator_or_start_are_refused(
    embedding: Path, generator: Path, other: Path, tmp_path: Path
):
    result = CliRunner().invoke(
        main, ["portrait", "edit", str(embedding), "--generator", str(other), "--run", str(tmp_path / "r")]
    )
    assert result.exit_code == 2
    assert "the generator must be" in result.output
    then = recorded_settings(embedding)
    for change, told in (({"start": Start.COLD}, "`start` must be"), ({"space": LatentSpace.Z}, "`space` must be")):
        plan = EmbedPlan(replace(then, **change), EncoderSettings())
        with pytest.raises(UsageError, match=told):
            edit_job(embedding, generator, tmp_path / "r", plan, EditPlan())
    (tmp_path / "embedding").mkdir()
    content = json.loads((embedding / "embedding.json").read_text())
    record = tmp_path / "embedding" / "embedding.json"
    damaged = ({"steps": 1, "new": 2}, {"steps": "a"}, {"steps": -3}, {"space": "v"}, [], None)
    for wrong in (*(content | {"settings": settings} for settings in damaged), {}, []):
        record.write_text(json.dumps(wrong))
        with pytest.raises(CorruptFileError, match="must say how the photographs were embedded"):
            recorded_settings(tmp_path / "embedding")


def test_a_training_that_began_with_other_networks_is_not_gone_on_with(
    photos: Path, generator: Path, other: Path, tmp_path: Path
):
    how = ("finetune", photos, "--out", tmp_path / "g", "--batch", 4, "--steps", 2)
    assert "stopped before the end" in command(*how, "--checkpoint", generator, "--seconds", 1e-9)
    result = CliRunner().invoke(main, ["portrait", *map(str, how), "--checkpoint", str(other)])
    assert result.exit_code == 2
    assert "`beginning` must be as in the checkpoint to resume from" in result.output
    assert "wrote" in command(*how, "--checkpoint", generator)


def test_edits_are_read_from_their_pictures_and_told_in_the_report(embedding: Path, generator: Path, tmp_path: Path):
    told = command(
        "edit", embedding, "--generator", generator, "--run", tmp_path, "--steps", 1, "--people", 4, "--random", 1,
        "--permuted", 1, "--shown", 2, "--seed", 9,
    )  # fmt: skip
    assert "no forecast" in told
    assert "edit_slope" not in told
    assert recorded_settings(embedding).seed == 0
    found = read_portraits(tmp_path)
    assert found is not None
    assert not found.transductive
    assert [edit.control for edit in found.edits].count(True) == 2
    assert all("risk rises" in edit.scores for edit in found.edits)
    assert all({"risk", "age"} == set(edit.slopes) for edit in found.edits)
    assert all(edit.capped is not None for edit in found.edits)
    versions = [edit for edit in found.edits if edit.name.startswith("hazard")]
    for edit in versions:
        assert edit.trust is not None
        assert -1 <= edit.trust.bootstrap.value <= 1
        assert edit.control_p in (pytest.approx(1 / 3), pytest.approx(2 / 3), 1.0)
        sizes = [abs(edit.slopes[name].value) for name in ("age", "risk")]
        assert edit.age_over_health is not None
        assert edit.age_over_health.value == pytest.approx(sizes[0] / sizes[1], rel=1e-6)
    assert found.readers.keys() == {"risk", "age"}
    assert all("latent vectors found anew" in told for told in found.readers.values())
    assert [edit.name for edit in versions] == ["hazard", "hazard, age projected out", "hazard, age as covariate"]
    assert len({edit.trust.bootstrap.value for edit in versions}) == len(versions)
    assert "embedded in another way than the photographs (steps 1, photographs 2)" in " ".join(found.remarks)
    assert len(found.edits[0].rows) == 2
    remarks = {edit.name: edit.remark for edit in found.edits}
    assert remarks["hazard"].startswith("The direction of the hazard")
    assert remarks["age"] == ""
    assert {edit.name: edit.unit for edit in found.edits}["age"] == "standard deviations of predicted age"
    assert found.edits[0].unit == found.unit == "standard deviations of predicted risk"
    assert "with age projected out is" in remarks["hazard, age projected out"]
    assert "at equal age is" in remarks["hazard, age as covariate"]
    assert any("none of them held out" in sentence for sentence in found.fitted_on)
    assert {path.name for path in (tmp_path / "portraits" / "pictures").glob("age-*.png")} == {"age-1.png", "age-2.png"}


def test_a_generator_that_saw_test_patients_is_told(photos: Path, generator: Path, tmp_path: Path):
    small = ("--channel-base", 64, "--latent", 8, "--batch", 4, "--steps", 1)
    told = command("finetune", photos, "--out", tmp_path / "g", "--from-scratch", SIZE, *small, "--everybody")
    assert "15 patients of the test part were trained on" in told
    command("embed", photos, "--generator", tmp_path / "g", "--out", tmp_path / "e", "--steps", 0, "--start", "cold")
    said = json.loads((tmp_path / "e" / "embedding.json").read_text())
    assert said["transductive"]
    assert "not out of sample" in said["fitted_on"][0]


def test_tables_that_leak_or_lack_something_are_refused(tmp_path: Path):
    base = {"photo": ["a.png", "b.png"], "patient": ["P", "P"]}
    for change, message in (
        ({"part": ["train", "test"]}, "Split patients, not photographs"),
        ({"photo": ["a.png", "a.png"]}, "one row"),
        ({"part": ["train", "dev"]}, "must be train or test"),
        ({"patient": ["P", ""]}, "filled in every row"),
        ({"photo": [], "patient": []}, "a row per photograph"),
    ):
        write_frame(tmp_path / "t.csv", base | change)
        with pytest.raises(DataError, match=message):
            PhotoTable.read(tmp_path / "t.csv")
    write_frame(tmp_path / "t.csv", {"photo": ["a.png"]})
    result = CliRunner().invoke(main, ["portrait", "finetune", str(tmp_path / "t.csv"), "--from-scratch", "16"])
    assert result.exit_code == 3


def test_photographs_stay_in_their_folder(photos: Path, tmp_path: Path):
    (tmp_path / "outside.png").write_bytes((photos.parent / "face0.png").read_bytes())
    (tmp_path / "inside").mkdir()
    for name in ("../outside.png", str(tmp_path / "outside.png")):
        write_frame(tmp_path / "inside" / "t.csv", {"photo": [name], "patient": ["P"]})
        with pytest.raises(DataError, match="leads out of it"):
            PhotoTable.read(tmp_path / "inside" / "t.csv").pictures(SIZE)


def test_outcomes_are_those_of_the_patient(tmp_path: Path):
    frame = {"photo": ["a.png", "b.png"], "patient": ["P", "P"], "time": [3.0, 4.0], "event": [1, 1]}
    write_frame(tmp_path / "t.csv", frame)
    with pytest.raises(DataError, match="in 1 patients"):
        PhotoTable.read(tmp_path / "t.csv").outcome("months")


def test_landmarks_of_other_photographs_are_refused(photos: Path, tmp_path: Path):
    landmarks = pd.read_csv(photos.parent / "landmarks.csv")
    write_frame(tmp_path / "l.csv", landmarks.assign(photo="x" + landmarks["photo"]))
    words = ["align", photos, "--landmarks", tmp_path / "l.csv", "--size", SIZE, "--out", tmp_path / "a"]
    result = CliRunner().invoke(main, ["portrait", *map(str, words)])
    assert result.exit_code == 3
    assert "got none of these names" in result.output


def test_finetune_needs_one_beginning(photos: Path):
    result = CliRunner().invoke(main, ["portrait", "finetune", str(photos)])
    assert result.exit_code == 2
    assert "one of --checkpoint and --from-scratch" in result.output

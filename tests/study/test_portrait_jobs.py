"""From photographs in a folder to edited pictures in a report, one restartable job after another."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from survlens.cli.main import main
from survlens.core.errors import DataError
from survlens.data.simulate.portraits import portrait_cohort
from survlens.report.portrait_reader import read_portraits
from survlens.study.portrait_files import PhotoTable, write_frame, write_picture

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


def test_edits_are_read_from_their_pictures_and_told_in_the_report(embedding: Path, generator: Path, tmp_path: Path):
    told = command(
        "edit", embedding, "--generator", generator, "--run", tmp_path, "--steps", 1, "--people", 4, "--random", 1,
        "--permuted", 1, "--shown", 2,
    )  # fmt: skip
    assert "no forecast" in told
    found = read_portraits(tmp_path)
    assert found is not None
    assert not found.transductive
    assert [edit.control for edit in found.edits].count(True) == 2
    assert all("risk rises" in edit.scores for edit in found.edits)
    assert len(found.edits[0].rows) == 2
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
    ):
        write_frame(tmp_path / "t.csv", base | change)
        with pytest.raises(DataError, match=message):
            PhotoTable.read(tmp_path / "t.csv")
    write_frame(tmp_path / "t.csv", {"photo": ["a.png"]})
    result = CliRunner().invoke(main, ["portrait", "finetune", str(tmp_path / "t.csv"), "--from-scratch", "16"])
    assert result.exit_code == 3


def test_finetune_needs_one_beginning(photos: Path):
    result = CliRunner().invoke(main, ["portrait", "finetune", str(photos)])
    assert result.exit_code == 2
    assert "one of --checkpoint and --from-scratch" in result.output

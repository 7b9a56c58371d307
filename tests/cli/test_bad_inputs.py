"""Every bad input ends with its exit code and a message to act on, and leaves the user's files as they were."""

import hashlib
import shlex
import shutil
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result

import survlens.study.report as study_report
from cli.bad_inputs import (
    CHECK,
    DATA,
    DRY_RUN,
    EVALUATE,
    FINE,
    LAST,
    PROGRESS,
    REPORT,
    RESUME,
    ROWS,
    RUN,
    SECTIONS,
    USAGE,
    Row,
    Scene,
    page_table,
    write_good_study,
)
from survlens.cli.main import main
from survlens.core.errors import InvalidValueError
from survlens.models.saving import load_model

PAGE = Path(__file__).resolve().parents[2] / "docs" / "bad_inputs.md"


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A good study and a finished run of it, without its page; do not change it."""
    home = tmp_path_factory.mktemp("good")
    study = write_good_study(home / "study")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(study_report, "report_run", lambda run: run.report)
        done = call(f"run {study} --out {home / 'run'}")
    assert done.exit_code == FINE, done.output
    return home


@pytest.fixture
def scene(good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    """A copy of the good study, in whose folder commands are called; the finished run is not there yet."""
    shutil.copytree(good / "study", tmp_path / "home" / "study")
    monkeypatch.chdir(tmp_path / "home" / "study")
    return Scene(tmp_path / "home" / "study", tmp_path / "home" / "run", monkeypatch)


def call(command: str) -> Result:
    """Calls the command line in this process."""
    return CliRunner().invoke(main, shlex.split(command))


def fingerprint(folder: Path) -> dict[str, str]:
    """Name and hash of every file below `folder`."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_a_bad_input_ends_with_its_code_and_says_what_to_do(good: Path, scene: Scene, row: Row) -> None:
    if row.finished:
        shutil.copytree(good / "run", scene.run)
    row.change(scene)
    inputs, before = fingerprint(scene.study), fingerprint(scene.run)
    done = call(row.verb)
    said = " ".join(done.output.split())
    assert done.exit_code == row.code, done.output
    assert [fragment for fragment in row.says if fragment not in said] == [], done.output
    assert "Traceback" not in said
    assert "unexpected" not in said
    assert isinstance(done.exception, SystemExit | None)
    assert fingerprint(scene.study) == inputs
    if row.verb in (EVALUATE, REPORT) or row.code in (USAGE, DATA):
        assert fingerprint(scene.run) == before
    assert not list(scene.run.rglob("*.part"))


def test_the_good_study_passes(scene: Scene) -> None:
    assert (call(CHECK).exit_code, call(DRY_RUN).exit_code) == (FINE, FINE)


@pytest.mark.parametrize(
    "row", [row for row in ROWS if row.name.startswith(("the disk is full when a", "Ctrl-C"))], ids=lambda row: row.name
)
def test_what_stopped_a_run_can_be_mended_and_the_run_resumed(
    good: Path, scene: Scene, row: Row, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`test_run.py` sends a real signal to a process; here the results must be those of the run that went through."""
    with monkeypatch.context() as patch:
        row.change(Scene(scene.study, scene.run, patch))
        assert call(RUN).exit_code == row.code
    monkeypatch.setattr(study_report, "report_run", lambda run: run.report)
    done = call(RESUME)
    assert done.exit_code == FINE, done.output
    assert (scene.run / "metrics.json").read_bytes() == (good / "run" / "metrics.json").read_bytes()


@pytest.mark.parametrize(
    ("name", "remove"),
    [
        ("a checkpoint ends too early", LAST),
        ("saved weights end too early", PROGRESS),
        ("progress.json lacks a part", PROGRESS),
    ],
)
def test_what_a_message_says_to_remove_can_be_removed_and_the_run_resumed(
    good: Path, scene: Scene, name: str, remove: str
) -> None:
    shutil.copytree(good / "run", scene.run)
    (row,) = [row for row in ROWS if row.name == name]
    row.change(scene)
    scene.patch.setattr(study_report, "report_run", lambda run: run.report)
    assert call(RESUME).exit_code == row.code
    (scene.study / remove).unlink()
    done = call(RESUME)
    assert done.exit_code == FINE, done.output
    assert (scene.run / "metrics.json").read_bytes() == (good / "run" / "metrics.json").read_bytes()


def test_a_saved_model_refuses_images_of_another_size(good: Path) -> None:
    model = load_model(good / "run" / "models" / "vae" / "fold1-seed3").model
    with pytest.raises(
        InvalidValueError, match=r"must have the shape \(1, 8, 8\) of the training images; got \(1, 16, 16"
    ):
        model.risk({"image": torch.zeros(2, 1, 16, 16)})  # type: ignore[operator]


def test_there_are_as_many_rows_as_promised_and_each_is_named_once() -> None:
    assert len({row.name for row in ROWS}) == len(ROWS) >= 32


@pytest.mark.parametrize("title", SECTIONS)
def test_the_page_shows_what_is_tested_here(title: str) -> None:
    section = PAGE.read_text(encoding="utf-8").partition(f"## {title}\n")[2].partition("\n## ")[0]
    assert page_table(SECTIONS[title]) in section + "\n"

"""However a command fails: one clear line, a fixed exit code, no traceback unless asked for."""

import errno

import pytest

import survlens.study.check as study_check
from survlens.cli.failures import ExitCode, failure_of
from survlens.core.errors import CorruptFileError, DataError, FitError, LeakageError, UsageError

BAD_STUDIES = {
    "no toml": ("[study\n", 2, "must be valid TOML"),
    "unknown section": ("[studdy]\n", 2, 'Did you mean "study"?'),
    "unknown key": ('[study]\nname = "x"\nsed = 1\n', 2, "study.toml, line 3"),
    "wrong type": ('[study]\nname = "x"\nseed = "1"\n', 2, "must be a whole number"),
    "climbing path": (
        '[study]\nname = "x"\n[data]\ntable = "../../x.csv"\ntime = "t"\nevent = "e"\nunit = "days"\n', 2,
        "stay inside the data root",
    ),
    "missing table": (
        '[study]\nname = "x"\n[data]\ntable = "x.csv"\ntime = "t"\nevent = "e"\nunit = "days"\n', 2, "`data.table`",
    ),
    "missing column": (
        '[study]\nname = "x"\n[data]\ntable = "clinical.csv"\ntime = "moths"\nevent = "died"\nunit = "days"\n', 3,
        "months",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_STUDIES)
@pytest.mark.parametrize("verb", ["check", "run"])
def test_a_bad_study_ends_with_its_exit_code(survlens, study, verb, name):
    text, code, fragment = BAD_STUDIES[name]
    study.write_text(text, encoding="utf-8")
    out = ["--out", study.parent / "run"] if verb == "run" else []
    done = survlens(verb, study, *out)
    assert done.exit_code == code, done.output
    if code == 2 or verb == "check":
        assert fragment in done.output
    assert "Traceback" not in done.output
    assert not (study.parent / "run").exists()


@pytest.mark.parametrize(
    ("error", "code", "fragment"),
    [
        (UsageError("wrong"), ExitCode.USAGE, "wrong"),
        (DataError("bad"), ExitCode.DATA, "bad"),
        (LeakageError("leak"), ExitCode.DATA, "leak"),
        (FitError("loss"), ExitCode.FAILURE, "loss"),
        (CorruptFileError("torn"), ExitCode.FAILURE, "torn"),
        (OSError(errno.ENOSPC, "No space left on device", "a.parquet"), ExitCode.FAILURE, "disk is full while writing"),
        (PermissionError(errno.EACCES, "Permission denied", "x"), ExitCode.FAILURE, "Permission denied"),
        (KeyboardInterrupt(), ExitCode.INTERRUPTED, "interrupted"),
        (ZeroDivisionError("oops"), ExitCode.FAILURE, "unexpected ZeroDivisionError: oops"),
        (MemoryError(), ExitCode.FAILURE, "unexpected MemoryError"),
    ],
)
def test_every_error_has_its_code_and_one_line(error, code, fragment):
    failure = failure_of(error)
    assert failure.code is code
    assert fragment in failure.message
    assert "\n" not in failure.message


def _fail(*_, **__):
    raise ZeroDivisionError("something\nodd [bold]not markup[/bold]")


def test_an_unexpected_error_is_one_line_with_a_hint(survlens, study, monkeypatch):
    monkeypatch.setattr(study_check, "audit", _fail)
    done = survlens("check", study)
    assert done.exit_code == 1
    (line,) = [line for line in done.stderr.splitlines() if line]
    assert "unexpected ZeroDivisionError: something odd [bold]not markup[/bold]" in line
    assert "--traceback" in line


@pytest.mark.parametrize("place", ["before", "after"])
def test_the_traceback_is_shown_when_asked_for(survlens, study, monkeypatch, place):
    monkeypatch.setattr(study_check, "audit", _fail)
    arguments = ["--traceback", "check", study] if place == "before" else ["check", study, "--traceback"]
    done = survlens(*arguments)
    assert done.exit_code == 1
    assert "Traceback (most recent call last)" in done.stderr


def test_a_full_disk_says_so_and_leaves_the_earlier_run_whole(survlens, study, monkeypatch, tmp_path):
    import survlens.artifacts.atomic as atomic

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(atomic.os, "fsync", full)
    done = survlens("run", study, "--out", tmp_path / "run", "--models", "kaplan_meier")
    assert done.exit_code == 1
    assert "disk is full" in done.output
    assert not list((tmp_path / "run").rglob("*.part"))

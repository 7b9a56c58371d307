"""A run folder is never overwritten silently, and what is written to it can be read."""

import json
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from survlens.artifacts.run_folder import RunFolder, read_json, read_table, safe_name, write_json, write_table
from survlens.core.errors import CorruptFileError, InvalidValueError, UsageError


def a_run(path: Path) -> RunFolder:
    folder = RunFolder.create(path)
    write_json(folder.resolved, {"seed": 1})
    folder.truth.write_bytes(b"")
    folder.subgroups.write_bytes(b"")
    (folder.model("cox") / "checkpoints").mkdir(parents=True)
    (path / "notes.txt").write_text("mine")
    return folder


def test_a_run_is_not_overwritten_unasked(tmp_path):
    a_run(tmp_path / "run")
    with pytest.raises(UsageError, match=r"--resume.*another --out"):
        RunFolder.create(tmp_path / "run")
    assert (tmp_path / "run" / "resolved.json").exists()


def test_resume_keeps_everything(tmp_path):
    a_run(tmp_path / "run")
    folder = RunFolder.create(tmp_path / "run", resume=True)
    assert read_json(folder.resolved) == {"seed": 1}


def test_overwrite_removes_the_run_and_nothing_else(tmp_path):
    a_run(tmp_path / "run")
    folder = RunFolder.create(tmp_path / "run", overwrite=True)
    assert [file.name for file in folder.path.iterdir()] == ["notes.txt"]


def test_a_folder_that_is_no_run_is_never_touched(tmp_path):
    (tmp_path / "study.toml").write_text("the user's own study file")
    (tmp_path / "models").mkdir()
    with pytest.raises(UsageError, match="no run wrote"):
        RunFolder.create(tmp_path, overwrite=True)
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "thesis.tex").write_text("x")
    for flags in ({"overwrite": True}, {"resume": True}):
        with pytest.raises(UsageError, match="no run wrote"):
            RunFolder.create(tmp_path / "sub", **flags)


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "run").write_text("x")
    with pytest.raises(UsageError, match="got the file"):
        RunFolder.create(tmp_path / "run")


def test_open_wants_a_run(tmp_path):
    with pytest.raises(UsageError, match="got nothing"):
        RunFolder.open(tmp_path / "none")
    with pytest.raises(UsageError, match="without any file of a run"):
        RunFolder.open(tmp_path)
    a_run(tmp_path / "run")
    assert RunFolder.open(tmp_path / "run").model("cox").is_dir()


@settings(max_examples=50, deadline=None)
@given(name=st.text(max_size=120))
def test_a_model_name_never_leaves_its_folder(name):
    try:
        path = RunFolder(Path("run")).model(name)
    except InvalidValueError:
        return
    assert path.parent == Path("run") / "models"
    assert path.name not in ("", ".", "..")
    assert len(path.name) <= 90


def test_names_that_differ_stay_apart():
    names = ["a b", "a-b", "a/b", "../a-b", "CoxVAE τ=0.5", "CoxVAE τ=05", "x" * 90, "x" * 91]
    assert len({safe_name(name) for name in names}) == len(names)
    assert safe_name("cox-vae_0.5") == "cox-vae_0.5"


class _Colour(Enum):
    RED = "red"


@dataclass(frozen=True, slots=True)
class _Row:
    name: str
    value: float


def test_json_holds_plain_values_and_null_for_nan(tmp_path):
    content = {
        "nan": float("nan"), "inf": np.float64("inf"), "n": np.int64(3), "array": np.array([1.0, np.nan]),
        "tensor": torch.tensor([1, 2]), "path": Path("a") / "b", "enum": _Colour.RED, "row": _Row("é", 0.5),
        2: (True, None),
    }  # fmt: skip
    write_json(tmp_path / "a" / "x.json", content)
    assert json.loads((tmp_path / "a" / "x.json").read_text(encoding="utf-8")) == {
        "nan": None, "inf": None, "n": 3, "array": [1.0, None], "tensor": [1, 2], "path": "a/b", "enum": "red",
        "row": {"name": "é", "value": 0.5}, "2": [True, None],
    }  # fmt: skip


def test_half_a_json_file_is_refused(tmp_path):
    (tmp_path / "x.json").write_text('{"a": 1')
    with pytest.raises(CorruptFileError, match="whole json file.*line 1"):
        read_json(tmp_path / "x.json")
    with pytest.raises(CorruptFileError, match="readable file"):
        read_json(tmp_path / "none.json")


@pytest.mark.parametrize("name", ["t.parquet", "t.csv"])
def test_a_table_comes_back(tmp_path, name):
    frame = pd.DataFrame({"patient": ["a", "b"], "risk": [0.25, 1 / 3], "event": [0, 1]})
    write_table(tmp_path / name, frame)
    pd.testing.assert_frame_equal(read_table(tmp_path / name), frame)
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:0])
    with pytest.raises(CorruptFileError, match="whole table"):
        read_table(tmp_path / name)

"""The folder of a run: where everything lies, and how tables and json are written to it."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import re
import shutil
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from survlens.artifacts.atomic import write_atomically, write_text
from survlens.core.errors import CorruptFileError, InvalidValueError, UsageError

if TYPE_CHECKING:
    import pandas as pd

_FILES = (
    "study.toml",
    "resolved.json",
    "environment.json",
    "progress.json",
    "cohort.json",
    "audit.json",
    "splits.json",
    "metrics.json",
    "report.html",
    "subgroups.parquet",
    "truth.parquet",
)
_FOLDERS = ("models", "predictions", "embeddings", "explanations", "figures")


@dataclasses.dataclass(frozen=True, slots=True)
class RunFolder:
    """Paths of a run; `docs/architecture.md` says what each file holds.

    Attributes:
        path: The folder itself.
    """

    path: Path

    @staticmethod
    def create(path: Path | str, *, overwrite: bool = False, resume: bool = False) -> RunFolder:
        """Makes a run folder, or goes on in one; never writes over another run unasked.

        Args:
            path: Folder to make.
            overwrite: Removes the files of the run that stands there first. Files that no run writes are kept.
            resume: Goes on in the run that stands there.

        Raises:
            UsageError: If the folder holds something and neither is said, or holds something that is not a run.
        """
        path = Path(path)
        if path.exists() and not path.is_dir():
            raise UsageError(f"`out` must be a folder; got the file {path}. Choose another --out.")
        if path.exists() and any(path.iterdir()):
            _check_may_use(path, overwrite=overwrite, resume=resume)
            if overwrite:
                _remove_run(path)
        path.mkdir(parents=True, exist_ok=True)
        return RunFolder(path)

    @staticmethod
    def open(path: Path | str) -> RunFolder:
        """Opens the folder of a run that was written before.

        Raises:
            UsageError: If there is no run at `path`.
        """
        path = Path(path)
        if not path.is_dir() or not _is_run(path):
            got = (
                "a folder without any file of a run" if path.is_dir() else "nothing" if not path.exists() else "a file"
            )
            raise UsageError(f"`path` must be the folder of a run; got {got} at {path}. Run `survlens run` first.")
        return RunFolder(path)

    @property
    def study(self) -> Path:
        """The study file as it was given."""
        return self.path / "study.toml"

    @property
    def resolved(self) -> Path:
        """Every setting with its value."""
        return self.path / "resolved.json"

    @property
    def environment(self) -> Path:
        """Versions of Python, libraries and the machine's kind."""
        return self.path / "environment.json"

    @property
    def progress(self) -> Path:
        """What is done and what is left."""
        return self.path / "progress.json"

    @property
    def cohort(self) -> Path:
        """Counts, patient flow and covariate table."""
        return self.path / "cohort.json"

    @property
    def audit(self) -> Path:
        """Findings of `survlens check`."""
        return self.path / "audit.json"

    @property
    def splits(self) -> Path:
        """Rows of every part of every split."""
        return self.path / "splits.json"

    @property
    def metrics(self) -> Path:
        """Scores and curves of every model."""
        return self.path / "metrics.json"

    @property
    def subgroups(self) -> Path:
        """Columns by which scores are told apart, one row per instance."""
        return self.path / "subgroups.parquet"

    @property
    def truth(self) -> Path:
        """The true log hazard of a simulation, one row per instance."""
        return self.path / "truth.parquet"

    @property
    def figures(self) -> Path:
        """Folder of figures."""
        return self.path / "figures"

    @property
    def report(self) -> Path:
        """The report."""
        return self.path / "report.html"

    def model(self, name: str) -> Path:
        """Folder of the saved model `name`."""
        return self.path / "models" / safe_name(name)

    def history(self, name: str) -> Path:
        """Table of the epochs of model `name`."""
        return self.model(name) / "history.csv"

    def predictions(self, name: str) -> Path:
        """Table of the predictions of model `name`."""
        return self.path / "predictions" / f"{safe_name(name)}.parquet"

    def embeddings(self, name: str) -> Path:
        """Table of the embeddings of model `name`."""
        return self.path / "embeddings" / f"{safe_name(name)}.parquet"

    def explanations(self, name: str) -> Path:
        """Folder of the explanations of model `name`."""
        return self.path / "explanations" / safe_name(name)


def safe_name(name: str) -> str:
    """A file name for `name`: others than letters, digits, `._-` become a dash, and a short hash is added.

    Raises:
        InvalidValueError: If nothing of the name is left.
    """
    kept = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.")[:80]
    if not kept:
        raise InvalidValueError(f"`name` must hold a letter or a digit; got {name!r}. Name the model otherwise.")
    if kept == name:
        return name
    return f"{kept}-{hashlib.sha256(name.encode()).hexdigest()[:6]}"


def write_json(path: Path | str, content: object) -> None:
    """Writes json that people can read, in one step; numbers that are not finite become null.

    Dataclasses, enums, paths and numpy values are written as plain values.

    Raises:
        WriteError: If the disk is full or the folder cannot be written; the previous file is untouched.
    """
    write_text(path, json.dumps(plain(content), indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path | str) -> Any:
    """Reads a json file.

    Raises:
        CorruptFileError: If the file is missing or is not whole.
    """
    path = Path(path)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CorruptFileError(f"`{path}` must be a readable file; got {error.strerror}. Check the path.") from error
    except ValueError as error:
        raise CorruptFileError(
            f"`{path}` must be a whole json file; got a fault ({error}). Write it again with the verb that makes it."
        ) from error


def write_table(path: Path | str, frame: pd.DataFrame) -> None:
    """Writes a table as parquet, or as csv where `path` ends so, in one step.

    Raises:
        WriteError: If the disk is full or the folder cannot be written; the previous file is untouched.
    """
    if Path(path).suffix == ".csv":
        write_text(path, frame.to_csv(index=False, lineterminator="\n"))
    else:
        write_atomically(path, lambda draft: frame.to_parquet(draft, index=False))


def read_table(path: Path | str) -> pd.DataFrame:
    """Reads a parquet or csv table.

    Raises:
        CorruptFileError: If the file is missing or is not whole.
    """
    import pandas as pd

    path = Path(path)
    try:
        return pd.read_csv(path) if path.suffix == ".csv" else pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise CorruptFileError(
            f"`{path}` must be a whole table; got a fault ({error}). Write it again with the verb that makes it."
        ) from error


def plain(value: object) -> Any:
    """The value as json can hold it."""
    if isinstance(value, Enum):
        return plain(value.value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(plain(key)): plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | Tensor):
        return plain(value.tolist())
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    if isinstance(value, Path):
        return value.as_posix()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _is_run(path: Path) -> bool:
    return any((path / name).exists() for name in (*_FILES, "models"))


def _check_may_use(path: Path, *, overwrite: bool, resume: bool) -> None:
    if not (overwrite or resume):
        raise UsageError(
            f"`out` must be a new or empty folder; got {path}, which holds files. "
            "Pass --resume to go on in it, --overwrite to replace it, or another --out."
        )
    if not _is_run(path) or (overwrite and not (path / "resolved.json").exists()):
        raise UsageError(
            f"`out` must be the folder of a run; got {path}, which holds files that no run wrote. Choose another --out."
        )


def _remove_run(path: Path) -> None:
    for name in _FILES:
        (path / name).unlink(missing_ok=True)
    for name in _FOLDERS:
        shutil.rmtree(path / name, ignore_errors=True)

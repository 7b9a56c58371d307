"""Writes a commented study file to start from."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from survlens.core.errors import UsageError
from survlens.data.table import read_table
from survlens.study.guess import GuessedColumns, guess_columns

STUDY_FILE = "study.toml"


@dataclass(frozen=True, slots=True)
class WrittenStudy:
    """A study file that was written.

    Attributes:
        path: Where it is.
        open_questions: What a person has to decide.
    """

    path: Path
    open_questions: tuple[str, ...]


def write_study(folder: Path, table: Path | None = None) -> WrittenStudy:
    """Writes `folder`/study.toml; an existing one is never touched.

    Args:
        folder: Made where it is missing.
        table: A csv or parquet file inside `folder` whose columns are guessed; without one, placeholders are written.

    Raises:
        UsageError: If a study file is there already, or `table` lies outside `folder`.
    """
    path = folder / STUDY_FILE
    if path.exists():
        raise UsageError(f"`FOLDER` must not hold a {STUDY_FILE} yet; got {path}. Edit it, or choose another folder.")
    name = "clinical.csv"
    guess = GuessedColumns()
    if table is not None:
        name = _inside(folder, table)
        guess = guess_columns(read_table(table))
    text = study_text(name, guess, folder.resolve().name or "study")
    folder.mkdir(parents=True, exist_ok=True)
    with path.open("x", encoding="utf-8") as file:
        file.write(text)
    return WrittenStudy(path, _open_questions(guess, table is not None))


def _inside(folder: Path, table: Path) -> str:
    inside = table.resolve()
    if not inside.is_relative_to(folder.resolve()):
        raise UsageError(
            f"`--from` must be a table inside FOLDER; got {table}. Run: survlens init {table.parent} --from {table}."
        )
    return inside.relative_to(folder.resolve()).as_posix()


def _open_questions(guess: GuessedColumns, read: bool) -> tuple[str, ...]:
    if not read:
        return ("every COLUMN in [data] is a placeholder",)
    found = {"time": guess.time, "event": guess.event, "unit": guess.unit, "patient": guess.patient}
    questions = [f"[data] {key}: nothing in the table looked like it" for key, value in found.items() if value is None]
    if guess.left_out:
        questions.append(f"columns left out: {', '.join(guess.left_out)}")
    return (*questions, "every covariate must be known at the start of follow-up; remove what was measured later")


def study_text(table: str, guess: GuessedColumns, name: str) -> str:
    """The text of a study file.

    Args:
        table: Path of the table from the study file.
        guess: What its columns are.
        name: Title of the study.
    """
    parts = [_head(name), _data(table, guess), _SPLIT, _models(guess), _tail(guess)]
    return "\n".join(parts)


def toml_text(value: str) -> str:
    """`value` as a TOML text."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def toml_list(values: Sequence[str]) -> str:
    """`values` as a TOML list, one line where it is short."""
    cells = [toml_text(value) for value in values]
    line = f"[{', '.join(cells)}]"
    return line if len(line) <= 100 else "[\n  " + ",\n  ".join(cells) + ",\n]"


def _head(name: str) -> str:
    return f"""\
# A survlens study. Look at the data: survlens check study.toml. Do the work: survlens run study.toml --out runs/first
# A line that starts with "#" is a comment; the settings in comments are the defaults or ideas.

[study]
name = {toml_text(name)}
description = ""
seed = 0                      # every random number of the study comes from it
"""


def _data(table: str, guess: GuessedColumns) -> str:
    lines = [
        "[data]",
        'root = "."                    # folder of table and images; nothing may lie outside it',
        f"table = {toml_text(table)}",
        _column("time", guess.time, "follow-up time; never 0"),
        _column("event", guess.event, "1, true or dead where the event was seen; see event_values"),
        f"unit = {toml_text(guess.unit or 'days')}".ljust(30) + "# unit of time, never converted",
        _column("patient", guess.patient, "rows of one patient stay together in every split", optional=True),
        _column("image", guess.image, "image paths, from root", optional=True),
        _column("mask", guess.mask, "mask paths, from root", optional=True),
        "# Covariates known at the start of follow-up:",
        f"numeric = {toml_list(guess.numeric)}",
        f"categorical = {toml_list(guess.categorical)}",
        '# ordered = { grade = ["low", "middle", "high"] }',
        _column("site", guess.site, "hospital or scanner, for splits and subgroups", optional=True),
        _column("date", guess.date, "date of inclusion, for a split in time", optional=True),
        "# event_values = { dead = 1, alive = 0 }",
        '# zero_times = "error"         # or "drop", "smallest"',
        '# entry = "COLUMN"             # when observation began, if later than time 0 (delayed entry)',
        '# weight = "COLUMN"            # how often a patient counts in the fits',
        '# stratum = "COLUMN"           # number of the stratum: Cox models compare patients within it',
    ]
    if guess.image is not None:
        lines += ["image_size = 64               # edge in pixels", 'channels = "rgb"              # or "grey"']
    if guess.left_out:
        lines.append(
            "# Left out, as they may be the outcome, or are no number and have many values: "
            + ", ".join(map(toml_text, guess.left_out))
        )
    return "\n".join(lines) + "\n"


def _column(key: str, name: str | None, meaning: str, *, optional: bool = False) -> str:
    mark = "# " if optional and name is None else ""
    return f"{mark}{key} = {toml_text(name or 'COLUMN')}".ljust(29) + f" # {meaning}"


_SPLIT = """\
[split]
kind = "folds"                # or "holdout", "column", "date", "site", "external"; always by patient
folds = 5
# repeats = 1
# test_fraction = 0.3         # for "holdout"
validation_fraction = 0.2     # of the training patients; decides when a network stops
"""

_TAIL = """\
[evaluation]
# horizons = [1, 2, 5]        # times to judge predictions at, in the unit of time; default: quartiles of the events
bootstrap = 500               # draws of patients behind every interval
groups = 3                    # risk groups, cut at training quantiles
# subgroups = []              # columns whose levels are scored one by one
{primary}

[report]
# title = ""
"""


def _tail(guess: GuessedColumns) -> str:
    """The last sections; the study is about the fusion, or else the model of images."""
    if guess.image is None:
        chosen = '# primary = "forest"'
    else:
        chosen = f"primary = {toml_text('fusion' if guess.numeric or guess.categorical else 'coxvae')}"
    return _TAIL.replace("{primary}", chosen.ljust(29) + " # the model that the study is about")


def _models(guess: GuessedColumns) -> str:
    clinical = bool(guess.numeric or guess.categorical)
    parts = ["# Kaplan-Meier and, where there are covariates, a clinical Cox model are always fitted for comparison.\n"]
    if clinical:
        parts.append('[[model]]\nname = "forest"\nkind = "forest"\n')
    if guess.image is not None:
        parts.append(_COX_VAE)
    if clinical and guess.image is not None:
        parts.append('[[model]]\nname = "fusion"\nkind = "late_fusion"\nmembers = ["coxvae", "clinical_cox"]\n')
    return "\n".join([*parts, _IDEAS])


_IDEAS = """\
# Networks, on the table, the image or both (inputs = ["image", "table"]): deep_surv, cox_time, weibull,
# logistic_hazard, pmf, mtlr, deep_hit, pc_hazard; on the image: cox_cnn, cox_vae. For example, with settings that are
# chosen inside each fold:
# [[model]]
# name = "net"
# kind = "logistic_hazard"
# inputs = ["table"]
# intervals = 20
# [model.tune]
# hidden = [[16], [32, 32]]     # every combination is tried by inner cross-validation on training patients
# fit.learning_rate = [1e-3, 1e-2]
# folds = 3
"""

_COX_VAE = """\
[[model]]
name = "coxvae"
kind = "cox_vae"
inputs = ["image"]            # or ["image", "table"]
latent = 8
tau = 0.5                     # weight of the picture against survival; 1 is a plain autoencoder
[model.fit]
epochs = 40
batch = 128
learning_rate = 1e-3
head_learning_rate = 1e-2
patience = 10                 # epochs without a better validation score
"""

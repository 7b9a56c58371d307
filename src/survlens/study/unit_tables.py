"""Tables of predictions and embeddings: one file per model, rows of every fold and seed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from survlens.artifacts.run_folder import read_table, write_table
from survlens.core.errors import CorruptFileError
from survlens.core.outcome import SurvivalOutcome
from survlens.data.cohort import optional_columns
from survlens.study.bench import Bench

CURVE = "survival@"
"""Start of the names of the columns that hold survival probabilities; the time follows."""
_KEYS = ["instance", "patient", "part", "fold", "seed", "time", "event"]


def prediction_rows(bench: Bench, seed: int, risk: np.ndarray, survival: np.ndarray) -> pd.DataFrame:
    """Predictions of all rows of a split; curves of test rows only, because no others are scored.

    Args:
        bench: The split.
        seed: Seed of the fit.
        risk: One number per row of `bench.rows`.
        survival: Survival probabilities, (row, time).
    """
    kept = np.where((bench.parts == "test")[:, None], survival, np.nan)
    curves = pd.DataFrame(kept, columns=pd.Index([f"{CURVE}{time:.12g}" for time in bench.times]))
    return pd.concat([_keys(bench, seed), pd.Series(risk, name="risk"), curves], axis=1)


def embedding_rows(bench: Bench, seed: int, embedding: np.ndarray, components: np.ndarray) -> pd.DataFrame:
    """Embeddings of all rows of a split, with their first two principal components."""
    named = {f"z{at + 1}": column for at, column in enumerate(embedding.T)}
    named |= {f"pc{at + 1}": column for at, column in enumerate(components.T)}
    return pd.concat([_keys(bench, seed), pd.DataFrame(named)], axis=1)


def _keys(bench: Bench, seed: int) -> pd.DataFrame:
    rows = bench.rows
    outcome = bench.cohort.outcome[rows]
    time, event = outcome.numpy()
    columns = (bench.cohort.instance[rows], bench.cohort.patient[rows], bench.parts, bench.fold, seed, time, event)
    return pd.DataFrame(dict(zip(_KEYS, columns, strict=True)) | optional_columns(outcome))


def add_rows(path: Path, rows: pd.DataFrame) -> None:
    """Puts the rows of one fit into a table, in place of earlier rows of the same fold and seed.

    Raises:
        WriteError: If the disk is full; the table before is untouched.
    """
    if path.exists():
        before = read_table(path)
        again = (before["fold"] == rows["fold"].iloc[0]) & (before["seed"] == rows["seed"].iloc[0])
        rows = pd.concat([before.loc[~again], rows], ignore_index=True)
    write_table(path, rows)


def rows_of_fit(path: Path, fold: int, seed: int, instances: np.ndarray) -> pd.DataFrame:
    """The rows of one fit, in the order of `instances`.

    Args:
        path: Table of one model.
        fold: Number of the split.
        seed: Seed of the fit; where the model has no such seed, its first.
        instances: Names of rows.

    Raises:
        CorruptFileError: If the table lacks a row.
    """
    table = read_table(path)
    table = table.loc[table["fold"] == fold]
    seeds = table["seed"].unique()
    if len(seeds):
        table = table.loc[table["seed"] == (seed if seed in seeds else seeds[0])]
    table = table.set_index("instance")
    missing = sum(name not in table.index for name in instances)
    if missing:
        raise CorruptFileError(f"`{path.name}` must hold every row of fold {fold}; it lacks {missing}. Run again.")
    return table.loc[instances].reset_index()


def prediction_table(path: Path) -> pd.DataFrame:
    """The predictions of one model.

    Raises:
        CorruptFileError: If the table is not whole, or lacks a column that scores need.
    """
    table = read_table(path)
    missing = [name for name in (*_KEYS, "risk") if name not in table]
    if missing or not len(table):
        raise CorruptFileError(
            f"`{path}` must hold predictions; got a table without {', '.join(missing) or 'rows'}. "
            "Predict again: survlens run STUDY.toml, into a new folder."
        )
    return table


def outcome_of(table: pd.DataFrame, unit: str) -> SurvivalOutcome:
    """The outcome of the rows of a table of predictions or embeddings, with entries, weights and strata."""
    names = [name for name in ("time", "event", "entry", "weight", "stratum") if name in table]
    return SurvivalOutcome.from_arrays(unit=unit, **{name: table[name].to_numpy() for name in names})


def curve_columns(table: pd.DataFrame) -> tuple[np.ndarray, list[str]]:
    """Times and names of the columns with survival probabilities."""
    names = [name for name in table.columns if name.startswith(CURVE)]
    times = np.array([float(name.removeprefix(CURVE)) for name in names])
    order = np.argsort(times)
    return times[order], [names[at] for at in order]

"""Dealing whole patients into parts, stratified by event."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping

import numpy as np
import pandas as pd

from survlens.core.errors import DataError, InvalidValueError
from survlens.core.outcome import SurvivalOutcome
from survlens.data.table import outcome_from


def _patients(patient: np.ndarray, outcome: SurvivalOutcome) -> tuple[np.ndarray, np.ndarray]:
    """Number of the patient of each row, and whether each patient had an event."""
    codes = pd.factorize(np.asarray(patient))[0]
    events = np.zeros(codes.max(initial=-1) + 1, dtype=bool)
    np.logical_or.at(events, codes, outcome.numpy()[1] > 0)
    return codes, events


def deal(patient: np.ndarray, outcome: SurvivalOutcome, *, folds: int, seed: int) -> np.ndarray:
    """Fold of each row: patients with and without event are shuffled apart and dealt in turn.

    Raises:
        DataError: If there are fewer patients than folds, or fewer than two patients with an event.
    """
    codes, events = _patients(patient, outcome)
    if folds < 2:
        raise InvalidValueError(f"`folds` must be >= 2; got {folds}.")
    if len(events) < folds:
        raise DataError(f"`folds` must be at most the number of patients; got {folds} for {len(events)}. Use fewer.")
    if events.sum() < 2:
        raise DataError(
            f"two patients with an event are needed to train and test by folds; got {int(events.sum())}. "
            "Check that the event column means what it says, or wait for more follow-up."
        )
    random = np.random.default_rng(seed)
    order = np.concatenate([random.permutation(np.flatnonzero(events)), random.permutation(np.flatnonzero(~events))])
    fold = np.empty(len(events), dtype=np.int64)
    fold[order] = random.permutation(folds)[np.arange(len(events)) % folds]
    return fold[codes]


def part_of(
    patient: np.ndarray, outcome: SurvivalOutcome, rows: np.ndarray, *, fraction: float, seed: int, what: str
) -> tuple[np.ndarray, np.ndarray]:
    """Parts `rows` into the larger rest and a share `fraction` of its patients.

    At least one patient with an event stays in the rest, and one patient in each part.

    Raises:
        DataError: If no patient had an event, or there is one patient only.
    """
    if not 0 < fraction < 1:
        raise InvalidValueError(f"`{what}` must lie in (0, 1); got {fraction}.")
    codes, events = _patients(patient[rows], outcome[rows])
    if not events.any():
        raise DataError(
            f"a cohort must hold at least one event to learn from; got none in {len(events)} patients. "
            "Check that the event column means what it says."
        )
    if len(events) < 2:
        raise DataError("two patients are needed to part a cohort; got 1. Check the patient column.")
    total = min(max(round(fraction * len(events)), 1), len(events) - 1)
    with_event = min(round(total * events.mean()), int(events.sum()) - 1)
    without = min(total - with_event, int((~events).sum()))
    random = np.random.default_rng(seed)
    chosen = np.zeros(len(events), dtype=bool)
    chosen[random.permutation(np.flatnonzero(events))[: min(total - without, int(events.sum()) - 1)]] = True
    chosen[random.permutation(np.flatnonzero(~events))[:without]] = True
    return rows[~chosen[codes]], rows[chosen[codes]]


def warn_about_events(outcome: SurvivalOutcome, parts: Mapping[str, np.ndarray]) -> None:
    """Warns of parts without any event, in which no score is defined."""
    event = outcome.numpy()[1] > 0
    empty = [name for name, rows in parts.items() if not event[rows].any()]
    if empty:
        warnings.warn(
            f"no event in {', '.join(empty[:5])}{', ...' if len(empty) > 5 else ''}: scores are undefined there. "
            "Use fewer folds, or a larger part.",
            stacklevel=3,
        )


class PatientKFold:
    """Folds by patient, stratified by event: `cross_val_score(..., cv=PatientKFold(), groups=patient)`.

    Args:
        n_splits: Number of folds.
        seed: Seed of the shuffle.
    """

    def __init__(self, n_splits: int = 5, *, seed: int = 0) -> None:
        self.n_splits = n_splits
        self.seed = seed

    def split(self, X: object, y: object = None, groups: object = None) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Training and test rows of each fold.

        Args:
            X: The features; only their number counts.
            y: The outcome, in any shape that `outcome_from` takes.
            groups: Patient of each row; every row is a patient of its own by default.
        """
        if y is None:
            raise InvalidValueError("`y` must be given, to stratify by event; got None.")
        outcome = outcome_from(y, unit=None if isinstance(y, SurvivalOutcome) else "time")
        patient = np.arange(len(outcome)) if groups is None else np.asarray(groups)
        if len(patient) != len(outcome):
            raise InvalidValueError(
                f"`groups` must have one value per row of `y`; got {len(patient)} and {len(outcome)}."
            )
        fold = deal(patient, outcome, folds=self.n_splits, seed=self.seed)
        for k in range(self.n_splits):
            yield np.flatnonzero(fold != k), np.flatnonzero(fold == k)

    def get_n_splits(self, X: object = None, y: object = None, groups: object = None) -> int:
        """Number of folds."""
        return self.n_splits

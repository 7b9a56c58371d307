"""Dividing training rows into folds, so that no patient stands on two sides."""

from __future__ import annotations

import numpy as np
import pandas as pd
from jaxtyping import Int64

from survlens.core.errors import FitError, InvalidValueError
from survlens.core.outcome import SurvivalOutcome


def patient_folds(
    outcome: SurvivalOutcome, groups: object | None, *, folds: int, seed: int
) -> Int64[np.ndarray, " instance"]:
    """Number of the fold of each row: whole patients, with the patients who had an event spread evenly.

    Args:
        outcome: Outcome of the rows.
        groups: Patient of each row; None where every row is a patient.
        folds: Number of folds.
        seed: Seed of the division.

    Raises:
        InvalidValueError: If there are fewer patients than folds, or `groups` has another length or a missing value.
        FitError: If fewer than two patients had an event, so that a fold would leave none to fit on.
    """
    if folds < 2:
        raise InvalidValueError(f"`folds` must be >= 2; got {folds}.")
    patient = patient_codes(len(outcome), groups)
    n_patients = int(patient.max(initial=-1)) + 1
    if n_patients < folds:
        raise InvalidValueError(f"`folds` must not exceed the {n_patients} patients; got {folds}.")
    had_event = np.bincount(patient, weights=outcome.numpy()[1] > 0) > 0
    if had_event.sum() < 2:
        raise FitError(
            f"Cross-validation needs events in at least two patients; got {int(had_event.sum())}. "
            "Use CoxRegression with a fixed `penalty`."
        )
    shuffled = np.random.default_rng(seed).permutation(n_patients)
    events_first = shuffled[np.argsort(~had_event[shuffled], kind="stable")]
    fold_of_patient = np.empty(n_patients, dtype=np.int64)
    fold_of_patient[events_first] = np.arange(n_patients) % folds
    return fold_of_patient[patient]


def patient_codes(rows: int, groups: object | None) -> Int64[np.ndarray, " instance"]:
    """Patients of the rows, numbered from 0 in the order in which they appear.

    Args:
        rows: Number of rows.
        groups: Patient of each row; None where every row is a patient.

    Raises:
        InvalidValueError: If `groups` has another length or a missing value.
    """
    labels = np.arange(rows) if groups is None else np.asarray(groups)
    if labels.shape != (rows,):
        raise InvalidValueError(f"`groups` must name one patient per row; got {labels.shape} for {rows} rows.")
    patient = pd.factorize(labels)[0].astype(np.int64)
    if (patient < 0).any():
        raise InvalidValueError(f"`groups` must not be missing; got {int((patient < 0).sum())} such values.")
    return patient

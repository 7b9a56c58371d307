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
    labels = np.arange(len(outcome)) if groups is None else np.asarray(groups)
    if labels.shape != (len(outcome),):
        raise InvalidValueError(f"`groups` must name one patient per row; got {labels.shape} for {len(outcome)} rows.")
    patient, distinct = pd.factorize(labels)
    if (patient < 0).any():
        raise InvalidValueError(f"`groups` must not be missing; got {int((patient < 0).sum())} such values.")
    if len(distinct) < folds:
        raise InvalidValueError(f"`folds` must not exceed the {len(distinct)} patients; got {folds}.")
    had_event = np.bincount(patient, weights=outcome.numpy()[1] > 0) > 0
    if had_event.sum() < 2:
        raise FitError(
            f"Cross-validation needs events in at least two patients; got {int(had_event.sum())}. "
            "Use CoxRegression with a fixed `penalty`."
        )
    shuffled = np.random.default_rng(seed).permutation(len(distinct))
    events_first = shuffled[np.argsort(~had_event[shuffled], kind="stable")]
    fold_of_patient = np.empty(len(distinct), dtype=np.int64)
    fold_of_patient[events_first] = np.arange(len(distinct)) % folds
    return fold_of_patient[patient]

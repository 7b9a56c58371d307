"""The patients that are scored, and how sure their scores are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch

from survlens.core.errors import InvalidValueError
from survlens.core.outcome import SurvivalOutcome
from survlens.core.prediction import Interpolation, SurvivalPrediction
from survlens.core.score import Interval, Score
from survlens.evaluate.censoring import CensoringModel
from survlens.study.unit_tables import curve_columns

Draws = np.ndarray
"""How often each row is drawn, (draw, row)."""


@dataclass(frozen=True, slots=True, eq=False)
class Scored:
    """Test patients of one model: one row per patient and fold.

    Where a patient has several images, their risks and their survival probabilities were averaged.

    Attributes:
        patient: Name of each patient.
        fold: Split in which the patient was tested.
        outcome: What was observed.
        risk: Mean risk over the patient's rows; comparable within a fold only.
        survival: Mean survival probabilities, (row, time).
        times: Times of `survival`.
        training: Outcome of the training patients of all folds.
        training_risk: Risk of the training patients of each fold.
    """

    patient: np.ndarray
    fold: np.ndarray
    outcome: SurvivalOutcome
    risk: np.ndarray
    survival: np.ndarray
    times: np.ndarray
    training: SurvivalOutcome
    training_risk: dict[int, np.ndarray]

    @property
    def prediction(self) -> SurvivalPrediction:
        """The curves, as steps between the times they were kept at."""
        with np.errstate(divide="ignore"):
            log_survival = torch.from_numpy(np.log(np.clip(self.survival, 0.0, 1.0)))
        falling = torch.cummin(log_survival, dim=1).values
        return SurvivalPrediction(torch.from_numpy(self.times), falling, Interpolation.STEP, self.outcome.unit)

    def rows_of_folds(self) -> list[np.ndarray]:
        """Rows of each fold."""
        return [np.flatnonzero(self.fold == fold) for fold in np.unique(self.fold)]

    def last_time(self) -> float:
        """The last kept time up to which every score is defined."""
        model = CensoringModel.fit(self.training, self.outcome)
        legal = self.times[(self.times <= model.last_scored(self.outcome)) & (self.times < model.vanishes)]
        if not legal.size:
            raise InvalidValueError("test patients must be followed as long as training patients; they are not.")
        return float(legal[-1])

    def __getitem__(self, rows: np.ndarray) -> Scored:
        return Scored(
            self.patient[rows],
            self.fold[rows],
            self.outcome[rows],
            self.risk[rows],
            self.survival[rows],
            self.times,
            self.training,
            self.training_risk,
        )


def scored_patients(table: pd.DataFrame, unit: str) -> Scored:
    """Averages the rows of each patient.

    Args:
        table: Predictions of one model with one seed.
        unit: Unit of time.
    """
    times, names = curve_columns(table)
    keys = ["fold", "patient"]
    patients = table.groupby([*keys, "part"], sort=True, observed=True)
    # Column by column `agg` takes seconds for hundreds of times; two whole blocks take milliseconds.
    means = patients[["time", "event"]].first().join(patients[["risk", *names]].mean()).reset_index()
    test = means.loc[means["part"] == "test"]
    once = means.loc[means["part"] != "test"].drop_duplicates("patient")
    learnt = means.loc[means["part"] == "train"]
    return Scored(
        test["patient"].to_numpy(),
        test["fold"].to_numpy(),
        SurvivalOutcome.from_arrays(test["time"].to_numpy(), test["event"].to_numpy(), unit),
        test["risk"].to_numpy(),
        test[names].to_numpy(),
        times,
        SurvivalOutcome.from_arrays(once["time"].to_numpy(), once["event"].to_numpy(), unit),
        {int(fold): learnt.loc[learnt["fold"] == fold, "risk"].to_numpy() for fold in learnt["fold"].unique()},
    )


def draws_of(patient: np.ndarray, draws: int, seed: int) -> Draws:
    """Resamples whole patients with replacement: how often each row is drawn, the same for every model of a run."""
    names, code = np.unique(patient, return_inverse=True)
    generator = np.random.default_rng(seed)
    counts = generator.multinomial(len(names), np.full(len(names), 1 / len(names)), size=draws)
    return counts[:, code]


@dataclass(frozen=True, slots=True, eq=False)
class Drawn:
    """A score with its values over resampled patients.

    Attributes:
        score: The score of all patients, with its interval.
        values: Its value on every draw.
    """

    score: Score
    values: np.ndarray

    @staticmethod
    def of(score: Score, values: np.ndarray) -> Drawn:
        """Adds the percentile interval of `values` to a score; none where there are no draws."""
        interval = percentile(values)
        return Drawn(score if interval is None else score.with_interval(interval), values)


def percentile(values: np.ndarray) -> Interval | None:
    """95 % percentile interval over the draws that define the score; None for fewer than 20 of them."""
    defined = values[np.isfinite(values)]
    if len(defined) < 20:
        return None
    lower, upper = np.quantile(defined, [0.025, 0.975])
    return Interval(float(lower), float(upper), 0.95, f"percentile bootstrap of patients, {len(values)} draws")


def within_folds(
    scored: Scored,
    draws: Draws,
    score: Callable[[Scored], Score],
    reweighted: Callable[[Scored], Callable[[Draws], np.ndarray] | None],
) -> Drawn:
    """A score that compares patients, taken within each fold and averaged: risks of two models cannot be compared.

    Args:
        scored: Patients.
        draws: Resamples of them.
        score: The score of some patients.
        reweighted: Makes the function that takes the score over many draws at once; None leaves the interval out.
    """
    folds = scored.rows_of_folds()
    parts = [score(scored[rows]) for rows in folds]
    values = np.array([part.value for part in parts])
    settings = dict(parts[0].settings)
    for key in ("concordant", "discordant", "tied_risk", "comparable", "std_error"):
        settings.pop(key, None)
    if len(folds) > 1:
        settings |= {"folds": len(folds), "pooling": "mean over folds; patients are compared within their fold"}
    value = float(np.nanmean(values)) if np.isfinite(values).any() else float("nan")
    whole = Score(parts[0].name, value, None, parts[0].direction, parts[0].category, settings)
    over = [reweighted(scored[rows]) for rows in folds] if len(draws) else []
    drawn = [function(draws[:, rows]) for function, rows in zip(over, folds, strict=False) if function is not None]
    return Drawn.of(whole, _mean(np.stack(drawn))) if len(drawn) == len(folds) else Drawn(whole, np.empty(0))


def _mean(by_fold: np.ndarray) -> np.ndarray:
    defined = np.isfinite(by_fold)
    total = np.where(defined, by_fold, 0.0).sum(0)
    return np.divide(total, defined.sum(0), out=np.full(by_fold.shape[1], np.nan), where=defined.any(0))

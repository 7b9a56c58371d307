"""The patients that are scored, and how sure their scores are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd
import torch

from survlens.core.errors import DataError, InvalidValueError
from survlens.core.outcome import SurvivalOutcome
from survlens.core.prediction import Interpolation, SurvivalPrediction
from survlens.core.score import Interval, Score
from survlens.evaluate.censoring import CensoringModel
from survlens.study.unit_tables import curve_columns

Draws = np.ndarray
"""How often each row is drawn, (draw, row)."""

_FEWEST_AT_RISK = 10
_LEAST_SHARE_AT_RISK = 0.1
_LEAST_UNCENSORED = 0.1
"""Scores over the follow-up end where fewer are at risk, or where G falls lower: weights above 10 are noise."""


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
        training: Outcome of the training patients of all folds, each patient once.
        training_risk: Risk of the training patients of each fold.
        fold_training: Outcome of each fold's own training patients; `training` where a fold is not named.
    """

    patient: np.ndarray
    fold: np.ndarray
    outcome: SurvivalOutcome
    risk: np.ndarray
    survival: np.ndarray
    times: np.ndarray
    training: SurvivalOutcome
    training_risk: dict[int, np.ndarray]
    fold_training: Mapping[int, SurvivalOutcome] = field(default_factory=dict)

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

    def by_fold(self) -> list[Scored]:
        """The patients of each fold, in the order of `rows_of_folds`, with their fold's own training outcome."""
        parts = [self[rows] for rows in self.rows_of_folds()]
        return [replace(part, training=self.fold_training.get(int(part.fold[0]), self.training)) for part in parts]

    def last_time(self) -> float:
        """The last kept time up to which every score is defined in every fold."""
        return float(self._defined()[-1])

    def scored_until(self) -> float:
        """Where scores over the follow-up end: the last kept time with max(10, 10 %) patients at risk and G >= 0.1.

        Where no kept time has so many, the last event time (someone is at risk there).
        """
        defined = self._defined()
        first_rows = np.unique(self.patient, return_index=True)[1]
        time, event = self.outcome[first_rows].numpy()
        at_risk = len(time) - np.searchsorted(np.sort(time), defined, side="left")
        enough = at_risk >= max(_FEWEST_AT_RISK, _LEAST_SHARE_AT_RISK * len(time))
        for part in self.by_fold():
            enough &= CensoringModel.fit(part.training, part.outcome).curve.at(defined) >= _LEAST_UNCENSORED
        if enough.any():
            return float(defined[enough][-1])
        seen = defined[defined <= time[event > 0].max(initial=0.0)]
        return float(seen[-1] if seen.size else defined[-1])

    def _defined(self) -> np.ndarray:
        defined = self.times
        for part in self.by_fold():
            model = CensoringModel.fit(part.training, self.outcome)
            defined = defined[(defined <= model.last_scored(self.outcome)) & (defined < model.vanishes)]
        if not defined.size:
            raise InvalidValueError("test patients must be followed as long as training patients; they are not.")
        return defined

    def __getitem__(self, rows: np.ndarray) -> Scored:
        return replace(
            self,
            patient=self.patient[rows],
            fold=self.fold[rows],
            outcome=self.outcome[rows],
            risk=self.risk[rows],
            survival=self.survival[rows],
        )


def scored_patients(table: pd.DataFrame, unit: str) -> Scored:
    """Averages the rows of each patient who was followed from time 0; no score is defined for those who entered later.

    Every patient counts once: weights and strata are for the fit.

    Args:
        table: Predictions of one model with one seed.
        unit: Unit of time.

    Raises:
        DataError: If no test patient was followed from time 0.
    """
    table = table.loc[~entered_late(table)]
    if not (table["part"] == "test").any():
        raise DataError(
            "test patients must be followed from time 0 to be scored; all entered later. Leave `entry` out of [data] "
            "if times count from the entry."
        )
    times, names = curve_columns(table)
    keys = ["fold", "patient"]
    patients = table.groupby([*keys, "part"], sort=True, observed=True)
    # Column by column `agg` takes seconds for hundreds of times; two whole blocks take milliseconds.
    means = patients[["time", "event"]].first().join(patients[["risk", *names]].mean()).reset_index()
    test = means.loc[means["part"] == "test"]
    others = means.loc[means["part"] != "test"].drop_duplicates(["fold", "patient"])
    learnt = means.loc[means["part"] == "train"]
    return Scored(
        test["patient"].to_numpy(),
        test["fold"].to_numpy(),
        _outcome(test, unit),
        test["risk"].to_numpy(),
        test[names].to_numpy(),
        times,
        _outcome(others.drop_duplicates("patient"), unit),
        {int(fold): learnt.loc[learnt["fold"] == fold, "risk"].to_numpy() for fold in learnt["fold"].unique()},
        {int(fold): _outcome(others.loc[others["fold"] == fold], unit) for fold in others["fold"].unique()},
    )


def entered_late(table: pd.DataFrame) -> pd.Series:
    """Which rows of a table of predictions are of patients whose observation began after time 0."""
    return table["entry"] > 0 if "entry" in table else pd.Series(False, index=table.index)


def _outcome(patients: pd.DataFrame, unit: str) -> SurvivalOutcome:
    return SurvivalOutcome.from_arrays(patients["time"].to_numpy(), patients["event"].to_numpy(), unit)


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
        scored: Patients; each fold is scored with its own training outcome.
        draws: Resamples of them.
        score: The score of some patients.
        reweighted: Makes the function that takes the score over many draws at once; None leaves the interval out.
    """
    folds, patients = scored.rows_of_folds(), scored.by_fold()
    parts = [score(part) for part in patients]
    values = np.array([part.value for part in parts])
    settings = dict(next((part for part in parts if np.isfinite(part.value)), parts[0]).settings)
    for key in {"n", "n_events"} & set(settings):
        settings[key] = len(scored.outcome) if key == "n" else scored.outcome.n_events
    for key in {"n_cases", "n_controls", "tied_time", "tied_both"} & set(settings):
        settings[key] = sum(int(part.settings.get(key, 0)) for part in parts)
    for key in ("concordant", "discordant", "tied_risk", "comparable", "std_error"):
        settings.pop(key, None)
    if len(folds) > 1:
        settings |= {"folds": len(folds), "pooling": "mean over folds; patients are compared within their fold"}
    value = float(np.nanmean(values)) if np.isfinite(values).any() else float("nan")
    whole = Score(parts[0].name, value, None, parts[0].direction, parts[0].category, settings)
    over = [reweighted(part) for part in patients] if len(draws) else []
    drawn = [function(draws[:, rows]) for function, rows in zip(over, folds, strict=False) if function is not None]
    return Drawn.of(whole, _mean(np.stack(drawn))) if len(drawn) == len(folds) else Drawn(whole, np.empty(0))


def _mean(by_fold: np.ndarray) -> np.ndarray:
    defined = np.isfinite(by_fold)
    total = np.where(defined, by_fold, 0.0).sum(0)
    return np.divide(total, defined.sum(0), out=np.full(by_fold.shape[1], np.nan), where=defined.any(0))

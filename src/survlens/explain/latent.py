"""What the dimensions of a survival-oriented latent space are, and how far they can be trusted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.optimize import linear_sum_assignment

from survlens.core.errors import FitError, InvalidValueError
from survlens.core.outcome import SurvivalOutcome
from survlens.generators.vae import ACTIVE_KL
from survlens.models.classical import CoxRegression

_MOST_INFLATION = 1e6
_CONSTANT = 1e-8


@dataclass(frozen=True, slots=True)
class HazardRatio:
    """A fitted hazard ratio with its 95 % limits and Wald p-value; NaN where it could not be fitted.

    `separated` says that there is none because the covariate separates the events: the likelihood has no maximum.
    """

    hazard_ratio: float
    lower: float
    upper: float
    p: float
    separated: bool = False

    def to_json(self) -> dict[str, float | bool | None]:
        """Plain values; None where undefined."""
        numbers = {"hazard_ratio": self.hazard_ratio, "lower": self.lower, "upper": self.upper, "p": self.p}
        finite = {name: float(value) if np.isfinite(value) else None for name, value in numbers.items()}
        return {**finite, "separated": self.separated}


@dataclass(frozen=True, slots=True)
class LatentDimension:
    """One latent dimension, read by a Cox model fitted on the training latents.

    Attributes:
        dimension: Number of the dimension, from 1.
        sd: Standard deviation of its latent mean over training instances.
        mean: Mean of it.
        head_weight: The model's own weight per latent unit, or None for a head that has none.
        hazard_ratio: Factor on the hazard per standard deviation, all other dimensions held.
        lower: Lower 95 % limit of `hazard_ratio`.
        upper: Upper limit.
        p: Wald p-value.
        mean_kl: Mean KL from the prior, in nats.
        reliability: Mean over other seeds of the correlation with its match there; None for one seed.
        held_out: The same Cox model fitted on held-out patients, or None without any.
        univariable: A Cox model of this dimension alone, or None where it was not asked for.
        univariable_held_out: Whether `univariable` was fitted on held-out patients, not on training patients.
        variance_inflation: 1 / (1 - R^2) of this dimension on the others in training patients; at most a million.
        pixel_change: Mean absolute change of the decoded image from -2 to +2 standard deviations.
        separated: Whether `hazard_ratio` is missing because the dimension separates the events.
    """

    dimension: int
    sd: float
    mean: float
    head_weight: float | None
    hazard_ratio: float
    lower: float
    upper: float
    p: float
    mean_kl: float
    reliability: float | None
    held_out: HazardRatio | None = None
    univariable: HazardRatio | None = None
    univariable_held_out: bool = False
    variance_inflation: float | None = None
    pixel_change: float | None = None
    separated: bool = False

    @property
    def active(self) -> bool:
        """Whether the decoder uses the dimension: mean KL above 0.05 nats."""
        return self.mean_kl > ACTIVE_KL

    @property
    def importance(self) -> float:
        """Size of what one standard deviation does to the log-hazard in the model itself: |head weight| * sd.

        A head without weights leaves the post-hoc fit: |log hazard ratio|, 0 where it could not be fitted. That fit
        alone would order badly where latents say the same twice, because then it cannot tell them apart.
        """
        if self.head_weight is not None:
            return abs(self.head_weight) * self.sd
        return abs(float(np.log(self.hazard_ratio))) if np.isfinite(self.hazard_ratio) else 0.0

    def to_json(self) -> dict[str, object]:
        """Plain values."""
        per_sd = None if self.head_weight is None else self.head_weight * self.sd
        numbers = HazardRatio(self.hazard_ratio, self.lower, self.upper, self.p, self.separated).to_json()
        alone = self.univariable
        return {
            "dimension": self.dimension,
            "sd": self.sd,
            "mean": self.mean,
            "head_weight": self.head_weight,
            "head_weight_per_sd": per_sd,
            **numbers,
            "mean_kl": self.mean_kl,
            "active": self.active,
            "reliability": self.reliability,
            "importance": self.importance,
            "held_out": None if self.held_out is None else self.held_out.to_json(),
            "univariable": None if alone is None else alone.to_json() | {"held_out": self.univariable_held_out},
            "variance_inflation": self.variance_inflation,
            "pixel_change": self.pixel_change,
        }


def latent_dimensions(
    latents: np.ndarray,
    outcome: SurvivalOutcome,
    *,
    mean_kl: np.ndarray,
    head_weights: np.ndarray | None = None,
    reliability: np.ndarray | None = None,
    patient: np.ndarray | None = None,
) -> tuple[LatentDimension, ...]:
    """Reads every dimension by a post-hoc Cox fit on the training latent means, in their own order.

    A head's weight alone cannot be read: weight and latent scale trade off, and with a small learning rate much of the
    weight is its initial value. The Cox fit per standard deviation has neither fault, and an interval.

    Args:
        latents: Latent means of the *training* instances, (instance, dimension).
        outcome: Their outcome.
        mean_kl: Mean KL of each dimension.
        head_weights: The head's own weights.
        reliability: As `dimension_reliability` gives it.
        patient: Patient of each row; rows of one patient are averaged first, so that a patient counts once.

    Raises:
        InvalidValueError: If `latents` and `outcome` have different numbers of rows.
    """
    if latents.ndim != 2 or len(latents) != len(outcome):
        raise InvalidValueError(f"`latents` must have one row per instance; got {latents.shape} for {len(outcome)}.")
    if patient is not None:
        latents, outcome = per_patient(latents, outcome, patient)
    mean, sd = latents.mean(0), latents.std(0)
    ratios = _cox_ratios((latents - mean) / np.where(sd > _CONSTANT, sd, np.inf), outcome)
    return tuple(
        LatentDimension(
            dimension=j + 1,
            sd=float(sd[j]),
            mean=float(mean[j]),
            head_weight=None if head_weights is None else float(head_weights[j]),
            hazard_ratio=ratios[j].hazard_ratio,
            lower=ratios[j].lower,
            upper=ratios[j].upper,
            p=ratios[j].p,
            separated=ratios[j].separated,
            mean_kl=float(mean_kl[j]),
            reliability=None if reliability is None else float(reliability[j]),
        )
        for j in range(latents.shape[1])
    )


def _cox_ratios(
    standardised: np.ndarray, outcome: SurvivalOutcome, names: Sequence[str] | None = None
) -> list[HazardRatio]:
    """Hazard ratio of each column in one fit; NaN for constant columns and where the fit fails."""
    import pandas as pd

    missing = float("nan")
    found = [HazardRatio(missing, missing, missing, missing)] * standardised.shape[1]
    used = np.flatnonzero(standardised.std(0) > _CONSTANT).tolist()
    called = names or [f"latent dimension {number}" for number in range(1, len(found) + 1)]
    if len(used):
        frame = pd.DataFrame(standardised[:, used], columns=pd.Index([called[column] for column in used]))
        try:
            table = CoxRegression(unit=outcome.unit).fit(frame, outcome).summary()
        except FitError:
            return found  # too few events for so many dimensions: they stay undefined and are reported so
        numbers = table[["hazard_ratio", "lower", "upper", "p"]].to_numpy(dtype=np.float64).tolist()
        for column, row, separated in zip(used, numbers, table["separated"], strict=True):
            found[column] = HazardRatio(*row[:4], separated=bool(separated))
    return found


@dataclass(frozen=True, slots=True, eq=False)
class LatentRows:
    """Latent means (instance, dimension) of a part of the cohort, with outcome and patient of each row."""

    latents: np.ndarray
    outcome: SurvivalOutcome
    patient: np.ndarray

    def standardised(self, dimensions: Sequence[LatentDimension]) -> tuple[np.ndarray, SurvivalOutcome]:
        """One row per patient, in standard deviations of the *training* latents."""
        values, outcome = per_patient(self.latents, self.outcome, self.patient)
        mean, sd = np.array([d.mean for d in dimensions]), np.array([d.sd for d in dimensions])
        return (values - mean) / np.where(sd > _CONSTANT, sd, np.inf), outcome


def check_dimensions(
    dimensions: Sequence[LatentDimension], *, training: LatentRows, held_out: LatentRows | None = None
) -> tuple[LatentDimension, ...]:
    """Adds what tells a real dimension from noise and overlap: held-out and univariable fits, variance inflation.

    The patients that trained the model show hazard ratios even for pure noise; held-out patients do not.

    Args:
        dimensions: As `latent_dimensions` gives them for `training`.
        training: Rows that trained the model.
        held_out: Rows that did not, or None; univariable fits then come from the training rows.
    """
    values, outcome = training.standardised(dimensions)
    inflation = variance_inflation(values)
    adjusted = None
    if held_out is not None:
        values, outcome = held_out.standardised(dimensions)
        adjusted = _cox_ratios(values, outcome)
    alone = [
        _cox_ratios(column[:, None], outcome, [f"latent dimension {each.dimension}"])[0]
        for column, each in zip(values.T, dimensions, strict=True)
    ]
    return tuple(
        replace(
            each,
            held_out=None if adjusted is None else adjusted[j],
            univariable=alone[j],
            univariable_held_out=held_out is not None,
            variance_inflation=float(inflation[j]) if np.isfinite(inflation[j]) else None,
        )
        for j, each in enumerate(dimensions)
    )


def variance_inflation(values: np.ndarray) -> np.ndarray:
    """1 / (1 - R^2) of each column on the others: diagonal of the inverse correlation matrix.

    NaN for a constant column; a million where columns say exactly the same.
    """
    used = values.std(0) > _CONSTANT
    found = np.full(values.shape[1], np.nan)
    if not used.any():
        return found
    try:
        inverse = np.linalg.inv(np.atleast_2d(np.corrcoef(values[:, used].T))).diagonal()
    except np.linalg.LinAlgError:
        inverse = np.full(int(used.sum()), _MOST_INFLATION)
    sound = (inverse > 1 - 1e-6) & (inverse < _MOST_INFLATION)
    found[used] = np.where(sound, np.maximum(inverse, 1.0), _MOST_INFLATION)
    return found


def per_patient(
    values: np.ndarray, outcome: SurvivalOutcome, patient: np.ndarray
) -> tuple[np.ndarray, SurvivalOutcome]:
    """Means of `values` over the rows of each patient, with the patient's outcome, in order of first appearance."""
    _, first, inverse = np.unique(patient, return_index=True, return_inverse=True)
    counts = np.bincount(inverse)
    means = np.stack([np.bincount(inverse, weights=column) / counts for column in values.T], axis=1)
    order = np.argsort(first)
    return means[order], outcome[first[order]]


def dimension_reliability(latents: Sequence[np.ndarray], *, of: int = 0) -> np.ndarray | None:
    """How well each dimension of one run is found again by runs with other seeds.

    Dimensions are matched one to one by the largest sum of absolute correlations over the same instances (linear
    assignment); the result is the mean matched correlation over the other runs, in [0, 1].

    Args:
        latents: Latent means of the same instances by each run.
        of: Index of the run whose dimensions are judged.

    Returns:
        One value per dimension, or None for a single run.
    """
    if len(latents) < 2:
        return None
    own = latents[of]
    found = []
    for other in (run for index, run in enumerate(latents) if index != of):
        with np.errstate(divide="ignore", invalid="ignore"):
            joint = np.corrcoef(own.T, other.T)[: own.shape[1], own.shape[1] :]
        strength = np.nan_to_num(np.abs(joint))
        rows, columns = linear_sum_assignment(-strength)
        matched = np.zeros(own.shape[1])
        matched[rows] = strength[rows, columns]
        found.append(matched)
    return np.mean(found, axis=0)


@dataclass(frozen=True, slots=True, eq=False)
class PrincipalComponents:
    """Directions of largest variance, fitted on training latents.

    Attributes:
        mean: Mean of the training latents.
        components: One unit vector per row; the sign makes its largest entry positive.
        explained: Share of the variance along each.
    """

    mean: np.ndarray
    components: np.ndarray
    explained: np.ndarray

    @staticmethod
    def fit(latents: np.ndarray, *, components: int = 2) -> PrincipalComponents:
        """Fits on training rows only."""
        mean = latents.mean(0)
        _, singular, directions = np.linalg.svd(latents - mean, full_matrices=False)
        directions = directions[:components]
        leading = np.abs(directions).argmax(1)
        directions = directions * np.sign(directions[np.arange(len(directions)), leading])[:, None]
        total = float((singular**2).sum())
        share = singular[:components] ** 2 / total if total > 0 else np.zeros(components)
        return PrincipalComponents(mean, directions, share)

    def transform(self, latents: np.ndarray) -> np.ndarray:
        """Coordinates of any rows."""
        return (latents - self.mean) @ self.components.T

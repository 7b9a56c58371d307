"""Directions in a latent space: towards a higher hazard, towards a higher age, and one without the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum

import numpy as np
from jaxtyping import Float64

from survlens.core.choices import check_choice
from survlens.core.errors import FitError, InvalidValueError
from survlens.core.outcome import SurvivalOutcome
from survlens.data.fitted_on import FittedOn
from survlens.explain.latent_frame import LatentFrame, Latents
from survlens.models.cross_fitting import patient_codes
from survlens.models.penalised import PartialRidgeCox

Vector = Float64[np.ndarray, " latent"]
Columns = Float64[np.ndarray, "instance covariate"]
_PENALTIES = np.geomspace(1e4, 1e-2, 19)
_PARALLEL = 1e-6


class Metric(Enum):
    """The length in which a direction is the steepest rise of what its model predicts.

    - STANDARDISED: each dimension in its own standard deviation; the direction is that of the coefficients b.
    - WHITENED: Mahalanobis distance; the direction is C b, with C the correlation of the latents. It is how latents
      differ between instances of high and of low prediction, so a step along it stays where instances are, while b may
      leave them: a coefficient also cancels what disturbs another dimension (Haufe et al. 2014).
    """

    STANDARDISED = "standardised"
    WHITENED = "whitened"


@dataclass(frozen=True, slots=True, eq=False)
class LatentDirection:
    """A direction of standardised latents, and the linear model that it came from.

    Attributes:
        name: What it leads to, in words.
        vector: The direction, of length 1 in standardised space.
        step: Length along `vector` at which the model's prediction has changed by one standard deviation.
        weights: Coefficients of the model on standardised latents; those of the measured model for a control.
        spread: Standard deviation of weights . v over the training instances.
        penalty: Penalty of the model.
        metric: The length in which it is steepest.
        frame: The frame in which latents are standardised.
        fitted_on: The patients of the model.
    """

    name: str
    vector: Vector
    step: float
    weights: Vector
    spread: float
    penalty: float
    metric: Metric
    frame: LatentFrame
    fitted_on: FittedOn

    @property
    def length(self) -> float:
        """Mahalanobis length of one `step`."""
        return float(np.linalg.norm(self.frame.inverse @ self.vector) * self.step)

    def predict(self, latents: np.ndarray) -> np.ndarray:
        """Prediction of the linear model in its training standard deviations, 0 at the training mean."""
        return self.frame.standardise(latents) @ self.weights / self.spread

    def along(self, name: str, vector: Vector) -> LatentDirection:
        """Another direction, of the same model: `vector` is brought to length 1 and steps are measured along it.

        Raises:
            FitError: If the prediction does not change along `vector`.
        """
        unit = vector / max(float(np.linalg.norm(vector)), 1e-300)
        slope = float(self.weights @ unit)
        if slope <= _PARALLEL * float(np.linalg.norm(self.weights)):
            raise FitError(
                f"the prediction must rise along {name!r}; it does not. Latents hold nothing of it but what was taken "
                "out, or the model has no effect: use more patients or another version."
            )
        return replace(self, name=name, vector=unit, step=self.spread / slope)


def health_direction(
    frame: LatentFrame,
    latents: Latents,
    outcome: SurvivalOutcome,
    *,
    patient: Sequence[object] | np.ndarray | None = None,
    covariates: Columns | None = None,
    metric: Metric = Metric.WHITENED,
    seed: int = 0,
) -> LatentDirection:
    """The direction in which the hazard rises, from a ridge Cox regression whose penalty is cross-validated.

    The model is lambda(t | v) = lambda_0(t) exp(b . v + c . covariates) on standardised latents v; only b is penalised.
    The direction is b or, whitened, C b. One step along it raises b . v by the standard deviation that b . v has over
    the training instances, so edits are counted in standard deviations of predicted risk.

    Args:
        frame: Frame of the training latents.
        latents: Latents of training patients.
        outcome: Their outcome.
        patient: Patient of each row; folds are of whole patients.
        covariates: What the model knows besides, such as age: the direction is then of the hazard at equal covariates.
        metric: The length in which the direction is steepest.
        seed: Seed of the folds.

    Raises:
        InvalidValueError: If lengths differ.
        FitError: If there are too few events, or no penalty of the path leaves an effect.

    References:
        Verweij and van Houwelingen 1994; Haufe et al. 2014; Hagag et al. 2024.
    """
    check_choice("metric", metric, Metric)
    v = _standardised(frame, latents, len(outcome), "outcome")
    model = PartialRidgeCox(seed=seed, unpenalised=_beside(v, covariates)).fit(
        _joined(v, covariates), outcome, groups=patient
    )
    name = "higher hazard" if covariates is None else "higher hazard at equal covariates"
    return _direction(name, model.coef_[: frame.width], model.penalty_, v, frame, metric, patient)


def value_direction(
    frame: LatentFrame,
    latents: Latents,
    values: Float64[np.ndarray, " instance"],
    *,
    name: str = "higher age",
    patient: Sequence[object] | np.ndarray | None = None,
    metric: Metric = Metric.WHITENED,
    seed: int = 0,
) -> LatentDirection:
    """The direction in which a number such as age rises, from a ridge regression whose penalty is cross-validated.

    Args:
        frame: Frame of the training latents.
        latents: Latents of training patients.
        values: The number of each row.
        name: What the direction leads to.
        patient: Patient of each row; folds are of whole patients.
        metric: The length in which the direction is steepest.
        seed: Seed of the folds.

    Raises:
        InvalidValueError: If lengths differ, or `values` are not finite or do not vary.

    References:
        Hoerl and Kennard 1970; Haufe et al. 2014.
    """
    check_choice("metric", metric, Metric)
    v = _standardised(frame, latents, len(values), "values")
    asked = np.asarray(values, dtype=np.float64)
    if not np.isfinite(asked).all() or asked.std() == 0:
        raise InvalidValueError("`values` must be finite and vary; got others. Leave out rows without a value.")
    penalty = ridge_penalty(v, asked, patient, seed=seed)
    weights = ridge_weights(v, asked, penalty)
    return _direction(name, weights, penalty, v, frame, metric, patient)


def without(direction: LatentDirection, other: LatentDirection) -> LatentDirection:
    """The direction after the other model's prediction has been projected out of it, in whitened space.

    With h the direction and a the other model's coefficients in whitened coordinates, h - a (a . h) / (a . a): of all
    directions along which the other model's prediction stands still, the nearest in Mahalanobis length.

    Args:
        direction: LatentDirection to change, such as that of the hazard.
        other: What it shall not change, such as age. Only its model counts, not its metric.

    Raises:
        InvalidValueError: If the two have different frames.
        FitError: If nothing is left.

    References:
        Ravfogel et al. 2020.
    """
    frame = direction.frame
    if other.frame is not frame:
        raise InvalidValueError("`direction` and `other` must share a frame; got two. Fit both in one LatentFrame.")
    h, a = frame.inverse @ direction.vector, frame.root @ other.weights
    left = h - a * float(a @ h) / float(a @ a)
    if np.linalg.norm(left) <= _PARALLEL * np.linalg.norm(h):
        left = np.zeros_like(left)
    return direction.along(f"{direction.name}, {other.name} projected out", frame.root @ left)


def moves(direction: LatentDirection) -> Vector:
    """The direction in whitened coordinates, of length 1: in these, training latents vary alike to all sides."""
    whitened = direction.frame.inverse @ direction.vector
    return whitened / np.linalg.norm(whitened)


def cosine(first: LatentDirection, second: LatentDirection) -> float:
    """Cosine of the angle between two directions in the whitened space of the first."""
    other = first.frame.inverse @ second.vector
    return float(moves(first) @ other / np.linalg.norm(other))


def ridge_weights(v: Latents, values: Float64[np.ndarray, " instance"], penalty: float) -> Vector:
    """Coefficients that minimise |values - mean - v b|^2 / n + penalty * |b|^2 on centred rows."""
    from scipy.linalg import solve

    rows, centred = v - v.mean(0), values - values.mean()
    products = rows.T @ rows + penalty * len(v) * np.eye(v.shape[1])
    return solve(products, rows.T @ centred, assume_a="pos")


def ridge_penalty(
    v: Latents, values: Float64[np.ndarray, " instance"], patient: Sequence[object] | np.ndarray | None, *, seed: int
) -> float:
    """The penalty of the smallest squared error over five folds of whole patients."""
    code = patient_codes(len(v), patient)
    fold = np.random.default_rng(seed).permutation(int(code.max()) + 1)[code] % 5
    error = np.zeros(len(_PENALTIES))
    for k in np.unique(fold):
        train, test = fold != k, fold == k
        mean = v[train].mean(0)
        axes, size, right = np.linalg.svd(v[train] - mean, full_matrices=False)
        target = axes.T @ (values[train] - values[train].mean()) * size
        shrunk = target / (size**2 + _PENALTIES[:, None] * train.sum())
        predicted = values[train].mean() + (v[test] - mean) @ right.T @ shrunk.T
        error += np.square(values[test, None] - predicted).sum(0)
    return float(_PENALTIES[int(np.argmin(error))])


def _direction(
    name: str,
    weights: Vector,
    penalty: float,
    v: Latents,
    frame: LatentFrame,
    metric: Metric,
    patient: Sequence[object] | np.ndarray | None,
) -> LatentDirection:
    names = range(len(v)) if patient is None else patient
    spread = float((v @ weights).std())
    if spread <= 1e-12:
        raise FitError(f"the model of {name!r} must have an effect; all of its coefficients are 0.")
    blank = LatentDirection(
        name, weights, 1.0, weights, spread, penalty, metric, frame, FittedOn.of(f"direction of {name}", names)
    )
    return blank.along(name, steepest(weights, frame, metric))


def steepest(weights: Vector, frame: LatentFrame, metric: Metric) -> Vector:
    """The direction in which weights . v rises fastest per unit of length, not normalised."""
    return weights if metric is Metric.STANDARDISED else frame.root @ (frame.root @ weights)


def _standardised(frame: LatentFrame, latents: Latents, rows: int, what: str) -> Latents:
    v = frame.standardise(latents)
    if v.ndim != 2 or len(v) != rows:
        raise InvalidValueError(f"`latents` must have one row per row of `{what}`; got {v.shape} for {rows}.")
    return v


def _joined(v: Latents, covariates: Columns | None) -> np.ndarray:
    if covariates is None:
        return v
    beside = np.asarray(covariates, dtype=np.float64)
    if beside.ndim != 2 or len(beside) != len(v):
        raise InvalidValueError(f"`covariates` must have one row per latent vector; got {beside.shape} for {len(v)}.")
    return np.hstack([v, beside])


def _beside(v: Latents, covariates: Columns | None) -> tuple[int, ...]:
    return () if covariates is None else tuple(range(v.shape[1], v.shape[1] + np.shape(covariates)[1]))

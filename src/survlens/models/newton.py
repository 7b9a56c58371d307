"""Newton's method for the Cox partial likelihood, plain or with a ridge."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64
from scipy.linalg import cho_factor, cho_solve, eigh
from sklearn.exceptions import ConvergenceWarning

from survlens.core.errors import FitError
from survlens.models.partial_likelihood import RiskSets

_DEPENDENT = 1e-9
_MONOTONE = 1e-6
_ROUNDING = 1e-7
"""Expected gain, as a share of the log-likelihood, that rounding may hide where log-risks are in the hundreds."""
_TAKES_PART = 0.01
"""Share of a direction's largest component, in standardised columns, from which a column takes part in it."""


@dataclass(frozen=True, slots=True, eq=False)
class CoxFit:
    """A maximum of the (penalised) partial likelihood, for standardised covariates.

    Attributes:
        coef: Log hazard ratios.
        log_likelihood: Log partial likelihood at `coef`, without the penalty.
    """

    coef: Float64[np.ndarray, " feature"]
    log_likelihood: float


def maximise(
    risk_sets: RiskSets,
    X: Float64[np.ndarray, "instance feature"],
    *,
    ridge: float = 0.0,
    start: Float64[np.ndarray, " feature"] | None = None,
    tolerance: float = 1e-12,
    max_steps: int = 100,
) -> CoxFit:
    """Maximises log-likelihood - ridge / 2 * |coef|^2 by Newton's method with step halving.

    The last step is taken when the expected gain falls under `tolerance`, or below what rounding can tell; as the
    method converges quadratically, the coefficients are then exact to about `tolerance` standard errors.

    Args:
        risk_sets: Risk sets of the rows.
        X: Standardised covariates, rows in the order of the risk sets.
        ridge: Weight of the penalty.
        start: Where to start; zero by default.
        tolerance: Gain at which to stop.
        max_steps: Most steps.

    Raises:
        FitError: If no step improves the likelihood, or `max_steps` do not suffice.
    """

    def objective(candidate: np.ndarray) -> float:
        return float(risk_sets.log_likelihood(X @ candidate)) - ridge / 2 * float(candidate @ candidate)

    coef = np.zeros(X.shape[1]) if start is None else start
    value = objective(coef)
    for _ in range(max_steps):
        gradient = risk_sets.gradient(X, X @ coef) - ridge * coef
        step, gain = _newton_step(gradient, risk_sets.information(X, X @ coef) + ridge * np.eye(len(coef)))
        higher = _uphill(objective, coef, step, value)
        if higher is None and gain > _ROUNDING * (1 + abs(value)):
            raise FitError(
                f"The Cox fit cannot climb (expected gain {gain:.2g}). Set a penalty, or rescale the covariates."
            )
        coef, value = higher or (coef, value)
        if higher is None or gain <= tolerance:
            return CoxFit(coef, value + ridge / 2 * float(coef @ coef))
    raise FitError(
        f"The Cox fit must converge within {max_steps} steps; it did not. "
        "Set a penalty, or remove covariates that separate the events."
    )


def _newton_step(gradient: np.ndarray, curvature: np.ndarray) -> tuple[np.ndarray, float]:
    scale = float(np.trace(curvature)) / max(len(gradient), 1)
    for damping in (0.0, 1e-10, 1e-6, 1e-2, 1.0):
        try:
            step = cho_solve(cho_factor(curvature + damping * scale * np.eye(len(gradient))), gradient)
        except np.linalg.LinAlgError:
            continue
        return step, float(gradient @ step)
    raise FitError("The information matrix of the Cox fit is not positive. Set a penalty, or remove covariates.")


def _uphill(
    objective: Callable[[np.ndarray], float], coef: np.ndarray, step: np.ndarray, value: float
) -> tuple[np.ndarray, float] | None:
    """The first point along the halved steps that is not lower; None where there is none."""
    slack = 1e-11 * (1 + abs(value))
    for halving in range(40):
        candidate = coef + step * 0.5**halving
        reached = objective(candidate)
        if reached >= value - slack:
            return candidate, reached
    return None


def independent_columns(X: Float64[np.ndarray, "instance feature"]) -> Bool[np.ndarray, " feature"]:
    """Which columns are neither constant nor a linear combination of earlier ones.

    The covariance is swept column by column, as in R's `coxph`: a column of which less than 1e-9 of the variance is
    left is dependent.
    """
    centred = X - X.mean(0)
    spread = np.sqrt((centred**2).sum(0))
    varies = spread > 1e-12 * np.sqrt(len(X)) * np.maximum(1.0, np.abs(X).max(0, initial=0.0))
    scaled = centred / np.where(varies, spread, 1.0)
    keep = varies.copy()
    keep[varies] = independent((scaled.T @ scaled)[np.ix_(varies, varies)])
    return keep


def told_columns(X: Float64[np.ndarray, "instance feature"], risk_sets: RiskSets) -> Bool[np.ndarray, " feature"]:
    """Which columns the risk sets say something about that earlier ones do not.

    Args:
        X: Standardised covariates, rows in the order of the risk sets.
        risk_sets: Risk sets of the rows.
    """
    kept = independent_columns(X[risk_sets.followed_to_an_event()])
    if risk_sets.stratum is not None:
        # What is constant in every risk set has no information, though it varies over strata or entries.
        information = risk_sets.information(X[:, kept], np.zeros(len(X)))
        kept[kept] = independent(information / float(risk_sets.count.sum()))
    return kept


def independent(products: Float64[np.ndarray, "feature feature"]) -> Bool[np.ndarray, " feature"]:
    """Which rows of a positive matrix, of diagonal near one, are no linear combination of earlier ones."""
    rest, keep = products, np.zeros(len(products), dtype=bool)
    for j in range(len(products)):
        keep[j] = rest[j, j] > _DEPENDENT
        if keep[j]:
            rest = rest - np.outer(rest[:, j], rest[j]) / rest[j, j]
    return keep


def is_monotone(
    information: Float64[np.ndarray, "feature feature"], null_information: Float64[np.ndarray, "feature feature"]
) -> bool:
    """Whether a direction keeps less than a millionth of the information that it had at zero.

    Then events and covariates are separated: the likelihood rises forever, and the coefficient stands where the climb
    was stopped (Heinze and Schemper 2001).
    """
    return bool(eigh(information, null_information, eigvals_only=True)[0] <= _MONOTONE)


def endless_directions(
    information: Float64[np.ndarray, "feature feature"], null_information: Float64[np.ndarray, "feature feature"]
) -> Float64[np.ndarray, "feature direction"]:
    """Directions along which the likelihood rises forever, or no longer says anything; see `is_monotone`.

    Columns that take no part in any of them are exactly zero.

    Args:
        information: Information at the coefficients.
        null_information: Information at zero.
    """
    if not len(information):
        return np.empty((0, 0))
    kept, directions = eigh(information, null_information)
    endless = directions[:, kept <= _MONOTONE]
    share = np.abs(endless) * np.sqrt(np.diag(null_information))[:, None]
    takes_part = (share > _TAKES_PART * share.max(axis=0, initial=0.0)).any(axis=1)
    return np.where(takes_part[:, None], endless, 0.0)


def separated_columns(
    information: Float64[np.ndarray, "feature feature"], null_information: Float64[np.ndarray, "feature feature"]
) -> Bool[np.ndarray, " feature"]:
    """Which columns take part in a direction along which the likelihood rises forever; see `is_monotone`.

    Their coefficients have no finite maximum, or none at all: where one column separates all events, the others say
    nothing more. Columns beside them keep theirs.

    Args:
        information: Information at the coefficients.
        null_information: Information at zero.
    """
    return (endless_directions(information, null_information) != 0).any(axis=1)


def warn_of_separation(
    separated: Bool[np.ndarray, " feature"], coef: np.ndarray, names: Sequence[str], next_step: str
) -> None:
    """Warns of columns that separate the events, the one with the largest coefficient first.

    Args:
        separated: As `separated_columns` gives them.
        coef: Coefficients of the standardised columns, where the climb was stopped.
        names: Names of the columns.
        next_step: What may be done.
    """
    if not separated.any():
        return
    first, *others = sorted(np.flatnonzero(separated).tolist(), key=lambda column: -abs(coef[column]))
    more = f", nor are those of {', '.join(repr(names[each]) for each in others[:5])}" if others else ""
    more += f" and {len(others) - 5} more" if len(others) > 5 else ""
    warnings.warn(
        f"The likelihood has no maximum: {names[first]!r} separates the events, and its coefficient may be infinite. "
        f"Its hazard ratio is not known{more}. {next_step}",
        ConvergenceWarning,
        stacklevel=4,
    )

"""The small Cox fit inside calibration scores; None where the likelihood has no maximum."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from survlens.core.errors import FitError
from survlens.core.outcome import SurvivalOutcome
from survlens.core.ties import Ties
from survlens.models.newton import is_monotone, maximise
from survlens.models.partial_likelihood import RiskSets


@dataclass(frozen=True, slots=True, eq=False)
class CoxFit:
    """Coefficients of the columns of a design with their standard errors."""

    coefficients: np.ndarray
    standard_errors: np.ndarray


def fit_cox(design: np.ndarray, outcome: SurvivalOutcome) -> CoxFit | None:
    """Maximises Efron's partial likelihood.

    Args:
        design: One row per instance; few columns.
        outcome: What was observed; at least one event.
    """
    scale = design.std(0)
    if not (scale > 0).all():
        return None
    risk_sets = RiskSets.of(outcome, Ties.EFRON)
    columns = ((design - design.mean(0)) / scale)[risk_sets.order]
    try:
        coef = maximise(risk_sets, columns).coef
        information = risk_sets.information(columns, columns @ coef)
        if is_monotone(information, risk_sets.information(columns, np.zeros(len(columns)))):
            return None
        variance = np.diag(np.linalg.inv(information))
    except (FitError, np.linalg.LinAlgError):
        return None
    return CoxFit(coef / scale, np.sqrt(variance) / scale)

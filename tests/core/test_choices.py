"""A string where a choice is asked for is refused: it would silently be taken for another member."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from survlens.core.errors import InvalidTypeError
from survlens.core.grid import TimeGrid
from survlens.core.nonparametric import breslow_baseline, kaplan_meier
from survlens.core.outcome import SurvivalOutcome
from survlens.core.prediction import Interpolation, SurvivalPrediction
from survlens.data.prediction_frames import prediction_frame
from survlens.evaluate.accuracy import brier_score
from survlens.heads.cox import CoxPH
from survlens.heads.cox_time import CoxTime
from survlens.losses.cox import cox_partial_likelihood
from survlens.losses.discrete import pmf_loss
from survlens.models.classical import CoxRegression
from survlens.models.cox_inference import proportional_hazards_test, survival_interval
from survlens.models.fusion import Concatenation
from survlens.training.table_estimators import TableSurvival

TIMES, X = [1.0, 1.0, 2.0, 3.0, 4.0, 5.0], np.array([[0.0], [2.0], [1.0], [1.0], [3.0], [0.0]])
OUTCOME = SurvivalOutcome.from_arrays(TIMES, [1, 1, 1, 0, 1, 0], "months")
CURVES = SurvivalPrediction(torch.tensor([5.0]), -torch.ones(6, 1), Interpolation.LINEAR, "months")
GRID = TimeGrid.equidistant(5.0, 2, "months")
FITTED = CoxRegression().fit(X, OUTCOME)

CASES: dict[str, Callable[[], object]] = {
    "loss": lambda: cox_partial_likelihood(torch.zeros(6), OUTCOME, ties="efron"),  # type: ignore[arg-type]
    "credit": lambda: pmf_loss(torch.zeros(6, 2), OUTCOME, GRID, credit="midpoint"),  # type: ignore[arg-type]
    "baseline": lambda: breslow_baseline(np.zeros(6), OUTCOME, ties="efron"),  # type: ignore[arg-type]
    "head": lambda: CoxPH(1, ties="efron"),  # type: ignore[arg-type]
    "CoxTime": lambda: CoxTime(1, time_scale=2.0, ties="efron"),  # type: ignore[arg-type]
    "regression": lambda: CoxRegression(ties="efron").fit(X, OUTCOME),  # type: ignore[arg-type]
    "transform": lambda: proportional_hazards_test(FITTED, X, OUTCOME, transform="km"),  # type: ignore[arg-type]
    "limits of a model": lambda: survival_interval(FITTED, X, OUTCOME, X, [2.0], limits="log"),  # type: ignore[arg-type]
    "limits": lambda: kaplan_meier(OUTCOME, limits="log"),  # type: ignore[arg-type]
    "interpolation": lambda: SurvivalPrediction(CURVES.times, CURVES.log_survival, "step", "months"),  # type: ignore[arg-type]
    "layout": lambda: prediction_frame(CURVES, layout="times"),  # type: ignore[arg-type]
    "null model": lambda: brier_score(CURVES, OUTCOME, [2.0], training=OUTCOME, null_model="training"),  # type: ignore[arg-type]
    "missing": lambda: Concatenation(["a"], [2], missing="learned"),  # type: ignore[arg-type]
    "family": lambda: TableSurvival(head="pmf").fit(X, OUTCOME),  # type: ignore[arg-type]
    "grid": lambda: TableSurvival(grid="quantile").fit(X, OUTCOME),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("name", CASES)
def test_a_string_in_the_place_of_a_choice_is_refused(name: str) -> None:
    with pytest.raises(InvalidTypeError, match=r"must be a \w+; got '\w+'\. Choose one of \w+\.[A-Z_]+"):
        CASES[name]()

"""survlens shows what a survival model sees.

The names below are lifted here from their packages; each is imported when it is first used, so that `import survlens`
costs next to nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from survlens.core.competing import CompetingRisksPrediction as CompetingRisksPrediction
    from survlens.core.grid import TimeGrid as TimeGrid
    from survlens.core.nonparametric import kaplan_meier as kaplan_meier
    from survlens.core.outcome import SurvivalOutcome as SurvivalOutcome
    from survlens.core.prediction import SurvivalPrediction as SurvivalPrediction
    from survlens.core.score import Score as Score
    from survlens.data.cohort import Cohort as Cohort
    from survlens.data.preprocessing import Preprocessing as Preprocessing
    from survlens.data.schema import CohortSchema as CohortSchema
    from survlens.data.splits import holdout as holdout
    from survlens.data.splits import k_fold as k_fold
    from survlens.evaluate.accuracy import brier_score as brier_score
    from survlens.evaluate.accuracy import integrated_brier_score as integrated_brier_score
    from survlens.evaluate.concordance import concordance_index as concordance_index
    from survlens.evaluate.uncertainty import bootstrap as bootstrap
    from survlens.evaluate.uncertainty import paired_difference as paired_difference
    from survlens.heads.cox import CoxPH as CoxPH
    from survlens.heads.deephit import DeepHit as DeepHit
    from survlens.heads.logistic_hazard import LogisticHazard as LogisticHazard
    from survlens.models.classical import CoxRegression as CoxRegression
    from survlens.models.cox_vae import CoxVAE as CoxVAE
    from survlens.models.forest import RandomSurvivalForest as RandomSurvivalForest
    from survlens.models.penalised import LassoCox as LassoCox
    from survlens.models.saving import load_model as load_model
    from survlens.models.saving import save_model as save_model
    from survlens.models.survival_model import SurvivalModel as SurvivalModel
    from survlens.training.head_choice import HeadKind as HeadKind
    from survlens.training.image_estimators import CoxVAESurvival as CoxVAESurvival
    from survlens.training.table_estimators import DeepSurv as DeepSurv
    from survlens.training.table_estimators import TableSurvival as TableSurvival

_HOME = {
    "CompetingRisksPrediction": "core.competing",
    "TimeGrid": "core.grid",
    "kaplan_meier": "core.nonparametric",
    "SurvivalOutcome": "core.outcome",
    "SurvivalPrediction": "core.prediction",
    "Score": "core.score",
    "Cohort": "data.cohort",
    "Preprocessing": "data.preprocessing",
    "CohortSchema": "data.schema",
    "holdout": "data.splits",
    "k_fold": "data.splits",
    "brier_score": "evaluate.accuracy",
    "integrated_brier_score": "evaluate.accuracy",
    "concordance_index": "evaluate.concordance",
    "bootstrap": "evaluate.uncertainty",
    "paired_difference": "evaluate.uncertainty",
    "CoxPH": "heads.cox",
    "DeepHit": "heads.deephit",
    "LogisticHazard": "heads.logistic_hazard",
    "CoxRegression": "models.classical",
    "CoxVAE": "models.cox_vae",
    "RandomSurvivalForest": "models.forest",
    "LassoCox": "models.penalised",
    "load_model": "models.saving",
    "save_model": "models.saving",
    "SurvivalModel": "models.survival_model",
    "HeadKind": "training.head_choice",
    "CoxVAESurvival": "training.image_estimators",
    "DeepSurv": "training.table_estimators",
    "TableSurvival": "training.table_estimators",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'survlens' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"survlens.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])

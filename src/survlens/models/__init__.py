"""Encoders, fusion and head as one survival model; classical models behind the same face."""

from survlens.models.classical import (
    CoxRegression as CoxRegression,
)
from survlens.models.classical import (
    KaplanMeierModel as KaplanMeierModel,
)
from survlens.models.estimator import (
    SurvivalEstimator as SurvivalEstimator,
)
from survlens.models.estimator_files import (
    load_estimator as load_estimator,
)
from survlens.models.estimator_files import (
    save_estimator as save_estimator,
)
from survlens.models.forest import RandomSurvivalForest as RandomSurvivalForest
from survlens.models.late_fusion import LateFusion as LateFusion
from survlens.models.penalised import (
    LassoCox as LassoCox,
)
from survlens.models.penalised import (
    PenaltyRule as PenaltyRule,
)
from survlens.models.penalised import (
    RidgeCox as RidgeCox,
)

"""Value objects and estimators every floor shares (torch and numpy only)."""

from survlens.core.aalen_johansen import CumulativeIncidence as CumulativeIncidence
from survlens.core.aalen_johansen import cumulative_incidence as cumulative_incidence
from survlens.core.attribution import Attribution as Attribution
from survlens.core.competing import CompetingRisksPrediction as CompetingRisksPrediction
from survlens.core.errors import (
    CorruptFileError as CorruptFileError,
)
from survlens.core.errors import (
    DataError as DataError,
)
from survlens.core.errors import (
    FitError as FitError,
)
from survlens.core.errors import (
    InvalidTypeError as InvalidTypeError,
)
from survlens.core.errors import (
    InvalidValueError as InvalidValueError,
)
from survlens.core.errors import (
    LeakageError as LeakageError,
)
from survlens.core.errors import (
    MissingDependencyError as MissingDependencyError,
)
from survlens.core.errors import (
    NotFittedError as NotFittedError,
)
from survlens.core.errors import (
    SurvlensError as SurvlensError,
)
from survlens.core.errors import (
    UsageError as UsageError,
)
from survlens.core.grid import EmptyIntervalWarning as EmptyIntervalWarning
from survlens.core.grid import TimeGrid as TimeGrid
from survlens.core.inputs import count_key as count_key
from survlens.core.inputs import present_key as present_key
from survlens.core.nonparametric import (
    EmptyRiskSetWarning as EmptyRiskSetWarning,
)
from survlens.core.nonparametric import (
    Limits as Limits,
)
from survlens.core.nonparametric import (
    StepCurve as StepCurve,
)
from survlens.core.nonparametric import (
    SurvivalCurve as SurvivalCurve,
)
from survlens.core.nonparametric import (
    breslow_baseline as breslow_baseline,
)
from survlens.core.nonparametric import (
    censoring_survival as censoring_survival,
)
from survlens.core.nonparametric import (
    kaplan_meier as kaplan_meier,
)
from survlens.core.nonparametric import (
    log_breslow_baseline as log_breslow_baseline,
)
from survlens.core.nonparametric import (
    nelson_aalen as nelson_aalen,
)
from survlens.core.nonparametric import (
    reverse_kaplan_meier as reverse_kaplan_meier,
)
from survlens.core.outcome import SurvivalOutcome as SurvivalOutcome
from survlens.core.prediction import (
    Extrapolate as Extrapolate,
)
from survlens.core.prediction import (
    Interpolation as Interpolation,
)
from survlens.core.prediction import (
    SurvivalPrediction as SurvivalPrediction,
)
from survlens.core.protocols import (
    BaselineHead as BaselineHead,
)
from survlens.core.protocols import (
    CompetingRisksHead as CompetingRisksHead,
)
from survlens.core.protocols import (
    Head as Head,
)
from survlens.core.protocols import (
    Inputs as Inputs,
)
from survlens.core.protocols import (
    Reduction as Reduction,
)
from survlens.core.protocols import (
    SurvivalPredictor as SurvivalPredictor,
)
from survlens.core.score import (
    Category as Category,
)
from survlens.core.score import (
    Direction as Direction,
)
from survlens.core.score import (
    Interval as Interval,
)
from survlens.core.score import (
    Score as Score,
)
from survlens.core.targets import Scope as Scope
from survlens.core.targets import Target as Target
from survlens.core.targets import cumulative_hazard as cumulative_hazard
from survlens.core.targets import density as density
from survlens.core.targets import hazard_rate as hazard_rate
from survlens.core.targets import incidence_of as incidence_of
from survlens.core.targets import log_hazard_rate as log_hazard_rate
from survlens.core.targets import restricted_mean as restricted_mean
from survlens.core.targets import risk_at as risk_at
from survlens.core.targets import survival as survival
from survlens.core.targets import survival_quantile as survival_quantile
from survlens.core.targets import time_lost_to as time_lost_to
from survlens.core.ties import Ties as Ties

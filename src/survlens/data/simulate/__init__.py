"""Made-up outcomes with a known hazard, on real or drawn inputs."""

from survlens.data.simulate.digits import DigitsStudy as DigitsStudy
from survlens.data.simulate.digits import mnist_survival as mnist_survival
from survlens.data.simulate.digits import scikit_digits_survival as scikit_digits_survival
from survlens.data.simulate.hazards import CensoringTarget as CensoringTarget
from survlens.data.simulate.hazards import exponential_outcome as exponential_outcome
from survlens.data.simulate.portrait_drawing import Drawing as Drawing
from survlens.data.simulate.portrait_drawing import draw as draw
from survlens.data.simulate.portrait_drawing import landmarks_of as landmarks_of
from survlens.data.simulate.portrait_factors import FactorScope as FactorScope
from survlens.data.simulate.portrait_factors import HairStyle as HairStyle
from survlens.data.simulate.portrait_factors import PortraitFactor as PortraitFactor
from survlens.data.simulate.portrait_factors import draw_factors as draw_factors
from survlens.data.simulate.portrait_files import read_portraits as read_portraits
from survlens.data.simulate.portrait_reader import PortraitReader as PortraitReader
from survlens.data.simulate.portrait_reader import read_factors as read_factors
from survlens.data.simulate.portraits import Known as Known
from survlens.data.simulate.portraits import PortraitCohort as PortraitCohort
from survlens.data.simulate.portraits import expected_log_hazard as expected_log_hazard
from survlens.data.simulate.portraits import portrait_cohort as portrait_cohort
from survlens.data.simulate.portraits import portrait_patients as portrait_patients
from survlens.data.simulate.published_hazards import PowerHazard as PowerHazard
from survlens.data.simulate.published_hazards import SimulatedSurvival as SimulatedSurvival
from survlens.data.simulate.published_hazards import time_dependent_hazard as time_dependent_hazard
from survlens.data.simulate.published_hazards import time_dependent_survival as time_dependent_survival
from survlens.data.simulate.published_hazards import time_independent_hazard as time_independent_hazard
from survlens.data.simulate.published_hazards import time_independent_survival as time_independent_survival

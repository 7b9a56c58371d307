"""Made-up outcomes with a known hazard, on real or drawn inputs."""

from survlens.data.simulate.digits import DigitsStudy as DigitsStudy
from survlens.data.simulate.digits import mnist_survival as mnist_survival
from survlens.data.simulate.digits import scikit_digits_survival as scikit_digits_survival
from survlens.data.simulate.hazards import CensoringTarget as CensoringTarget
from survlens.data.simulate.hazards import exponential_outcome as exponential_outcome
from survlens.data.simulate.published_hazards import PowerHazard as PowerHazard
from survlens.data.simulate.published_hazards import SimulatedSurvival as SimulatedSurvival
from survlens.data.simulate.published_hazards import time_dependent_hazard as time_dependent_hazard
from survlens.data.simulate.published_hazards import time_dependent_survival as time_dependent_survival
from survlens.data.simulate.published_hazards import time_independent_hazard as time_independent_hazard
from survlens.data.simulate.published_hazards import time_independent_survival as time_independent_survival

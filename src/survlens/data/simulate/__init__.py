"""Made-up outcomes with a known hazard, on real or drawn inputs."""

from survlens.data.simulate.digits import DigitsStudy as DigitsStudy
from survlens.data.simulate.digits import mnist_survival as mnist_survival
from survlens.data.simulate.digits import scikit_digits_survival as scikit_digits_survival
from survlens.data.simulate.hazards import CensoringTarget as CensoringTarget
from survlens.data.simulate.hazards import exponential_outcome as exponential_outcome

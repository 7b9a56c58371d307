"""Embedding to prediction and loss."""

from survlens.heads.baseline import BaselineHazard as BaselineHazard
from survlens.heads.cox import CoxPH as CoxPH
from survlens.heads.cox_time import CoxTime as CoxTime
from survlens.heads.deephit import DeepHit as DeepHit
from survlens.heads.logistic_hazard import LogisticHazard as LogisticHazard
from survlens.heads.mtlr import MTLR as MTLR
from survlens.heads.pc_hazard import PCHazard as PCHazard
from survlens.heads.pmf import PMF as PMF
from survlens.heads.weibull import Weibull as Weibull

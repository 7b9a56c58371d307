"""Embedding to prediction and loss."""

from survlens.heads.baseline import BaselineHazard as BaselineHazard
from survlens.heads.cox import CoxPH as CoxPH
from survlens.heads.logistic_hazard import LogisticHazard as LogisticHazard

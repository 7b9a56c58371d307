"""How equal event times are treated."""

from enum import Enum


class Ties(Enum):
    """Rule of a partial likelihood and of its baseline hazard for equal event times."""

    EFRON = "efron"
    BRESLOW = "breslow"

"""The shape checker itself: it must catch what no door catches, and leave the doors alone."""

import sys

import pytest
import torch

from shape_check import _Finder
from survlens.core.errors import InvalidValueError
from survlens.core.prediction import Interpolation, SurvivalPrediction
from survlens.core.surfaces import log_survival_from_hazard

pytestmark = pytest.mark.skipif(
    not any(isinstance(finder, _Finder) for finder in sys.meta_path), reason="shapes are not checked in this run"
)


def test_a_wrong_shape_is_caught() -> None:
    with pytest.raises(TypeError, match="instance time"):
        log_survival_from_hazard(torch.zeros(3))


def test_a_wrong_precision_is_caught() -> None:
    with pytest.raises(TypeError, match="instance time"):
        log_survival_from_hazard(torch.zeros(3, 2, dtype=torch.int64))


def test_a_refusal_at_the_door_keeps_its_own_error() -> None:
    with pytest.raises(InvalidValueError, match="one row per instance"):
        SurvivalPrediction(torch.ones(2), torch.zeros(3), Interpolation.STEP, "days")

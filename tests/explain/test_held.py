"""A model is as it was after it has been explained, whatever happened."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from contracts.head_rows import HEADS, WIDTH, example, fitted
from survlens.core.errors import InvalidTypeError, InvalidValueError
from survlens.core.targets import incidence_of
from survlens.explain.gradient import Gradient
from survlens.explain.held import held_still
from survlens.models.survival_model import SurvivalModel

TIMES = torch.tensor([5.0, 20.0], dtype=torch.float64)


def model() -> SurvivalModel:
    encoder = nn.Sequential(nn.Linear(2, WIDTH), nn.BatchNorm1d(WIDTH), nn.Dropout(0.5)).double()
    whole = SurvivalModel(encoder, fitted(HEADS["CoxPH"], example())).train()
    encoder[1].eval()
    next(encoder.parameters()).requires_grad_(False)
    last = list(whole.parameters())[-1]
    last.grad = torch.full_like(last, 7.0)
    return whole


def state(model: SurvivalModel) -> list[object]:
    modes = [module.training for module in model.modules()]
    asked = [parameter.requires_grad for parameter in model.parameters()]
    gradients = [None if each.grad is None else each.grad.tolist() for each in model.parameters()]
    values = [tensor.tolist() for tensor in model.state_dict().values()]
    hooks = [len(module._forward_hooks) for module in model.modules()]
    return [modes, asked, gradients, values, hooks]


def test_untouched_after_success() -> None:
    whole = model()
    before = state(whole)
    Gradient()(whole, {"table": torch.ones((3, 2))}, TIMES)
    assert state(whole) == before


def test_untouched_after_a_bad_target() -> None:
    whole = model()
    before = state(whole)
    with pytest.raises(InvalidTypeError, match="cause"):
        Gradient()(whole, {"table": torch.ones((3, 2))}, TIMES, incidence_of(1))
    assert state(whole) == before


def test_untouched_after_a_time_out_of_range() -> None:
    whole = model()
    before = state(whole)
    with pytest.raises(InvalidValueError, match="times"):
        Gradient()(whole, {"table": torch.ones((3, 2))}, TIMES * 100)
    assert state(whole) == before


def test_untouched_after_an_exception_inside() -> None:
    whole = model()
    before = state(whole)
    with pytest.raises(InvalidValueError, match=r"rows of 'table' of the shape \(5,\) where \(2,\) is due"):
        Gradient()(whole, {"table": torch.ones((3, 5))}, TIMES)
    assert state(whole) == before


def test_a_model_without_a_raw_output_is_refused() -> None:
    with pytest.raises(InvalidTypeError, match="embed"), held_still(nn.Linear(1, 1)):
        pass

"""Equalised layers and the modulated convolution against one kernel per instance."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from generators.stylegan2 import stylegan2_oracle as oracle
from survlens.blocks.modulated import EqualisedLinear, activation, demodulation, modulated_convolution
from survlens.blocks.resampling import smoothing_filter

FILTER = smoothing_filter().double()


def _case(generator: torch.Generator, side: int = 5) -> tuple[Tensor, Tensor, Tensor]:
    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    return draw(3, 4, side, side), draw(6, 4, 3, 3), draw(3, 4)


@pytest.mark.parametrize("rate", [1.0, 0.01])
@pytest.mark.parametrize("active", [False, True])
def test_an_equalised_layer_equals_its_formula(generator: torch.Generator, rate: float, active: bool) -> None:
    layer = EqualisedLinear(7, 5, generator=generator, rate=rate, bias=1.0, active=active).double()
    tensors = {f"layer.{name}": value.detach().numpy() for name, value in layer.named_parameters()}
    x = torch.randn(4, 7, generator=generator, dtype=torch.float64)
    expected = np.stack([oracle.dense(tensors, "layer", instance, rate) for instance in x.numpy()])
    expected = oracle.lrelu(expected) if active else expected
    np.testing.assert_allclose(layer(x).detach().numpy(), expected, rtol=0, atol=1e-12)


def test_equalised_weights_start_at_unit_variance_over_the_rate(generator: torch.Generator) -> None:
    layer = EqualisedLinear(300, 300, generator=generator, rate=0.01, bias=1.0)
    assert layer.weight.std().item() == pytest.approx(100, rel=0.02)
    assert torch.equal(layer.bias, torch.ones(300))
    x = torch.randn(200, 300, generator=generator)
    assert (layer(x) - 0.01).std().item() == pytest.approx(1, rel=0.05)


@pytest.mark.parametrize("doubling", [False, True])
def test_scaling_input_and_output_equals_one_kernel_per_instance(generator: torch.Generator, doubling: bool) -> None:
    x, weight, style = _case(generator)
    offset = torch.randn(6, 1, 1, generator=generator, dtype=torch.float64)
    given = modulated_convolution(x, weight, style, offset, gain=1.5, doubling=FILTER if doubling else None)
    for place in range(3):
        kernel = oracle.modulated(weight.numpy(), style[place].numpy())
        one = x[place].numpy()
        expected = oracle.up_convolution(one, kernel) if doubling else oracle.correlate(one, kernel, 1)
        np.testing.assert_allclose(given[place].numpy(), 1.5 * expected + offset.numpy(), rtol=0, atol=1e-12)


def test_scaling_equals_the_grouped_form(generator: torch.Generator) -> None:
    x, weight, style = (part.float() for part in _case(generator))
    kernels = weight[None] * style[:, None, :, None, None]
    kernels = kernels / (kernels.square().sum(dim=(2, 3, 4), keepdim=True) + 1e-8).sqrt()
    grouped = F.conv2d(x.flatten(0, 1)[None], kernels.flatten(0, 1), padding=1, groups=3).unflatten(1, (3, 6))[0]
    given = modulated_convolution(x, weight, style, torch.zeros(()))
    torch.testing.assert_close(given, grouped, rtol=1e-5, atol=1e-6)


def test_without_demodulation_it_is_linear_in_the_style(generator: torch.Generator) -> None:
    x, weight, style = _case(generator)
    zero = torch.zeros((), dtype=torch.float64)
    once, twice = (modulated_convolution(x, weight, k * style, zero, demodulate=False, gain=0.5) for k in (1, 2))
    torch.testing.assert_close(twice, 2 * once)
    torch.testing.assert_close(once, 0.5 * F.conv2d(x * style[:, :, None, None], weight, padding=1))


def test_demodulation_makes_the_size_of_style_and_weight_irrelevant(generator: torch.Generator) -> None:
    x, weight, style = _case(generator)
    zero = torch.zeros((), dtype=torch.float64)
    torch.testing.assert_close(
        modulated_convolution(x, 30 * weight, 7 * style, zero), modulated_convolution(x, weight, style, zero)
    )
    norm = (weight[None] * style[:, None, :, None, None]).flatten(2).norm(dim=2)
    torch.testing.assert_close(demodulation(weight, style), 1 / norm)


def test_demodulation_keeps_full_precision_under_autocast(generator: torch.Generator) -> None:
    _, weight, style = (part.float() for part in _case(generator))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        given = demodulation(weight, style)
    assert torch.equal(given, demodulation(weight, style))


@pytest.mark.parametrize("doubling", [False, True])
def test_second_derivatives_exist(generator: torch.Generator, doubling: bool) -> None:
    x, weight, style = _case(generator, side=3)
    arguments = [part.requires_grad_() for part in (x[:2, :2], weight[:2, :2], style[:2, :2])]
    kernel = FILTER if doubling else None

    def layer(x: Tensor, weight: Tensor, style: Tensor) -> Tensor:
        y = modulated_convolution(x, weight, style, torch.ones((), dtype=torch.float64), doubling=kernel)
        return activation(y, 3.0)

    assert torch.autograd.gradcheck(layer, arguments)
    assert torch.autograd.gradgradcheck(layer, arguments)


def test_the_activation_has_a_slope_and_a_limit() -> None:
    x = torch.tensor([-100.0, -1.0, 0.0, 2.0, 100.0])[None, :, None, None]
    assert activation(x.clone(), None).flatten().tolist() == pytest.approx([-20, -0.2, 0, 2, 100])
    assert activation(x.clone(), 10.0).flatten().tolist() == pytest.approx([-10, -0.2, 0, 2, 10])
    assert math.isclose(activation(torch.full((1, 1, 1, 1), -0.5), None).item(), -0.1, rel_tol=1e-6)

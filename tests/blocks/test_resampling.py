"""Resampling against zeros put between values and a loop over pixels."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from generators.stylegan2 import stylegan2_oracle as oracle
from survlens.blocks.resampling import (
    doubled,
    doubling_convolution,
    halved,
    halving_convolution,
    smoothing_filter,
)


def _maps(generator: torch.Generator, side: int = 6) -> Tensor:
    return torch.randn(2, 3, side, side, generator=generator, dtype=torch.float64)


def _kernel(generator: torch.Generator) -> Tensor:
    return torch.randn(4, 3, 3, 3, generator=generator, dtype=torch.float64)


def _each(operation: Callable[..., np.ndarray], x: Tensor, *more: np.ndarray) -> Tensor:
    return torch.from_numpy(np.stack([operation(instance, *more) for instance in x.numpy()]))


FILTER = smoothing_filter().double()


def test_the_filter_keeps_the_mean_and_is_symmetric() -> None:
    assert FILTER.sum() == 1.0
    assert torch.equal(FILTER, FILTER.flip(0))
    assert torch.equal(FILTER, FILTER.T)


@pytest.mark.parametrize(("ours", "theirs"), [(doubled, oracle.up), (halved, oracle.down)])
def test_resampling_equals_zero_insertion_and_a_loop(
    generator: torch.Generator, ours: Callable, theirs: Callable
) -> None:
    x = _maps(generator)
    torch.testing.assert_close(ours(x, FILTER), _each(theirs, x), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [(doubling_convolution, oracle.up_convolution), (halving_convolution, oracle.down_convolution)],
)
def test_resampling_convolutions_equal_zero_insertion_and_a_loop(
    generator: torch.Generator, ours: Callable, theirs: Callable
) -> None:
    x, kernel = _maps(generator), _kernel(generator)
    torch.testing.assert_close(ours(x, kernel, FILTER), _each(theirs, x, kernel.numpy()), rtol=0, atol=1e-12)


def test_a_constant_stays_constant_away_from_the_border() -> None:
    x = torch.ones(1, 2, 8, 8, dtype=torch.float64)
    assert torch.allclose(doubled(x, FILTER)[:, :, 1:-1, 1:-1], torch.ones(()).double())
    assert torch.allclose(halved(x, FILTER)[:, :, 1:-1, 1:-1], torch.ones(()).double())


def test_doubling_is_four_times_the_transpose_of_halving(generator: torch.Generator) -> None:
    small, large = _maps(generator, 4), _maps(generator, 8)
    torch.testing.assert_close((doubled(small, FILTER) * large).sum(), 4 * (small * halved(large, FILTER)).sum())


@pytest.mark.parametrize("operation", [doubled, halved, doubling_convolution, halving_convolution])
def test_second_derivatives_exist(generator: torch.Generator, operation: Callable) -> None:
    x = _maps(generator, 4)[:1, :2].requires_grad_()
    kernel = (_kernel(generator)[:2, :2].requires_grad_(),) if "convolution" in operation.__name__ else ()
    # Squared, since a linear map has no second derivative in its input.
    assert torch.autograd.gradgradcheck(lambda *arguments: operation(*arguments, FILTER).square(), (x, *kernel))


@pytest.mark.parametrize("operation", [doubling_convolution, halving_convolution])
def test_the_order_of_memory_does_not_matter(generator: torch.Generator, operation: Callable) -> None:
    x, kernel = _maps(generator).float(), _kernel(generator).float()
    other = x.to(memory_format=torch.channels_last)
    kernel_last = kernel.to(memory_format=torch.channels_last)
    expected = operation(x, kernel, FILTER.float())
    torch.testing.assert_close(operation(other, kernel_last, FILTER.float()), expected, rtol=1e-5, atol=1e-5)

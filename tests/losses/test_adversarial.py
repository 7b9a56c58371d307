import math

import pytest
import torch
from torch import nn

from survlens.core.errors import InvalidValueError
from survlens.losses.adversarial import generated_loss, path_length_penalty, path_lengths, photograph_loss, r1_penalty


def draws(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_losses_are_the_logarithms_of_the_probabilities():
    logits = draws(50) * 3
    sure = torch.sigmoid(logits)
    assert torch.allclose(photograph_loss(logits), -sure.log())
    assert torch.allclose(generated_loss(logits), -(1 - sure).log())
    assert torch.allclose(photograph_loss(logits), generated_loss(-logits))


def test_losses_stay_exact_where_probabilities_do_not():
    far = torch.tensor([-800.0, 800.0])
    assert photograph_loss(far).tolist() == [800.0, 0.0]
    assert generated_loss(far).tolist() == [0.0, 800.0]


def test_the_generator_learns_most_where_the_discriminator_is_surest():
    logits = torch.tensor([-9.0, 0.0, 9.0], requires_grad=True)
    photograph_loss(logits).sum().backward()
    assert logits.grad.tolist() == pytest.approx([-1 / (1 + math.exp(-9)), -0.5, -1 / (1 + math.exp(9))])


def test_r1_of_a_linear_discriminator_is_the_square_of_its_weights():
    weight = draws(3, 4, 4).requires_grad_()
    pictures = draws(5, 3, 4, 4, seed=1).requires_grad_()
    penalty = r1_penalty(pictures, (pictures * weight).sum((1, 2, 3)))
    assert torch.allclose(penalty.double(), weight.square().sum().expand(5), rtol=1e-6)
    (gradient,) = torch.autograd.grad(penalty.sum(), weight)
    assert torch.allclose(gradient, 10 * weight, rtol=1e-5)


def network(seed: int) -> nn.Module:
    layers = nn.Sequential(nn.Conv2d(2, 3, 3), nn.Softplus(), nn.Flatten(), nn.Linear(12, 1)).double()
    for index, weight in enumerate(layers.parameters()):
        weight.data = draws(*weight.shape, seed=seed + index) / 3
    return layers


def test_r1_and_its_gradient_are_central_differences():
    net, step = network(3), 1e-4
    pictures = draws(2, 2, 4, 4).requires_grad_()

    def by_differences() -> torch.Tensor:
        squares = []
        for instance in pictures.detach():
            total = torch.zeros((), dtype=torch.float64)
            for place in range(instance.numel()):
                move = torch.zeros(instance.numel(), dtype=torch.float64)
                move[place] = step
                up, down = (net((instance + sign * move.view_as(instance))[None])[0, 0] for sign in (1, -1))
                total = total + ((up - down) / (2 * step)) ** 2
            squares.append(total)
        return torch.stack(squares).detach()

    penalty = r1_penalty(pictures, net(pictures)[:, 0])
    assert torch.allclose(penalty.double(), by_differences(), rtol=1e-5)
    first = net[0].weight
    (gradient,) = torch.autograd.grad(penalty.sum(), first)
    change = []
    for sign in (1, -1):
        first.data[0, 0, 0, 0] += sign * 1e-3
        change.append(float(by_differences().sum()))
        first.data[0, 0, 0, 0] -= sign * 1e-3
    assert float(gradient[0, 0, 0, 0]) == pytest.approx((change[0] - change[1]) / 2e-3, rel=1e-4)


def test_r1_refuses_pictures_without_a_gradient():
    pictures = draws(2, 3, 4, 4)
    with pytest.raises(InvalidValueError, match="must ask for a gradient"):
        r1_penalty(pictures, pictures.sum((1, 2, 3)))
    pictures.requires_grad_()
    with pytest.raises(InvalidValueError, match="one per picture; got 1 for 2"):
        r1_penalty(pictures, pictures.sum((1, 2, 3))[:1])


def test_path_lengths_of_a_linear_generator_are_those_of_its_matrix():
    slots, width, side = 3, 5, 4
    matrix = draws(slots, width, 2 * side * side)
    ws, noise = draws(6, slots, width, seed=1).requires_grad_(), draws(6, 2, side, side, seed=2)
    pictures = torch.einsum("nsw,swp->np", ws, matrix).view(6, 2, side, side)
    jacobian = torch.einsum("swp,np->nsw", matrix, noise.flatten(1) / math.sqrt(side * side))
    expected = jacobian.square().sum(2).mean(1).sqrt()
    assert torch.allclose(path_lengths(pictures, ws, noise).double(), expected, rtol=1e-6)


def test_the_gradient_of_path_lengths_is_their_difference():
    ws, noise = draws(2, 2, 3).requires_grad_(), draws(2, 1, 2, 2, seed=1)
    weight = draws(6, 4, seed=2).requires_grad_()

    def lengths() -> torch.Tensor:
        return path_lengths(torch.tanh(ws.flatten(1) @ weight).view(2, 1, 2, 2), ws, noise).double()

    (gradient,) = torch.autograd.grad(lengths().sum(), weight)
    changed = []
    for sign in (1, -1):
        weight.data[0, 0] += sign * 1e-2
        changed.append(float(lengths().sum().detach()))
        weight.data[0, 0] -= sign * 1e-2
    assert float(gradient[0, 0]) == pytest.approx((changed[0] - changed[1]) / 2e-2, rel=2e-3)


def test_a_generator_that_ignores_its_latents_has_no_length_and_a_finite_gradient():
    ws = draws(2, 2, 3).requires_grad_()
    scale = torch.zeros((), dtype=torch.float64, requires_grad=True)
    pictures = (scale * ws.sum((1, 2)))[:, None, None, None].expand(-1, 1, 2, 2)
    lengths = path_lengths(pictures, ws, draws(2, 1, 2, 2))
    assert lengths.max() < 1e-15
    lengths.sum().backward()
    assert torch.isfinite(scale.grad)


def test_the_penalty_on_path_lengths_pulls_towards_the_usual_one():
    lengths, usual = torch.tensor([1.0, 3.0], requires_grad=True), torch.tensor(2.5, requires_grad=True)
    penalty = path_length_penalty(lengths, usual)
    assert penalty.tolist() == [2.25, 0.25]
    penalty.sum().backward()
    assert lengths.grad.tolist() == [-3.0, 1.0]
    assert usual.grad is None

"""Every law over every encoder."""

import inspect

import pytest
import torch
from torch import nn

import survlens.encoders

ENCODERS = {
    "MLP": (lambda: survlens.encoders.MLP(12, (16, 5)), (3, 12)),
    "MLP with batch norm": (lambda: survlens.encoders.MLP(12, (8,), batch_norm=True, dropout=0.5), (3, 12)),
    "MLP of no layers": (lambda: survlens.encoders.MLP(12, ()), (3, 1, 3, 4)),
    "CNN": (lambda: survlens.encoders.CNN(3, (4, 6), dropout=0.3), (3, 3, 17, 12)),
    "CNN of volumes": (lambda: survlens.encoders.CNN(1, (4, 6), dimensions=3), (3, 1, 9, 8, 8)),
    "ResidualCNN": (lambda: survlens.encoders.ResidualCNN(2, (4, 8), image_size=(10, 7)), (3, 2, 10, 7)),
    "ResidualCNN of any size": (lambda: survlens.encoders.ResidualCNN(2, (4, 8)), (3, 2, 11, 16)),
    "ResidualCNN of volumes": (
        lambda: survlens.encoders.ResidualCNN(1, (4, 8), dimensions=3, image_size=(8, 8, 6)),
        (3, 1, 8, 8, 6),
    ),
    "CNNSurvivalEncoder": (
        lambda: survlens.encoders.CNNSurvivalEncoder(1, (18, 20), channels=4, features=6, padded=True),
        (3, 1, 18, 20),
    ),
    "TransferResNet2D": (lambda: survlens.encoders.TransferResNet2D(18), (3, 3, 33, 32)),
    "TransferResNet2D of grey pictures": (lambda: survlens.encoders.TransferResNet2D(50), (3, 1, 32, 32)),
    "TransferResNet3D": (lambda: survlens.encoders.TransferResNet3D(10), (3, 1, 9, 8, 8)),
    "TransferVGG16": (lambda: survlens.encoders.TransferVGG16(), (3, 1, 32, 32)),
    "MultipleInstance of the mean": (lambda: _bags(survlens.encoders.MeanPooling()), (3, 4)),
    "MultipleInstance of attention": (lambda: _bags(survlens.encoders.AttentionPooling(5, hidden=3)), (3, 4)),
    "MultipleInstance of the worst": (lambda: _bags(survlens.encoders.WorstPooling(5)), (3, 4)),
}
POOLINGS = {"MeanPooling", "AttentionPooling", "WorstPooling"}
"""From embeddings to embeddings; tests/encoders/test_pooling.py has their laws."""


def _bags(pooling):
    return survlens.encoders.MultipleInstance(survlens.encoders.MLP(4, (5,)), pooling)


@pytest.fixture(params=ENCODERS, ids=str)
def case(request, generator):
    build, shape = ENCODERS[request.param]
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return build().eval(), torch.rand(shape, generator=generator)


def test_every_public_encoder_stands_in_the_table():
    classes = {name: value for name, value in vars(survlens.encoders).items() if inspect.isclass(value)}
    public = {name for name, value in classes.items() if issubclass(value, torch.nn.Module)}
    assert public - POOLINGS == {name.split()[0] for name in ENCODERS}


def test_embedding_has_the_promised_width(case):
    encoder, x = case
    assert encoder(x).shape == (3, encoder.out_features)


def test_batch_equals_its_members(case):
    encoder, x = case
    members = torch.cat([encoder(x[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(encoder(x), members, rtol=1e-4, atol=1e-5)


def test_permuting_instances_permutes_embeddings(case):
    encoder, x = case
    order = torch.tensor([2, 0, 1])
    torch.testing.assert_close(encoder(x)[order], encoder(x[order]), rtol=1e-4, atol=1e-5)


def test_every_weight_gets_a_finite_gradient(case):
    encoder, x = case
    encoder.train()
    encoder(x.requires_grad_()).square().sum().backward()
    for name, weight in encoder.named_parameters():
        assert weight.grad is not None, name
        assert torch.isfinite(weight.grad).all(), name


def test_constructor_arguments_are_kept_as_attributes(case):
    encoder, _ = case
    for argument in list(inspect.signature(type(encoder).__init__).parameters)[1:]:
        assert hasattr(encoder, argument), argument


def test_activation_is_the_one_asked_for():
    assert any(isinstance(layer, nn.Tanh) for layer in survlens.encoders.MLP(2, activation=nn.Tanh).modules())

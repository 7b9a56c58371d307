"""A small training problem that every test here uses."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from survlens.core.outcome import SurvivalOutcome
from survlens.data.loaders import TensorSource
from survlens.encoders.mlp import MLP
from survlens.heads.cox import CoxPH
from survlens.models.survival_model import SurvivalModel


@pytest.fixture
def rows() -> Callable[..., TensorSource]:
    """Rows whose hazard is exp(x0), a third of them censored."""

    def make(count: int = 120, *, seed: int = 0, features: int = 4) -> TensorSource:
        generator = torch.Generator().manual_seed(seed)
        table = torch.randn(count, features, generator=generator)
        time = -torch.log(torch.rand(count, generator=generator)) * torch.exp(-table[:, 0]) + 1e-3
        event = torch.rand(count, generator=generator) > 0.33
        return TensorSource({"table": table}, SurvivalOutcome.from_arrays(time, event, "months"))

    return make


@pytest.fixture
def model() -> Callable[..., SurvivalModel]:
    """A network with dropout (draws random numbers) and batch norm (has buffers), the same each time."""

    def make(*, dropout: float = 0.2, batch_norm: bool = True, features: int = 4) -> SurvivalModel:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(7)
            return SurvivalModel(MLP(features, (8, 8), dropout=dropout, batch_norm=batch_norm), CoxPH(8))

    return make


@pytest.fixture
def weights() -> Callable[[nn.Module], dict[str, torch.Tensor]]:
    """A copy of all weights and buffers."""

    def copy(module: nn.Module) -> dict[str, torch.Tensor]:
        return {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}

    return copy

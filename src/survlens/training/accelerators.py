"""Where the steps run: plainly on the CPU, or through Lightning Fabric on devices, precisions and processes.

Both offer the same few methods and give the same numbers. The plain one exists because importing Fabric takes seconds.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_
from torch.optim import Optimizer

from survlens.core.outcome import SurvivalOutcome
from survlens.core.protocols import Inputs
from survlens.training.settings import FitSettings, Precision


class Accelerator(Protocol):
    """Runs the steps of a fit.

    Attributes:
        device: Device of the model and of the batches.
        rank: Number of this process, from 0.
        ranks: Number of processes that train together.
    """

    device: torch.device
    rank: int
    ranks: int

    def prepare(self, model: nn.Module, optimiser: Optimizer) -> None:
        """Moves the model to the device and makes both ready."""
        ...

    def place(self, inputs: Inputs, outcome: SurvivalOutcome) -> tuple[Inputs, SurvivalOutcome]:
        """The batch on the device."""
        ...

    def compute(self, function: Callable[[], Tensor]) -> Tensor:
        """Calls a function of the model in the precision of the fit."""
        ...

    def backward(self, total: Tensor) -> None:
        """Adds up gradients, over all processes."""
        ...

    def update(self, clip_gradient: float | None) -> None:
        """Clips the gradients, takes one step of the optimiser and clears them."""
        ...


def accelerator_for(settings: FitSettings) -> Accelerator:
    """The plain accelerator for one process on the CPU in single precision, and Fabric for everything else."""
    device = settings.torch_device()
    if device.type == "cpu" and settings.precision == Precision.SINGLE and int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return PlainAccelerator()
    return FabricAccelerator(device, Precision(settings.precision))


class PlainAccelerator:
    """One process on the CPU in single precision."""

    def __init__(self) -> None:
        self.device = torch.device("cpu")
        self.rank, self.ranks = 0, 1

    def prepare(self, model: nn.Module, optimiser: Optimizer) -> None:
        """Moves the model to the device and makes both ready."""
        model.to(self.device)
        self._optimiser = optimiser
        self._parameters = [weight for group in optimiser.param_groups for weight in group["params"]]

    def place(self, inputs: Inputs, outcome: SurvivalOutcome) -> tuple[Inputs, SurvivalOutcome]:
        """The batch as it is."""
        return inputs, outcome

    def compute(self, function: Callable[[], Tensor]) -> Tensor:
        """Calls the function."""
        return function()

    def backward(self, total: Tensor) -> None:
        """Adds up gradients."""
        total.backward()

    def update(self, clip_gradient: float | None) -> None:
        """Clips the gradients, takes one step of the optimiser and clears them."""
        if clip_gradient is not None:
            clip_grad_norm_(self._parameters, clip_gradient)
        self._optimiser.step()
        self._optimiser.zero_grad()


class FabricAccelerator:
    """Lightning Fabric: any device, mixed precision, and several processes where a launcher (torchrun) made them.

    Args:
        device: Kind of device.
        precision: Numbers to compute with.
    """

    def __init__(self, device: torch.device, precision: Precision):
        from lightning_fabric import Fabric

        self._fabric: Any = Fabric(accelerator=device.type, precision=precision.value, **_processes(os.environ))
        self._fabric.launch()
        self.device: torch.device = self._fabric.device
        self.rank, self.ranks = int(self._fabric.global_rank), int(self._fabric.world_size)

    def prepare(self, model: nn.Module, optimiser: Optimizer) -> None:
        """Moves the model to the device and makes both ready."""
        self._module, self._optimiser = self._fabric.setup(_Calls(model), optimiser)

    def place(self, inputs: Inputs, outcome: SurvivalOutcome) -> tuple[Inputs, SurvivalOutcome]:
        """The batch on the device."""
        return {name: tensor.to(self.device) for name, tensor in inputs.items()}, outcome.to(self.device)

    def compute(self, function: Callable[[], Tensor]) -> Tensor:
        """Calls the function inside the wrapped module, so that precision and processes are taken care of."""
        return self._module(function)

    def backward(self, total: Tensor) -> None:
        """Adds up gradients, over all processes."""
        self._fabric.backward(total)

    def update(self, clip_gradient: float | None) -> None:
        """Clips the gradients, takes one step of the optimiser and clears them."""
        if clip_gradient is not None:
            self._fabric.clip_gradients(self._module, self._optimiser, max_norm=clip_gradient, error_if_nonfinite=False)
        self._optimiser.step()
        self._optimiser.zero_grad()


class _Calls(nn.Module):
    """Holds the model, and calls whatever function it is given: one forward pass, however many methods it uses."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, function: Callable[[], Tensor]) -> Tensor:
        return function()


def _processes(environment: Mapping[str, str]) -> dict[str, Any]:
    total = int(environment.get("WORLD_SIZE", "1"))
    if total == 1:
        return {"devices": 1}
    from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment
    from lightning_fabric.strategies.ddp import DDPStrategy

    here = int(environment.get("LOCAL_WORLD_SIZE", str(total)))
    # At tau = 1 the head has no part in the loss, so some weights may be unused.
    strategy = DDPStrategy(find_unused_parameters=True, cluster_environment=TorchElasticEnvironment())
    return {"devices": here, "num_nodes": total // here, "strategy": strategy}

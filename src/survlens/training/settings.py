"""Settings of a fit."""

from __future__ import annotations

from dataclasses import dataclass, fields
from enum import StrEnum

import torch
from torch.optim import Adam, Optimizer

from survlens.core.errors import InvalidValueError


class Precision(StrEnum):
    """Numbers that a training computes with; weights are kept in float32 by all."""

    SINGLE = "32-true"
    HALF_MIXED = "16-mixed"
    BFLOAT_MIXED = "bf16-mixed"


class Device(StrEnum):
    """Where a training runs. AUTO: on a CUDA device if there is one."""

    CPU = "cpu"
    CUDA = "cuda"
    AUTO = "auto"


@dataclass(frozen=True, slots=True, kw_only=True)
class FitSettings:
    """How a model is trained.

    Attributes:
        epochs: Passes over the training rows.
        batch: Largest number of rows in a batch, over all processes together.
        learning_rate: Step size of the optimiser.
        head_learning_rate: Step size for the weights of `model.head`; `learning_rate` where it is None. Both groups are
            in one optimiser, which for Adam is the same as two optimisers that step together.
        weight_decay: Pull of the optimiser towards zero.
        patience: Epochs without a better validation value after which training ends; None for all epochs.
        clip_gradient: Largest Euclidean norm of the gradient; None for no limit.
        precision: Numbers to compute with.
        device: Where to run.
        seed: Seed of batches, dropout and draws. The same seed gives the same result.
        event_balanced: Whether every batch gets its share of events.
        deterministic: Whether slower but repeatable kernels are used.
        optimiser: Class of the optimiser.
        frozen: Names of modules of the model that keep their weights, such as "encoders" or "encoders.image". They run
            in eval mode: batch norm keeps its statistics, and nothing in them is dropped.

    Raises:
        InvalidValueError: If a setting lies outside its range.
    """

    epochs: int
    batch: int
    learning_rate: float
    head_learning_rate: float | None = None
    weight_decay: float = 0.0
    patience: int | None = None
    clip_gradient: float | None = None
    precision: Precision | str = Precision.SINGLE
    device: Device | str = Device.CPU
    seed: int = 0
    event_balanced: bool = True
    deterministic: bool = True
    optimiser: type[Optimizer] = Adam
    frozen: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("epochs", "batch", "patience"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or value < 1):
                raise InvalidValueError(f"`{name}` must be a whole number >= 1; got {value!r}.")
        for name in ("learning_rate", "head_learning_rate", "clip_gradient"):
            value = getattr(self, name)
            if value is not None and not 0 < value < float("inf"):
                raise InvalidValueError(f"`{name}` must be a finite number > 0; got {value!r}.")
        if not 0 <= self.weight_decay < float("inf"):
            raise InvalidValueError(f"`weight_decay` must be a finite number >= 0; got {self.weight_decay!r}.")
        for name, choices in (("precision", Precision), ("device", Device)):
            allowed = [choice.value for choice in choices]
            if getattr(self, name) not in allowed:
                raise InvalidValueError(f"`{name}` must be one of {', '.join(allowed)}; got {getattr(self, name)!r}.")
        if not isinstance(self.frozen, tuple):
            raise InvalidValueError(f"`frozen` must be a tuple of names of modules; got {self.frozen!r}.")
        if self.seed < 0:
            raise InvalidValueError(f"`seed` must be >= 0; got {self.seed}.")

    def torch_device(self) -> torch.device:
        """The device that is meant on this machine.

        Raises:
            InvalidValueError: If CUDA is asked for and there is none.
        """
        available = torch.cuda.is_available()
        if self.device == Device.CUDA and not available:
            raise InvalidValueError(
                "`device` must be one that this machine has; got 'cuda', and PyTorch finds no CUDA device. "
                "Use device='cpu' or 'auto', or install a CUDA build of PyTorch."
            )
        return torch.device("cuda" if available and self.device != Device.CPU else "cpu")

    def fingerprint(self) -> dict[str, str]:
        """Settings that must stay the same when a training is resumed."""
        free = {"epochs", "device"}
        values = {field.name: getattr(self, field.name) for field in fields(self) if field.name not in free}
        values["optimiser"] = self.optimiser.__name__
        return {name: str(value) for name, value in values.items()}

"""Settings of an embedding of photographs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Any

import torch

from survlens.core.errors import InvalidValueError
from survlens.training.settings import Device, Precision


class LatentSpace(StrEnum):
    """Which latent vector of a generator stands for a photograph.

    W: output of the mapping network, one vector copied to all slots. Z: its input, of which the generator sees the
        direction only; it is kept on the sphere of radius sqrt(latent).
    """

    W = "w"
    Z = "z"


class Start(StrEnum):
    """Where a descent starts.

    COLD: at the mean of w; in z, which has no usable mean, at a random point. BEST_OF: at the best of a number of
        random points. WARM: where an encoder puts the photograph.
    """

    COLD = "cold"
    BEST_OF = "best of"
    WARM = "warm"


class DescentRule(StrEnum):
    """How the descent steps.

    ADAM: Adam with a ramp of the step size. LBFGS: limited-memory BFGS with a line search for each photograph alone.
    """

    ADAM = "adam"
    LBFGS = "lbfgs"


@dataclass(frozen=True, slots=True, kw_only=True)
class InversionSettings:
    """How photographs are embedded.

    The step size at step t of T is `learning_rate` * min(1, u/ramp_up) * (1 - cos(pi * min(1, (1 - u)/ramp_down)))/2
    with u = (t + 1/2)/T.

    Attributes:
        space: The latent space.
        start: Where the first descent starts; None for COLD in w and BEST_OF in z.
        steps: T, the largest number of steps; 0 for the start alone.
        learning_rate: Peak step size in standard deviations of a coordinate of the latent vector.
        ramp_up: Share of the steps over which the step size rises.
        ramp_down: Share over which it falls.
        noise: Standard deviation of the noise that is added to w at the start, in standard deviations of w; it falls to
            0 over three quarters of the steps. 0.05 is usual for a picture as good as can be.
        restarts: Further descents, each from the best of `candidates` other random points, whose agreement with the
            first is told; 0 for none.
        candidates: Random points of which the best is taken.
        batch: Largest number of photographs in hand at one time. They do not influence each other.
        patience: Steps without an improvement by `tolerance` after which a photograph is finished; None for never.
        tolerance: Smallest improvement that counts, as a share of the distance.
        descent: How to step; the ramps and `noise` belong to ADAM.
        mean_draws: Random points from which mean and standard deviation of w are computed.
        precision: Numbers that generator and distance compute with on a CUDA device or the CPU.
        device: Where to run.
        seed: Seed of all draws. The same seed gives the same result.

    Raises:
        InvalidValueError: If a setting lies outside its range.

    References:
        Karras et al. 2020.
    """

    space: LatentSpace = LatentSpace.W
    start: Start | None = None
    steps: int = 300
    learning_rate: float = 0.1
    ramp_up: float = 0.05
    ramp_down: float = 0.25
    noise: float = 0.0
    restarts: int = 1
    candidates: int = 64
    batch: int = 16
    patience: int | None = 100
    tolerance: float = 1e-3
    descent: DescentRule = DescentRule.ADAM
    mean_draws: int = 10_000
    precision: Precision = Precision.SINGLE
    device: Device = Device.CPU
    seed: int = 0

    def __post_init__(self) -> None:
        least = {"steps": 0, "restarts": 0, "candidates": 1, "batch": 1, "mean_draws": 2, "seed": 0, "patience": 1}
        for name, smallest in least.items():
            value = getattr(self, name)
            if (value is not None or name not in ("patience",)) and (not isinstance(value, int) or value < smallest):
                raise InvalidValueError(f"`{name}` must be a whole number >= {smallest}; got {value!r}.")
        if not 0 < self.learning_rate < float("inf"):
            raise InvalidValueError(f"`learning_rate` must be a finite number > 0; got {self.learning_rate!r}.")
        for name in ("ramp_up", "ramp_down", "tolerance"):
            if not 0 <= getattr(self, name) < 1:
                raise InvalidValueError(f"`{name}` must lie in [0, 1); got {getattr(self, name)!r}.")
        if not 0 <= self.noise < float("inf"):
            raise InvalidValueError(f"`noise` must be a finite number >= 0; got {self.noise!r}.")
        kinds = {"space": LatentSpace, "descent": DescentRule, "precision": Precision, "device": Device}
        for name, kind in kinds.items():
            if not isinstance(getattr(self, name), kind):
                raise InvalidValueError(f"`{name}` must be a member of {kind.__name__}; got {getattr(self, name)!r}.")
        if self.start is not None and not isinstance(self.start, Start):
            raise InvalidValueError(f"`start` must be a member of Start, or None; got {self.start!r}.")
        if self.precision is Precision.HALF_MIXED:
            raise InvalidValueError(
                "`precision` must be 32-true or bf16-mixed; got 16-mixed, whose range is too small."
            )

    def first_start(self) -> Start:
        """Where the first descent starts."""
        usual = {LatentSpace.W: Start.COLD, LatentSpace.Z: Start.BEST_OF}
        return usual[self.space] if self.start is None else self.start

    def torch_device(self) -> torch.device:
        """The device that is meant on this machine.

        Raises:
            InvalidValueError: If CUDA is asked for and there is none.
        """
        return device_here(self.device)

    def to_json(self) -> dict[str, str | int | float | None]:
        """All settings, as json holds them."""
        return {each.name: getattr(self, each.name) for each in fields(self)}

    @staticmethod
    def from_json(content: Mapping[str, Any]) -> InversionSettings:
        """The settings that `to_json` gave.

        Raises:
            ValueError: If a value is none of its kind.
            TypeError: If a name is not known.
        """
        kinds = {"space": LatentSpace, "start": Start, "descent": DescentRule, "precision": Precision, "device": Device}
        values: dict[str, Any] = {
            name: kinds[name](value) if name in kinds and value is not None else value
            for name, value in content.items()
        }
        return InversionSettings(**values)

    def identity(self) -> dict[str, str]:
        """Settings that must stay the same when an embedding is resumed: all but those that change the speed only."""
        free = {"batch", "device", "start"}
        values = {field.name: str(getattr(self, field.name)) for field in fields(self) if field.name not in free}
        return values | {"start": str(self.first_start())}


def device_here(device: Device) -> torch.device:
    """The device that is meant on this machine.

    Raises:
        InvalidValueError: If CUDA is asked for and there is none.
    """
    available = torch.cuda.is_available()
    if device is Device.CUDA and not available:
        raise InvalidValueError(
            "`device` must be one that this machine has; got 'cuda', and PyTorch finds no CUDA device. "
            "Use Device.CPU or Device.AUTO, or install a CUDA build of PyTorch."
        )
    return torch.device("cuda" if available and device is not Device.CPU else "cpu")

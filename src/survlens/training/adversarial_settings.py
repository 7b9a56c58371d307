"""Settings of the training of a generator against a discriminator."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from enum import StrEnum

from survlens.core.choices import check_choice
from survlens.core.errors import InvalidValueError
from survlens.generators.stylegan2.augmentation import Augmentation
from survlens.generators.stylegan2.shape import StyleGAN2Shape
from survlens.training.settings import Device, FitSettings, Precision

FEW_PHOTOGRAPHS = 300
"""Below so many photographs, fine-tuning takes a fifth of the usual learning rate by default."""


class TrainingStart(StrEnum):
    """What the networks know before."""

    FINE_TUNE = "fine_tune"
    SCRATCH = "scratch"


@dataclass(frozen=True, slots=True, kw_only=True)
class AdversarialSettings:
    """How a generator and a discriminator are trained against each other (Karras et al. 2020).

    Attributes:
        steps: Batches that each network learns from.
        batch: Photographs, and generated pictures, of a batch, over all processes together.
        start: Whether the networks were trained before. It sets three defaults below.
        learning_rate: Step size of Adam; None for 0.0025, or 0.002 at 1024 pixels, or 0.0005 where networks are
            fine-tuned on fewer than 300 photographs.
        r1: Weight gamma of the penalty gamma / 2 ||dD/dx||^2; None for 0.0002 pixels / batch. 0 for none. It is worth
            trying 2 to 4 times as much or as little.
        r1_interval: The penalty is taken every so many steps, times as much.
        path_length: Weight of the penalty on path lengths; 0 for none.
        path_length_interval: It is taken every so many steps, times as much, on half a batch.
        style_mixing: Probability that a generated picture has two latent vectors, the second from a random slot on.
        average_images: Generated pictures after which half of the moving average is new; None for 10,000 batch / 32.
        average_ramp: From scratch the average follows faster at first: never slower than this share of the pictures so
            far; None for 0.05, or no ramp where the networks are fine-tuned.
        augmentation: Which changes the discriminator sees.
        adapted: Whether the probability p of the changes is adapted; else it stays at `first_p`.
        first_p: Probability at the start.
        target: The share r = E[sign D(photograph)] towards which p is adapted; 1 means learnt by heart.
        adapted_images: Photographs in which p can go from 0 to 1; None for 100,000, or 500,000 from scratch.
        adapted_interval: p is adapted every so many steps.
        largest_p: p goes no higher, because near 1 the changes appear in the generated pictures.
        frozen_blocks: Blocks of the discriminator of highest resolution that keep their weights (Mo et al. 2020).
        mirror: Whether each photograph is mirrored left to right in half of its appearances.
        reuse_generated: Whether the discriminator learns from the pictures that the generator just learnt from, instead
            of from new ones: saves a pass of the generator.
        log_interval: A row of the history every so many steps.
        grid_interval: A grid of generated pictures every so many steps; None for one at the end.
        seconds: Time after which training stops, to be resumed or not; None for no limit.
        precision: Numbers to compute with; not `Precision.HALF_MIXED`, whose range gradients of gradients leave.
        device: Where to run.
        channels_last: Whether pictures are laid out with channels last, which is faster on GPUs in `BFLOAT_MIXED`.
        seed: Seed of everything that is drawn.
        deterministic: Whether slower but repeatable kernels are used; on the CPU all are repeatable.

    Raises:
        InvalidValueError: If a setting lies outside its range.
    """

    steps: int
    batch: int = 32
    start: TrainingStart = TrainingStart.FINE_TUNE
    learning_rate: float | None = None
    r1: float | None = None
    r1_interval: int = 16
    path_length: float = 2.0
    path_length_interval: int = 4
    style_mixing: float = 0.9
    average_images: float | None = None
    average_ramp: float | None = None
    augmentation: Augmentation = field(default_factory=Augmentation)
    adapted: bool = True
    first_p: float = 0.0
    target: float = 0.6
    adapted_images: float | None = None
    adapted_interval: int = 4
    largest_p: float = 0.85
    frozen_blocks: int = 0
    mirror: bool = False
    reuse_generated: bool = False
    log_interval: int = 50
    grid_interval: int | None = None
    seconds: float | None = None
    precision: Precision = Precision.SINGLE
    device: Device = Device.CPU
    channels_last: bool = False
    seed: int = 0
    deterministic: bool = False

    def __post_init__(self) -> None:
        check_choice("start", self.start, TrainingStart)
        check_choice("precision", self.precision, Precision)
        check_choice("device", self.device, Device)
        if self.precision is Precision.HALF_MIXED:
            raise InvalidValueError(
                "`precision` must be Precision.SINGLE or BFLOAT_MIXED; got HALF_MIXED, whose range gradients leave."
            )
        whole = ("steps", "batch", "r1_interval", "path_length_interval", "adapted_interval", "log_interval")
        for name, least in [(name, 1) for name in (*whole, "grid_interval")] + [("frozen_blocks", 0), ("seed", 0)]:
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or value < least):
                raise InvalidValueError(f"`{name}` must be a whole number >= {least}; got {value!r}.")
        for name in ("learning_rate", "average_images", "average_ramp", "adapted_images", "seconds"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise InvalidValueError(f"`{name}` must be a finite number > 0, or None; got {value!r}.")
        for name in ("r1", "path_length"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < math.inf:
                raise InvalidValueError(f"`{name}` must be a finite number >= 0; got {value!r}.")
        for name in ("style_mixing", "first_p", "largest_p"):
            if not 0 <= getattr(self, name) <= 1:
                raise InvalidValueError(f"`{name}` must lie in [0, 1]; got {getattr(self, name)}.")
        if not -1 < self.target < 1:
            raise InvalidValueError(f"`target` must lie in (-1, 1); got {self.target}. The usual value is 0.6.")
        if self.first_p > self.largest_p:
            raise InvalidValueError(f"`first_p` must be <= `largest_p`, {self.largest_p}; got {self.first_p}.")

    def resolved(self, shape: StyleGAN2Shape, photographs: int) -> ResolvedSettings:
        """The numbers that stand for None, for networks of that shape and so many photographs."""
        fine_tuned = self.start is TrainingStart.FINE_TUNE
        usual = 0.002 if shape.resolution == 1024 else 0.0025
        few = fine_tuned and photographs < FEW_PHOTOGRAPHS
        ramp = self.average_ramp if self.average_ramp or fine_tuned else 0.05
        return ResolvedSettings(
            learning_rate=self.learning_rate or (usual / 5 if few else usual),
            r1=0.0002 * shape.resolution**2 / self.batch if self.r1 is None else self.r1,
            average_images=self.average_images or 10_000 * self.batch / 32,
            average_ramp=ramp,
            adapted_images=self.adapted_images or (100_000 if fine_tuned else 500_000),
        )

    def fit_settings(self) -> FitSettings:
        """Device and precision as `training.accelerators` takes them."""
        return FitSettings(epochs=1, batch=self.batch, learning_rate=1.0, precision=self.precision, device=self.device)

    def fingerprint(self) -> dict[str, str]:
        """Settings that must stay the same when a training is resumed."""
        free = {"steps", "seconds", "device", "grid_interval"}
        return {field.name: str(getattr(self, field.name)) for field in fields(self) if field.name not in free}


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolvedSettings:
    """Numbers that follow from the settings, the networks and the number of photographs.

    Attributes:
        learning_rate: Step size of Adam.
        r1: Weight of the penalty on the gradient of the discriminator.
        average_images: Generated pictures after which half of the moving average is new.
        average_ramp: Largest share of the pictures so far; None for no ramp.
        adapted_images: Photographs in which p can go from 0 to 1.
    """

    learning_rate: float
    r1: float
    average_images: float
    average_ramp: float | None
    adapted_images: float

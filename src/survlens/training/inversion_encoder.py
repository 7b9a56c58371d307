"""An encoder that puts a photograph where its descent through the generator can start."""

from __future__ import annotations

import copy
import hashlib
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from survlens.artifacts.tensors import check_shapes, load_tensors, read_metadata, save_tensors, shapes_of
from survlens.blocks.residual import ResidualBlock
from survlens.blocks.spatial import convolution
from survlens.core.errors import CorruptFileError, FitError, InvalidValueError
from survlens.generators.stylegan2.generator import Generator
from survlens.generators.stylegan2.pictures import to_network
from survlens.training.inversion_settings import LatentSpace, device_here
from survlens.training.latent_spaces import LatentPoints, latent_points
from survlens.training.picture_distance import PictureDistance
from survlens.training.settings import Device
from survlens.training.thread_count import threads_for_side

_COARSEST = 4
_BATCH = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderShape:
    """Sizes of an encoder.

    Attributes:
        resolution: Side of the pictures, a power of two >= 8.
        width: Width of the latent vectors.
        space: The latent space that it speaks of.
        passes: Looks at a photograph; from the second on, the picture of the last answer stands beside it.
        channels: Channels at full resolution; they double with each halving.
        channel_max: Most channels.

    Raises:
        InvalidValueError: If a size lies outside its range.
    """

    resolution: int
    width: int
    space: LatentSpace = LatentSpace.W
    passes: int = 3
    channels: int = 32
    channel_max: int = 256

    def __post_init__(self) -> None:
        if self.resolution < 2 * _COARSEST or self.resolution & (self.resolution - 1):
            raise InvalidValueError(f"`resolution` must be a power of two >= 8; got {self.resolution}.")
        for name in ("width", "passes", "channels", "channel_max"):
            if getattr(self, name) < 1:
                raise InvalidValueError(f"`{name}` must be >= 1; got {getattr(self, name)}.")


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderSettings:
    """How an encoder is fitted.

    Attributes:
        space: The latent space that it speaks of.
        steps: Steps of AdamW. The step size rises over the first 5 %, then falls to 0 as a cosine, and the momentum
            goes the other way.
        batch: Pictures in a step; half of them are photographs, half are generated.
        learning_rate: Peak step size.
        passes: Looks at a picture; each but the last costs one picture of the generator.
        channels: Channels at full resolution.
        channel_max: Most channels.
        mean_draws: Random points from which mean and standard deviation of w are computed.
        device: Where to run.
        seed: Seed of the start weights and of all draws.

    Raises:
        InvalidValueError: If a setting lies outside its range.
    """

    space: LatentSpace = LatentSpace.W
    steps: int = 2000
    batch: int = 32
    learning_rate: float = 1e-3
    passes: int = 3
    channels: int = 32
    channel_max: int = 256
    mean_draws: int = 10_000
    device: Device = Device.CPU
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("steps", 1), ("batch", 2), ("mean_draws", 2), ("seed", 0)):
            if getattr(self, name) < least:
                raise InvalidValueError(f"`{name}` must be >= {least}; got {getattr(self, name)}.")
        if not 0 < self.learning_rate < float("inf"):
            raise InvalidValueError(f"`learning_rate` must be a finite number > 0; got {self.learning_rate!r}.")


class LatentEncoder(nn.Module):
    """Photograph to latent vector, in several looks.

    Each look is latent <- settled(latent + spread * f(photograph, picture of the latent)), with one network f and the
    mean of the latent space to start from.

    Args:
        shape: Sizes of the network.
        seed: Seed of the start weights.

    Attributes:
        fitted_on: Hashes of the photographs that it was fitted on.

    References:
        Alaluf et al. 2021.
    """

    def __init__(self, shape: EncoderShape, *, seed: int):
        super().__init__()
        self.shape, self.fitted_on = shape, frozenset[str]()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            channels = min(shape.channels, shape.channel_max)
            layers: list[nn.Module] = [convolution(2, 6, channels)]
            for _ in range(int(math.log2(shape.resolution // _COARSEST))):
                after = min(2 * channels, shape.channel_max)
                layers.append(ResidualBlock(2, channels, after, down=True))
                channels = after
            last = nn.Linear(channels * _COARSEST**2, shape.width)
            nn.init.normal_(last.weight, std=0.1 / last.in_features**0.5)
            nn.init.normal_(last.bias, std=0.1)
            self.layers = nn.Sequential(*layers, nn.SiLU(), nn.Flatten(), last)

    def forward(
        self,
        pictures: Float[Tensor, "instance 3 height width"],
        rendered: Float[Tensor, "instance 3 height width"],
    ) -> Float[Tensor, "instance embedding"]:
        """The change of the latent vectors in standard deviations.

        Args:
            pictures: Photographs in [0, 1].
            rendered: Pictures of the latent vectors so far.
        """
        return self.layers(to_network(torch.cat([pictures, rendered], 1)))

    def looks(
        self, points: LatentPoints, pictures: Float[Tensor, "instance 3 height width"]
    ) -> list[Float[Tensor, "instance embedding"]]:
        """The latent vectors after each look; no gradient passes from one look to the one before."""
        latents = points.mean.expand(len(pictures), -1)
        found: list[Tensor] = []
        for look in range(self.shape.passes):
            with torch.no_grad():
                # At the first look all photographs stand beside the same picture.
                rendered = points.pictures(self._first(points) if look == 0 else latents)
            change = self(pictures, rendered.to(pictures.dtype).expand_as(pictures))
            latents = points.settled(latents.detach() + points.spread * change)
            found.append(latents)
        return found

    @torch.no_grad()
    def encode(
        self, points: LatentPoints, pictures: Float[Tensor, "instance 3 height width"]
    ) -> Float[Tensor, "instance embedding"]:
        """The latent vectors after the last look.

        Args:
            points: The latent space of the generator that the encoder was fitted to.
            pictures: Photographs in [0, 1].

        Raises:
            InvalidValueError: If the pictures have another size.
        """
        side = self.shape.resolution
        if tuple(pictures.shape[1:]) != (3, side, side):
            raise InvalidValueError(
                f"`pictures` must have the shape (3, {side}, {side}) of this encoder; got {tuple(pictures.shape[1:])}."
            )
        return self.looks(points, pictures)[-1]

    def save(self, path: Path | str) -> None:
        """Writes the weights, the shape and the hashes of the photographs it was fitted on to a safetensors file.

        Raises:
            WriteError: If the disk is full; the previous file is untouched.
        """
        shape = {name: getattr(self.shape, name) for name in EncoderShape.__dataclass_fields__}
        metadata = {"encoder": json.dumps(shape), "fitted_on": json.dumps(sorted(self.fitted_on))}
        save_tensors(path, self.state_dict(), metadata=metadata)

    @staticmethod
    def load(path: Path | str) -> LatentEncoder:
        """Reads an encoder that `save` wrote.

        Raises:
            CorruptFileError: If the file is damaged, or no encoder.
        """
        path = Path(path)
        metadata = read_metadata(path)
        try:
            shape = json.loads(metadata["encoder"])
            shape = EncoderShape(**(shape | {"space": LatentSpace(shape["space"])}))
            encoder, fitted_on = LatentEncoder(shape, seed=0), frozenset(json.loads(metadata["fitted_on"]))
        except (KeyError, ValueError, TypeError) as error:
            raise CorruptFileError(
                f"`{path.name}` must be an encoder that survlens wrote; got {error}. Fit the encoder again."
            ) from error
        tensors = load_tensors(path)
        check_shapes(path, tensors, shapes_of(encoder.state_dict()))
        encoder.load_state_dict(tensors)
        encoder.fitted_on = fitted_on
        return encoder.eval()

    def _first(self, points: LatentPoints) -> Tensor:
        # The mean of z is no point of the sphere, so a fixed point of it stands in.
        mean = points.mean[None]
        return points.settled(mean + 1.0) if self.shape.space is LatentSpace.Z else mean


def fit_encoder(
    generator: Generator,
    pictures: Float[Tensor, "instance 3 height width"],
    settings: EncoderSettings,
    distance: PictureDistance,
    *,
    on_step: Callable[[int, float], object] | None = None,
) -> LatentEncoder:
    """Fits an encoder on pairs of a generated picture and its latent vector, and on photographs that have none.

    The loss is the mean over looks of l(v, v') + D(G(v'), x)/D_0 for generated pictures x = G(v) and of D(G(v'), x)/D_0
    for photographs x. Here v' is the encoder's answer, D the distance, D_0 its mean between the photographs and the
    generator's mean picture, and l the mean squared error in units of the variance of w, or one minus the cosine in z.
    Generated pairs alone leave an encoder that has never seen a photograph.

    Args:
        generator: As fine-tuned on training patients; it is left as it is.
        pictures: Photographs of training patients, and of no others, in [0, 1].
        settings: How to fit.
        distance: The distance that the embedding will use.
        on_step: Called with the number of the step and its loss.

    Raises:
        InvalidValueError: If the pictures do not fit the generator or lie outside [0, 1].
        FitError: If the loss is no longer a finite number.
    """
    check_pictures(generator, pictures)
    device = device_here(settings.device)
    with threads_for_side(generator.shape.resolution, device):
        worker = copy.deepcopy(generator).eval().requires_grad_(False).to(device)
        distance = copy.deepcopy(distance).eval().requires_grad_(False).to(device)
        points = latent_points(worker, settings.space, draws=settings.mean_draws, seed=settings.seed)
        shape = EncoderShape(
            resolution=generator.shape.resolution,
            width=len(points.mean),
            space=settings.space,
            passes=settings.passes,
            channels=settings.channels,
            channel_max=settings.channel_max,
        )
        encoder = LatentEncoder(shape, seed=settings.seed).to(device)
        source = torch.Generator().manual_seed(settings.seed)
        usual = _usual_distance(encoder, points, pictures, distance)
        optimiser = torch.optim.AdamW(encoder.parameters(), lr=settings.learning_rate, betas=(0.9, 0.99))
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimiser, settings.learning_rate, total_steps=settings.steps + 1, pct_start=0.05
        )
        half = settings.batch // 2
        for step in range(settings.steps):
            with torch.no_grad():
                latents = points.draw(settings.batch - half, source)
                made = points.pictures(latents)
            taken = pictures[torch.randint(len(pictures), (half,), generator=source)]
            shown = torch.cat([made, taken.to(device)])
            losses = []
            for found in encoder.looks(points, shown):
                apart = distance(points.pictures(found), shown).mean() / usual
                losses.append(_miss(points, found[: len(made)], latents, settings.space) + 2 * apart)
            loss = torch.stack(losses).mean()
            if not torch.isfinite(loss):
                raise FitError(f"The loss of the encoder is no longer finite at step {step}. Lower `learning_rate`.")
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(encoder.parameters(), 1.0)
            optimiser.step()
            schedule.step()
            if on_step is not None:
                on_step(step, float(loss.detach()))
    encoder.fitted_on = frozenset(picture_hash(picture) for picture in pictures)
    return encoder.cpu().eval()


def check_pictures(generator: Generator, pictures: Float[Tensor, "instance channel height width"]) -> None:
    """Raises if the pictures do not fit the generator, are none, or are not finite numbers in [0, 1].

    Raises:
        InvalidValueError: Naming the first row at fault.
    """
    side, channels = generator.shape.resolution, generator.shape.image_channels
    if not len(pictures) or tuple(pictures.shape[1:]) != (channels, side, side):
        raise InvalidValueError(
            f"`pictures` must be at least one of shape ({channels}, {side}, {side}), as the generator makes them; got "
            f"{len(pictures)} of shape {tuple(pictures.shape[1:])}. Align the photographs to {side} pixels."
        )
    for row, picture in enumerate(pictures):
        low, high = float(picture.min()), float(picture.max())
        if not (low >= 0 and high <= 1):
            got = f"{low:g} to {high:g}" if math.isfinite(low + high) else "a value that is not finite"
            raise InvalidValueError(
                f"`pictures` must lie in [0, 1]; got {got} in row {row}. Divide bytes by 255 before."
            )


def picture_hash(picture: Float[Tensor, "channel height width"]) -> str:
    """SHA-256 of the pixels of a picture, in hexadecimal: the same picture under another name has the same."""
    values = picture.detach().to("cpu", torch.float32).contiguous().numpy()
    return hashlib.sha256(str(tuple(values.shape)).encode() + values.tobytes()).hexdigest()


def _miss(points: LatentPoints, found: Tensor, latents: Tensor, space: LatentSpace) -> Tensor:
    if space is LatentSpace.Z:
        return 1 - torch.cosine_similarity(found, latents, dim=1).mean()
    return mse_loss(found, latents) / points.spread**2


@torch.no_grad()
def _usual_distance(encoder: LatentEncoder, points: LatentPoints, pictures: Tensor, distance: PictureDistance) -> float:
    some = pictures[:256].to(points.mean.device)
    middle = points.pictures(encoder._first(points))
    return max(float(torch.cat([distance(middle.expand_as(part), part) for part in some.split(_BATCH)]).mean()), 1e-12)

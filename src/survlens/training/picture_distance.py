"""How far two pictures are apart: by features of VGG-16, by features of a fine-tuned discriminator, or by pixels."""

from __future__ import annotations

import copy
import hashlib
from abc import ABC, abstractmethod
from pathlib import Path
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import interpolate

from survlens.core.errors import CorruptFileError, InvalidValueError
from survlens.encoders.transfer_2d import TransferVGG16
from survlens.encoders.transfer_weights import load_weights
from survlens.generators.stylegan2.discriminator import Discriminator
from survlens.generators.stylegan2.pictures import to_network

_VGG_TAPS = (3, 8, 15, 22, 29)
"""Places in the layers of VGG-16 after which features are taken: the last activation before each pooling."""
_VGG_LARGEST = 256
_IMAGENET_MEAN, _IMAGENET_SD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class PictureDistance(nn.Module, ABC):
    """A squared distance between pictures in [0, 1]: d(a, b) = sum_j (features(a)_j - features(b)_j)^2.

    Attributes:
        name: What is compared; it stands beside every number that depends on it.
        fingerprint: Tells two distances of one name apart, such as two files of weights.
    """

    name: str
    fingerprint: str

    @abstractmethod
    def features(self, pictures: Float[Tensor, "instance channel height width"]) -> Float[Tensor, "instance feature"]:
        """Features whose squared Euclidean distance is the distance of the pictures."""

    def forward(
        self,
        left: Float[Tensor, "instance channel height width"],
        right: Float[Tensor, "instance channel height width"],
    ) -> Float[Tensor, " instance"]:
        """Distance of each picture in `left` from the one at the same place in `right`."""
        return (self.features(left) - self.features(right)).square().sum(1)


class PyramidDistance(PictureDistance):
    """Mean squared error of pixels, averaged over a pyramid of halved pictures; it needs no network.

    d(a, b) = 1/L * sum_l mean((a_l - b_l)^2), where a_1 is the picture and a_(l+1) is a_l with the mean of each square
    of four pixels. Levels below 4 pixels are left out.

    Args:
        levels: L, at least 1.

    Raises:
        InvalidValueError: If `levels` is below 1.
    """

    def __init__(self, levels: int = 3):
        super().__init__()
        if levels < 1:
            raise InvalidValueError(f"`levels` must be >= 1; got {levels}.")
        self.levels = levels
        self.name = f"pixel pyramid of {levels} levels"
        self.fingerprint = self.name

    def features(self, pictures: Float[Tensor, "instance channel height width"]) -> Float[Tensor, "instance feature"]:
        """Pixels of all levels, scaled so that each level counts alike."""
        level, found = _at_least_single(pictures), []
        for _ in range(self.levels):
            found.append(level.flatten(1) / level[0].numel() ** 0.5)
            if min(level.shape[2:]) < 8:
                break
            level = nn.functional.avg_pool2d(level, 2)
        return torch.cat(found, 1) / len(found) ** 0.5


class DiscriminatorDistance(PictureDistance):
    """Features of a discriminator before its minibatch statistics, and the pixel pyramid.

    d(a, b) = 1/K * sum_k mean((f_k(a)/rms f_k(a) - f_k(b)/rms f_k(b))^2) + c * pyramid(a, b), over the feature maps k
    of the discriminator's blocks, with rms the root mean square of the maps of one picture and block. The
    discriminator of the generator that was fine-tuned on the cohort knows its kind of photograph. But numbers of two
    discriminators cannot be compared, and what a discriminator ignores costs nothing but pixels.

    Args:
        discriminator: Such as the one that was fine-tuned along with the generator; it is copied.
        pixels: c, the weight of the pyramid, >= 0.

    Raises:
        InvalidValueError: If `pixels` is negative or not finite.
    """

    def __init__(self, discriminator: Discriminator, *, pixels: float = 10.0):
        super().__init__()
        if not 0 <= pixels < float("inf"):
            raise InvalidValueError(f"`pixels` must be a finite number >= 0; got {pixels!r}.")
        self.discriminator = copy.deepcopy(discriminator).eval().requires_grad_(False)
        self.pyramid = PyramidDistance()
        self.pixels = pixels
        self.name = f"discriminator features + {pixels:g} x {self.pyramid.name}"
        self.fingerprint = f"{self.name}, weights {weights_hash(discriminator)}"

    def features(self, pictures: Float[Tensor, "instance channel height width"]) -> Float[Tensor, "instance feature"]:
        """Normalised feature maps of all blocks, and the weighted levels of the pyramid."""
        maps = [_at_least_single(found).flatten(1) for found in self.discriminator.features(to_network(pictures))]
        scaled = [one / (one.square().sum(1, keepdim=True) + 1e-8 * one.shape[1]).sqrt() for one in maps]
        found = [one / len(maps) ** 0.5 for one in scaled]
        return torch.cat([*found, self.pixels**0.5 * self.pyramid.features(pictures)], 1)


class VGGDistance(PictureDistance):
    """Features of VGG-16 at five depths, of unit length over channels at every position.

    d(a, b) = 1/5 * sum_k mean over positions of |f_k(a)/|f_k(a)| - f_k(b)/|f_k(b)||^2. Pictures larger than 256 pixels
    are first reduced to 256 by means over areas. There are no learned weights per channel, so it is not LPIPS.

    Args:
        path: File of torchvision's weights of VGG-16 ("features.0.weight", ...), read without running anything in it;
            none is shipped.

    Raises:
        CorruptFileError: If the file cannot be read, or does not hold these weights.

    References:
        Simonyan and Zisserman 2015; Zhang et al. 2018 (LPIPS).
    """

    mean: Tensor
    spread: Tensor

    def __init__(self, path: Path | str):
        super().__init__()
        network = TransferVGG16()
        load_weights(network, path)
        self.layers = network.features[: _VGG_TAPS[-1] + 1].eval().requires_grad_(False)  # type: ignore[index]
        self.register_buffer("mean", torch.tensor(_IMAGENET_MEAN).reshape(3, 1, 1))
        self.register_buffer("spread", torch.tensor(_IMAGENET_SD).reshape(3, 1, 1))
        self.digest = _file_hash(Path(path))
        self.name = f"VGG-16 features, SHA-256 of the file {self.digest[:12]}"
        self.fingerprint = f"VGG-16 features, SHA-256 of the file {self.digest}"

    def features(self, pictures: Float[Tensor, "instance channel height width"]) -> Float[Tensor, "instance feature"]:
        """Feature vectors of all positions and depths, scaled so that each depth counts alike.

        Raises:
            InvalidValueError: If a side of the pictures is below 16.
        """
        if min(pictures.shape[2:]) < 16:
            raise InvalidValueError(
                f"`pictures` must have sides of at least 16 for VGG-16; got {tuple(pictures.shape[2:])}. "
                "Use the pixel pyramid or the discriminator's features."
            )
        if pictures.shape[2] > _VGG_LARGEST:
            pictures = interpolate(pictures, size=(_VGG_LARGEST, _VGG_LARGEST), mode="area")
        x, found = (pictures - self.mean) / self.spread, []
        for place, layer in enumerate(cast(nn.Sequential, self.layers)):
            x = layer(x)
            if place in _VGG_TAPS:
                one = _at_least_single(x)
                unit = one / (one.square().sum(1, keepdim=True) + 1e-10).sqrt()
                found.append(unit.flatten(1) / (len(_VGG_TAPS) * unit[0, 0].numel()) ** 0.5)
        return torch.cat(found, 1)


def weights_hash(module: nn.Module) -> str:
    """SHA-256 of the names, shapes and values of all tensors of a module, in hexadecimal."""
    digest = hashlib.sha256()
    for name, tensor in module.state_dict().items():
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def _file_hash(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise CorruptFileError(f"`{path.name}` must be a readable file; got {error.strerror or error}.") from error


def _at_least_single(x: Tensor) -> Tensor:
    # Sums of squares over a whole picture lose too much in half precision.
    return x.to(torch.promote_types(x.dtype, torch.float32))

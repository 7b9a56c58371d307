"""Generated pictures that are looked at while a generator is trained: their grid, and the drift of their colours."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from survlens.generators.stylegan2.generator import Generator
from survlens.generators.stylegan2.pictures import to_pictures
from survlens.training.colour_drift import ColourDrift, colour_drift, mean_lab
from survlens.training.picture_grid import save_grid

NOTICEABLE_DRIFT = 2.3
"""Distance in CIE Lab that is just noticeable."""

_PICTURES = 64
_GRID = 36


class Looks:
    """Pictures of the same latent vectors, drawn anew whenever the generator is looked at.

    Args:
        average: Moving average of the generator.
        colours: Mean Lab colours of the photographs.
        seed: Seed of the latent vectors.
        batch: Pictures drawn at once.
    """

    def __init__(self, average: Generator, colours: Float[Tensor, "instance 3"], *, seed: int, batch: int):
        self._average, self._colours, self._seed, self._batch = average, colours, seed, batch

    def pictures(self, instances: int) -> Float[Tensor, "instance channel height width"]:
        """The pictures in [0, 1] of the first so many vectors, with the stored noise."""
        source = torch.Generator().manual_seed(self._seed)
        z = torch.randn(instances, self._average.shape.latent, generator=source)
        device = self._average.mapping.w_avg.device
        with torch.no_grad():
            parts = [to_pictures(self._average(part.to(device))).float() for part in z.split(self._batch)]
        return torch.cat(parts)

    def drift(self) -> ColourDrift:
        """How far their mean colour lies from that of the photographs."""
        return colour_drift(mean_lab(self.pictures(_PICTURES)).cpu(), self._colours.cpu())

    def save(self, path: Path) -> None:
        """Writes a grid of 36 of them.

        Raises:
            WriteError: If the disk is full or the folder cannot be written.
        """
        save_grid(path, self.pictures(_GRID))


def warn_of_drift(values: Mapping[str, float]) -> None:
    """Warns where the drift of the last row is noticeable and more than chance."""
    if values["drift"] <= max(NOTICEABLE_DRIFT, 2 * values["drift_by_chance"]):
        return
    warnings.warn(
        f"The mean colour of generated pictures differs from that of the photographs by {values['drift']:.1f} in CIE "
        f"Lab (lightness {values['lightness']:+.1f}, redness {values['redness']:+.1f}, yellowness "
        f"{values['yellowness']:+.1f}); {values['drift_by_chance']:.1f} would be chance. Train longer, or with less of "
        "hue, luma_flip and saturation in the augmentation, before edits of skin are believed.",
        stacklevel=3,
    )

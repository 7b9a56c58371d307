"""Photographs of different patients that look like one picture: resized, recompressed, brightened or mirrored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import interpolate

SIDE = 16
"""Side at which pictures are compared."""
NEAR = 0.3
"""Largest distance of a copy, as a share of that to the sixth photograph of other patients."""
_OTHERS = 6
_LEAST = 0.5
_ROWS = 256


@dataclass(frozen=True, slots=True)
class NearCopies:
    """Pairs of photographs of different patients that look like one picture.

    Attributes:
        pairs: Rows of both, the smaller first.
    """

    pairs: tuple[tuple[int, int], ...]

    @property
    def rows(self) -> tuple[int, ...]:
        """Rows that stand in a pair, rising."""
        return tuple(sorted({row for pair in self.pairs for row in pair}))

    def remark(self) -> str:
        """What a reader has to know, without names; "" where there is none."""
        if not self.pairs:
            return ""
        return (
            f"{len(self.rows)} photographs look like a photograph of another patient ({len(self.pairs)} pairs). Look "
            "whether they are one picture: a copy in another fold or part would be known by heart."
        )


def near_copies(
    pictures: Float[Tensor, "instance 3 height width"], patient: Sequence[object] | np.ndarray
) -> NearCopies:
    """Finds photographs of different patients that look like one picture.

    Pictures are averaged down to 16 pixels, the mean picture and each picture's own mean colour are subtracted, and
    what is left is brought to length 1; the same with the mirrored mean picture. The larger of both distances between
    two, one of them perhaps mirrored, is d. They are one picture where d is at most 0.3 times the distance to the sixth
    nearest photograph of other patients. Where that is below half of its median over all photographs, because six
    copies or more stand under other patients, the median takes its place. Between different drawn faces of 16 to 128
    pixels that share is 0.38 at least; between a face of 64 pixels and its copy, brighter or at half the size and as a
    JPEG file, mostly below 0.3. Photographs of one patient are not compared. Where half of the photographs have six
    copies or more, some are missed.

    Args:
        pictures: Aligned, in [0, 1], with a side of 16 or a multiple of it.
        patient: Patient of each.
    """
    if len(pictures) < 3:
        return NearCopies(())
    small = interpolate(pictures.float(), size=(SIDE, SIDE), mode="area")
    mean = small.mean(0)
    code = torch.from_numpy(np.unique(np.asarray(patient).astype(str), return_inverse=True)[1])
    centres = mean, mean.flip(2)
    plain, mirrored = (torch.stack([_unit(each - centre) for centre in centres]) for each in (small, small.flip(3)))
    blocks = torch.arange(len(small)).split(_ROWS)
    usual = torch.cat([_usual(_apart(rows, plain, mirrored, code)) for rows in blocks])
    usual = torch.where(usual < _LEAST * usual.median(), usual.median(), usual)
    found: set[tuple[int, int]] = set()
    for rows in blocks:
        one, two = torch.where(_apart(rows, plain, mirrored, code) <= NEAR * usual[rows, None])
        found |= {(min(pair), max(pair)) for pair in zip(rows[one].tolist(), two.tolist(), strict=True)}
    return NearCopies(tuple(sorted(found)))


def _apart(rows: Tensor, plain: Tensor, mirrored: Tensor, code: Tensor) -> Float[Tensor, "row instance"]:
    """Distances of some photographs from all, the larger for both centres; infinite within a patient."""
    cosine = torch.maximum(*((plain[:, rows] @ each.mT).amin(0) for each in (plain, mirrored)))
    cosine[code[rows, None] == code] = -torch.inf
    return (2 - 2 * cosine).clamp(min=0).sqrt()


def _usual(apart: Float[Tensor, "row instance"]) -> Float[Tensor, " row"]:
    """Distance to the sixth nearest photograph of other patients, or to the furthest of fewer."""
    nearest = apart.topk(min(_OTHERS, apart.shape[1]), dim=1, largest=False).values
    return torch.where(nearest.isfinite(), nearest, 0.0).amax(1)


def _unit(pictures: Tensor) -> Float[Tensor, "instance feature"]:
    flat = (pictures - pictures.mean((2, 3), keepdim=True)).flatten(1)
    return flat / flat.norm(dim=1, keepdim=True).clamp(min=1e-12)

"""Several pictures side by side in one file."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from survlens.artifacts.atomic import write_atomically


def picture_grid(
    pictures: Float[Tensor, "instance channel height width"], *, columns: int | None = None
) -> UInt8[Tensor, "high wide channel"]:
    """Pictures in [0, 1] row by row on one sheet; places left over are black.

    Args:
        pictures: At least one picture.
        columns: Pictures in a row; as wide as high by default.
    """
    count, channels, height, width = pictures.shape
    columns = columns or math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    sheet = pictures.new_zeros(rows * columns, channels, height, width)
    sheet[:count] = pictures
    places = sheet.view(rows, columns, channels, height, width).permute(0, 3, 1, 4, 2)
    return (places.reshape(rows * height, columns * width, channels).clamp(0, 1) * 255).round().to(torch.uint8)


def save_grid(
    path: Path | str, pictures: Float[Tensor, "instance channel height width"], *, columns: int | None = None
) -> None:
    """Writes pictures in [0, 1] as one png, in one step.

    Args:
        path: File to write.
        pictures: Pictures of one channel or three.
        columns: Pictures in a row; as wide as high by default.

    Raises:
        WriteError: If the disk is full or the folder cannot be written.
    """
    from PIL import Image

    sheet = picture_grid(pictures, columns=columns).cpu().numpy()
    image = Image.fromarray(sheet[:, :, 0] if sheet.shape[2] == 1 else sheet)
    write_atomically(path, lambda draft: image.save(draft, format="PNG"))

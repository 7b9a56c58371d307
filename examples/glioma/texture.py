"""Measures colour and texture of the glioma tiles and writes one row per patient, for texture.toml.

    python examples/glioma/texture.py FOLDER_OF_THE_DATA OUT

Colour: mean, spread and percentiles of red, green, blue and of the two stains. Texture: the haematoxylin channel of
each tile, standardised within the tile so that neither staining nor exposure is left, at several scales: what smoothing
leaves and takes, number and size of dark spots (nuclei), and the power in five bands of spatial frequency. A patient
has the mean over the tiles. The site is in the patient's name: TCGA-SITE-NUMBER.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from scipy import ndimage

STAINS = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]])
BANDS = (0.008, 0.03, 0.06, 0.12, 0.25, 0.5)


def stains(tile: np.ndarray) -> np.ndarray:
    """Amounts of haematoxylin, eosin and the rest (Ruifrok and Johnston 2001); the tile is (height, width, colour)."""
    return -np.log((tile + 1.0) / 256) @ np.linalg.inv(STAINS)


def colour(tile: np.ndarray) -> list[float]:
    """Moments and percentiles of the colours and stains of a tile."""
    values = [*tile.mean((0, 1)), *tile.std((0, 1)), *np.percentile(tile, (5, 50, 95), axis=(0, 1)).ravel()]
    return [*values, *stains(tile).mean((0, 1)), *stains(tile).std((0, 1))]


def texture(tile: np.ndarray) -> list[float]:
    """Measures of the standardised haematoxylin channel of a tile."""
    nuclei = stains(tile)[..., 0]
    z = (nuclei - np.median(nuclei)) / (nuclei.std() + 1e-6)
    found: list[float] = []
    for scale in (1, 2, 4):
        smooth = ndimage.gaussian_filter(z, scale)
        rest = z - smooth
        slope = ndimage.gaussian_gradient_magnitude(z, scale)
        found += [smooth.std(), rest.std(), (rest**4).mean() / rest.var() ** 2, slope.mean()]
    dark = ndimage.gaussian_filter(z, 1.0) > 1
    label, count = ndimage.label(dark)
    area = ndimage.sum_labels(dark, label, range(1, count + 1)) if count else np.zeros(1)
    area = area[area > 8] if (area > 8).any() else np.zeros(1)
    found += [len(area), area.mean(), area.std(), np.percentile(area, 90), dark.mean(), (z**3).mean(), (z**4).mean()]
    power = np.abs(np.fft.fft2(z)) ** 2
    frequency = np.hypot(*np.meshgrid(*(np.fft.fftfreq(side) for side in z.shape), indexing="ij"))
    bands = [power[(frequency >= a) & (frequency < b)].sum() for a, b in zip(BANDS[:-1], BANDS[1:], strict=True)]
    return [*found, *np.log(np.array(bands) / sum(bands))]


def main(folder: Path, out: Path) -> None:
    """Writes `out`/patients.csv."""
    frame = pd.read_csv(folder / "clinical.csv")
    rows = []
    for name in frame["image"]:
        tile = np.asarray(Image.open(folder / name).convert("RGB"), dtype=float)
        measured = {f"colour_{i}": value for i, value in enumerate(colour(tile))}
        rows.append(measured | {f"texture_{i}": value for i, value in enumerate(texture(tile))})
    measured = pd.DataFrame(rows).groupby(frame["patient_id"]).mean()
    patients = frame.drop(columns="image").groupby("patient_id").first().join(measured).reset_index()
    patients.insert(1, "site", patients["patient_id"].str.split("-").str[1])
    out.mkdir(parents=True, exist_ok=True)
    patients.to_csv(out / "patients.csv", index=False)
    sys.stdout.write(f"{len(patients)} patients of {patients['site'].nunique()} sites: {out / 'patients.csv'}\n")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python examples/glioma/texture.py FOLDER_OF_THE_DATA OUT")
    main(Path(sys.argv[1]), Path(sys.argv[2]))

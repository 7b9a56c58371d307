"""Radiomics features: seconds, and agreement with PyRadiomics' values of one real tumour.

PyRadiomics does not install beside survlens; its seconds are those measured elsewhere on the same kind of machine.
Seconds are of the processor, one thread, the best of several: a busy machine does not change them.

Run: OMP_NUM_THREADS=1 .venv/bin/python benchmarks/radiomics.py
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from side_by_side import write

from survlens.data.geometry import Volume
from survlens.encoders.radiomics import (
    Exponential,
    Gradient,
    LaplacianOfGaussian,
    Logarithm,
    Original,
    RadiomicsSettings,
    Square,
    SquareRoot,
    Wavelet,
    radiomics_features,
)

SHARED = Path(__file__).resolve().parents[2] / "shared"
EVERY = RadiomicsSettings(
    filters=(
        *(Original(), Wavelet(), LaplacianOfGaussian((1.0, 2.0, 3.0, 4.0, 5.0))),
        *(Square(), SquareRoot(), Logarithm(), Exponential(), Gradient()),
    )
)
FLAT = RadiomicsSettings(force_2d=True)
SLICES = 2500


def seconds(work: Callable[[], object], repeats: int) -> float:
    """The best processor time of some repeats, after one to compile."""
    work()
    found = []
    for _ in range(repeats):
        start = time.process_time()
        work()
        found.append(time.process_time() - start)
    return min(found)


def tumour() -> tuple[Volume, np.ndarray, dict]:
    golden = json.loads((SHARED / "golden" / "radiomics_LUNG1-002.json").read_text())
    with np.load(SHARED / "golden" / "radiomics_LUNG1-002.npz") as arrays:
        matrix = np.diag([*(arrays["spacing_zyx_mm"][::-1] * (-1, -1, 1)), 1.0])
        return Volume(arrays["volume"].transpose(2, 1, 0), matrix, "HU"), arrays["mask"].transpose(2, 1, 0) > 0, golden


def cube(side: int, share: float) -> tuple[Volume, np.ndarray]:
    """Smooth noise of lung-like spread, and a ball that covers a share of the cube, or all of it."""
    from scipy.ndimage import gaussian_filter

    noise = gaussian_filter(np.random.default_rng(0).normal(size=(side,) * 3), 1.5)
    values = np.rint(noise / noise.std() * 200 - 50)
    places = np.indices((side,) * 3) - (side - 1) / 2
    distance = (places**2).sum(0)
    mask = np.ones((side,) * 3, bool) if share >= 1 else distance <= np.quantile(distance, share)
    return Volume(values, np.diag([1.0, 1.0, 3.0, 1.0]), "HU"), mask


def slices(count: int) -> list[tuple[Volume, np.ndarray]]:
    """Slices of 140 x 140 pixels of smooth noise with discs of 8 to 45 pixels radius."""
    from scipy.ndimage import gaussian_filter

    rng = np.random.default_rng(1)
    far = np.hypot(*(np.indices((140, 140)) - 69.5))
    found = []
    for _ in range(count):
        noise = gaussian_filter(rng.normal(size=(140, 140)), 1.5)
        values = np.rint(noise / noise.std() * 100)[:, :, None]
        found.append((Volume(values, np.eye(4), "HU"), (far <= rng.uniform(8, 45))[:, :, None]))
    return found


def worst(found: dict[str, float], golden: dict[str, float]) -> str:
    gaps = {name: abs(found[f"original_{name}"] / value - 1) for name, value in golden.items()}
    name = max(gaps, key=lambda each: gaps[each])
    return f"{gaps[name]:.1e} ({name})"


def main() -> None:
    volume, mask, golden = tumour()
    place = golden["largest_slice_2d"]["index_in_full_volume"] - golden["crop_zyx"]["lo"][0]
    one = Volume(volume.values[:, :, place : place + 1], volume.affine), mask[:, :, place : place + 1]
    body = ["Agreement with PyRadiomics 3.0.1 on LUNG1-002 (bin width 25):", "", "| features | largest relative gap |"]
    body += ["|---|---|"]
    body += [f"| 107 in space | {worst(radiomics_features(volume, mask), golden['volume_3d']['features'])} |"]
    flat = radiomics_features(*one, FLAT)
    body += [f"| 102 of the largest slice | {worst(flat, golden['largest_slice_2d']['features'])} |", ""]

    sliced = slices(SLICES)
    works = [
        ("107, tumour of 125,531 voxels in 38 x 111 x 112", lambda: radiomics_features(volume, mask), 5, ""),
        ("1,781, the same with 19 images", lambda: radiomics_features(volume, mask, EVERY), 5, ""),
    ]
    for share in (0.25, 1.0):
        case = cube(64, share)
        part = f"region of {int(case[1].sum()):,} voxels in 64³"
        works.append((f"107, {part}", lambda case=case: radiomics_features(*case), 5, "0.20 s"))
        works.append((f"1,781, {part}", lambda case=case: radiomics_features(*case, EVERY), 5, "1.64 s"))
    works.append(("102 of one slice of 140 x 140", lambda: radiomics_features(*sliced[0], FLAT), 20, ""))
    body += [
        "| features | survlens, processor seconds | PyRadiomics, measured elsewhere on a 64³ crop |",
        "|---|---|---|",
    ]
    for label, work, repeats, peer in works:
        body.append(f"| {label} | {seconds(work, repeats):.3g} s | {peer or 'not measured'} |")
    start = time.process_time()
    for case in sliced:
        radiomics_features(*case, FLAT)
    body.append(f"| 102 of each of 2,500 slices of 140 x 140 | {time.process_time() - start:.3g} s | not measured |")
    write("radiomics", "Radiomics features", body)


if __name__ == "__main__":
    main()

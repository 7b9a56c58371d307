"""Audit of images: missing, unreadable, blank, of several sizes, twice in the cohort."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from survlens.core.errors import SurvlensError
from survlens.data.columns import as_text, column_of, is_none
from survlens.data.findings import Finding, Severity, finding
from survlens.data.frames import locate
from survlens.data.raster import RasterReader, Reader

NEAR = 0.97
"""Correlation of two thumbnails above which images count as nearly equal: copies that were saved again reach about
0.98, histology tiles and faces of different persons stay below 0.9."""

_THUMBNAIL, _SMALLEST, _BLANK, _ALL_PAIRS = 16, 48, 1.0, 20_000


@dataclass(frozen=True, slots=True, eq=False)
class _Looked:
    """What was seen of one image."""

    row: int
    identity: str
    shape: tuple[int, int, int]
    thumbnail: np.ndarray


def image_findings(
    frame: pd.DataFrame, column: str, patient: np.ndarray, *, root: str | Path | None, reader: Reader | None = None
) -> Iterator[Finding]:
    """All findings of one column of image paths."""
    chosen: Reader = RasterReader() if reader is None else reader
    if root is None:
        message = "paths must start from a folder; none was given. Pass root."
        yield finding("no-root", Severity.ERROR, message, column=column)
        return
    paths = as_text(column_of(frame, column))
    empty = np.flatnonzero(is_none(paths))
    if empty.size:
        message = "each row must name an image; got empty cells. Fill in or remove these rows."
        yield finding("image-missing", Severity.ERROR, message, positions=empty, column=column)
    looked: list[_Looked] = []
    trouble: dict[str, list[tuple[int, str]]] = defaultdict(list)
    for row in np.flatnonzero(~is_none(paths)):
        target, problem = locate(paths[row], root, chosen)
        if problem:
            code = "image-outside-root" if "leads out of it" in problem else "image-not-found"
            trouble[code].append((int(row), problem))
            continue
        try:
            reference = chosen.reference(target, paths[row])
            small = reference.thumbnail(_THUMBNAIL)
            looked.append(_Looked(int(row), reference.identity, reference.shape(), small))
        except SurvlensError as error:
            trouble["image-unreadable"].append((int(row), str(error).rstrip(".")))
    for code, rows in trouble.items():
        more = f" (and {len(rows) - 1} more)" if len(rows) > 1 else ""
        yield finding(code, Severity.ERROR, f"{rows[0][1]}{more}.", positions=[row for row, _ in rows], column=column)
    yield from _size_findings(looked, column)
    yield from _duplicate_findings(looked, column, patient)


def _size_findings(looked: Sequence[_Looked], column: str) -> Iterator[Finding]:
    sizes = Counter(image.shape[1:] for image in looked)
    if len(sizes) > 1:
        (height, width), count = sizes.most_common(1)[0]
        message = (
            f"images have {len(sizes)} sizes, mostly {height} x {width} ({count} of {len(looked)}). Set image_size."
        )
        odd = [image.row for image in looked if image.shape[1:] != (height, width)]
        yield finding("several-sizes", Severity.WARNING, message, positions=odd, column=column)
    channels = Counter(image.shape[0] for image in looked)
    if len(channels) > 1:
        message = "some images are grey and some in colour; all become what the first training image is. Set channels."
        odd = [image.row for image in looked if image.shape[0] != channels.most_common(1)[0][0]]
        yield finding("grey-and-colour", Severity.WARNING, message, positions=odd, column=column)
    blank = [image.row for image in looked if image.thumbnail.std() < _BLANK]
    if blank:
        message = "some images show nothing (one grey value throughout). Look at them, and leave them out."
        yield finding("blank", Severity.WARNING, message, positions=blank, column=column)


def _duplicate_findings(looked: Sequence[_Looked], column: str, patient: np.ndarray) -> Iterator[Finding]:
    full = [image for image in looked if image.thumbnail.std() >= _BLANK]
    groups: dict[str, list[int]] = defaultdict(list)
    for image in full:
        groups[image.identity].append(image.row)
    same = [rows for rows in groups.values() if len(rows) > 1]
    across = sorted(row for rows in same if len(set(patient[rows])) > 1 for row in rows)
    within = sorted(row for rows in same if len(set(patient[rows])) == 1 for row in rows)
    if across:
        message = "one image stands under two patients. Find out whose it is, and remove the other rows."
        yield finding("duplicate-across-patients", Severity.ERROR, message, positions=across, column=column)
    if within:
        message = "one image stands twice under one patient. Remove the copies."
        yield finding("duplicate-within-patient", Severity.WARNING, message, positions=within, column=column)
    large = [image for image in full if min(image.shape[1:]) >= _SMALLEST]
    pairs = [
        (large[i].row, large[j].row)
        for i, j in near_pairs(np.array([image.thumbnail for image in large]))
        if patient[large[i].row] != patient[large[j].row] and large[i].identity != large[j].identity
    ]
    if pairs:
        first, second = pairs[0]
        message = (
            f"{len(pairs)} pair{'s' if len(pairs) > 1 else ''} of images of different patients look the same, "
            f"such as rows {first + 2} and {second + 2}. Look at them: a patient may have two names."
        )
        rows = sorted({row for pair in pairs for row in pair})
        yield finding("near-duplicate-across-patients", Severity.WARNING, message, positions=rows, column=column)


def near_pairs(thumbnails: np.ndarray, *, threshold: float = NEAR) -> list[tuple[int, int]]:
    """Pairs of thumbnails (instance, height, width) whose pixels correlate above `threshold`.

    Up to 20,000 images all pairs are compared; beyond, those whose 8 x 8 difference hashes are equal.
    """
    if len(thumbnails) < 2:
        return []
    flat = thumbnails.reshape(len(thumbnails), -1).astype(np.float32)
    flat -= flat.mean(1, keepdims=True)
    flat /= np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-6)
    if len(flat) <= _ALL_PAIRS:
        blocks = [(np.arange(start, min(start + 1024, len(flat))), np.arange(start, len(flat))) for start in
                  range(0, len(flat), 1024)]  # fmt: skip
    else:
        hashes = np.array([row.tobytes() for row in np.packbits(_difference_hash(thumbnails), axis=1)])
        same = pd.Series(range(len(flat))).groupby(hashes).apply(np.array)
        blocks = [(rows, rows) for rows in same if 1 < len(rows) <= 1024]
    found: list[tuple[int, int]] = []
    for rows, others in blocks:
        i, j = np.nonzero(flat[rows] @ flat[others].T > threshold)
        found += [(int(a), int(b)) for a, b in zip(rows[i], others[j], strict=True) if a < b]
    return found


def _difference_hash(thumbnails: np.ndarray) -> np.ndarray:
    """Whether each of 8 x 8 cells is darker than its right neighbour (the last against the first)."""
    side = thumbnails.shape[1] // 8
    cells = thumbnails[:, : 8 * side, : 8 * side].reshape(len(thumbnails), 8, side, 8, side).mean((2, 4))
    return (cells < np.roll(cells, -1, axis=2)).reshape(len(thumbnails), 64)

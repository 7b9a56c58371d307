"""The job of `survlens portrait align`: photographs to aligned squares, and what became of each."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from survlens.data.portrait_alignment import AlignmentOutcome, FaceDetector, align_photographs, alignment_table
from survlens.data.raster import FileImage
from survlens.study.portrait_files import PHOTO, PhotoTable, write_frame, write_picture

PICTURES, PHOTOS, OUTCOMES = "pictures", "photos.csv", "alignment.csv"
_SAVE_EVERY = 50


def align_job(
    table: PhotoTable,
    detector: FaceDetector,
    out: Path,
    *,
    size: int,
    tell: Callable[[str], object] = lambda _: None,
) -> pd.DataFrame:
    """Aligns every photograph of a table, and writes pictures, a table of them, and what became of each photograph.

    Written are `pictures/*.png`, `photos.csv` (the rows whose face was found, with the aligned file as photo) and
    `alignment.csv` (every row, with its outcome). What stands in `alignment.csv` from an earlier, interrupted call with
    the same size is not done again.

    Args:
        table: Photographs.
        detector: Finds the faces.
        out: Folder to write.
        size: Side of the aligned pictures, a power of two from 16.
        tell: Told of the progress.

    Returns:
        The content of `alignment.csv`.
    """
    names = table.words(PHOTO)
    done = _finished(out, size)
    waiting = [name for name in names if name not in done.index]
    tell(f"{len(names)} photographs, {len(names) - len(waiting)} aligned before")
    photographs = (FileImage(table.folder / name, name) for name in waiting)
    found: list[pd.DataFrame] = [done.reset_index()] if len(done) else []
    for number, each in enumerate(align_photographs(photographs, detector, size=size), start=1):
        row = alignment_table([each.record]).assign(size=size)
        if each.picture is not None:
            write_picture(out / _file(each.record.photograph), each.picture)
        found.append(row)
        if number % _SAVE_EVERY == 0 or number == len(waiting):
            write_frame(out / OUTCOMES, pd.concat(found, ignore_index=True))
            tell(f"{number} of {len(waiting)} photographs")
    outcomes = pd.concat(found, ignore_index=True).set_index(PHOTO).loc[names].reset_index()
    write_frame(out / OUTCOMES, outcomes)
    kept = np.flatnonzero((outcomes["outcome"] == AlignmentOutcome.ALIGNED.value).to_numpy())
    frame = table.frame.iloc[kept].assign(**{"original": names[kept], PHOTO: [_file(name) for name in names[kept]]})
    write_frame(out / PHOTOS, frame)
    return outcomes


def _file(name: str) -> str:
    return f"{PICTURES}/{hashlib.sha256(name.encode()).hexdigest()[:16]}.png"


def _finished(out: Path, size: int) -> pd.DataFrame:
    path = out / OUTCOMES
    if not path.is_file():
        return pd.DataFrame({PHOTO: []}).set_index(PHOTO)
    before = pd.read_csv(path, dtype={PHOTO: str})
    aligned = (before["outcome"] == AlignmentOutcome.ALIGNED.value).to_numpy()
    there = np.array([(out / _file(name)).is_file() for name in before[PHOTO]], dtype=bool)
    keep = (before["size"] == size).to_numpy() & (there | ~aligned)
    return before.iloc[np.flatnonzero(keep)].set_index(PHOTO)

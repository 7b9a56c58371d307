"""The job of `survlens portrait align`: photographs to aligned squares, and what became of each."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from survlens.core.errors import CorruptFileError, DataError
from survlens.data.landmarks import LandmarkTable
from survlens.data.near_copies import SIDE
from survlens.data.portrait_alignment import (
    AlignmentOutcome,
    FaceDetector,
    MarkedOrFound,
    align_photographs,
    alignment_table,
    source_of,
)
from survlens.data.raster import FileImage
from survlens.study.portrait_files import PATIENT, PHOTO, PhotoTable, told_copies, write_frame, write_picture

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
    `alignment.csv` (every row, with its outcome). What stands in `alignment.csv` from an earlier, interrupted call is
    not done again, unless the size, the file of the photograph, its landmarks or the detector are others now. Pictures
    that look like one of another patient are warned of.

    Args:
        table: Photographs.
        detector: Finds the faces.
        out: Folder to write.
        size: Side of the aligned pictures, a power of two from 16.
        tell: Told of the progress.

    Returns:
        The content of `alignment.csv`.

    Raises:
        DataError: If a table of landmarks names none of the photographs, or a file lies outside the table's folder.
    """
    names = table.words(PHOTO)
    marked = detector.table if isinstance(detector, MarkedOrFound) else detector
    if isinstance(marked, LandmarkTable) and not marked.faces.keys() & set(names.tolist()):
        raise DataError(
            f"the table of landmarks must name the photographs as the table of photographs does, such as {names[0]}; "
            "got none of these names. Correct the names."
        )
    files = {name: FileImage(file, name) for name, file in zip(names.tolist(), table.files(), strict=True)}
    made_from = {name: _made_from(file, detector) for name, file in files.items()}
    done = _finished(out, size, made_from)
    waiting = [name for name in names if name not in done.index]
    tell(f"{len(names)} photographs, {len(names) - len(waiting)} aligned before")
    photographs = (files[name] for name in waiting)
    found = _records(done.reset_index())
    for number, each in enumerate(align_photographs(photographs, detector, size=size), start=1):
        row = alignment_table([each.record]).assign(size=size, made_from=made_from[each.record.photograph])
        if each.picture is not None:
            write_picture(out / _file(each.record.photograph), each.picture)
        found += _records(row)
        if number % _SAVE_EVERY == 0 or number == len(waiting):
            write_frame(out / OUTCOMES, pd.DataFrame(found))
            tell(f"{number} of {len(waiting)} photographs")
    outcomes = pd.DataFrame(found).set_index(PHOTO).loc[names].reset_index()
    write_frame(out / OUTCOMES, outcomes)
    kept = np.flatnonzero((outcomes["outcome"] == AlignmentOutcome.ALIGNED.value).to_numpy())
    frame = table.frame.iloc[kept].assign(**{"original": names[kept], PHOTO: [_file(name) for name in names[kept]]})
    write_frame(out / PHOTOS, frame)
    if len(frame):
        kept_table = PhotoTable(frame.reset_index(drop=True), out)
        told_copies(kept_table.pictures(SIDE), kept_table.words(PATIENT), out, PHOTOS)
    return outcomes


def _records(frame: pd.DataFrame) -> list[dict[str, object]]:
    return [dict(zip(frame.columns, row, strict=True)) for row in frame.itertuples(index=False, name=None)]


def _file(name: str) -> str:
    return f"{PICTURES}/{hashlib.sha256(name.encode()).hexdigest()[:16]}.png"


def _made_from(photograph: FileImage, detector: FaceDetector) -> str:
    """Hash of the file and of what finds its face; empty where the file cannot be read."""
    detector = source_of(detector, photograph.name)
    faces = detector.faces.get(photograph.name, ()) if isinstance(detector, LandmarkTable) else ()
    try:
        content = photograph.identity
    except CorruptFileError:
        return ""
    return hashlib.sha256(f"{detector.name} {faces} {content}".encode()).hexdigest()[:16]


def _finished(out: Path, size: int, made_from: Mapping[str, str]) -> pd.DataFrame:
    path = out / OUTCOMES
    if not path.is_file():
        return pd.DataFrame({PHOTO: []}).set_index(PHOTO)
    before = pd.read_csv(path, dtype={PHOTO: str, "made_from": str})
    if "made_from" not in before:
        return before.iloc[:0].set_index(PHOTO)
    aligned = (before["outcome"] == AlignmentOutcome.ALIGNED.value).to_numpy()
    there = np.array([(out / _file(name)).is_file() for name in before[PHOTO]], dtype=bool)
    same = [made_from.get(name) == then for name, then in zip(before[PHOTO], before["made_from"], strict=True)]
    keep = (before["size"] == size).to_numpy() & (there | ~aligned) & np.array(same, dtype=bool)
    return before.iloc[np.flatnonzero(keep)].set_index(PHOTO)

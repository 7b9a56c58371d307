"""Tables of photographs, and the pictures that they name."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float32
from torch import Tensor

from survlens.artifacts.atomic import write_atomically
from survlens.core.errors import DataError
from survlens.core.outcome import SurvivalOutcome
from survlens.data.columns import column_of, nearest, parse_events, parse_numbers
from survlens.data.frames import resolve
from survlens.data.near_copies import near_copies
from survlens.data.raster import FileImage
from survlens.data.table import read_table

PHOTO, PATIENT, PART = "photo", "patient", "part"
TRAIN, TEST = "train", "test"
NEAR_COPIES = "near_copies.csv"


@dataclass(frozen=True, slots=True, eq=False)
class PhotoTable:
    """A row per photograph, with the file of each relative to `folder`.

    Attributes:
        frame: Columns photo and patient, perhaps part (train or test), time, event, age and others.
        folder: Where the files of the photographs are looked for.
    """

    frame: pd.DataFrame
    folder: Path

    @staticmethod
    def read(path: Path | str) -> PhotoTable:
        """Reads a csv or parquet table; photographs are looked for beside it.

        Raises:
            DataError: If there is no row, photo or patient is missing or empty, a photograph stands in two rows, or a
                part is neither train nor test.
        """
        path = Path(path)
        table = PhotoTable(read_table(path), path.parent)
        if not len(table):
            raise DataError(f"{path.name} must hold a row per photograph; got none. Add the photographs.")
        for name in (PHOTO, PATIENT):
            column = table.words(name)
            if (column == "").any():
                raise DataError(f"`{name}` must be filled in every row of {path.name}; got an empty one. Fill it in.")
        twice = pd.Series(table.words(PHOTO)).duplicated().sum()
        if twice:
            raise DataError(f"each photograph must stand in one row of {path.name}; got {twice} more. Remove them.")
        if PART in table.frame:
            other = sorted(set(table.words(PART).tolist()) - {TRAIN, TEST})
            if other:
                raise DataError(f"`{PART}` must be {TRAIN} or {TEST}; got {', '.join(map(repr, other[:5]))}.")
            table.check_parts()
        return table

    def __len__(self) -> int:
        return len(self.frame)

    def __getitem__(self, rows: np.ndarray) -> PhotoTable:
        return PhotoTable(self.frame.iloc[np.arange(len(self))[rows]].reset_index(drop=True), self.folder)

    def words(self, name: str) -> np.ndarray:
        """A column as text, empty where it is missing.

        Raises:
            DataError: If there is no such column.
        """
        self._need(name)
        return column_of(self.frame, name).astype("string").fillna("").str.strip().to_numpy(dtype=str)

    def numbers(self, name: str) -> np.ndarray:
        """A numeric column.

        Raises:
            DataError: If there is no such column, or a value is missing or no number.
        """
        self._need(name)
        values, unreadable = parse_numbers(column_of(self.frame, name))
        bad = unreadable | ~np.isfinite(values)
        if bad.any():
            raise DataError(f"`{name}` must hold a number in every row; got {int(bad.sum())} others. Fill them in.")
        return values

    def outcome(self, unit: str) -> SurvivalOutcome:
        """The outcome in the columns time and event.

        Raises:
            DataError: If a column is missing or unreadable, or photographs of one patient have different outcomes.
        """
        self._need("event")
        event, time = parse_events(column_of(self.frame, "event")), self.numbers("time")
        if np.isnan(event).any():
            raise DataError("`event` must be 0 or 1 in every row; got others. Fill them in.")
        known = pd.DataFrame({"time": time, "event": event}).groupby(self.words(PATIENT)).nunique()
        differing = int((known > 1).any(axis=1).sum())
        if differing:
            raise DataError(
                "time and event must be those of the patient, the same in each row of one; got different ones in "
                f"{differing} patients. Correct them."
            )
        return SurvivalOutcome.from_arrays(time, event.astype(np.int64), unit)

    def part(self, name: str) -> np.ndarray:
        """Rows of a part; all rows train where there is no column part."""
        if PART not in self.frame:
            return np.arange(len(self)) if name == TRAIN else np.empty(0, dtype=np.int64)
        return np.flatnonzero(self.words(PART) == name)

    def check_parts(self) -> None:
        """Refuses a patient with rows in both parts."""
        patient, part = self.words(PATIENT), self.words(PART)
        both = set(patient[part == TRAIN]) & set(patient[part == TEST])
        if both:
            raise DataError(
                f"each patient must stand in one part; got {len(both)} in two. Split patients, not photographs."
            )

    def pictures(self, size: int) -> Float32[Tensor, "instance 3 size size"]:
        """The photographs in [0, 1], square and of one size; larger ones are averaged down.

        Raises:
            DataError: If one cannot be read, is not square, is smaller, or lies outside the folder.
        """
        return torch.stack([read_square(file, size) for file in self.files()])

    def files(self) -> list[Path]:
        """The file of each photograph.

        Raises:
            DataError: If one lies outside the folder.
        """
        return [resolve(name, self.folder) for name in self.words(PHOTO)]

    def _need(self, name: str) -> None:
        names = [str(each) for each in self.frame.columns]
        if name not in names:
            raise DataError(f"the table of photographs must have the column {name!r}. {nearest(name, names)}")


def told_copies(
    pictures: Float32[Tensor, "instance 3 height width"], patient: np.ndarray, folder: Path, table: str
) -> str:
    """Warns of photographs of different patients that look like one picture, and writes their rows to a table.

    Names are neither told nor written: `near_copies.csv` holds pairs of row numbers of a table that lies beside it,
    counted from 1 below the header.

    Args:
        pictures: Aligned photographs.
        patient: Patient of each.
        folder: Where `near_copies.csv` goes.
        table: File in the same folder whose rows are these photographs, in this order.

    Returns:
        The words of the warning; "" where there is no such pair.
    """
    found = near_copies(pictures, patient)
    path = folder / NEAR_COPIES
    if not found.pairs:
        path.unlink(missing_ok=True)
        return ""
    pairs = np.array(found.pairs) + 1
    write_frame(path, {f"row of {table} in this folder": pairs[:, 0], f"other row of {table}": pairs[:, 1]})
    told = (
        f"{found.remark()} Which rows they are in {table} stands in {NEAR_COPIES} in the same folder, counted from 1 "
        "below the header."
    )
    warnings.warn(told, UserWarning, stacklevel=2)
    return told


def read_square(path: Path, size: int) -> Float32[Tensor, "3 size size"]:
    """A square picture in [0, 1], averaged down to `size`.

    Raises:
        DataError: If it cannot be read, is not square, or is smaller.
    """
    picture = torch.from_numpy(np.ascontiguousarray(FileImage(path).read())).float()
    channels, height, width = picture.shape
    if height != width or height % size:
        raise DataError(
            f"photographs must be square with a side of {size} pixels or a multiple; got {height} x {width} in "
            f"{path.name}. Align them first with `survlens portrait align`."
        )
    picture = picture[:3] if channels >= 3 else picture[:1].expand(3, height, width)
    return torch.nn.functional.avg_pool2d(picture[None], height // size)[0].clamp(0, 1)


def write_picture(path: Path, picture: Float32[Tensor, "3 height width"]) -> None:
    """Writes a picture in [0, 1] as PNG, in one step."""
    from PIL import Image

    pixels = (picture.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, lambda draft: Image.fromarray(pixels).save(draft, format="PNG"))


def write_frame(path: Path, columns: Mapping[str, object] | pd.DataFrame) -> None:
    """Writes a csv table, in one step."""
    frame = columns if isinstance(columns, pd.DataFrame) else pd.DataFrame(dict(columns))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, lambda draft: frame.to_csv(draft, index=False))

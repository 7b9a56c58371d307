"""Where the eyes and the mouth are in a photograph, read from a table."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from survlens.core.errors import DataError, InvalidValueError
from survlens.data.columns import as_text, column_of, nearest, parse_numbers, row_text, value_text
from survlens.data.table import read_table

EYES = ("left_eye", "right_eye")
MOUTH = ("mouth",)
MOUTH_CORNERS = ("left_mouth", "right_mouth")


@dataclass(frozen=True, slots=True)
class FaceLandmarks:
    """The three points that tell where a face is, in pixels of the photograph.

    x goes to the right and y downwards from the upper left corner, so the middle of the first pixel is at (0.5, 0.5).
    Left and right are as one sees them in the photograph: the left eye here is the person's right eye.

    Attributes:
        left_eye: (x, y) of the middle of the eye on the left.
        right_eye: (x, y) of the middle of the eye on the right.
        mouth: (x, y) of the middle between the corners of the mouth.

    Raises:
        InvalidValueError: If a number is not finite, the eyes are at one place, or the mouth does not lie below the
            eyes as seen along the line from the left eye to the right one.
    """

    left_eye: tuple[float, float]
    right_eye: tuple[float, float]
    mouth: tuple[float, float]

    def __post_init__(self) -> None:
        if not all(math.isfinite(each) for point in (self.left_eye, self.right_eye, self.mouth) for each in point):
            raise InvalidValueError("landmarks must be finite numbers; got others. Leave out faces without landmarks.")
        across, down = self.between_eyes, self.to_mouth
        if not across[0] * down[1] - across[1] * down[0] > 0:
            raise InvalidValueError(
                "the mouth must lie below the line from the left eye to the right eye; got it on or above that line. "
                "Left and right are as seen in the photograph: exchange them if they are meant as the person's own."
            )

    def within(self, height: int, width: int) -> bool:
        """Whether at least one of the three points lies in a photograph of that size."""
        return any(0 <= x <= width and 0 <= y <= height for x, y in (self.left_eye, self.right_eye, self.mouth))

    @property
    def middle(self) -> tuple[float, float]:
        """The point between the eyes."""
        return (self.left_eye[0] + self.right_eye[0]) / 2, (self.left_eye[1] + self.right_eye[1]) / 2

    @property
    def between_eyes(self) -> tuple[float, float]:
        """From the left eye to the right one."""
        return self.right_eye[0] - self.left_eye[0], self.right_eye[1] - self.left_eye[1]

    @property
    def to_mouth(self) -> tuple[float, float]:
        """From between the eyes to the mouth."""
        return self.mouth[0] - self.middle[0], self.mouth[1] - self.middle[1]

    @property
    def roll(self) -> float:
        """Angle of the line through the eyes in degrees, clockwise as one sees it, in (-180, 180]."""
        return math.degrees(math.atan2(self.between_eyes[1], self.between_eyes[0]))


@dataclass(frozen=True, slots=True)
class LandmarkTable:
    """Landmarks of photographs that someone has marked; takes the place of a face detector.

    Attributes:
        faces: The faces in each photograph, by the name of the photograph.
        name: What reports call the source.
        approximate: Whether the places are guesses.
    """

    faces: Mapping[str, tuple[FaceLandmarks, ...]]
    name: str = "landmark table"
    approximate: bool = False

    def find(self, photograph: str, picture: np.ndarray) -> tuple[FaceLandmarks, ...]:
        """Faces of one photograph; none where the table has none."""
        return tuple(self.faces.get(photograph, ()))


def read_landmarks(path: str | Path, *, photograph: str = "photo") -> LandmarkTable:
    """Reads a table with a row per face.

    Columns: the photograph, left_eye_x, left_eye_y, right_eye_x, right_eye_y, and either mouth_x and mouth_y or
    left_mouth_x, left_mouth_y, right_mouth_x and right_mouth_y; others are not looked at. A row whose landmarks are all
    empty is a photograph without a face; several rows of one photograph are several faces.

    Args:
        path: A csv (comma, semicolon or tab) or parquet file.
        photograph: Column with the name of the photograph.

    Raises:
        DataError: If a column is missing, a photograph has no name, or landmarks are incomplete, not numbers, or those
            of no upright face; the message names columns and rows.
        CorruptFileError: If the file cannot be read.
    """
    return landmarks_from(read_table(path), photograph=photograph)


def landmarks_from(table: pd.DataFrame, *, photograph: str = "photo") -> LandmarkTable:
    """The landmarks in a table that is read already; see `read_landmarks`.

    Raises:
        DataError: As `read_landmarks`.
    """
    names = [str(each) for each in table.columns]
    mouth = MOUTH if "mouth_x" in names or "mouth_y" in names else MOUTH_CORNERS
    points = (*EYES, *mouth)
    columns = [f"{point}_{axis}" for point in points for axis in "xy"]
    for each in (photograph, *columns):
        if each not in names:
            raise DataError(
                f"the table of landmarks must have the columns {', '.join((photograph, *columns))}; it lacks {each!r}. "
                f"{nearest(each, names)}"
            )
    photographs = as_text(column_of(table, photograph))
    _refuse(np.array([each is None for each in photographs], dtype=bool), f"`{photograph}` must name a photograph")
    values = np.empty((len(table), len(columns)))
    for place, column in enumerate(columns):
        values[:, place], unreadable = parse_numbers(column_of(table, column))
        if unreadable.any():
            found = value_text(column_of(table, column)[unreadable])
            _refuse(unreadable, f"`{column}` must hold numbers", f"; got {found}")
    absent = np.isnan(values)
    partly = np.asarray(absent.any(1) & ~absent.all(1))
    _refuse(partly, "a face must have all its landmarks, or none where there is no face")
    faces: dict[str, tuple[FaceLandmarks, ...]] = {str(each): () for each in photographs}
    for row in np.flatnonzero(~absent.any(1)).tolist():
        left, right, *rest = values[row].reshape(-1, 2)
        below = np.mean(rest, axis=0)
        try:
            face = FaceLandmarks(*((float(x), float(y)) for x, y in (left, right, below)))
        except InvalidValueError as error:
            raise DataError(f"{row_text([row])} of the table of landmarks: {error}") from error
        faces[str(photographs[row])] += (face,)
    return LandmarkTable(faces)


def _refuse(bad: np.ndarray, rule: str, found: str = "") -> None:
    if bad.any():
        rows = row_text(np.flatnonzero(bad))
        raise DataError(f"{rule}{found} ({rows} of the table of landmarks). Correct or empty these cells.")

"""Photographs of faces as squares of one size: eyes and mouth come to the same places, and nobody is lost on the way.

The square follows Karras et al. (2018, appendix C): it is upright with respect to eyes and mouth, and as large as both
their distances ask for.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from enum import Enum
from typing import Protocol, runtime_checkable

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float32, Float64
from torch import Tensor
from torch.nn import functional

from survlens.core.errors import CorruptFileError, DataError, InvalidValueError
from survlens.data.landmarks import FaceLandmarks, LandmarkTable
from survlens.data.raster import ImageReference

SMALL_SIDE = 256.0
"""Sides of a source square below this, in pixels, are said to be small."""
LARGE_ROLL = 30.0
"""Rolls beyond this, in degrees, are said to be large."""

_POINTS_AT_ONCE = 2**20


@runtime_checkable
class FaceDetector(Protocol):
    """Finds faces in a photograph: a `LandmarkTable`, a detector of `survlens.data.face_detection`, or your own."""

    @property
    def name(self) -> str:
        """What reports call it."""
        ...

    @property
    def approximate(self) -> bool:
        """Whether eyes and mouth are guessed from a box."""
        ...

    def find(self, photograph: str, picture: Float32[np.ndarray, "channel height width"]) -> tuple[FaceLandmarks, ...]:
        """The faces of the photograph of this name, whose pixels in [0, 1] are `picture`."""
        ...


@dataclass(frozen=True, slots=True)
class MarkedOrFound:
    """Landmarks of a table for the photographs that it names, and a detector for all others.

    A photograph that the table names without landmarks has no face; the detector is not asked.

    Attributes:
        table: Landmarks that someone has marked.
        detector: Asked where the table does not name the photograph.
    """

    table: LandmarkTable
    detector: FaceDetector

    @property
    def name(self) -> str:
        """What reports call both together; each photograph's record names its own."""
        return f"{self.table.name}, else {self.detector.name}"

    @property
    def approximate(self) -> bool:
        """Whether one of them guesses."""
        return self.table.approximate or self.detector.approximate

    def find(self, photograph: str, picture: Float32[np.ndarray, "channel height width"]) -> tuple[FaceLandmarks, ...]:
        """The faces of a photograph."""
        return source_of(self, photograph).find(photograph, picture)


def source_of(detector: FaceDetector, photograph: str) -> FaceDetector:
    """What finds the faces of one photograph: of `MarkedOrFound` one of the two, else the detector itself."""
    if not isinstance(detector, MarkedOrFound):
        return detector
    return detector.table if photograph in detector.table.faces else detector.detector


class AlignmentOutcome(Enum):
    """What became of a photograph."""

    ALIGNED = "aligned"
    NO_FACE = "no face"
    OUTSIDE = "landmarks outside"
    UNREADABLE = "unreadable"


@dataclass(frozen=True, slots=True)
class SourceSquare:
    """The square of a photograph that becomes the aligned picture.

    With e the vector between the eyes and m that from between the eyes to the mouth, half of its upper side points
    along e - perp(m), perp(x, y) = (-y, x), and is max(2 |e|, 1.8 |m|) long; its centre lies 0.1 m below the eyes.

    Attributes:
        centre: (x, y) in pixels of the photograph.
        half: From the centre to the middle of the right side.
    """

    centre: tuple[float, float]
    half: tuple[float, float]

    @staticmethod
    def of(face: FaceLandmarks) -> SourceSquare:
        """The square around a face."""
        (across, rise), (aside, down) = face.between_eyes, face.to_mouth
        x, y = across + down, rise - aside
        length = max(2 * math.hypot(across, rise), 1.8 * math.hypot(aside, down)) / math.hypot(x, y)
        middle = face.middle
        return SourceSquare((middle[0] + 0.1 * aside, middle[1] + 0.1 * down), (x * length, y * length))

    @property
    def side(self) -> float:
        """Length of a side, in pixels of the photograph."""
        return 2 * math.hypot(*self.half)

    @property
    def corners(self) -> Float64[np.ndarray, "4 2"]:
        """Upper left, lower left, lower right, upper right, in pixels of the photograph."""
        return self.to_photograph(np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 1.0], [1.0, 0.0]]), size=1)

    def to_photograph(self, points: Float64[np.ndarray, "point 2"], *, size: int) -> Float64[np.ndarray, "point 2"]:
        """Where points (x, y) of an aligned picture of `size` pixels lie in the photograph."""
        across, down = (2 * points / size - 1).T
        (x, y), (right, up) = self.centre, self.half
        return np.stack([x + across * right - down * up, y + across * up + down * right], axis=1)

    def to_aligned(self, points: Float64[np.ndarray, "point 2"], *, size: int) -> Float64[np.ndarray, "point 2"]:
        """Where points (x, y) of the photograph lie in an aligned picture of `size` pixels."""
        x, y = (points - np.array(self.centre)).T
        right, up = self.half
        along = np.stack([x * right + y * up, y * right - x * up], axis=1) / (right**2 + up**2)
        return (along + 1) * size / 2

    def share_outside(self, height: int, width: int) -> float:
        """Share of the square that lies outside a photograph, and is filled by reflection.

        Measured on 64 x 64 points.
        """
        middles = (np.arange(64) + 0.5) / 64
        points = self.to_photograph(np.stack(np.meshgrid(middles, middles), axis=-1).reshape(-1, 2), size=1)
        inside = (points >= 0).all(1) & (points[:, 0] <= width) & (points[:, 1] <= height)
        return float(1 - inside.mean())


@dataclass(frozen=True, slots=True)
class AlignmentRecord:
    """What became of one photograph; numbers of the source square are None where there is none.

    Attributes:
        photograph: Its name.
        outcome: Whether it was aligned.
        faces: Number of faces found whose landmarks are not all outside the photograph; of several the one with the
            largest square is taken.
        strays: Number of faces whose landmarks are all outside the photograph.
        side: Side of the source square, in pixels of the photograph.
        roll: Angle by which the face was turned upright, in degrees, clockwise.
        outside: Share of the square outside the photograph, filled by reflection.
        source: Name of what found the face.
        approximate: Whether eyes and mouth were guessed from a box.
        reason: Why it could not be read, or empty.
    """

    photograph: str
    outcome: AlignmentOutcome
    faces: int = 0
    strays: int = 0
    side: float | None = None
    roll: float | None = None
    outside: float | None = None
    source: str = ""
    approximate: bool = False
    reason: str = ""

    @property
    def remarks(self) -> tuple[str, ...]:
        """What a reader has to know of it, in words."""
        found = (
            (self.outcome is AlignmentOutcome.NO_FACE, "no face found"),
            (self.outcome is AlignmentOutcome.UNREADABLE, self.reason),
            (self.outcome is AlignmentOutcome.OUTSIDE, "eyes and mouth are all outside the photograph"),
            (self.faces > 1, f"{self.faces} faces, the largest taken"),
            (self.faces > 0 and self.strays > 0, f"{self.strays} more with landmarks outside the photograph"),
            (self.side is not None and self.side < SMALL_SIDE, f"small: {self.side or 0:.0f} pixels"),
            (self.roll is not None and abs(self.roll) > LARGE_ROLL, f"turned by {self.roll or 0:.0f} degrees"),
            (bool(self.outside), f"{100 * (self.outside or 0):.0f} % filled by reflection"),
            (self.approximate, "alignment approximate"),
        )
        return tuple(words for holds, words in found if holds)


@dataclass(frozen=True, slots=True, eq=False)
class AlignedPhotograph:
    """One photograph after alignment.

    Attributes:
        picture: In [0, 1]; None where there is no face within the photograph or the file could not be read.
        record: What became of it.
    """

    picture: Float32[Tensor, "3 size size"] | None
    record: AlignmentRecord


def align_photographs(
    photographs: Iterable[ImageReference], detector: FaceDetector, *, size: int
) -> Iterator[AlignedPhotograph]:
    """Aligns photographs one at a time; every photograph comes back, in order, with what became of it.

    Args:
        photographs: Colour or grey; grey becomes three equal channels.
        detector: Finds the faces.
        size: Height and width of the aligned pictures, a power of two from 16.

    Raises:
        InvalidValueError: If `size` is no power of two from 16.
    """
    _check_size(size)
    return (_aligned(each, detector, size) for each in photographs)


def alignment_table(records: Iterable[AlignmentRecord]) -> pd.DataFrame:
    """A row per photograph: outcome, numbers of the source square, and remarks in words."""
    names = ["photo", "outcome", "faces", "side", "roll", "outside", "source", "approximate", "remarks"]
    return pd.DataFrame(
        [
            {
                "photo": each.photograph,
                "outcome": each.outcome.value,
                "faces": each.faces,
                "side": each.side,
                "roll": each.roll,
                "outside": each.outside,
                "source": each.source,
                "approximate": each.approximate,
                "remarks": "; ".join(each.remarks),
            }
            for each in records
        ],
        columns=pd.Index(names),
    )


def align_face(
    picture: Float32[Tensor, "channel height width"], face: FaceLandmarks, *, size: int
) -> Float32[Tensor, "channel size size"]:
    """Cuts the square around a face by one affine map, upright and free of aliasing.

    Each pixel is the mean of k x k bilinear values, k = side of the source square / `size` rounded up. What lies
    outside the photograph is its reflection at the border; nothing else is padded.

    Args:
        picture: In [0, 1].
        face: In pixels of the picture.
        size: Height and width of the result, a power of two from 16.

    Raises:
        InvalidValueError: If `size` is no power of two from 16.
    """
    _check_size(size)
    square = SourceSquare.of(face)
    finer = max(1, math.ceil(square.side / size))
    height, width = picture.shape[1:]
    middles = (np.arange(size * finer) + 0.5) / finer
    rows = max(1, _POINTS_AT_ONCE // (size * finer * finer))
    parts = []
    for start in range(0, size, rows):
        down = middles[start * finer : (start + rows) * finer]
        points = np.stack(np.meshgrid(middles, down), axis=-1)
        places = square.to_photograph(points.reshape(-1, 2), size=size) * (2 / np.array([width, height])) - 1
        grid = torch.from_numpy(places.astype(np.float32).reshape(1, *points.shape))
        values = functional.grid_sample(picture[None], grid, padding_mode="reflection", align_corners=False)
        parts.append(functional.avg_pool2d(values, finer)[0])
    return torch.cat(parts, dim=1).clamp_(0, 1)


def _aligned(photograph: ImageReference, detector: FaceDetector, size: int) -> AlignedPhotograph:
    detector = source_of(detector, photograph.name)
    lost = AlignmentRecord(photograph.name, AlignmentOutcome.NO_FACE, source=detector.name)
    try:
        pixels = photograph.read()
    except (CorruptFileError, DataError) as error:
        return AlignedPhotograph(None, replace(lost, outcome=AlignmentOutcome.UNREADABLE, reason=str(error)))
    found = detector.find(photograph.name, pixels)
    if not found:
        return AlignedPhotograph(None, lost)
    height, width = pixels.shape[1:]
    faces = [face for face in found if face.within(height, width)]
    strays = len(found) - len(faces)
    if not faces:
        return AlignedPhotograph(None, replace(lost, outcome=AlignmentOutcome.OUTSIDE, strays=strays))
    face = max(faces, key=lambda each: SourceSquare.of(each).side)
    square = SourceSquare.of(face)
    record = replace(
        lost,
        outcome=AlignmentOutcome.ALIGNED,
        faces=len(faces),
        strays=strays,
        side=square.side,
        roll=face.roll,
        outside=square.share_outside(*pixels.shape[1:]),
        approximate=detector.approximate,
    )
    picture = align_face(torch.from_numpy(pixels), face, size=size)
    return AlignedPhotograph(picture if len(picture) == 3 else picture.repeat(3, 1, 1), record)


def _check_size(size: int) -> None:
    if size < 16 or size & (size - 1):
        raise InvalidValueError(f"`size` must be a power of two from 16; got {size}.")

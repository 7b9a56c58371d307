"""Face detectors of optional libraries."""

from __future__ import annotations

import importlib
import importlib.util
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from jaxtyping import Float32, UInt8

from survlens.core.errors import MissingDependencyError
from survlens.data.landmarks import FaceLandmarks

LARGEST_SIDE = 1024
"""Photographs with a longer side are shrunk by a whole factor before faces are looked for."""
DLIB_LICENCE = (
    "The 68 landmarks come from a model trained on the iBUG 300-W photographs, whose terms exclude commercial use."
)
"""What a user of `DlibFaceDetector` has to be told."""

_BOX_EYES, _BOX_MOUTH = ((0.27, 0.34), (0.73, 0.34)), (0.50, 0.76)


@dataclass(frozen=True, slots=True)
class DlibFaceDetector:
    """Eyes and mouth from dlib's face detector and its 68 landmarks (extra `[align]`).

    Looks for frontal faces of about 80 pixels or more, and where there is none once more for smaller ones. Its
    landmark model was trained on the iBUG 300-W photographs, whose terms exclude commercial use.

    Attributes:
        name: What reports call it.
        approximate: False: eyes and mouth are found.

    Raises:
        MissingDependencyError: Without the extra.

    References:
        Kazemi and Sullivan 2014.
    """

    name: str = field(default="dlib, 68 landmarks", init=False)
    approximate: bool = field(default=False, init=False)
    _detector: Any = field(init=False, repr=False, compare=False)
    _predictor: Any = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        dlib = _imported("dlib", 'Install it: pip install "survlens[align]".')
        models = importlib.util.find_spec("face_recognition_models")
        if models is None or not models.submodule_search_locations:
            raise MissingDependencyError(
                "face_recognition_models must be installed to find landmarks; it is not. "
                'Install it: pip install "survlens[align]".'
            )
        file = Path(models.submodule_search_locations[0]) / "models" / "shape_predictor_68_face_landmarks.dat"
        object.__setattr__(self, "_detector", dlib.get_frontal_face_detector())
        object.__setattr__(self, "_predictor", dlib.shape_predictor(str(file)))

    def find(self, photograph: str, picture: Float32[np.ndarray, "channel height width"]) -> tuple[FaceLandmarks, ...]:
        """The faces in a photograph."""
        small, factor = _shrunk(picture)
        boxes = self._detector(small, 0) or self._detector(small, 1)
        faces = []
        for box in boxes:
            parts = self._predictor(small, box)
            points = np.array([(parts.part(i).x, parts.part(i).y) for i in range(68)], dtype=np.float64)
            points = (points + 0.5) * factor
            faces += _plausible(points[36:42].mean(0), points[42:48].mean(0), points[[48, 54]].mean(0))
        return tuple(faces)


@dataclass(frozen=True, slots=True)
class BoxFaceDetector:
    """Guesses eyes and mouth from the box of scikit-image's face detector: approximate, and upright faces only.

    Attributes:
        name: What reports call it.
        approximate: True: eyes and mouth stand where they mostly are in such a box.

    Raises:
        MissingDependencyError: Without scikit-image.

    References:
        Ojala et al. 2002.
    """

    name: str = field(default="scikit-image, box only", init=False)
    approximate: bool = field(default=True, init=False)
    _cascade: Any = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        step = "Install it: pip install scikit-image."
        feature, files = _imported("skimage.feature", step), _imported("skimage.data", step)
        object.__setattr__(self, "_cascade", feature.Cascade(files.lbp_frontal_face_cascade_filename()))

    def find(self, photograph: str, picture: Float32[np.ndarray, "channel height width"]) -> tuple[FaceLandmarks, ...]:
        """The faces in a photograph."""
        small, factor = _shrunk(picture)
        least = max(40, min(small.shape[:2]) // 8)
        found = self._cascade.detect_multi_scale(
            img=small, scale_factor=1.2, step_ratio=1, min_size=(least, least), max_size=small.shape[:2]
        )
        boxes = _merged(
            np.array([[box["c"], box["r"], box["width"], box["height"]] for box in found], dtype=np.float64)
        )
        faces = []
        for corner, extent in boxes:
            faces += _plausible(*(factor * (corner + extent * np.array(each)) for each in (*_BOX_EYES, _BOX_MOUTH)))
        return tuple(faces)


def _merged(boxes: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Mean corner and extent of boxes (x, y, width, height) that hold the centre of the largest among them."""
    merged = []
    while len(boxes):
        corner, extent = boxes[:, :2], boxes[:, 2:]
        centre = (corner + extent / 2)[extent[:, 0].argmax()]
        same = ((centre > corner) & (centre < corner + extent)).all(1)
        merged.append((corner[same].mean(0), extent[same].mean(0)))
        boxes = boxes[~same]
    return merged


def _imported(module: str, step: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingDependencyError(
            f"{module.split('.')[0]} must be installed to find faces; it is not. {step}"
        ) from error


def _shrunk(picture: np.ndarray) -> tuple[UInt8[np.ndarray, "height width 3"], int]:
    """Bytes of a photograph, its sides divided by a whole factor, and the factor."""
    coloured = picture if len(picture) == 3 else np.repeat(picture[:1], 3, axis=0)
    factor = -(-max(coloured.shape[1:]) // LARGEST_SIDE)
    height, width = (each // factor for each in coloured.shape[1:])
    cut = coloured[:, : height * factor, : width * factor]
    small = cut.reshape(3, height, factor, width, factor).mean((2, 4))
    return np.ascontiguousarray(np.rint(255 * small).astype(np.uint8).transpose(1, 2, 0)), factor


def _plausible(*points: np.ndarray) -> list[FaceLandmarks]:
    """A face, or none where the mouth does not lie below the eyes."""
    left, right, mouth = ((float(x), float(y)) for x, y in points)
    across, down = np.subtract(right, left), np.subtract(mouth, np.add(left, right) / 2)
    return [FaceLandmarks(left, right, mouth)] if across[0] * down[1] > across[1] * down[0] else []

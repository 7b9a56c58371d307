"""Optional face detectors find what is known, and say how to install what is missing."""

import importlib.util
import sys

import numpy as np
import pytest

from survlens.core.errors import MissingDependencyError
from survlens.data.face_detection import BoxFaceDetector, DlibFaceDetector
from survlens.data.portrait_alignment import FaceDetector, align_photographs
from survlens.data.raster import ArrayImage
from survlens.data.simulate.portrait_drawing import draw
from survlens.data.simulate.portrait_factors import draw_factors

with_dlib = pytest.mark.skipif(
    importlib.util.find_spec("dlib") is None or importlib.util.find_spec("face_recognition_models") is None,
    reason="needs the extra `align`",
)


def astronaut() -> np.ndarray:
    data = pytest.importorskip("skimage.data", reason="needs scikit-image")
    return np.ascontiguousarray(data.astronaut().transpose(2, 0, 1))


@pytest.mark.parametrize("detector", [DlibFaceDetector, BoxFaceDetector])
def test_a_missing_library_is_named_with_the_command_that_installs_it(detector, monkeypatch):
    for module in ("dlib", "skimage.feature"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingDependencyError, match="pip install"):
        detector()


@with_dlib
def test_dlib_finds_the_eyes_and_mouth_of_the_astronaut():
    photograph = ArrayImage(astronaut(), "astronaut")
    detector = DlibFaceDetector()
    assert isinstance(detector, FaceDetector)
    record = next(align_photographs([photograph], detector, size=64)).record
    assert (record.faces, record.approximate) == (1, False)
    assert record.side == pytest.approx(175, abs=5)
    assert "small" in record.remarks[0]


@with_dlib
def test_dlib_takes_drawn_faces_for_faces_and_finds_where_they_are():
    drawing = draw(draw_factors(10, seed=2), size=256)
    detector = DlibFaceDetector()
    for picture, points in zip(drawing.pictures.numpy(), drawing.landmarks, strict=True):
        (face,) = detector.find("drawn", picture)
        assert np.hypot(*np.subtract(face.mouth, points[2:].mean(0))) < 10
        assert np.hypot(*np.subtract(face.left_eye, points[0])) < 25
    assert detector.find("empty", np.full((3, 200, 200), 0.5, np.float32)) == ()


def test_the_box_of_the_astronaut_is_about_where_the_face_is_and_flagged():
    photograph = ArrayImage(astronaut(), "astronaut")
    detector = BoxFaceDetector()
    assert isinstance(detector, FaceDetector)
    (face,) = detector.find("astronaut", photograph.read())
    for found, known in ((face.left_eye, (204, 102)), (face.right_eye, (247, 104)), (face.mouth, (223, 141))):
        assert np.hypot(*np.subtract(found, known)) < 10
    assert "alignment approximate" in next(align_photographs([photograph], detector, size=64)).record.remarks

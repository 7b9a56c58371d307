"""Alignment: eyes and mouth come to the same places, and no photograph is lost."""

import math

import numpy as np
import pytest
import torch

from survlens.core.errors import InvalidValueError
from survlens.data.landmarks import FaceLandmarks, LandmarkTable
from survlens.data.portrait_alignment import (
    AlignmentOutcome,
    FaceDetector,
    MarkedOrFound,
    SourceSquare,
    align_face,
    align_photographs,
    alignment_table,
)
from survlens.data.raster import ArrayImage, FileImage
from survlens.data.simulate.portrait_drawing import draw
from survlens.data.simulate.portrait_factors import draw_factors

STRAIGHT = {"yaw": 0.0, "roll": 0.0, "shift_x": 0.0, "shift_y": 0.0, "scale": 1.0}


def face_of(points: np.ndarray) -> FaceLandmarks:
    left, right, mouth = (tuple(float(each) for each in point) for point in (*points[:2], points[2:].mean(0)))
    return FaceLandmarks(left, right, mouth)


def marked(*, shift: float = 0.0, scale: float = 1.0) -> FaceLandmarks:
    points = np.array([[30.0, 40.0], [50.0, 41.0], [39.0, 62.0]]) * scale + shift
    return FaceLandmarks(*(tuple(each) for each in points.tolist()))


def test_a_drawn_face_without_pose_is_aligned_already():
    drawing = draw(draw_factors(3, seed=1).assign(**STRAIGHT), size=64)
    for picture, points in zip(drawing.pictures, drawing.landmarks, strict=True):
        square = SourceSquare.of(face_of(points))
        np.testing.assert_allclose(square.centre, (32, 32), atol=1e-9)
        assert square.side == pytest.approx(64)
        torch.testing.assert_close(align_face(picture, face_of(points), size=64), picture, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    "pose",
    [{"roll": 12.0}, {"roll": -15.0, "scale": 0.8}, {"shift_x": 0.12, "shift_y": -0.1}, {"yaw": 0.9, "scale": 1.15}],
)
def test_a_face_turned_scaled_and_shifted_aligns_back_to_the_same_square(pose):
    factors = draw_factors(4, seed=2).assign(**STRAIGHT, light=0.0, light_side=0.0)
    turned = {"yaw": pose.get("yaw", 0.0)}
    straight = draw(factors.assign(**turned), size=64)
    posed = draw(factors.assign(**pose), size=64)
    for row in range(4):
        wanted = align_face(straight.pictures[row], face_of(straight.landmarks[row]), size=32)
        found = align_face(posed.pictures[row], face_of(posed.landmarks[row]), size=32)
        middle = (slice(None), slice(6, 27), slice(8, 24))
        assert (wanted - found)[middle].abs().mean() < 0.012
        unaligned = torch.nn.functional.avg_pool2d(posed.pictures[row], 2)
        assert (wanted - found)[middle].abs().mean() < 0.5 * (wanted - unaligned)[middle].abs().mean()


def test_landmarks_map_to_their_places_exactly_whatever_the_pose():
    rng = np.random.default_rng(0)
    base = np.array([[-0.25, -0.05], [0.25, -0.05], [0.0, 0.45]])
    for _ in range(20):
        angle, scale, shift = rng.uniform(-3, 3), rng.uniform(5, 400), rng.uniform(-500, 500, 2)
        turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
        points = scale * base @ turn + shift
        square = SourceSquare.of(FaceLandmarks(*(tuple(each) for each in points.tolist())))
        np.testing.assert_allclose(square.to_aligned(points, size=64), (base + 1) * 32, atol=1e-8)
        np.testing.assert_allclose(square.to_photograph((base + 1) * 32, size=64), points, atol=1e-8)
        assert square.side == pytest.approx(2 * scale)


def test_the_square_is_that_of_the_formula_in_complex_numbers():
    """Perpendicular is times i: x = e - i m of length max(2 |e|, 1.8 |m|), corners c -x -ix and so on."""
    for shift, scale in ((0.0, 1.0), (7.0, 3.0)):
        face = marked(shift=shift, scale=scale)
        left, right, mouth = (complex(*each) for each in (face.left_eye, face.right_eye, face.mouth))
        eyes, below = right - left, mouth - (left + right) / 2
        x = eyes - 1j * below
        x *= max(2 * abs(eyes), 1.8 * abs(below)) / abs(x)
        centre = (left + right) / 2 + 0.1 * below
        wanted = [centre + each * x for each in (-1 - 1j, -1 + 1j, 1 + 1j, 1 - 1j)]
        found = SourceSquare.of(face).corners
        np.testing.assert_allclose(found[:, 0] + 1j * found[:, 1], wanted)


def test_what_lies_outside_the_photograph_is_its_reflection_and_the_rest_is_untouched():
    picture = torch.rand((3, 40, 40), generator=torch.Generator().manual_seed(0))
    # A square of side 32 centred at (8, 20): 8 columns lie outside on the left, at whole pixels.
    face = FaceLandmarks((4.0, 19.2), (12.0, 19.2), (8.0, 27.2))
    square = SourceSquare.of(face)
    assert square.side == pytest.approx(32)
    np.testing.assert_allclose(square.centre, (8, 20))
    assert square.share_outside(40, 40) == pytest.approx(8 / 32)
    padded = torch.cat([picture[:, :, :8].flip(2), picture], dim=2)
    torch.testing.assert_close(align_face(picture, face, size=32), padded[:, 4:36, :32], rtol=0, atol=1e-5)
    inside = FaceLandmarks((16.0, 19.2), (24.0, 19.2), (20.0, 27.2))
    assert SourceSquare.of(inside).share_outside(40, 40) == 0
    torch.testing.assert_close(align_face(picture, inside, size=32), picture[:, 4:36, 4:36], rtol=0, atol=1e-5)


def test_a_large_photograph_is_shrunk_by_the_mean_and_not_by_picking_pixels():
    board = torch.from_numpy(np.indices((256, 256)).sum(0) % 2).float()[None].repeat(3, 1, 1)
    face = FaceLandmarks((96.0, 121.6), (160.0, 121.6), (128.0, 185.6))
    aligned = align_face(board, face, size=16)
    assert (aligned - 0.5).abs().max() < 1e-4


def test_no_photograph_is_lost_and_each_says_what_became_of_it(tmp_path):
    rng = np.random.default_rng(1)
    plain = rng.uniform(size=(3, 100, 120)).astype(np.float32)
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"\x89PNG\r\n\x1a\n nothing")
    names = ["one", "none", "several", "unknown", "edge", "turned", "grey"]
    photographs = [ArrayImage(plain, name) for name in names[:-1]] + [ArrayImage(plain[0], "grey")]
    photographs.append(FileImage(broken, "broken"))  # pyright: ignore[reportArgumentType]
    turned = FaceLandmarks((60.0, 30.0), (60.0, 50.0), (40.0, 40.0))
    table = LandmarkTable(
        {
            "one": (marked(),),
            "none": (),
            "several": (marked(scale=0.5), marked(), marked(scale=0.7)),
            "edge": (marked(shift=-25.0),),
            "turned": (turned,),
            "grey": (marked(),),
        }
    )
    assert isinstance(table, FaceDetector)
    found = list(align_photographs(photographs, table, size=16))
    records = alignment_table(each.record for each in found).set_index("photo")
    assert list(records.index) == [*names, "broken"]
    outcomes = records["outcome"].to_dict()
    assert outcomes["unknown"] == outcomes["none"] == AlignmentOutcome.NO_FACE.value
    assert outcomes["broken"] == AlignmentOutcome.UNREADABLE.value
    assert [each.picture is None for each in found] == (records["outcome"] != "aligned").tolist()
    assert records.loc["several", "faces"] == 3
    assert "3 faces, the largest taken" in records.loc["several", "remarks"]
    assert records.loc["several", "side"] == records.loc["one", "side"]
    assert records.loc["one", "roll"] == pytest.approx(math.degrees(math.atan(1 / 20)))
    assert records.loc["turned", "roll"] == pytest.approx(90)
    assert "turned by 90 degrees" in records.loc["turned", "remarks"]
    assert "filled by reflection" in records.loc["edge", "remarks"]
    assert records["remarks"].str.contains("small").sum() == 5
    assert "broken must be a whole PNG" in records.loc["broken", "remarks"]
    aligned = {each.record.photograph: each.picture for each in found}
    assert torch.equal(aligned["one"], aligned["several"])
    assert aligned["grey"].shape == (3, 16, 16)
    assert torch.equal(aligned["grey"][0], aligned["grey"][2])


@pytest.mark.parametrize("size", [8, 24, 0])
def test_another_size_is_refused_before_anything_is_read(size):
    with pytest.raises(InvalidValueError, match="power of two"):
        align_photographs([], LandmarkTable({}), size=size)
    with pytest.raises(InvalidValueError, match="power of two"):
        align_face(torch.zeros((3, 20, 20)), marked(), size=size)


def test_landmarks_outside_the_photograph_are_told_and_not_aligned():
    outside, partly = marked(shift=200.0), marked(shift=-35.0)
    table = LandmarkTable({"out": (outside,), "both": (outside, marked()), "part": (partly,)})
    pixels = np.zeros((3, 100, 120), dtype=np.float32)
    found = list(align_photographs([ArrayImage(pixels, name) for name in ("out", "both", "part")], table, size=16))
    assert [each.record.outcome for each in found] == [
        AlignmentOutcome.OUTSIDE, AlignmentOutcome.ALIGNED, AlignmentOutcome.ALIGNED,
    ]  # fmt: skip
    assert found[0].picture is None
    rows = alignment_table([each.record for each in found])
    assert rows["outcome"].tolist() == ["landmarks outside", "aligned", "aligned"]
    assert "all outside the photograph" in rows["remarks"][0]
    assert "1 more with landmarks outside" in rows["remarks"][1]
    assert "filled by reflection" in rows["remarks"][2]


def test_a_detector_sees_to_the_photographs_that_a_table_does_not_name():
    class Guess:
        name, approximate = "guess", True
        asked: list[str] = []  # noqa: RUF012

        def find(self, photograph, picture):
            self.asked.append(photograph)
            return (marked(shift=2.0),)

    both = MarkedOrFound(LandmarkTable({"marked": (marked(),), "masked": ()}), Guess())
    assert isinstance(both, FaceDetector)
    assert (both.name, both.approximate) == ("landmark table, else guess", True)
    pixels = np.zeros((3, 100, 120), dtype=np.float32)
    names = ("marked", "masked", "other")
    records = [each.record for each in align_photographs([ArrayImage(pixels, name) for name in names], both, size=16)]
    assert [each.outcome.value for each in records] == ["aligned", "no face", "aligned"]
    assert [each.source for each in records] == ["landmark table", "landmark table", "guess"]
    assert [each.approximate for each in records] == [False, False, True]
    assert Guess.asked == ["other"]
    assert both.find("marked", pixels) == (marked(),)

"""Tables of landmarks: read exactly, and refused with the columns and rows at fault."""

import re

import numpy as np
import pandas as pd
import pytest

from survlens.core.errors import DataError, InvalidValueError
from survlens.data.landmarks import FaceLandmarks, landmarks_from, read_landmarks

GOOD = pd.DataFrame(
    {
        "photo": ["a.png", "b.png", "a.png", "c.png"],
        "left_eye_x": [10.0, 20.0, 30.0, np.nan],
        "left_eye_y": [10.0, 20.0, 30.0, np.nan],
        "right_eye_x": [20.0, 40.0, 60.0, np.nan],
        "right_eye_y": [10.0, 20.0, 33.0, np.nan],
        "mouth_x": [15.0, 30.0, 45.0, np.nan],
        "mouth_y": [22.0, 45.0, 66.0, np.nan],
    }
)


def test_rows_become_faces_and_empty_rows_photographs_without_one(tmp_path):
    GOOD.to_csv(tmp_path / "faces.csv", index=False)
    table = read_landmarks(tmp_path / "faces.csv")
    assert {name: len(faces) for name, faces in table.faces.items()} == {"a.png": 2, "b.png": 1, "c.png": 0}
    assert table.faces["b.png"] == (FaceLandmarks((20, 20), (40, 20), (30, 45)),)
    assert not table.approximate
    assert table.find("d.png", np.zeros((3, 2, 2), np.float32)) == ()


def test_corners_of_the_mouth_serve_as_well_as_its_middle():
    corners = GOOD.drop(columns=["mouth_x", "mouth_y"]).assign(
        left_mouth_x=GOOD["mouth_x"] - 4,
        right_mouth_x=GOOD["mouth_x"] + 4,
        left_mouth_y=GOOD["mouth_y"] - 1,
        right_mouth_y=GOOD["mouth_y"] + 1,
    )
    assert landmarks_from(corners).faces == landmarks_from(GOOD).faces


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mouth_x": "wide"}, r"`mouth_x` must hold numbers; got 'wide' \(rows 2, 3, 4, 5 "),
        ({"left_eye_y": [1.0, np.nan, 2.0, np.nan]}, r"all its landmarks, or none .* \(row 3 "),
        ({"photo": ["a", None, "b", "c"]}, r"`photo` must name a photograph \(row 3 "),
        ({"mouth_y": [22.0, 1.0, 66.0, np.nan]}, r"row 3 of the table .* mouth must lie below"),
    ],
)
def test_bad_cells_are_refused_with_their_rows(change, message):
    with pytest.raises(DataError, match=message):
        landmarks_from(GOOD.assign(**change))


@pytest.mark.parametrize(
    ("missing", "message"),
    [("right_eye_x", "lacks 'right_eye_x'"), ("mouth_y", "lacks 'mouth_y'"), ("photo", "'photo'")],
)
def test_a_missing_column_is_named(missing, message):
    with pytest.raises(DataError, match=re.escape(message)):
        landmarks_from(GOOD.drop(columns=missing))


def test_left_and_right_of_the_person_are_told_from_those_of_the_picture():
    with pytest.raises(InvalidValueError, match="exchange them"):
        FaceLandmarks((40, 20), (20, 20), (30, 45))
    with pytest.raises(InvalidValueError, match="exchange them"):
        FaceLandmarks((20, 20), (20, 20), (30, 45))
    with pytest.raises(InvalidValueError, match="finite"):
        FaceLandmarks((20, 20), (float("inf"), 20), (30, 45))
    assert FaceLandmarks((20, 40), (20, 20), (60, 30)).roll == pytest.approx(-90)

"""Every bad table is refused with a message that names column, rows and what to do."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from survlens.core.errors import DataError, UsageError
from survlens.data.cohort import Cohort
from survlens.data.schema import CohortSchema


@pytest.fixture
def root(tmp_path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    for name in "abc":
        Image.new("L", (4, 4), 100).save(folder / f"{name}.png")
    Image.new("L", (4, 4), 100).save(tmp_path / "outside.png")
    (folder / "link.png").symlink_to(tmp_path / "outside.png")
    (folder / "notes.pdf").write_bytes(b"%PDF")
    return folder


GOOD = {
    "id": ["p", "q", "r"],
    "row": ["1", "2", "3"],
    "months": [1.0, 2.0, 3.0],
    "died": [1, 0, 1],
    "age": [50.0, 60.0, np.nan],
    "stage": ["I", "II", None],
    "image": ["a.png", "b.png", "c.png"],
}
BAD = [
    ("no time column", {"drop": "months"}, "`time` must name a column of the table; got 'months'"),
    ("misspelt column", {"drop": "died", "Died ": [1, 0, 1]}, "Did you mean 'Died '?"),
    ("no rows", {"rows": 0}, "got none below its header"),
    ("time missing", {"months": [1.0, np.nan, 3.0]}, "`months` must hold a time in every row; got row 3 empty"),
    ("time negative", {"months": [1.0, -2.0, -3.0]}, "got -2.0, -3.0 in rows 3, 4. Check the dates"),
    ("time zero", {"months": [0.0, 2.0, 3.0]}, "got 0 in row 2. Set zero_times to 'drop'"),
    ("time infinite", {"months": [1.0, np.inf, 3.0]}, "`months` must hold numbers; got inf in row 3"),
    ("time in words", {"months": ["1", "2 months", "3"]}, "got '2 months' in row 3"),
    ("decimal comma", {"months": ["1,5", "2,5", "3"]}, "got '1,5', '2,5' in rows 2, 3. Write decimals with a point."),
    ("event of two", {"died": [1, 2, 1]}, "event_values={1: 0, 2: 1}"),
    ("event missing", {"died": [1, None, 1]}, "`died` must hold an event in every row; got row 3 empty"),
    ("event unknown", {"died": ["dead", "lost", "alive"]}, "got 'lost' in row 3"),
    ("event half", {"died": [1, 0.5, 0]}, "got 0.5 in row 3"),
    ("patient missing", {"id": ["p", None, "r"]}, "`id` must be filled in every row; got row 3 empty"),
    ("two outcomes", {"id": ["p", "p", "r"]}, "got two for 1 patients, such as 'p'"),
    ("row names twice", {"row": ["1", "2", "2"]}, "got '2' more than once (rows 3, 4)"),
    ("covariate in words", {"age": ["50", "old", "60"]}, "`age` must hold numbers; got 'old' in row 3"),
    ("covariate infinite", {"age": [50.0, -np.inf, 60.0]}, "`age` must hold numbers; got -inf in row 3"),
    ("unknown level", {"stage": ["I", "X", "IV"]}, "`stage` must be one of I, II; got 'X', 'IV' in rows 3, 4"),
    ("image missing", {"image": ["a.png", None, "c.png"]}, "`image` must be filled in every row; got row 3 empty"),
    ("image not there", {"image": ["a.png", "z.png", "y.png"]}, "'z.png', which does not exist"),
    ("image not there, rows", {"image": ["a.png", "z.png", "y.png"]}, "(rows 3, 4)"),
    ("path upwards", {"image": ["a.png", "../outside.png", "c.png"]}, "must stay inside the data root"),
    ("path far upwards", {"image": ["../../../../etc/passwd", "b.png", "c.png"]}, "which leads out of it"),
    ("absolute path", {"image": ["/etc/hostname", "b.png", "c.png"]}, "which leads out of it"),
    ("path through a link", {"image": ["a.png", "link.png", "c.png"]}, "which leads out of it"),
    ("path with a zero byte", {"image": ["a.png", "b\0.png", "c.png"]}, "a path must be usable"),
    ("image of another kind", {"image": ["a.png", "notes.pdf", "c.png"]}, "which is none of"),
    ("a folder as image", {"image": ["a.png", ".", "c.png"]}, "does not exist"),
]


@pytest.mark.parametrize(("change", "fragment"), [row[1:] for row in BAD], ids=[row[0] for row in BAD])
def test_a_bad_table_is_refused(root, change, fragment):
    change = dict(change)
    dropped, rows = change.pop("drop", None), change.pop("rows", 3)
    table = pd.DataFrame({name: values for name, values in (GOOD | change).items() if name != dropped}).head(rows)
    schema = CohortSchema(
        time="months",
        event="died",
        unit="months",
        patient="id",
        instance="row",
        image="image",
        numeric=("age",),
        ordered={"stage": ("I", "II")},
    )
    with pytest.raises(DataError) as caught:
        Cohort.from_frame(table, schema, root=root)
    assert fragment in str(caught.value)


def test_the_good_table_is_taken(root):
    schema = CohortSchema(time="months", event="died", unit="months", patient="id", image="image")
    assert len(Cohort.from_frame(pd.DataFrame(GOOD), schema, root=root)) == 3
    with pytest.raises(DataError, match="`root` must be given"):
        Cohort.from_frame(pd.DataFrame(GOOD), schema)


@pytest.mark.parametrize(
    ("settings", "fragment"),
    [
        ({"numeric": ("months",)}, "got 'months' in two"),
        ({"numeric": ("age",), "categorical": ("age",)}, "got 'age' in two"),
        ({"numeric": "age"}, "Write it in brackets"),
        ({"unit": ""}, "`unit` must be given"),
        ({"ordered": {"stage": ("I",)}}, "two or more different levels"),
        ({"event_values": {"dead": 2}}, "0 (censored) or 1 (event)"),
    ],
)
def test_a_contradictory_schema_is_refused(settings, fragment):
    with pytest.raises(UsageError) as caught:
        CohortSchema(**({"time": "months", "event": "died", "unit": "months"} | settings))
    assert fragment in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "fragment"),
    [
        ({"table": np.ones((2, 1))}, "one length"),
        ({"patient": ["a"]}, "one length"),
        ({"images": np.zeros((2, 4, 4))}, "one length"),
        ({"images": np.zeros((3, 4))}, "`images` must be"),
        ({"table": np.ones(3)}, "rows and columns"),
        ({"images": np.full((3, 4, 4), 16.0)}, "Divide all images"),
        ({"table": pd.DataFrame([[1, 2]] * 3, columns=["a", "a"])}, "unique column names"),
        ({"table": np.array([[np.inf]] * 3)}, "`x0` must hold numbers"),
        ({"patient": ["a", "a", "b"]}, "two for 1 patients"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(settings, fragment):
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the fragment below is the match
        Cohort.from_arrays((np.array([1.0, 2.0, 3.0]), np.array([1, 0, 1])), unit="days", **settings)
    assert fragment in str(caught.value)

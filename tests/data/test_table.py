"""Tables, events and outcomes are understood in every usual shape, and refused with a reason otherwise."""

import numpy as np
import pandas as pd
import pytest
import torch

from survlens.core.errors import CorruptFileError, DataError, InvalidTypeError, InvalidValueError
from survlens.core.outcome import SurvivalOutcome
from survlens.data.columns import as_text, parse_numbers
from survlens.data.table import Covariate, CovariateKind, events_from, outcome_from, read_table

TIME = np.array([5.0, 2.0, 9.5, 1.0])
EVENT = np.array([1, 0, 0, 1])


def _structured(event_first: bool) -> np.ndarray:
    fields = [("dead", "?"), ("months", "<f8")]
    array = np.empty(4, dtype=fields if event_first else fields[::-1])
    array["dead"], array["months"] = EVENT.astype(bool), TIME
    return array


SHAPES = {
    "outcome": SurvivalOutcome.from_arrays(TIME, EVENT, "months"),
    "structured, event first": _structured(True),
    "structured, time first": _structured(False),
    "tuple": (TIME, EVENT),
    "tuple of tensors": (torch.from_numpy(TIME), torch.from_numpy(EVENT)),
    "tuple of lists": (TIME.tolist(), EVENT.astype(bool).tolist()),
    "array": np.column_stack([TIME, EVENT]),
    "array, event first": np.column_stack([EVENT, TIME]),
    "list of rows": np.column_stack([TIME, EVENT]).tolist(),
    "tensor": torch.from_numpy(np.column_stack([TIME, EVENT])),
    "frame by name": pd.DataFrame({"status": EVENT, "t": TIME}),
    "frame by value": pd.DataFrame({"a": TIME, "b": EVENT.astype(float)}, index=[9, 3, 1, 0]),
    "frame with words": pd.DataFrame({"time": TIME, "vital": ["Dead", "alive", " Alive", "DECEASED"]}),
    "frame with both in 0 and 1": pd.DataFrame({"died": [1, 0, 0, 1], "time": [1.0, 1.0, 1.0, 1.0]}),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_gives_the_same_outcome(shape):
    outcome = outcome_from(SHAPES[shape], unit="months")
    time, event = outcome.numpy()
    assert event.tolist() == EVENT.tolist()
    assert time.tolist() == ([1.0] * 4 if "both" in shape else TIME.tolist())
    assert outcome.unit == "months"


BAD_OUTCOMES = [
    (np.array([[1.0, 1.0], [1.0, 0.0], [1.0, 1.0]]), DataError, "got both: 'column 0' holds 1.0"),
    (np.array([[1.5, 2.5], [2.5, 7.0]]), DataError, "got neither"),
    (pd.DataFrame({"time": [1.0, 2.0], "censored": [0, 1]}), DataError, "(time, 1 - censored)"),
    ((EVENT.astype(bool), TIME), InvalidValueError, "Swap the two"),
    ((TIME, EVENT[:3]), InvalidValueError, "one length"),
    ((TIME, EVENT, EVENT), InvalidTypeError, "tuple of 3"),
    (TIME, InvalidTypeError, "two columns"),
    (np.ones((4, 3)), InvalidTypeError, "two columns, time and event; got 3"),
    ("survival", InvalidTypeError, "got str"),
    ((np.array([1.0, np.nan]), np.array([1, 0])), InvalidValueError, "finite and > 0; got nan at position 1"),
    ((np.array([0.0, 2.0]), np.array([1, 0])), InvalidValueError, "got 0.0 at position 0"),
    ((np.array([1.0, 2.0]), np.array([1.0, np.nan])), DataError, "in every row; got row 3 empty"),
    ((np.array([1.0, 2.0]), np.array([0.5, 1.0])), DataError, "got 0.5 in row 2"),
]


@pytest.mark.parametrize(("y", "error", "fragment"), BAD_OUTCOMES)
def test_an_unclear_outcome_is_refused(y, error, fragment):
    with pytest.raises(error) as caught:
        outcome_from(y, unit="months")
    assert fragment in str(caught.value)


def test_units_are_never_converted():
    outcome = SHAPES["outcome"]
    assert outcome_from(outcome) is outcome
    with pytest.raises(InvalidValueError, match="'months'; got 'years'"):
        outcome_from(outcome, unit="years")
    with pytest.raises(InvalidValueError, match="`unit` must name"):
        outcome_from((TIME, EVENT))


@pytest.mark.parametrize(
    "values",
    [
        [True, False, True],
        [1, 0, 1],
        [1.0, 0.0, 1.0],
        ["1", "0", "1"],
        ["dead", "Alive", " DEAD "],
        ["1:DECEASED", "0:LIVING", "1:DECEASED"],
        pd.Series([1, 0, 1], dtype="Int64"),
        pd.Series([True, False, True], dtype="boolean"),
        pd.Series(["yes", "no", "yes"], dtype="category"),
    ],
)
def test_events_are_understood(values):
    events = events_from(values, name="event")
    assert events.dtype == np.int64
    assert events.tolist() == [1, 0, 1]


def test_named_events_follow_what_the_user_says():
    assert events_from(["Relapse", "none"], name="e", event_values={"relapse": 1, "none": 0}).tolist() == [1, 0]
    assert events_from([2, 1, 2.0], name="e", event_values={"2": 1, "1": 0}).tolist() == [1, 0, 1]
    assert events_from([1, 0], name="censored", event_values={1: 0, 0: 1}).tolist() == [0, 1]
    assert events_from([True, False], name="censored", event_values={True: 0, False: 1}).tolist() == [0, 1]
    assert events_from([True, False], name="censored", event_values={"1": 0, "0": 1}).tolist() == [0, 1]


@pytest.mark.parametrize(
    ("values", "fragment"),
    [
        ([1, 2, 2], "event_values={1: 0, 2: 1}"),
        ([0, 1, 3], "got 3 in row 4"),
        (["dead", "lost"], 'event_values={"lost": 1, ...}'),
        ([1.0, np.nan], "got row 3 empty"),
        ([None, "dead"], "got row 2 empty"),
        ([0.5, 1.0], "got 0.5"),
        ([-1, 1], "got -1"),
    ],
)
def test_other_events_are_refused_with_column_values_and_rows(values, fragment):
    with pytest.raises(DataError) as caught:
        events_from(values, name="outcome")
    assert fragment in str(caught.value)
    assert "`outcome`" in str(caught.value)


def test_event_values_must_be_zero_and_one():
    with pytest.raises(InvalidValueError, match="0 .censored. or 1"):
        events_from(["a"], name="e", event_values={"a": 2})


@pytest.mark.parametrize("mark", [",", ";", "\t"])
def test_separators_are_found(tmp_path, mark):
    path = tmp_path / "table.csv"
    path.write_text("id,x,y\na,1.5,NA\nb,2,3\n\n".replace(",", mark), encoding="utf-8")
    frame = read_table(path)
    assert frame.columns.tolist() == ["id", "x", "y"]
    assert frame["x"].tolist() == [1.5, 2.0]
    assert frame["y"].isna().tolist() == [True, False]


def test_leading_zeros_words_and_truth_values_survive(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("\ufeffid,therapy,died,zero\n007,None,True,0\n012,drug,False,0.5\n", encoding="utf-8")
    frame = read_table(path)
    assert frame["id"].tolist() == ["007", "012"]
    assert frame["therapy"].tolist() == ["None", "drug"]
    assert frame["died"].tolist() == [True, False]
    assert frame["zero"].tolist() == [0.0, 0.5]


def test_decimal_commas_are_read_in_semicolon_files_only(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("a;b;c\n1,5;1.5;1.234,5\n2;3,5;1\n", encoding="utf-8")
    frame = read_table(path)
    assert frame["a"].tolist() == [1.5, 2.0]
    assert frame["b"].tolist() == ["1.5", "3,5"]
    assert frame["c"].tolist() == ["1.234,5", "1"]
    path.write_text('a\tb\n"1,5"\t1\n', encoding="utf-8")
    assert read_table(path)["a"].tolist() == ["1,5"]


def test_parquet_gives_what_was_written(tmp_path):
    frame = pd.DataFrame({"id": ["a", "b"], "x": [1.0, np.nan]})
    frame.to_parquet(tmp_path / "t.parquet")
    pd.testing.assert_frame_equal(read_table(tmp_path / "t.parquet"), frame)
    frame.set_index("id").to_parquet(tmp_path / "i.parquet")
    assert read_table(tmp_path / "i.parquet")["id"].tolist() == ["a", "b"]


@pytest.mark.parametrize(
    ("name", "content", "error", "fragment"),
    [
        ("none.csv", None, DataError, "does not exist"),
        ("t.xlsx", b"PK", DataError, "Export the table as csv"),
        ("t.csv", b"", DataError, "got nothing"),
        ("t.csv", b"a,a\n1,2\n", DataError, "'a' more than once"),
        ("t.csv", b"a,b\n1,2,3\n", CorruptFileError, "as many cells"),
        ("t.csv", b"a,b\n\xff\xfe,2\n", CorruptFileError, "CSV UTF-8"),
        ("t.csv", b'a,b\n"1,2\n', CorruptFileError, "Mend that row"),
        ("t.parquet", b"PAR1 but no more", CorruptFileError, "must be a parquet file"),
    ],
)
def test_a_bad_file_is_refused(tmp_path, name, content, error, fragment):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(error) as caught:
        read_table(path)
    assert fragment in str(caught.value)


def test_numbers_are_told_from_missing_and_unreadable():
    numbers, unreadable = parse_numbers(pd.Series(["1.5", None, "x", "inf", True], dtype=object))
    assert np.array_equal(numbers, [1.5, np.nan, np.nan, np.nan, 1.0], equal_nan=True)
    assert unreadable.tolist() == [False, False, True, True, False]
    assert parse_numbers(pd.Series(pd.to_datetime(["2020-01-01"])))[1].tolist() == [True]
    assert parse_numbers(pd.Series([1, 2], dtype="category"))[0].tolist() == [1.0, 2.0]


def test_text_of_whole_floats_has_no_point():
    assert as_text(pd.Series([1.0, np.nan, 2.5])).tolist() == ["1", None, "2.5"]
    assert as_text(pd.Series([" a ", "", None], dtype=object)).tolist() == ["a", None, None]


def test_only_named_covariates_have_levels():
    with pytest.raises(InvalidValueError, match="`levels`"):
        Covariate("age", CovariateKind.NUMERIC, ("a",))
    with pytest.raises(InvalidValueError, match="`levels`"):
        Covariate("stage", CovariateKind.ORDERED)

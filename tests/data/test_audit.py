"""An audit finds what is wrong, says where, and never raises for bad data."""

import json
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from survlens.data.audit import Severity, audit, covariate_summary, flow, follow_up
from survlens.data.cohort import Cohort
from survlens.data.image_checks import near_pairs
from survlens.data.schema import CohortSchema, ZeroTimes
from survlens.data.table import read_table

N = 40


def _texture(seed: int, size: int = 64) -> Image.Image:
    cells = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return Image.fromarray(cells).resize((size, size), Image.Resampling.BICUBIC)


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("audit") / "data"
    folder.mkdir()
    for i in range(N):
        _texture(i).save(folder / f"{i}.png")
    (folder / "same.png").write_bytes((folder / "0.png").read_bytes())
    _texture(0).save(folder / "again.jpg", quality=70)
    _texture(0).resize((96, 96)).save(folder / "larger.png")
    Image.new("RGB", (64, 64), (200, 200, 200)).save(folder / "blank.png")
    _texture(99).convert("L").save(folder / "grey.png")
    _texture(99).save(folder / "whole.jpg")
    (folder / "torn.jpg").write_bytes((folder / "whole.jpg").read_bytes()[:700])
    return folder


def _table() -> pd.DataFrame:
    random = np.random.default_rng(0)
    return pd.DataFrame({
        "id": [f"p{i // 2}" for i in range(N)],
        "row": range(N),
        "months": np.repeat(random.exponential(10, N // 2), 2),
        "died": np.repeat(random.permutation([1] * 15 + [0] * 5), 2),
        "age": np.repeat(random.normal(60, 9, N // 2), 2),
        "sex": np.repeat(random.permutation(["f", "m"] * 10), 2),
        "stage": np.repeat(random.permutation(["I", "II"] * 10), 2),
        "image": [f"{i}.png" for i in range(N)],
        "part": ["train"] * 24 + ["test"] * 16,
    })  # fmt: skip


SETTINGS = {
    "time": "months",
    "event": "died",
    "unit": "months",
    "patient": "id",
    "instance": "row",
    "image": "image",
    "numeric": ("age",),
    "categorical": ("sex",),
    "ordered": {"stage": ("I", "II")},
    "split": "part",
}


def _put(column, values):
    """Puts values into the first rows of a column."""

    def change(table):
        table[column] = [*values, *table[column].iloc[len(values) :]]

    return change


def _whole(column, make):
    def change(table):
        table[column] = make(table)

    return change


FINDINGS = [
    ("missing-column", "error", lambda table: table.drop(columns="age", inplace=True), ()),
    ("time-missing", "error", _put("months", [None, None]), (2, 3)),
    ("time-not-numeric", "error", _put("months", ["1,5", "2 months"]), (2, 3)),
    ("time-negative", "error", _put("months", [-1.0, -1.0]), (2, 3)),
    ("time-zero", "error", _put("months", [0.0, 0.0]), (2, 3)),
    ("event-not-binary", "error", _put("died", [2, 2]), (2, 3)),
    ("event-not-binary", "error", _put("died", ["lost", 0.5]), (2, 3)),
    ("event-missing", "error", _put("died", [None, None]), (2, 3)),
    ("patient-missing", "error", _put("id", [None]), (2,)),
    ("patient-two-outcomes", "error", _put("months", [1.0, 2.0]), (2, 3)),
    ("patient-in-two-splits", "error", _put("part", ["test"]), (2, 3)),
    ("instance-repeated", "error", _put("row", [5]), (2, 7)),
    ("no-events", "error", _whole("died", lambda table: 0), ()),
    ("one-event", "error", _whole("died", lambda table: (table["id"] == "p3").astype(int)), ()),
    ("times-all-equal", "error", _whole("months", lambda table: 7.0), ()),
    ("not-numeric", "error", _put("age", ["old"]), (2,)),
    ("unknown-level", "error", _put("stage", ["I", "IV"]), (3,)),
    ("all-missing", "error", _whole("age", lambda table: np.nan), ()),
    ("constant", "warning", _whole("sex", lambda table: "f"), ()),
    ("rare-level", "warning", _put("sex", ["other"]), (2,)),
    ("missing-values", "note", _put("age", [None, np.nan]), (2, 3)),
    ("leaks-time", "warning", _whole("age", lambda table: table["months"] ** 2), ()),
    ("leaks-time", "warning", _whole("age", lambda table: -table["months"]), ()),
    ("leaks-event", "warning", _whole("age", lambda table: 1 - table["died"]), ()),
    ("leaks-event", "warning", _whole("age", lambda table: table["age"].where(table["died"] == 1)), ()),
    ("few-events-per-parameter", "warning", lambda table: None, ()),
    ("follow-up", "note", lambda table: None, ()),
    ("image-missing", "error", _put("image", ["0.png", None]), (3,)),
    ("image-not-found", "error", _put("image", ["nowhere.png"]), (2,)),
    ("image-outside-root", "error", _put("image", ["0.png", "../../x.png"]), (3,)),
    ("image-unreadable", "error", _put("image", ["torn.jpg"]), (2,)),
    ("duplicate-across-patients", "error", _put("image", ["0.png", "1.png", "same.png"]), (2, 4)),
    ("duplicate-within-patient", "warning", _put("image", ["0.png", "same.png"]), (2, 3)),
    ("near-duplicate-across-patients", "warning", _put("image", ["0.png", "1.png", "again.jpg"]), (2, 4)),
    ("near-duplicate-across-patients", "warning", _put("image", ["0.png", "1.png", "larger.png"]), (2, 4)),
    ("blank", "warning", _put("image", ["blank.png", "1.png", "blank.png"]), (2, 4)),
    ("several-sizes", "warning", _put("image", ["larger.png"]), (2,)),
    ("grey-and-colour", "warning", _put("image", ["grey.png"]), (2,)),
    ("repeated-column", "error", lambda table: table.insert(0, "age", 1, allow_duplicates=True), ()),
]  # fmt: skip


@pytest.mark.parametrize(
    ("code", "severity", "change", "rows"), FINDINGS, ids=[f"{i} {row[0]}" for i, row in enumerate(FINDINGS)]
)
def test_what_is_wrong_is_found(root, code, severity, change, rows):
    table = _table()
    change(table)
    report = audit(table, CohortSchema(**SETTINGS), root=root)
    found = [one for one in report.findings if one.code == code]
    assert len(found) == 1
    assert found[0].severity.value == severity
    assert found[0].rows == rows
    assert report.ok == (not report.of(Severity.ERROR))
    serious = {one.code for one in report.findings if one.severity is Severity.ERROR}
    assert serious <= {code}
    json.dumps(report.to_json(), allow_nan=False)
    assert all(isinstance(cell, str) for row in report.rows() for cell in row)


def test_a_good_table_has_no_errors_and_its_counts(root):
    report = audit(_table(), CohortSchema(**SETTINGS), root=root)
    assert report.ok
    assert report.counts == {"instances": N, "patients": 20, "events": 15}
    assert {one.code for one in report.findings} == {"few-events-per-parameter", "follow-up"}
    assert [one.severity for one in report.findings] == [Severity.WARNING, Severity.NOTE]


def test_everything_wrong_at_once_raises_nothing(root):
    table = _table()
    for _, _, change, _ in FINDINGS[1:-1]:
        change(table)
    report = audit(table, CohortSchema(**SETTINGS), root=root)
    assert not report.ok
    nothing = audit(pd.DataFrame({"a": []}), CohortSchema(**SETTINGS))
    assert {"missing-column", "no-rows"} <= {one.code for one in nothing.findings}
    words = pd.DataFrame({name: ["?"] * 3 for name in _table().columns})
    assert not audit(words, CohortSchema(**SETTINGS), root=root).ok
    dates = pd.DataFrame({name: pd.to_datetime(["2020-01-01"] * 3) for name in _table().columns})
    assert not audit(dates, CohortSchema(**SETTINGS), root=root).ok


CELLS = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 3), st.floats(), st.text(max_size=3), st.dates(), st.just("0.png")
)
TABLES = st.integers(1, 6).flatmap(
    lambda n: st.fixed_dictionaries({name: st.lists(CELLS, min_size=n, max_size=n) for name in _table().columns})
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(TABLES, st.sampled_from(ZeroTimes))
def test_no_content_of_cells_raises(root, table, rule):
    report = audit(pd.DataFrame(table), CohortSchema(**SETTINGS, zero_times=rule), root=root)
    json.dumps(report.to_json(), allow_nan=False)
    if not report.ok:
        return
    assert len(Cohort.from_frame(pd.DataFrame(table), CohortSchema(**SETTINGS, zero_times=rule), root=root)) > 0


@pytest.mark.parametrize(("rule", "severity"), list(zip(ZeroTimes, ("error", "note", "note"), strict=True)))
def test_zero_times_are_judged_by_what_is_done_with_them(rule, severity):
    table = _table()
    table.loc[:1, "months"] = 0.0
    schema = CohortSchema(time="months", event="died", unit="months", patient="id", zero_times=rule)
    report = audit(table, schema)
    assert next(one.severity.value for one in report.findings if one.code == "time-zero") == severity
    assert report.counts["patients"] == (20 if rule is ZeroTimes.SMALLEST else 19)
    if rule is not ZeroTimes.ERROR:
        cohort = Cohort.from_frame(table, schema)
        assert cohort.n_patients == report.counts["patients"]


@pytest.mark.parametrize("name", ["survival_days", "VitalStatus", "os.months", "follow_up", "date_of_death"])
def test_names_that_sound_like_the_outcome_are_warned_of(name):
    table = _table().rename(columns={"age": name})
    report = audit(table, CohortSchema(time="months", event="died", unit="months", numeric=(name,)))
    assert [one.column for one in report.findings if one.code == "leaking-name"] == [name]


def test_a_censoring_flag_is_warned_of():
    table = _table().rename(columns={"died": "censored"})
    report = audit(table, CohortSchema(time="months", event="censored", unit="months"))
    assert "event-may-be-inverted" in {one.code for one in report.findings}


def test_what_passes_the_audit_loads_and_what_fails_does_not(root):
    for code, severity, change, _ in FINDINGS:
        table = _table()
        change(table)
        schema = CohortSchema(**SETTINGS)
        statistical = {"no-events", "one-event", "times-all-equal", "all-missing", "patient-in-two-splits"}
        pixels = {"image-unreadable", "duplicate-across-patients"}
        refused = severity == "error" and code not in statistical | pixels
        if refused:
            with pytest.raises(ValueError, match=r"must|twice|unique"):
                Cohort.from_frame(table, schema, root=root)
        else:
            assert len(Cohort.from_frame(table, schema, root=root)) == N


def test_glioma_passes_in_time(shared):
    schema = CohortSchema(
        time="followup_years",
        event="died",
        unit="years",
        patient="patient_id",
        image="image",
        numeric=("age_years", "male", "idh_mutation", "codeletion_1p19q"),
        zero_times=ZeroTimes.DROP,
    )
    path = shared("data", "tcga_glioma", "clinical.csv")
    frame = read_table(path)
    start = time.process_time()
    report = audit(frame, schema, root=path.parent)
    assert time.process_time() - start < 15
    assert report.ok
    assert {one.code for one in report.findings} == {"time-zero", "follow-up", "missing-values"}
    assert report.counts == {"instances": 1237, "patients": 615, "events": 302}
    cohort = Cohort.from_frame(frame, schema, root=path.parent)
    summary = {entry["name"]: entry for entry in covariate_summary(cohort)}
    assert summary["idh_mutation"]["missing"] == 60
    assert summary["age_years"]["n"] == 615
    assert [step["patients"] for step in flow(frame, schema, cohort)] == [616, 1, 615]


def test_summaries_count_patients():
    table = _table()
    table.loc[:1, "age"] = np.nan
    schema = CohortSchema(
        time="months", event="died", unit="months", patient="id", numeric=("age",), categorical=("sex",)
    )
    cohort = Cohort.from_frame(table, schema)
    age, sex = covariate_summary(cohort, parts={"train": np.arange(20), "test": np.arange(20, N)})
    assert (age["n"], age["missing"]) == (20, 1)
    assert age["median"] == pytest.approx(table["age"].drop_duplicates().median())
    assert sex["levels"] == {"f": 10, "m": 10}
    assert sex["summary"] == "f 10 (50 %); m 10 (50 %)"
    assert set(age["by_part"]) == {"train", "test"}
    assert flow(table, schema, cohort, parts={"train": np.arange(20)})[-1]["patients"] == 10


def test_follow_up_is_the_median_of_the_censoring_time():
    schema = CohortSchema(time="t", event="e", unit="years")
    cohort = Cohort.from_frame(pd.DataFrame({"t": [1.0, 2, 3, 4], "e": [0, 0, 0, 0]}), schema)
    assert follow_up(cohort.outcome)["median"] == 2.5
    died = Cohort.from_frame(pd.DataFrame({"t": [1.0, 2, 3, 4], "e": [1, 1, 1, 1]}), schema)
    assert follow_up(died.outcome) == {"median": None, "lower": None, "upper": None}


def test_near_pairs_equal_a_slow_comparison(monkeypatch):
    random = np.random.default_rng(0)
    thumbs = random.integers(0, 256, (30, 16, 16)).astype(np.uint8)
    thumbs[7] = np.clip(thumbs[3].astype(int) + random.integers(-3, 4, (16, 16)), 0, 255)
    thumbs[20] = (thumbs[11] * 0.9).astype(np.uint8)
    correlation = np.corrcoef(thumbs.reshape(30, -1))
    slow = [(i, j) for i in range(30) for j in range(i + 1, 30) if correlation[i, j] > 0.97]
    assert near_pairs(thumbs) == slow == [(3, 7), (11, 20)]
    monkeypatch.setattr("survlens.data.image_checks._ALL_PAIRS", 10)
    assert (11, 20) in near_pairs(thumbs)

"""The section of portraits: read from files, drawn, and never without its ethics note."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from survlens.core.errors import CorruptFileError, InvalidValueError
from survlens.core.score import Interval, Score
from survlens.report.blocks import Plot, Table
from survlens.report.figures.canvas import save_figure
from survlens.report.figures.edits import FrontPoint, edit_front_figure, edit_grid_figure
from survlens.report.portrait_reader import FOLDER, PICTURES, RECORD, read_portraits
from survlens.report.portrait_records import EditRow
from survlens.report.records import Metrics, RunContent
from survlens.report.sections.portraits import ETHICS, portraits
from survlens.report.wording import MISSING

SCORE = Score("concordance_index", 0.71, Interval(0.64, 0.78))


def slope(value: float) -> dict[str, object]:
    return Score("edit_slope", value, Interval(value - 0.1, value + 0.1)).to_json()


def record(**changes: object) -> dict[str, object]:
    score = SCORE.to_json()
    return {
        "embedding": {"distance": "pyramid", "photographs": 12},
        "agreement": [0.5, 0.7, None],
        "space": "w",
        "fitted_on": ["generator: fitted on 8 patients, none of them held out."],
        "transductive": False,
        "steps": [-1, 0, 1],
        "unit": "SD of predicted risk",
        "readers": {"risk": "a model, in SD of its predictions", "age": "a regression, in SD of the true value"},
        "edits": [
            {
                "name": "higher hazard",
                "remark": "The direction is stable.",
                "scores": {"risk rises": score},
                "slopes": {"risk": slope(0.4), "age": slope(0.1)},
                "age_over_health": slope(0.25),
                "control_p": 0.5,
                "capped": 0.125,
                "agreement": {"bootstrap": slope(0.8), "halves": slope(0.6), "expected": 0.87, "reliable": True},
            },
            {
                "name": "random direction 1",
                "control": True,
                "scores": {"risk rises": score},
                "slopes": {"risk": slope(0.03), "age": slope(-0.2)},
                "capped": 0.0,
            },
        ],
        "scores": [{"model": "photo", "score": score}],
        "subgroups": [{"column": "sex", "level": "female", "n": 40, "n_events": 12, "score": score}],
    } | changes


def run(folder: Path, content: dict[str, object]) -> Path:
    home = folder / FOLDER
    home.mkdir()
    (home / RECORD).write_text(json.dumps(content))
    pictures = np.random.default_rng(0).integers(0, 255, (2, 3, 3, 8, 8), dtype=np.uint8)
    np.savez_compressed(home / PICTURES, edit0=pictures, photographs=pictures[:, 0])
    return folder


def section(folder: Path):
    return portraits(RunContent(metrics=object.__new__(Metrics), portraits=read_portraits(folder)))


def test_what_was_written_is_read_and_drawn(tmp_path: Path):
    found = read_portraits(run(tmp_path, record()))
    assert found is not None
    assert [edit.control for edit in found.edits] == [False, True]
    assert found.scores["photo"].value == 0.71
    assert np.isnan(found.agreement[2])
    assert len(found.edits[0].rows) == 2
    assert found.edits[0].rows[0].pictures.shape == (3, 3, 8, 8)
    made = section(tmp_path)
    assert made is not None
    plots = [block for block in made.blocks if isinstance(block, Plot)]
    assert [plot.name for plot in plots] == ["portraits-restarts", "portraits-subgroups", "portraits-edit-1"]
    for plot in plots:
        save_figure(plot.figure, tmp_path, plot.name)


def test_slopes_on_age_stand_beside_those_on_health_with_controls_and_trust(tmp_path: Path):
    made = section(run(tmp_path, record()))
    assert made is not None
    tables = {block.caption: block for block in made.blocks if isinstance(block, Table)}
    beside = tables["Age beside health, along each direction"]
    heads = ["Direction", "Slope on risk", "Slope on age", "|Age| over |health|", "Share of controls as steep"]
    assert [column.title for column in beside.columns] == [*heads, "Stopped at the edge"]
    version, control = beside.rows
    assert [str(getattr(cell, "value", cell)) for cell in version[1:]] == ["0.40", "0.10", "0.25", "0.50", "12 %"]
    assert version[1].interval == "0.30 to 0.50"
    assert control[0] == "random direction 1 (control)"
    assert control[3] == control[4] == MISSING
    assert "of 1 control and the edit, those whose slope on health is as large, 0.50 at least" in beside.note
    assert "It is no p-value" in beside.note
    assert "Read by a model, in SD of its predictions: risk. Read by a regression, in SD of the true value: age." in (
        beside.note
    )
    (trust,) = tables["How far the directions come back"].rows
    assert (trust[3], trust[4]) == ("0.87", "yes")
    cells = [cell for table in tables.values() for row in table.rows for cell in row]
    assert not any("edit_slope" in str(getattr(cell, "value", cell)) for cell in cells)


@pytest.mark.parametrize(
    ("readers", "told"),
    [
        ({"risk": "a model", "age": "a model"}, "Read by a model: risk, age."),
        ({"risk": "a model"}, "Read by a model: risk. Read by a reader that the record does not describe: age."),
        (None, "Read by a reader that the record does not describe: risk, age."),
    ],
)
def test_the_note_says_of_each_reader_what_the_record_says(tmp_path: Path, readers: object, told: str):
    made = section(run(tmp_path, record(readers=readers)))
    assert made is not None
    (note,) = [block.note for block in made.blocks if getattr(block, "caption", "").startswith("Age beside health")]
    assert told in note
    assert note.count("Read by") == told.count("Read by")


def test_the_ethics_note_comes_first_and_a_generator_that_saw_test_patients_is_told(tmp_path: Path):
    made = section(run(tmp_path, record(transductive=True)))
    assert made is not None
    assert made.blocks[0].items == ETHICS  # type: ignore[union-attr]
    assert any("NOT out of sample" in getattr(block, "text", "") for block in made.blocks)


def test_a_run_without_portraits_has_no_section(tmp_path: Path):
    assert section(tmp_path) is None


def test_a_damaged_record_says_where(tmp_path: Path):
    run(tmp_path, record(edits=[{"scores": {}}]))
    with pytest.raises(CorruptFileError, match=r"edits\[0\]\.name"):
        read_portraits(tmp_path)


def test_a_grid_needs_a_picture_per_step():
    row = EditRow("x", np.zeros((2, 3, 4, 4)))
    with pytest.raises(InvalidValueError, match="each with 3 pictures"):
        edit_grid_figure([row], steps=(-1, 0, 1), unit="SD")


def test_the_front_names_versions_and_counts_controls(tmp_path: Path):
    points = [FrontPoint("raw", SCORE, SCORE), FrontPoint("random 1", SCORE, SCORE, control=True)]
    figure = edit_front_figure(points, along="illness", aside="age")
    save_figure(figure, tmp_path, "front")
    assert figure.axes[0].get_legend_handles_labels()[1] == ["1 controls", "raw"]

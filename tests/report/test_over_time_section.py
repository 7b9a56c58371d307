"""The section on explanations over time: complete, honest about its checks, and without names of patients."""

import json
from dataclasses import replace

import pytest

from report.explanations_over_time import SECRET, check, write_over_time
from survlens.artifacts.attribution_files import read_attributions, write_attributions
from survlens.core.errors import CorruptFileError
from survlens.core.score import Category, Direction
from survlens.report import document
from survlens.report.blocks import Bullets, Paragraph, Plot, Table
from survlens.report.content import read_content
from survlens.report.document import write_report
from survlens.report.over_time_records import Check
from survlens.report.over_time_verdict import CheckVerdict, check_verdict, standard_text
from survlens.report.sections.over_time import explanations_over_time


@pytest.fixture
def home(run_folder):
    return write_over_time(run_folder / "explanations" / "fused" / "over_time" / "gradshap-survival")


@pytest.fixture(scope="module")
def explained(tmp_path_factory, write_run):
    """A run with one explanation of pictures and a table, and a smaller one of a table; do not change it."""
    folder = write_run(tmp_path_factory.mktemp("section") / "run")
    home = folder / "explanations" / "fused" / "over_time"
    write_over_time(home / "gradshap-survival")
    write_over_time(home / "second", patients=8, image=False)
    return folder


@pytest.fixture(scope="module")
def both(explained):
    return explanations_over_time(read_content(explained))


@pytest.fixture(scope="module")
def section(both):
    """The first explanation alone: what stands before the second is told."""
    starts = [place for place, block in enumerate(both.blocks) if getattr(block, "text", "").startswith("Explanation ")]
    return replace(both, blocks=both.blocks[: starts[1]])


def said(section):
    words = []
    for block in section.blocks:
        if isinstance(block, Paragraph):
            words.append(block.text)
        elif isinstance(block, Bullets):
            words += block.items
        elif isinstance(block, Plot):
            words.append(block.caption)
    return " ".join(words)


def test_section_says_what_against_what_and_with_what_doubt(section):
    words = said(section)
    for told in (
        "CoxVAE + table", "GradSHAP", "survival", "12 held-out patients of fold 1", "25 training patients",
        "20 times from 3 to 60 months", "Numerical error of a contribution: not estimated", "standard error",
        "Completeness gap", "at most 1e−06 (probability)", "nearest to the 10th percentile", "A note.",
    ):  # fmt: skip
        assert told in words, told


def test_section_draws_two_patients_maps_ranking_and_checks(section):
    names = [block.name.removeprefix("over-time-1-") for block in section.blocks if isinstance(block, Plot)]
    assert names == [
        "deletion", "curves-1", "stack-1", "steps-1", "curves-2", "stack-2", "steps-2", "image-smoothed", "image-raw",
        "ranking", "ranking-1", "shares", "swarm",
    ]  # fmt: skip


def test_checks_stand_before_the_pictures_with_their_verdicts(section):
    blocks = section.blocks
    table = next(place for place, block in enumerate(blocks) if isinstance(block, Table))
    first = next(place for place, block in enumerate(blocks) if isinstance(block, Plot))
    assert table < first
    verdicts = [row[3] for row in blocks[table].rows]
    assert verdicts == ["passed", "not shown", "failed", "described, not judged"]
    assert blocks[table].strong == {1, 2}
    assert "Read the pictures with doubt" in said(section)


def test_page_holds_the_section_and_no_name_of_a_patient(run_folder, home, section, monkeypatch):
    """The section is drawn once for this module; the other sections of the page are none of its business."""
    assert document._SECTIONS.count(explanations_over_time) == 1
    monkeypatch.setattr(document, "_SECTIONS", (lambda content: section,))
    page = write_report(run_folder).read_text(encoding="utf-8")
    assert '<section id="over-time">' in page
    assert SECRET not in page
    drawn = list((run_folder / "figures").glob("over-time-*.svg"))
    assert len(drawn) == 13
    assert not any(SECRET in path.read_text(encoding="utf-8") for path in drawn)


def test_maps_belong_to_the_patients_that_were_chosen(run_folder, home):
    """Image attributions are kept in the order of the patients, the two chosen in the order of the rule."""
    explanation = read_content(run_folder).over_time[0]
    assert explanation.chosen == (7, 2)
    assert explanation.shown["image"] == {0: 1, 1: 0}
    assert explanation.shown["groups"] == {0: 7, 1: 2}


def test_coarse_maps_are_enlarged_and_it_is_said(run_folder, home):
    path = home / "attributions.safetensors"
    found = read_attributions(path)
    coarse = replace(found["image"], values=found["image"].values[:, :, ::4, ::4].contiguous(), additive=False)
    write_attributions(path, {"image": coarse})
    words = said(explanations_over_time(read_content(run_folder)))
    assert "Maps of 4 × 5 values, enlarged to the pictures" in words
    assert "do not sum to the prediction" in words
    assert "curves per feature" in words


def test_nothing_explained_is_said(run_folder):
    assert "survlens explain" in said(explanations_over_time(read_content(run_folder)))


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("global.json", "the ranking over all patients"),
        ("checks.json", "was not checked"),
        ("pictures.safetensors", "the pictures under the maps"),
        ("attributions.safetensors", "the attributions themselves"),
    ],
)
def test_missing_parts_are_said(run_folder, home, name, told):
    """The attributions are left out throughout but in the test of the pictures, to be quick."""
    (home / name).unlink()
    if name not in ("attributions.safetensors", "pictures.safetensors"):
        (home / "attributions.safetensors").unlink()
    assert told in said(explanations_over_time(read_content(run_folder)))


def test_unfinished_explanations_are_said(run_folder, home):
    (home / "settings.json").unlink()
    words = said(explanations_over_time(read_content(run_folder)))
    assert "Not finished, so not shown: CoxVAE + table, gradshap-survival" in words


def test_a_table_alone_is_shown_without_maps(both):
    names = [block.name for block in both.blocks if isinstance(block, Plot)]
    assert "over-time-2-curves-2" in names
    assert not any("image" in name or "swarm" in name for name in names if name.startswith("over-time-2-"))


def test_two_explanations_have_their_own_pictures(both):
    names = [block.name for block in both.blocks if isinstance(block, Plot)]
    assert len(names) == len(set(names))
    assert {name[: len("over-time-1-")] for name in names} == {"over-time-1-", "over-time-2-"}


@pytest.mark.parametrize(
    ("name", "edit", "told"),
    [
        ("settings.json", lambda top: top.update(chosen=[99, 2]), r"chosen\[0\]"),
        ("settings.json", lambda top: top.pop("target"), "target"),
        ("checks.json", lambda top: top["scores"][0].update(direction="sideways"), "direction"),
        ("checks.json", lambda top: top["curves"]["deletion"]["value"].pop(), "one value per share"),
        ("global.json", lambda top: top["features"][0].pop("feature"), "feature"),
    ],
)
def test_files_that_do_not_fit_are_named(run_folder, home, name, edit, told):
    value = json.loads((home / name).read_text(encoding="utf-8"))
    edit(value)
    (home / name).write_text(json.dumps(value), encoding="utf-8")
    with pytest.raises(CorruptFileError, match=told):
        read_content(run_folder)


def made(name, value, lower, upper, direction=Direction.HIGHER, standard=None):
    return Check(name, name, value, lower, upper, direction, Category.FAITHFULNESS, "", standard)


SIMILAR = made("weight_randomisation", 0.3, 0.2, 0.4, Direction.LOWER)


@pytest.mark.parametrize(
    ("score", "verdict"),
    [
        (made("deletion_area", 0.2, 0.1, 0.3), CheckVerdict.PASSED),
        (made("deletion_area", 0.2, -0.1, 0.3), CheckVerdict.NOT_SHOWN),
        (made("deletion_area", 0.2, 0.0, 0.3), CheckVerdict.NOT_SHOWN),
        (made("deletion_area", -0.2, -0.3, -0.1), CheckVerdict.FAILED),
        (made("deletion_area", 0.2, None, None), CheckVerdict.NOT_SHOWN),
        (made("deletion_area", None, None, None), CheckVerdict.NOT_SHOWN),
        (SIMILAR, CheckVerdict.PASSED),
        (replace(SIMILAR, value=0.7, lower=0.6, upper=0.8), CheckVerdict.FAILED),
        (made("local_accuracy", 0.1, 0.0, 0.2, Direction.LOWER), CheckVerdict.DESCRIBED),
        (made("rank_agreement", 0.9, 0.8, 1.0, Direction.NONE, 0.5), CheckVerdict.DESCRIBED),
        (made("another", 0.9, 0.8, 1.0, Direction.HIGHER, 0.5), CheckVerdict.PASSED),
    ],
)
def test_verdict_is_of_the_whole_interval(score, verdict):
    assert check_verdict(score, [score]) is verdict


def test_randomisation_is_held_against_training_again():
    control = made("refit_similarity", 0.35, 0.3, 0.4)
    assert check_verdict(SIMILAR, [SIMILAR, control]) is CheckVerdict.NOT_SHOWN
    assert standard_text(SIMILAR, [SIMILAR, control]) == "below 0.3"
    assert standard_text(SIMILAR) == "below 0.5"


def test_check_of_the_fixture_has_the_keys_of_a_written_check():
    from survlens.core.score import Score
    from survlens.evaluate.attribution_definitions import check_record

    written = check_record(Score("deletion_area", 0.1, category=Category.FAITHFULNESS))
    assert set(check("a", 1, 0, 2)) <= set(written)

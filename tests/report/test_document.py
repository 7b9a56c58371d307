"""The page: self-contained, inert, complete and true to its folder."""

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest

from survlens.core.errors import DataError
from survlens.report import document
from survlens.report.content import read_content
from survlens.report.document import file_name, typeset, write_report
from survlens.report.sections.provenance import limit_sentences, without_folders

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)> {{ 7*7 }} $x_{"
VOID = {"meta", "img", "link", "br", "hr", "input"}


class Page(HTMLParser):
    """Tags with attributes, text, and what was left open."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.open: list[str] = []
        self.text: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.text.append(data)

    def all(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]


@pytest.fixture(scope="module")
def full(tmp_path_factory, write_run) -> Path:
    folder = write_run(tmp_path_factory.mktemp("report") / "run")
    write_report(folder)
    return folder


@pytest.fixture(scope="module")
def text(full) -> str:
    return (full / "report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(text) -> Page:
    return Page(text)


@pytest.fixture
def undrawn(monkeypatch):
    """Builds every figure but saves none: saving is tested elsewhere and takes seconds."""

    def save(figure, folder, name):
        return b"<svg/>", b""

    monkeypatch.setattr(document, "save_figure", save)


def edit(folder: Path, name: str, change) -> None:
    path = folder / name
    value = json.loads(path.read_text(encoding="utf-8"))
    change(value)
    path.write_text(json.dumps(value), encoding="utf-8")


def read(folder: Path) -> str:
    return write_report(folder).read_text(encoding="utf-8")


def test_every_tag_is_closed_and_every_id_is_unique(page):
    assert page.open == []
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    links = {attrs["href"].removeprefix("#") for attrs in page.all("a")}
    assert links <= set(ids)


def test_nothing_is_fetched_and_nothing_runs(text, page):
    for _, attrs in page.tags:
        assert not any(key.startswith("on") for key in attrs)
        for key in ("src", "href", "srcset", "data", "action"):
            assert attrs.get(key, "#").startswith(("#", "data:image/"))
    assert not {"script", "link", "iframe", "object", "embed", "form", "base"} & {tag for tag, _ in page.tags}
    assert "url(" not in text
    assert "@import" not in text
    assert "http://" not in text
    assert "https://" not in text


def test_policy_forbids_everything_else(page):
    (policy,) = [a["content"] for a in page.all("meta") if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy == "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    assert not any("style" in attrs for _, attrs in page.tags)


def test_every_figure_has_alt_text_and_a_table(text, page):
    assert len(page.all("img")) == len(page.all("figure")) >= 8
    assert all(len(attrs["alt"]) > 40 for attrs in page.all("img"))
    plots = text.split('<div class="plot">')[1:]
    assert len(plots) == len(page.all("img"))
    for plot in plots:
        assert '<details class="data">' in plot
        assert "<td" in plot.split('<details class="data">')[1].split("</details>")[0]


def test_figures_lie_beside_the_page_as_svg_and_png(full, page):
    names = sorted(path.name for path in (full / "figures").iterdir())
    assert len(names) == 2 * len(page.all("img"))
    assert {Path(name).suffix for name in names} == {".svg", ".png"}


def test_sections_stand_in_the_agreed_order(page):
    keys = [attrs["id"] for attrs in page.all("section")]
    assert keys == [
        *("about", "cohort", "comparison", "calibration", "risk-groups", "subgroups", "embedding", "dimensions"),
        *("reliability", "training", "over-time", "limits", "reproducibility"),
    ]


def test_verdict_stands_before_everything_else(text):
    assert text.index('class="headline"') < text.index("<section")
    headline = text[text.index('class="headline"') :].split("</p>")[0]
    assert "The image alone" in headline
    assert "CoxVAE" in headline


def test_tables_show_the_numbers_of_the_folder(full, text):
    metrics = json.loads((full / "metrics.json").read_text(encoding="utf-8"))
    body = text.split("Scores on held-out test patients</caption>")[1].split("</table>")[0]
    rows = [re.findall(r"<td[^>]*>([^<]*)(?:<span class=\"interval\">([^<]*))?", row) for row in body.split("<tr")[2:]]
    assert [row[0][0].replace("\xa0", " ") for row in rows] == [model["label"] for model in metrics["models"]]
    names = ("concordance_index", "concordance_index_ipcw", "integrated_brier_score", "integrated_ipa")
    for row, model in zip(rows, metrics["models"], strict=True):
        for cell, name in zip(row[2:], names, strict=False):
            (score,) = [s for s in model["scores"] if s["name"] == name]
            shown = [float(x.replace("−", "-")) for x in (cell[0], *cell[1].split(" to "))]
            assert shown == pytest.approx([score["value"], score["lower"], score["upper"]], abs=0.00051)


def test_kaplan_meier_and_clinical_cox_always_have_a_row(tmp_path, write_run, undrawn):
    folder = write_run(tmp_path / "run")

    def only_image(top):
        top["models"] = [m for m in top["models"] if m["name"] in {"vae", "coxvae_0.5"}]
        top.update(clinical=None, reference=None, differences=[])

    edit(folder, "metrics.json", only_image)
    said = read(folder)
    assert "Clinical-only Cox: not possible, no clinical table" in said
    assert "Kaplan-Meier: not in this run" in said
    assert "could not be tested" in said


def test_no_association_is_worded_as_an_effect(page):
    said = " ".join(page.text).lower()
    assert "caus" not in said
    assert "leads to" not in said
    assert "due to" not in said


def test_dimension_whose_interval_covers_one_reads_unclear(text):
    rows = [row for row in text.split("<tr") if ">1.10<span" in row]
    assert rows
    assert all("unclear" in row for row in rows)


def test_drawn_twice_it_is_the_same_to_the_byte(full):
    before = {p.name: p.read_bytes() for p in (full / "figures").iterdir()}
    page = (full / "report.html").read_bytes()
    assert write_report(full).read_bytes() == page
    assert {p.name: p.read_bytes() for p in (full / "figures").iterdir()} == before


def test_hostile_names_come_out_inert(tmp_path, write_run, undrawn):
    folder = write_run(tmp_path / "run")

    def spoil(top):
        top["study"].update(name=HOSTILE, description=HOSTILE, data_note=HOSTILE)
        top.update(unit=HOSTILE, scored_on=HOSTILE)
        for model in top["models"]:
            model["label"] = HOSTILE
            for group in model["subgroups"]:
                group["level"] = HOSTILE
            for group in (model["risk_groups"] or {"groups": []})["groups"]:
                group["label"] = HOSTILE

    edit(folder, "metrics.json", spoil)
    edit(folder, "cohort.json", lambda top: top["covariates"][0].update(name=HOSTILE, summary=HOSTILE))
    edit(folder, "audit.json", lambda top: top["findings"][0].update(message=HOSTILE, column=HOSTILE))
    edit(folder, "environment.json", lambda top: top.update(command=HOSTILE))
    page = Page(read(folder))
    assert page.open == []
    assert "script" not in {tag for tag, _ in page.tags}
    assert all(attrs["src"].startswith("data:image/") for attrs in page.all("img"))
    assert any("<script>alert(1)" in piece for piece in page.text)
    assert "{{ 7*7 }}" in " ".join(page.text)


@pytest.mark.parametrize(
    "gone",
    [
        ("cohort.json", "audit.json"),
        ("environment.json", "splits.json"),
        ("explanations",),
        ("embeddings", "models"),
        ("explanations/coxvae_0.5/traversal.npz",),
    ],
)
def test_what_is_missing_is_left_out(tmp_path, write_run, undrawn, gone):
    folder = write_run(tmp_path / "run")
    for name in gone:
        path = folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    page = Page(read(folder))
    assert len(page.all("section")) == 13


def test_page_of_bare_metrics_says_what_is_left_out(tmp_path, write_run, undrawn):
    folder = write_run(tmp_path / "run")
    for path in folder.iterdir():
        if path.name != "metrics.json":
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    def strip(top):
        top.update(models=[], differences=[], horizons=[], oracle=None)

    edit(folder, "metrics.json", strip)
    said = read(folder)
    assert said.count("Left out:") >= 7
    assert "nothing can be said" in said


def test_scores_without_value_or_interval_do_not_break_the_page(tmp_path, write_run, undrawn):
    folder = write_run(tmp_path / "run")

    def empty(top):
        for model in top["models"]:
            for score in model["scores"]:
                score.update(lower=None, upper=None, value=None if score["name"] == "ipa" else score["value"])
        top["differences"][0].update(difference=None, lower=None, upper=None)

    edit(folder, "metrics.json", empty)
    assert "No model was shown to do better" in read(folder)


def test_simulated_survival_is_said_at_the_top(tmp_path, write_run, undrawn):
    folder = write_run(tmp_path / "run")
    edit(folder, "metrics.json", lambda top: top["study"].update(simulated=True))
    said = read(folder)
    assert said.index("simulated survival") < said.index("<h1>")


def test_page_is_small(full):
    assert (full / "report.html").stat().st_size < 6_000_000


def test_title_can_be_given(tmp_path, write_run, undrawn):
    path = write_report(write_run(tmp_path / "run"), title="Another")
    assert "<title>Another</title>" in path.read_text(encoding="utf-8")


def test_old_page_survives_a_folder_that_cannot_be_read(tmp_path):
    (tmp_path / "report.html").write_text("old", encoding="utf-8")
    with pytest.raises(DataError):
        write_report(tmp_path)
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == "old"


def test_names_become_harmless_file_names():
    assert file_name("../../CoxVAE τ=0.5/x") == "coxvae-0-5-x"
    assert file_name("…") == "figure"


def test_percent_signs_stay_with_their_number():
    assert typeset("95 % CI") == "95\xa0% CI"
    assert typeset("CoxVAE (τ = 0.5)") == "CoxVAE (τ\xa0=\xa00.5)"


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("external", "Validation is external"),
        ("site", "between sites"),
        ("site_folds", "no test patient shares a site"),
        ("date", "temporal"),
        ("folds", "no external"),
    ],
)
def test_the_limits_say_what_kind_of_validation_it_is(run_folder, kind, said):
    (run_folder / "resolved.json").write_text(json.dumps({"split": {"kind": kind}, "model": []}), encoding="utf-8")
    assert any(said in sentence for sentence in limit_sentences(read_content(run_folder)))


def test_the_command_names_no_folder():
    command = "survlens run '/data/Jane Doe/study.toml' --out=/data/jane/run --set 'model.vae.tau=0.5'"
    assert without_folders(command) == "survlens run study.toml --out=run --set model.vae.tau=0.5"


def test_dimension_is_read_by_held_out_patients(tmp_path, write_run, undrawn):
    folder = write_run(tmp_path / "run")

    def judge(top):
        top["explained"] = [0.93, 0.04]
        for d in top["dimensions"]:
            ratio = {"hazard_ratio": 1.23, "lower": 0.91, "upper": 1.61, "p": 0.2}
            d.update(held_out=ratio, univariable=ratio | {"held_out": True}, variance_inflation=86.1, pixel_change=0.01)

    edit(folder, "explanations/coxvae_0.5/dimensions.json", judge)
    said = " ".join(Page(read(folder)).text)
    assert "in training patients (optimistic)" in said
    assert "in held-out patients" in said
    assert "Alone, in held-out patients" in said
    assert "unclear; overlaps with others (VIF 86)" in said
    assert "higher hazard" not in said
    assert "No dimension has a clear association" in said
    assert "0.010, no visible change" in said
    assert "ordered by |head weight| × SD" in said


def test_older_explanation_leaves_the_held_out_columns_out(page):
    said = " ".join(page.text)
    assert "Alone, in" not in said
    assert "Pixel change" not in said
    assert "in training patients (optimistic)" in said

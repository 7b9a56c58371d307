"""What the pages show must be what survlens does: their code runs, their study file parses, their commands exist."""

import io
import re
import shlex
import subprocess
import sys
import warnings
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path

import click
import pytest
import torch
from torch import nn

from survlens.cli.main import main
from survlens.core.outcome import SurvivalOutcome
from survlens.core.prediction import Interpolation, SurvivalPrediction
from survlens.core.protocols import Head, Reduction
from survlens.study.toml_source import read_study

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def _blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def _ran(code: str) -> str:
    """What a page prints; it sees no name of this module."""
    said = io.StringIO()
    with torch.random.fork_rng(), redirect_stdout(said), warnings.catch_warnings():
        warnings.simplefilter("error")
        exec(code, {"__name__": "page"})  # noqa: S102
    return said.getvalue()


def test_the_python_of_the_readme_runs_in_a_fresh_process() -> None:
    (block,) = _blocks(ROOT / "README.md", "python")
    finished = subprocess.run([sys.executable, "-W", "error", "-c", block], capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    assert re.search(r"^concordance_index 0\.\d+ \(0\.\d+ to 0\.\d+\)$", finished.stdout, re.MULTILINE)


def test_getting_started_shows_the_python_of_the_readme() -> None:
    (block,) = _blocks(ROOT / "docs" / "getting_started.md", "python")
    readme = [line.split("  #")[0] for line in _blocks(ROOT / "README.md", "python")[0].splitlines()]
    assert [line for line in block.splitlines() if line not in readme] == []


@pytest.mark.parametrize(
    ("page", "said"),
    [
        ("families", r"torch\.Size\(\[200\]\)"),
        ("cox_inference", r"(?s)clustered by \d+ patients.*robust_score.*GLOBAL"),
        ("radiomics", r"(?s)107 \['original_firstorder_10Percentile'.*944.*\(6, 107\) {} {}"),
        ("multimodal", r"(?s)tensor\(\[\[0\.0000, .*tensor\(\[1, 2, 3\]\)"),
    ],
)
def test_the_python_of_a_page_runs(page: str, said: str) -> None:
    blocks = _blocks(ROOT / "docs" / f"{page}.md", "python")
    assert len(blocks) >= 3
    assert re.search(said, _ran("\n".join(blocks)))


def test_every_python_block_is_one_that_a_test_runs() -> None:
    run = {"README", "getting_started", "migration", "extending", "families", "cox_inference", "multimodal"}
    run |= {"radiomics", "transfer"}
    assert {page.stem for page in PAGES if _blocks(page, "python")} == run


def test_the_python_of_the_migration_page_runs() -> None:
    pytest.importorskip("sksurv")
    blocks = _blocks(ROOT / "docs" / "migration.md", "python")
    said = _ran("\n".join(blocks))
    assert len(blocks) >= 10
    assert len(re.findall(r"^concordance_index(?:_antolini)? 0\.\d", said, re.MULTILINE)) == 3
    assert float(said.splitlines()[-1]) < 1e-5  # of the exported file


def test_the_head_of_the_extending_page_is_a_head() -> None:
    (block,) = _blocks(ROOT / "docs" / "extending.md", "python")
    names = {"nn": nn, "torch": torch, "Reduction": Reduction}
    names |= {"SurvivalPrediction": SurvivalPrediction, "Interpolation": Interpolation}
    exec(block, names)  # noqa: S102
    torch.manual_seed(0)
    head = names["Exponential"](3, unit="months", last=60.0)
    embedding = torch.randn(5, 3)
    outcome = SurvivalOutcome.from_arrays([1.0, 2.0, 3.0, 4.0, 5.0], [1, 0, 1, 0, 1], "months")
    assert isinstance(head, Head)
    curves = head.predict(embedding, torch.tensor([1.0, 30.0]))
    assert len(curves) == 5
    assert head.predict(embedding).times.tolist() == [60.0]
    rate = head.risk(embedding).exp().double()
    expected = -torch.where(outcome.event > 0, rate.log(), 0.0) + rate * outcome.time
    torch.testing.assert_close(head.loss(embedding, outcome).double(), expected)
    late = SurvivalOutcome.from_arrays(
        outcome.time, outcome.event, "months", entry=outcome.time / 2, weight=[1.0, 2.0, 1.0, 3.0, 1.0]
    )
    expected = late.weights() * (-torch.where(late.event > 0, rate.log(), 0.0) + rate * late.time / 2)
    torch.testing.assert_close(head.loss(embedding, late).double(), expected)


def test_the_study_file_of_the_own_data_page_is_one(tmp_path: Path) -> None:
    block, columns, images, tuned = _blocks(ROOT / "docs" / "own_data.md", "toml")
    (tmp_path / "clinical.csv").write_text("patient,image,months,dead,age,grade,texture_1\n", encoding="utf-8")
    (tmp_path / "study.toml").write_text(block, encoding="utf-8")
    settings = read_study(tmp_path / "study.toml", ())
    assert [model.name for model in settings.models if model.kind != "kaplan_meier"][-2:] == ["coxvae", "fusion"]
    (tmp_path / "study.toml").write_text(f"{block}\n{tuned}", encoding="utf-8")
    search = read_study(tmp_path / "study.toml", ()).model("net").tune
    assert search is not None
    assert len(search.candidates) == 8
    (tmp_path / "study.toml").write_text(f"{block}\n[[model]]{columns.partition('[[model]]')[2]}", encoding="utf-8")
    said = read_study(tmp_path / "study.toml", ('data.numeric=["age", "texture_*"]',))
    assert (said.data.numeric, said.model("texture").columns) == (("age", "texture_1"), ("texture_*",))
    (tmp_path / "study.toml").write_text(f"{block}\n[[model]]{images.partition('[[model]]')[2]}", encoding="utf-8")
    assert read_study(tmp_path / "study.toml", ()).model("tiles").fit.augmentation.active


def _commands() -> Iterator[tuple[str, list[str]]]:
    pattern = re.compile(r"^(?:\$ |    )?(?:\.venv/bin/)?survlens (.*?)(?:  +#.*)?$", re.MULTILINE)
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for match in pattern.finditer(text):
            if page.name == "README.md" or text[: match.start()].count("```") % 2:
                yield page.name, shlex.split(match.group(1))


def test_there_are_commands_to_check() -> None:
    assert len(list(_commands())) >= 8


@pytest.mark.parametrize(
    ("page", "words"), list(_commands()), ids=lambda value: value if isinstance(value, str) else None
)
def test_every_command_on_a_page_exists(page: str, words: list[str]) -> None:
    verb = main.commands[words[0]]
    known = {option for parameter in verb.params if isinstance(parameter, click.Option) for option in parameter.opts}
    assert {word.split("=")[0] for word in words if word.startswith("--")} <= known
    arguments = [parameter for parameter in verb.params if isinstance(parameter, click.Argument)]
    assert not arguments or not words[1].startswith("-")


def test_links_between_pages_lead_somewhere() -> None:
    links = [
        (page, link)
        for page in PAGES
        for link in re.findall(r"\]\(([^)#:]+\.(?:md|toml|cff))\)", page.read_text(encoding="utf-8"))
    ]
    assert links
    assert [f"{page.name}: {link}" for page, link in links if not (page.parent / link).exists()] == []

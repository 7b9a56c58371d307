"""The experiment on drawn portraits."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from survlens.data.simulate.portrait_reader import PortraitReader
from survlens.report.portrait_reader import read_portraits
from survlens.study.portrait_edits import EditPlan
from survlens.study.portrait_survival import Step, SurvivalPlan
from survlens.study.reproduce.portrait_findings import claims, not_shown, portrait_findings, write_portraits
from survlens.study.reproduce.portraits import PortraitPlan, embedded_cohort, portrait_chain, usual_plan
from survlens.study.reproduce.tables import write_findings

TINY = PortraitPlan(
    size=16, patients=80, train=54, channel_base=64, latent=6, generator_steps=2, generator_batch=8, encoder_steps=2,
    descent_steps=1, edit_steps=0, restarted=4, restart_steps=2,
    survival=SurvivalPlan(inner_folds=2, tried=(Step(1e-3, 1e-4),), epochs=1, trees=0, pictures=False, draws=50),
    edits=EditPlan(people=4, random=1, permuted=1, resamples=2, draws=50),
)  # fmt: skip


@pytest.fixture
def quick_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader fitted to fewer faces, which is as good as any where no truth is claimed."""
    reader = PortraitReader.fit(faces=60, held_out=10)
    monkeypatch.setattr("survlens.study.reproduce.portraits.portrait_reader", lambda: reader)


@pytest.mark.usefixtures("quick_reader")
@pytest.mark.filterwarnings("ignore:The mean colour of generated pictures")
def test_the_chain_runs_to_its_tables_and_goes_on_where_it_was(tmp_path: Path):
    chain = portrait_chain(TINY, tmp_path)
    findings = portrait_findings(chain)
    page = write_findings(tmp_path, replace(findings, figures={})).read_text()
    for words in ("What was claimed", "subgroups", "none of them held out", "no forecast"):
        assert words in page
    assert {name.removeprefix("portraits_") for name in findings.figures} == {
        "edits", "subgroups", "front", "restarts",
    }  # fmt: skip
    write_portraits(tmp_path, chain)
    found = read_portraits(tmp_path)
    assert found is not None
    assert not found.transductive
    assert {each.column for each in found.subgroups} == {"sex", "age", "skin tone", "glasses"}
    assert set(found.edits[0].slopes) == {"risk", "illness", "age"} == set(found.readers)
    assert "latent vectors found anew" in found.readers["risk"]
    assert found.readers["age"] == found.readers["illness"]
    assert "true value over training faces" in found.readers["age"]
    told = not_shown(chain)
    failed = [str(row["claim"]) for row in claims(chain) if not row["holds"]]
    assert failed
    assert all(claim in told for claim in failed)
    assert told.startswith("At 16 pixels not shown: ")
    assert told.endswith("the claims are for 32 pixels and more.")
    assert told in page
    again = embedded_cohort(TINY, tmp_path)
    np.testing.assert_array_equal(again.latents, chain.embedded.latents)


def test_the_usual_sizes_hold_out_patients_and_keep_one_seed():
    for size in (16, 32, 64):
        plan = usual_plan(size, seed=7)
        assert plan.size == size
        assert 0 < plan.train < plan.patients
        assert plan.seed == 7


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The mean colour of generated pictures")
def test_at_16_pixels_the_health_edit_raises_the_true_illness_and_controls_do_not(tmp_path: Path):
    plan = usual_plan(16)
    chain = portrait_chain(replace(plan, survival=replace(plan.survival, trees=0)))
    held = {str(row["claim"]): bool(row["holds"]) for row in claims(chain)}
    assert held["faces whose true illness rises at every step, hazard"]
    assert held["slope on illness less the mean size of a control's"]
    assert held["C of photo and clinical, late fusion less photo, ridge Cox"]
    edits = {edit.name: edit for edit in chain.edits}
    assert edits["hazard"].readings["risk"].strict.value > 0.8
    assert chain.judge.concordance > 0.6
    page = write_findings(tmp_path, portrait_findings(chain)).read_text()
    for name in ("edits", "subgroups", "front", "restarts"):
        assert f"portraits_{name}.png" in page
        assert (tmp_path / f"portraits_{name}.png").stat().st_size > 1000

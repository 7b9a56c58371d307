"""Explanations of volumes beside the truth: tumours are where the hazard lies, and nothing else is."""

import numpy as np
import pytest
import torch

from survlens.data.simulate.phantom import LoadEffect, Organ, phantom_survival
from survlens.evaluate.attribution_values import Part
from survlens.study.reproduce.located_phantoms import (
    LocalisationPlan,
    LocatedExplanations,
    Seen,
    cox_vae_explanations,
    located_explanations,
)
from survlens.study.reproduce.phantom_explanations import phantom_explanations
from survlens.study.reproduce.tables import write_findings

# The forward mode of torch compiles a few formulas when it is first used.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")


@pytest.fixture(scope="module")
def marked() -> LocatedExplanations:
    plan = LocalisationPlan(
        train=250, validation=80, explained=16, epochs=15, times=(6.0, 24.0), references=3, stride=2, draws=200
    )
    return located_explanations(Seen.SCAN_AND_MASK, plan)


@pytest.mark.slow
def test_gradshap_points_at_tumours_that_the_network_is_given(marked):
    scores = marked.scores["GradSHAP(t)", Part.LOWERING]
    assert len(marked.rows) >= 10
    assert scores.pointing.score.value >= 0.9
    assert scores.mass.score.value > 0.7
    assert scores.against is not None
    assert scores.against.values.min() > 0.95


def test_contributions_of_volumes_add_up_to_the_difference_of_survival():
    plan = LocalisationPlan(
        train=60, validation=20, explained=5, epochs=2, times=(6.0, 24.0), references=2, stride=4, window=4, draws=20
    )
    found = located_explanations(Seen.SCAN_AND_MASK, plan).attributions["GradSHAP(t)"]
    assert found.completeness_gap is not None
    assert float(found.completeness_gap.abs().max()) < 1e-3


@pytest.mark.slow
def test_covering_tumours_matters_more_than_covering_healthy_liver(marked):
    scores = marked.scores["occlusion", Part.LOWERING]
    assert scores.against is not None
    assert scores.against.values.min() > 0.7
    assert scores.mass_ratio.score.value > 5


def test_what_a_network_is_given_within_the_liver_does_not_mark_tumours():
    study = phantom_survival(3, size=16)
    given = Seen.LIVER.of(study)
    assert given.shape == (3, 1, 16, 16, 16)
    assert bool((given[:, 0][torch.from_numpy(study.labels) < Organ.LIVER.value] == 0).all())
    healthy = [
        float(given[row, 0][torch.from_numpy(study.labels[row]) == Organ.LIVER.value].median()) for row in (0, 1)
    ]
    assert np.abs(healthy).max() < 0.6


def test_the_tables_and_the_figure_of_the_experiment_are_written(tmp_path):
    plan = LocalisationPlan(
        train=40, validation=20, explained=5, epochs=1, times=(6.0, 12.0), references=1, stride=2, draws=20
    )
    found = phantom_explanations(plan)
    by_name = {table.name: table for table in found.tables}
    assert [row["given"] for row in by_name["fit"].rows] == [each.value for each in Seen]
    assert len(by_name["over_time"].rows) == 2 * 2 * 2
    assert len(by_name["by_time"].rows) == 2 * 2 * 2
    assert "pointing" in write_findings(tmp_path, found).read_text(encoding="utf-8")
    for name in ("phantom_explanations", "phantom_explanations_over_time"):
        assert (tmp_path / f"{name}.png").stat().st_size > 5_000


def test_where_the_effect_wears_off_the_log_hazard_is_explained(tmp_path):
    plan = LocalisationPlan(
        train=60, validation=20, explained=5, epochs=1, times=(3.0, 24.0), references=1, stride=4, window=4, draws=20,
        effect=LoadEffect.WEARS_OFF, tolerance=0.1,
    )  # fmt: skip
    np.testing.assert_allclose(plan.slope, [1.2 - 0.35 * np.log(3), 1.2 - 0.35 * np.log(24)])
    found = phantom_explanations(plan)
    write_findings(tmp_path, found)
    rows = next(table.rows for table in found.tables if table.name == "by_time")
    assert [row["true effect"] for row in rows[:2]] == pytest.approx(plan.slope)
    assert any("survival at a time keeps the harm" in remark for remark in found.remarks)


def test_a_cox_vae_is_explained_on_its_test_patients():
    plan = LocalisationPlan(
        explained=6, times=(6.0,), references=1, stride=4, window=4, draws=20, cox_vae=40, tolerance=0.1
    )
    found = cox_vae_explanations(plan)
    assert found.tumour.shape[1:] == (16, 16, 16)
    assert found.attributions["GradSHAP(t)"].values.shape[1:] == (3, 16, 16, 16, 1)
    assert set(found.scores) == {(name, part) for name in found.attributions for part in (Part.LOWERING, Part.ABSOLUTE)}


@pytest.mark.slow
def test_explanations_prefer_tumours_that_the_network_had_to_find_to_healthy_liver():
    plan = LocalisationPlan(train=800, epochs=80, explained=30, times=(6.0, 24.0), draws=200)
    found = located_explanations(Seen.LIVER, plan)
    for method in ("GradSHAP(t)", "occlusion"):
        scores = found.scores[method, Part.LOWERING]
        assert scores.against is not None
        assert scores.against.score.value > 0.6
        assert scores.mass_ratio.score.value > 10

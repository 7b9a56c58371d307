"""Explanations of volumes beside the truth: tumours are where the hazard lies, and nothing else is."""

import numpy as np
import pytest
import torch

from survlens.data.simulate.phantom import Organ, phantom_survival
from survlens.evaluate.attribution_values import Part
from survlens.study.reproduce.phantom_explanations import (
    LocalisationPlan,
    LocatedExplanations,
    Seen,
    located_explanations,
    phantom_explanations,
)
from survlens.study.reproduce.tables import write_findings

# The forward mode of torch compiles a few formulas when it is first used.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")


@pytest.fixture(scope="module")
def marked() -> LocatedExplanations:
    plan = LocalisationPlan(
        train=250, validation=80, explained=16, epochs=15, times=(6.0, 24.0), references=3, stride=2, draws=200
    )
    return located_explanations(Seen.SCAN_AND_MASK, plan)


def test_gradshap_points_at_tumours_that_the_network_is_given(marked):
    scores = marked.scores["GradSHAP(t)", Part.LOWERING]
    assert len(marked.rows) >= 10
    assert scores.pointing.score.value >= 0.9
    assert scores.mass.score.value > 0.7
    assert scores.against is not None
    assert scores.against.values.min() > 0.95


def test_contributions_of_volumes_add_up_to_the_difference_of_survival(marked):
    found = marked.attributions["GradSHAP(t)"]
    assert found.completeness_gap is not None
    assert float(found.completeness_gap.abs().max()) < 1e-3


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
    assert (tmp_path / "phantom_explanations.png").stat().st_size > 5_000


@pytest.mark.slow
def test_explanations_prefer_tumours_that_the_network_had_to_find_to_healthy_liver():
    plan = LocalisationPlan(train=800, epochs=80, explained=30, times=(6.0, 24.0), draws=200)
    found = located_explanations(Seen.LIVER, plan)
    for method in ("GradSHAP(t)", "occlusion"):
        scores = found.scores[method, Part.LOWERING]
        assert scores.against is not None
        assert scores.against.score.value > 0.6
        assert scores.mass_ratio.score.value > 10

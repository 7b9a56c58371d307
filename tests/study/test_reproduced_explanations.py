"""The published experiments on explanations, on tiny sizes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from click.testing import CliRunner

from survlens.cli.main import main
from survlens.core.errors import InvalidValueError
from survlens.study.reproduce import (
    explained_simulations,
    explanation_accuracy,
    explanation_ranking,
    explanation_run_time,
)
from survlens.study.reproduce.explained_simulations import TruthPlan, change_interval, explained_simulation, sign_change
from survlens.study.reproduce.explanation_accuracy import (
    PUBLISHED,
    AccuracyPlan,
    accuracy_of_networks,
    local_accuracy,
)
from survlens.study.reproduce.explanation_ranking import RankingPlan, order_kept, ranking_of_features
from survlens.study.reproduce.explanation_run_time import RunTimePlan, run_time_of_methods
from survlens.study.reproduce.simulated_networks import (
    NETWORKS,
    SIGN_CHANGE,
    Simulation,
    fitted_network,
    simulated_parts,
)
from survlens.study.reproduce.tables import Findings, ResultTable, shown, write_findings


def rows(findings: Findings, name: str) -> list[dict[str, Any]]:
    return [dict(row) for table in findings.tables if table.name == name for row in table.rows]


def test_the_sign_of_the_truth_changes_where_it_should() -> None:
    parts = simulated_parts(Simulation.TIME_DEPENDENT, train=10, test=20)
    assert sign_change(parts.truth, parts.test.covariates) == pytest.approx(SIGN_CHANGE, abs=1e-10)
    flat = simulated_parts(Simulation.TIME_INDEPENDENT, train=10, test=20)
    assert np.isnan(sign_change(flat.truth, flat.test.covariates))


def test_an_interval_of_equal_refits_is_a_point_and_widens_with_spread() -> None:
    assert change_interval([1.5, 1.5, 1.5]) == pytest.approx((1.5, 1.5))
    low, high = change_interval([1.4, 1.6, 1.9])
    # Student's t by hand: 4.3027 standard deviations at two degrees of freedom.
    logs = np.log([1.4, 1.6, 1.9])
    assert np.log(high / low) == pytest.approx(2 * 4.302653 * logs.std(ddof=1), rel=1e-6)


def test_local_accuracy_is_the_published_formula() -> None:
    missed = torch.tensor([[0.1, 0.0], [0.3, 0.2]])
    prediction = torch.tensor([[1.0, 0.5], [0.5, 0.5]])
    expected = ((0.01 + 0.09) / 1.25) ** 0.5 / 2 + (0.04 / 0.5) ** 0.5 / 2
    assert local_accuracy(missed, prediction) == pytest.approx(expected, rel=1e-6)


def test_the_order_of_the_truth_is_kept_by_the_truth_and_lost_by_its_reverse() -> None:
    truth = np.abs(np.random.default_rng(0).normal(size=(8, 3, 5))) + np.array([2.0, 1.0, 0.0])[None, :, None] * 9
    same = order_kept(truth, truth, draws=20, seed=0)
    assert same == {"global order": 1.0, "low": 1.0, "high": 1.0, "row's order": 1.0, "noise last": 1.0}
    reverse = order_kept(truth[:, ::-1], truth, draws=20, seed=0)
    assert reverse["global order"] == reverse["row's order"] == reverse["noise last"] == 0.0


def test_networks_are_refitted_alike_and_leave_the_global_seed_alone() -> None:
    train = Simulation.TIME_DEPENDENT.draw(120)
    before = torch.get_rng_state()
    for name in NETWORKS:
        first, again = (fitted_network(name, train, seed=3, epochs=2) for _ in range(2))
        same = zip(first.state_dict().values(), again.state_dict().values(), strict=True)
        assert all(torch.equal(*pair) for pair in same)
    assert torch.equal(torch.get_rng_state(), before)


def test_parts_come_from_published_files(tmp_path: Path) -> None:
    drawn = Simulation.TIME_INDEPENDENT.draw(60)
    frame = pd.DataFrame(drawn.covariates.numpy(), columns=["x1", "x2", "x3"])
    frame["time"], frame["status"] = drawn.outcome.numpy()
    for which in ("train", "test"):
        frame.to_csv(tmp_path / f"time_independent_{which}.csv", index=False)
    parts = simulated_parts(Simulation.TIME_INDEPENDENT, train=40, test=20, folder=tmp_path)
    assert (len(parts.train), len(parts.test)) == (40, 20)
    assert torch.allclose(parts.test.covariates, drawn.covariates[:20], rtol=1e-12)
    with pytest.raises(InvalidValueError, match="rows"):
        simulated_parts(Simulation.TIME_INDEPENDENT, train=100, folder=tmp_path)


@pytest.mark.parametrize("simulation", Simulation, ids=lambda each: each.value)
def test_simulations_are_explained_beside_the_truth(tmp_path: Path, simulation: Simulation) -> None:
    findings = explained_simulation(simulation, TruthPlan(train=120, test=12, times=4, refits=2, epochs=2))
    write_findings(tmp_path, findings)
    assert (tmp_path / f"{simulation.value}_intgrad.png").exists()
    assert [row["model"] for row in rows(findings, "fit")] == ["truth", *NETWORKS]
    error = rows(findings, "error")
    assert len(error) == 2 * len(NETWORKS)
    assert all(np.isfinite(list(row.values())[2:]).all() for row in error)
    changes = rows(findings, "sign_change")
    assert len(changes) == (3 if simulation is Simulation.TIME_DEPENDENT else 0)


def test_local_accuracy_of_exact_paths_is_that_of_drawing_references() -> None:
    plan = AccuracyPlan(train=120, features=6, instances=3, references=6, draws=(2, 6), times=5, epochs=2)
    for row in rows(accuracy_of_networks(plan), "accuracy"):
        assert row["published"] is None or row["published"] in {*PUBLISHED[row["model"]].values(), 0.003, 0.0085, 0.008}
        if row["model"] == "CoxTime" and row["method"] == "GradSHAP":
            continue
        assert row["quadrature part"] < 1e-6
        assert row["local accuracy"] == pytest.approx(row["reference part"], abs=1e-6)
        assert row["references"] < plan.references or row["local accuracy"] < 1e-6


@pytest.mark.slow
def test_run_times_are_told_for_every_size() -> None:
    plan = RunTimePlan(train=100, features=(3, 5), times=(2, 4), instances=2, references=2, repeats=1, epochs=1)
    found = rows(run_time_of_methods(plan), "seconds")
    assert [(row["features"], row["times"]) for row in found] == [
        (features, times) for features in (3, 5) for _ in NETWORKS for times in (2, 4)
    ]
    assert all(value > 0 for row in found for name, value in row.items() if name != "model")


def test_rankings_are_shares() -> None:
    plan = RankingPlan(train=120, test=3, references=2, times=3, draws=5, epochs=2)
    found = rows(ranking_of_features(plan), "ranking")
    assert len(found) == 2 * len(NETWORKS) * 4
    assert all(0 <= row["low"] <= row["high"] <= 1 for row in found)


def test_findings_are_written_as_tables_and_a_page(tmp_path: Path) -> None:
    table = ResultTable("one", "A table.", [{"model": "a", "value": 0.12345, "published": None}])
    path = write_findings(tmp_path / "new", Findings("found", "Title", [table], ["A remark."]))
    text = path.read_text()
    assert "| a | 0.123 | – |" in text
    assert "- A remark." in text
    assert pd.read_csv(tmp_path / "new" / "found_one.csv")["value"].tolist() == [0.12345]
    assert json.loads((tmp_path / "new" / "found.json").read_text())["tables"]["one"][0]["value"] == 0.12345
    assert [shown(each) for each in (0.0, 1e-9, float("nan"), 3, "x")] == ["0", "1.0e-09", "–", "3", "x"]


EXPERIMENTS = {
    "time-independent": (explained_simulations, "explained_simulation"),
    "time-dependent": (explained_simulations, "explained_simulation"),
    "local-accuracy": (explanation_accuracy, "accuracy_of_networks"),
    "run-time": (explanation_run_time, "run_time_of_methods"),
    "ranking": (explanation_ranking, "ranking_of_features"),
}


@pytest.mark.parametrize("command", EXPERIMENTS)
def test_each_experiment_has_a_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    told = []

    def experiment(*arguments: Any) -> Findings:
        told.append(arguments)
        return Findings("found", "Title", [ResultTable("one", "A table.", [{"model": "a", "value": 0.5}])])

    module, name = EXPERIMENTS[command]
    monkeypatch.setattr(module, name, experiment)
    out = str(tmp_path / "out")
    result = CliRunner().invoke(main, ["reproduce", f"explanations-{command}", "--seed", "7", "--out", out])
    assert result.exit_code == 0, result.output
    assert told[0][-2].seed == 7
    assert (tmp_path / "out" / "found.md").exists()
    assert "A table." in result.output


def test_published_data_are_read_by_the_command(shared: Callable[..., Path], tmp_path: Path) -> None:
    folder = shared("data", "simulations")
    parts = simulated_parts(Simulation.TIME_DEPENDENT, train=50, test=500, folder=folder)
    assert len(parts.test) == 500
    assert parts.features == ("x1", "x2", "x3", "x4")

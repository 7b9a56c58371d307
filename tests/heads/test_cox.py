"""What only the proportional-hazards head does: its weights, its baseline, R's numbers."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from survlens.core.errors import InvalidValueError
from survlens.core.nonparametric import breslow_baseline, nelson_aalen
from survlens.core.outcome import SurvivalOutcome
from survlens.core.ties import Ties
from survlens.heads.cox import CoxPH

OUTCOME = SurvivalOutcome.from_arrays([2.0, 2.0, 3.0, 5.0, 8.0], [1, 1, 0, 1, 0], "months")


def with_weight(*weight: float, ties: Ties = Ties.EFRON) -> CoxPH:
    head = CoxPH(len(weight), ties=ties).double()
    with torch.no_grad():
        head.linear.weight.copy_(torch.tensor([weight], dtype=torch.float64))
    return head


def test_by_default_the_head_is_linear_without_bias() -> None:
    head = with_weight(0.5, -2.0)
    assert [name for name, _ in head.named_parameters()] == ["linear.weight"]
    assert head.log_risk(torch.tensor([[1.0, 1.0], [0.0, 2.0]]).double()).tolist() == [-1.5, -4.0]


def test_one_unit_of_a_dimension_multiplies_the_hazard_by_the_exponential_of_its_weight() -> None:
    head = with_weight(0.5, -2.0)
    embedding = torch.tensor([[0.3, 0.1], [1.3, 0.1], [0.3, 1.1]], dtype=torch.float64)
    head.fit_baseline(torch.zeros(5, 2).double(), OUTCOME)
    base, first, second = head.predict(embedding).cumulative_hazard[:, :2]
    torch.testing.assert_close(first / base, torch.full((2,), 0.5).double().exp())
    torch.testing.assert_close(second / base, torch.full((2,), -2.0).double().exp())


def test_at_equal_risks_breslows_baseline_is_nelson_aalens() -> None:
    head = with_weight(0.0, ties=Ties.BRESLOW)
    head.fit_baseline(torch.ones(5, 1).double(), OUTCOME)
    assert head.baseline.times.tolist() == [2.0, 5.0, 8.0]
    expected = nelson_aalen(OUTCOME).at(head.baseline.times.numpy())
    np.testing.assert_allclose(head.baseline.cumulative_hazard.numpy(), expected, rtol=1e-13)


def test_the_curve_reaches_to_the_end_of_follow_up() -> None:
    head = with_weight(1.0)
    head.fit_baseline(torch.zeros(5, 1).double(), OUTCOME)
    late = head.predict(torch.zeros(1, 1).double()).at([5.0, 6.5, 8.0]).survival[0].detach()
    assert float(late[0]) == float(late[1]) == float(late[2]) < 1


def test_without_events_nobody_dies_up_to_the_last_time() -> None:
    head = with_weight(3.0)
    head.fit_baseline(torch.ones(5, 1).double(), SurvivalOutcome(OUTCOME.time, torch.zeros(5).long(), "months"))
    prediction = head.predict(torch.full((2, 1), 700.0).double())
    assert prediction.times.tolist() == [8.0]
    assert prediction.survival.tolist() == [[1.0], [1.0]]


def test_no_rows_cannot_fit_a_baseline() -> None:
    with pytest.raises(InvalidValueError, match="at least one instance"):
        with_weight(1.0).fit_baseline(torch.zeros(0, 1).double(), OUTCOME[:0])


def test_a_diverged_head_is_told_so() -> None:
    with pytest.raises(InvalidValueError, match="finite"):
        with_weight(float("inf")).fit_baseline(torch.ones(5, 1).double(), OUTCOME)


def test_a_shift_of_all_log_risks_moves_no_curve() -> None:
    embedding = torch.linspace(-1, 1, 5, dtype=torch.float64)[:, None]
    near, far = with_weight(1.0), with_weight(1.0)
    near.fit_baseline(embedding, OUTCOME)
    far.fit_baseline(embedding + 900, OUTCOME)
    torch.testing.assert_close(
        near.predict(embedding).log_survival, far.predict(embedding + 900).log_survival, rtol=1e-10, atol=0
    )


def test_log_risks_a_thousand_apart_keep_their_own_baseline() -> None:
    # The instance at -1000 dies last and alone: its cumulative hazard rises by 1 there, by whatever scale came before.
    log_risk = torch.tensor([1000.0, 300.0, -1000.0], dtype=torch.float64)[:, None]
    head = with_weight(1.0)
    head.fit_baseline(log_risk, SurvivalOutcome.from_arrays([1.0, 2.0, 3.0], [1, 1, 1], "days"))
    own = head.predict(log_risk).cumulative_hazard.diagonal()
    torch.testing.assert_close(own, torch.ones(3).double(), rtol=1e-9, atol=0)


def test_casting_the_model_leaves_the_baseline_in_float64() -> None:
    head = with_weight(1.0)
    head.fit_baseline(torch.linspace(-1, 1, 5).double()[:, None], OUTCOME)
    exact = head.baseline.log_cumulative_hazard.clone()
    nn.Sequential(head).half().float()
    assert head.linear.weight.dtype == torch.float32
    assert torch.equal(head.baseline.log_cumulative_hazard, exact)


def test_the_unit_travels_in_the_state_dict() -> None:
    head, other = with_weight(1.0), with_weight(0.0)
    outcome = SurvivalOutcome(OUTCOME.time, OUTCOME.event, "années")
    head.fit_baseline(torch.zeros(5, 1).double(), outcome)
    other.load_state_dict(head.state_dict())
    assert (other.baseline.unit, other.baseline.times.tolist()) == ("années", [2.0, 5.0, 8.0])
    unfitted = with_weight(2.0)
    other.load_state_dict(unfitted.state_dict())
    assert other.baseline.unit is None


def test_an_old_baseline_gives_way_to_a_new_one() -> None:
    head = with_weight(1.0)
    head.fit_baseline(torch.zeros(5, 1).double(), OUTCOME)
    head.fit_baseline(torch.zeros(2, 1).double(), SurvivalOutcome.from_arrays([1.0, 4.0], [1, 0], "years"))
    assert (head.baseline.times.tolist(), head.baseline.unit) == ([1.0, 4.0], "years")


def test_a_network_must_end_in_one_column() -> None:
    for network in (nn.Linear(2, 3), nn.Flatten(0)):
        with pytest.raises(InvalidValueError, match=r"`network` must map .* to \(instances, 1\)"):
            CoxPH(2, network=network).risk(torch.zeros(4, 2))


def test_a_width_below_one_is_refused() -> None:
    with pytest.raises(InvalidValueError, match="`in_features`"):
        CoxPH(0)


@pytest.mark.parametrize("ties", list(Ties))
@pytest.mark.parametrize("name", ["lung", "veteran", "gbsg"])
def test_baseline_and_curves_equal_those_of_r(ties: Ties, name: str, shared) -> None:
    golden = json.loads(shared("golden", f"{name}.json").read_text())
    table = pd.read_csv(shared("golden", f"{name}.csv"))
    outcome = SurvivalOutcome.from_arrays(table["time"].to_numpy(), table["event"].to_numpy(), "days")
    embedding = torch.from_numpy(table[golden["covariates"]].to_numpy(float))
    head = with_weight(*(golden[ties.value]["coef"][c] for c in golden["covariates"]), ties=ties)
    head.fit_baseline(embedding, outcome)
    expected = golden[ties.value]["cumulative_baseline_hazard"]
    found = breslow_baseline(head.log_risk(embedding), outcome, ties=ties).at(np.array(expected["time"], float))
    np.testing.assert_allclose(found, expected["hazard"], rtol=1e-8)
    whole = head.predict(torch.zeros(1, embedding.shape[1]).double()).at(expected["time"][-1]).cumulative_hazard
    assert float(whole.detach()) == pytest.approx(expected["hazard"][-1], rel=1e-8)
    if ties is Ties.BRESLOW:  # of this fit are the log-risks and curves of the file
        np.testing.assert_allclose(head.risk(embedding).detach(), golden["log_risk"], rtol=1e-8, atol=1e-10)
        times = torch.tensor(golden["survival_at"]["times"], dtype=torch.float64)
        curves = head.predict(embedding[:10], times).survival.detach()
        np.testing.assert_allclose(curves, golden["survival_at"]["first_ten"], atol=1e-8)


STRATA = SurvivalOutcome.from_arrays(
    [2.0, 2.0, 3.0, 5.0, 8.0, 1.0, 4.0, 6.0],
    [1, 1, 0, 1, 0, 0, 1, 0],
    "months",
    entry=[0, 1, 0, 0, 2.5, 0, 0, 3],
    weight=[1, 2, 1, 0.5, 1, 1, 1, 3],
    stratum=[7, 7, 7, 7, 7, 3, 3, 3],
)
RISKS = torch.linspace(-1, 1, 8, dtype=torch.float64)[:, None]


def stratified() -> CoxPH:
    head = with_weight(1.0)
    head.fit_baseline(RISKS, STRATA)
    return head


def test_every_stratum_has_the_curve_of_its_own_rows() -> None:
    head = stratified()
    assert head.baseline.strata.tolist() == [3, 7]
    assert head.baseline.last_times.tolist() == [6.0, 8.0]
    assert head.baseline.times.tolist() == [2.0, 4.0, 5.0, 6.0, 8.0]
    for number in (3, 7):
        rows = STRATA.strata() == number
        alone = with_weight(1.0)
        part = SurvivalOutcome(STRATA.time, STRATA.event, "months", STRATA.entry, STRATA.weight)[rows]
        alone.fit_baseline(RISKS[rows], part)
        times = alone.baseline.times
        found = head.predict(RISKS[rows], times, stratum=torch.full((int(rows.sum()),), number))
        torch.testing.assert_close(found.log_survival, alone.predict(RISKS[rows], times).log_survival)


def test_strata_asked_for_together_end_where_the_first_of_them_ends() -> None:
    head = stratified()
    assert head.predict(RISKS, stratum=STRATA.strata()).times.tolist() == [2.0, 4.0, 5.0, 6.0]
    assert head.predict(RISKS[:2], stratum=torch.tensor([7, 7])).times.tolist() == [2.0, 4.0, 5.0, 6.0, 8.0]
    with pytest.raises(InvalidValueError, match=r"`times` must be a vector in \(0, 6\] months"):
        head.predict(RISKS, torch.tensor([7.0]), stratum=STRATA.strata())


def test_a_missing_or_unknown_stratum_is_named() -> None:
    head = stratified()
    with pytest.raises(InvalidValueError, match=r"`stratum` must be given.*\[3, 7\]"):
        head.predict(RISKS)
    with pytest.raises(InvalidValueError, match=r"one of the fitted strata \[3, 7\]; got \[4, 9\]"):
        head.predict(RISKS[:3], stratum=torch.tensor([9, 3, 4]))
    with pytest.raises(InvalidValueError, match="one value per instance"):
        head.predict(RISKS, stratum=torch.tensor([3]))


def test_one_stratum_need_not_be_said_and_none_is_stratum_zero() -> None:
    outcome = SurvivalOutcome(STRATA.time, STRATA.event, "months")
    plain, single = with_weight(1.0), with_weight(1.0)
    plain.fit_baseline(RISKS, outcome)
    single.fit_baseline(RISKS, SurvivalOutcome(outcome.time, outcome.event, "months", stratum=torch.full((8,), 5)))
    expected = plain.predict(RISKS).log_survival
    assert plain.baseline.log_cumulative_hazard.ndim == 1
    torch.testing.assert_close(single.predict(RISKS).log_survival, expected)
    torch.testing.assert_close(single.predict(RISKS, stratum=torch.full((8,), 5)).log_survival, expected)
    torch.testing.assert_close(plain.predict(RISKS, stratum=torch.zeros(8).long()).log_survival, expected)
    with pytest.raises(InvalidValueError, match=r"fitted strata \[0\]; got \[5\]"):
        plain.predict(RISKS, stratum=torch.full((8,), 5))


def test_strata_travel_in_the_state_dict_and_an_old_one_has_none(tmp_path) -> None:
    head, other = stratified(), with_weight(0.0)
    save_file(head.state_dict(), tmp_path / "head.safetensors")
    other.load_state_dict(load_file(tmp_path / "head.safetensors"))
    strata = STRATA.strata()
    assert torch.equal(
        other.predict(RISKS, stratum=strata).log_survival, head.predict(RISKS, stratum=strata).log_survival
    )
    plain = with_weight(1.0)
    plain.fit_baseline(torch.zeros(5, 1).double(), OUTCOME)
    old = {name: value for name, value in plain.state_dict().items() if not name.endswith(("strata", "last_times"))}
    other.load_state_dict(old)
    assert len(other.baseline.strata) == 0
    torch.testing.assert_close(other.predict(RISKS).log_survival, plain.predict(RISKS).log_survival)


def test_the_loss_of_the_head_honours_strata() -> None:
    head = with_weight(1.0)
    parts = [head.loss(RISKS[rows], STRATA[rows]) for rows in (STRATA.strata() == 7, STRATA.strata() == 3)]
    torch.testing.assert_close(head.loss(RISKS, STRATA), torch.cat(parts))

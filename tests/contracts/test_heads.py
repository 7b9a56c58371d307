"""Every law over every head. A new head is one row of the table in head_rows.py."""

from __future__ import annotations

import copy
import inspect
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from contracts.head_rows import (
    GRID,
    HEADS,
    WIDTH,
    Row,
    alone,
    built,
    every_head,
    example,
    fitted,
    rows_where,
    with_extras,
)
from contracts.strategies import UNIT, Case, cases, outcomes, permutations, whole_outcomes
from survlens import heads
from survlens.core import surfaces
from survlens.core.errors import InvalidValueError, NotFittedError
from survlens.core.grid import TimeGrid
from survlens.core.outcome import SurvivalOutcome
from survlens.core.protocols import BaselineHead, CompetingRisksHead, Head, RawHead, Reduction
from survlens.models.saving import load_model, save_model

few = settings(max_examples=20, deadline=None)
every_competing_head = rows_where(lambda row: isinstance(built(row), CompetingRisksHead))


def test_every_public_head_has_a_row() -> None:
    public = {
        found
        for _, found in inspect.getmembers(heads, inspect.isclass)
        if hasattr(found, "loss") and hasattr(found, "predict")
    }
    assert public == {type(built(row)) for row in HEADS.values()}


@every_head
def test_a_head_keeps_the_protocol_and_the_arguments_it_was_built_with(row: Row) -> None:
    head = built(row)
    assert isinstance(head, Head)
    assert isinstance(head.reduction, Reduction)
    assert head.grid is None or isinstance(head.grid, TimeGrid)
    assert all(hasattr(head, name) for name in inspect.signature(type(head)).parameters)


@every_head
@few
@given(case=cases(width=WIDTH))
def test_survival_never_rises_and_stays_between_0_and_1(row: Row, case: Case) -> None:
    prediction = fitted(row, case).predict(case.embedding)
    survival = prediction.survival
    assert bool(((survival >= 0) & (survival <= 1)).all())
    assert bool((survival.diff(dim=1) <= 0).all())
    assert (prediction.unit, prediction.log_survival.dtype) == (UNIT, torch.float64)


@every_head
@few
@given(case=cases(width=WIDTH))
def test_curves_are_a_map_of_the_raw_output(row: Row, case: Case) -> None:
    head = fitted(row, case)
    assert isinstance(head, RawHead)
    raw = head.raw(case.embedding)
    assert raw.shape[0] == len(case.embedding)
    assert raw.ndim == 2
    knots = head.predict(case.embedding).times
    asked = (knots[-1] * torch.tensor([0.21, 0.5, 0.93])).to(knots)
    for times in (None, asked):
        ours, own = head.predict_from_raw(raw, times), head.predict(case.embedding, times)
        torch.testing.assert_close(ours.log_survival, own.log_survival, rtol=1e-9, atol=1e-12)
        assert (ours.unit, ours.interpolation) == (own.unit, own.interpolation)
    if isinstance(head, CompetingRisksHead):
        found, expected = head.predict_incidence_from_raw(raw), head.predict_incidence(case.embedding)
        torch.testing.assert_close(found.cumulative_incidence, expected.cumulative_incidence)


@every_head
@few
@given(case=cases(width=WIDTH))
def test_masses_and_tail_sum_to_1(row: Row, case: Case) -> None:
    prediction = fitted(row, case).predict(case.embedding)
    total = prediction.pmf.sum(1) + prediction.survival[:, -1]
    torch.testing.assert_close(total, torch.ones_like(total), rtol=0, atol=1e-12)
    assert bool((prediction.pmf >= 0).all())


@every_head
@few
@given(case=cases(width=WIDTH, scale=0.7))
def test_hazard_to_survival_to_hazard_returns(row: Row, case: Case) -> None:
    prediction = fitted(row, case).predict(case.embedding)
    again = surfaces.log_survival_from_hazard(prediction.hazard)
    alive = prediction.survival > 1e-6
    torch.testing.assert_close(again[alive], prediction.log_survival[alive], rtol=1e-8, atol=1e-10)


@every_head
@few
@given(data=st.data())
def test_the_loss_is_the_term_of_its_own_prediction(row: Row, data: st.DataObject) -> None:
    causes = getattr(built(row), "n_causes", 1)
    drawn = outcomes(causes=causes) | whole_outcomes(causes=causes)
    case = data.draw(cases(width=WIDTH, drawn=drawn))
    head = fitted(row, case)
    losses, terms = head.loss(case.embedding, case.outcome), row.terms(head, case.embedding, case.outcome)
    torch.testing.assert_close(losses, terms, rtol=1e-8, atol=1e-9)


@every_head
@few
@given(case=cases(width=WIDTH), data=st.data())
def test_permuting_instances_permutes_results(row: Row, case: Case, data: st.DataObject) -> None:
    order = data.draw(permutations(len(case)))
    head = fitted(row, case)
    losses, risk = head.loss(case.embedding, case.outcome), head.risk(case.embedding)
    curves = head.predict(case.embedding).log_survival
    permuted = head.loss(case.embedding[order], case.outcome[order])
    torch.testing.assert_close(permuted, losses[order], rtol=1e-11, atol=1e-12)
    torch.testing.assert_close(head.risk(case.embedding[order]), risk[order], rtol=1e-11, atol=1e-12)
    torch.testing.assert_close(head.predict(case.embedding[order]).log_survival, curves[order], rtol=1e-11, atol=1e-12)


@every_head
def test_a_batch_equals_its_members_except_for_risk_sets(row: Row) -> None:
    case = example()
    head = fitted(row, case)
    curves, risk = head.predict(case.embedding).log_survival, head.risk(case.embedding)
    losses = head.loss(case.embedding, case.outcome)
    for i in range(len(case)):
        one = slice(i, i + 1)
        torch.testing.assert_close(head.predict(case.embedding[one]).log_survival, curves[one])
        torch.testing.assert_close(head.risk(case.embedding[one]), risk[one])
        if alone(row):
            torch.testing.assert_close(head.loss(case.embedding[one], case.outcome[one]), losses[one])


@every_head
@pytest.mark.parametrize(
    ("time", "event"),
    [([3.0, 5.0, 5.0], [0, 0, 0]), ([7.0], [1]), ([7.0], [0]), ([2.0] * 5, [1] * 5), ([2.0] * 3, [1, 0, 1])],
    ids=["all censored", "one event", "one censored", "all tied", "tied with censored"],
)
def test_thin_batches_train_and_predict(row: Row, time: list[float], event: list[int]) -> None:
    outcome = SurvivalOutcome.from_arrays(time, event, UNIT)
    embedding = example(len(time)).embedding
    head = built(row)
    losses = head.loss(embedding, outcome)
    assert losses.shape == (len(time),)
    losses.sum().backward()
    slopes = [weight.grad for weight in head.parameters()]
    assert all(slope is not None and bool(torch.isfinite(slope).all()) for slope in slopes)
    if head.reduction is Reduction.PER_EVENT and not any(event):
        assert float(losses.detach().abs().max()) == 0.0
        assert all(float(slope.abs().max()) == 0.0 for slope in slopes)
    if isinstance(head, BaselineHead):
        head.fit_baseline(embedding, outcome)
    prediction = head.predict(embedding)
    assert prediction.log_survival.shape[0] == len(time)
    assert float(prediction.times[-1]) >= max(time)


@every_head
def test_gradients_match_finite_differences(row: Row) -> None:
    case = example(8)
    head = built(row)
    embedding = case.embedding.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda z: head.loss(z, case.outcome), embedding)
    if isinstance(head, BaselineHead):
        head.fit_baseline(case.embedding, case.outcome)
    assert torch.autograd.gradcheck(lambda z: head.predict(z).survival, embedding)
    assert torch.autograd.gradcheck(head.risk, embedding)


@every_head
def test_training_lowers_the_loss_and_orders_the_risks(row: Row) -> None:
    case = example(200)
    hazard = (1.5 * case.embedding[:, 0]).exp()
    wait = torch.empty(200, dtype=torch.float64).exponential_(generator=torch.Generator().manual_seed(1)) / hazard * 10
    outcome = SurvivalOutcome(wait.clamp(0.01, 39.0), (wait < 39.0).long(), UNIT)
    head = built(row)
    optimiser = torch.optim.Adam(head.parameters(), lr=0.05)
    totals = []
    for _ in range(150):
        optimiser.zero_grad()
        total = head.loss(case.embedding, outcome).mean()
        total.backward()
        optimiser.step()
        totals.append(float(total.detach()))
    assert totals[-1] < totals[0]
    if isinstance(head, BaselineHead):
        head.fit_baseline(case.embedding, outcome)
    agreement = torch.corrcoef(torch.stack([head.risk(case.embedding).detach(), case.embedding[:, 0]]))[0, 1]
    assert float(agreement) > 0.8


@every_head
def test_higher_risk_means_a_shorter_mean_within_the_curve(row: Row) -> None:
    case = example()
    head = fitted(row, case)
    prediction = head.predict(case.embedding)
    mean = prediction.restricted_mean(float(prediction.times[-1]))
    order = head.risk(case.embedding).argsort()
    assert bool((mean[order].diff() <= 1e-9).all())


@every_head
def test_asking_for_times_is_asking_the_curve(row: Row) -> None:
    case = example()
    head = fitted(row, case)
    times = GRID.edges[1:] if row.formula else torch.tensor([0.5, 7.0, 13.2, 30.0], dtype=torch.float64)
    direct, later = head.predict(case.embedding, times), head.predict(case.embedding).at(times)
    assert torch.equal(direct.times, times)
    assert direct.interpolation is later.interpolation
    torch.testing.assert_close(direct.log_survival, later.log_survival)


@rows_where(lambda row: not row.formula)
def test_a_time_past_the_range_is_refused_with_the_range(row: Row) -> None:
    case = example()
    head = fitted(row, case)
    last = float(head.predict(case.embedding).times[-1])
    with pytest.raises(InvalidValueError, match=rf"`times` must .*{last:g}.*extrapolate"):
        head.predict(case.embedding, torch.tensor([5.0, last + 1], dtype=torch.float64))


@every_head
def test_an_embedding_of_another_width_is_refused(row: Row) -> None:
    case = example()
    for wrong in (torch.zeros(4, WIDTH + 1).double(), torch.zeros(WIDTH).double()):
        with pytest.raises(InvalidValueError, match=rf"`embedding` must have the shape \(instances, {WIDTH}\)"):
            built(row).loss(wrong, case.outcome)


@every_head
def test_loss_and_prediction_leave_the_head_as_it_was(row: Row) -> None:
    case = example()
    head = fitted(row, case)
    before = copy.deepcopy(head.state_dict())
    head.loss(case.embedding, case.outcome).sum().backward()
    head.predict(case.embedding)
    head.risk(case.embedding)
    after = head.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


@every_head
def test_a_state_dict_through_safetensors_restores_the_curves_exactly(row: Row, tmp_path: Path) -> None:
    case = example()
    head = fitted(row, case)
    safetensors.torch.save_file(head.state_dict(), tmp_path / "head.safetensors")
    other = built(row, seed=9)
    other.load_state_dict(safetensors.torch.load_file(tmp_path / "head.safetensors"))
    saved, loaded = head.predict(case.embedding), other.predict(case.embedding)
    assert torch.equal(saved.times, loaded.times)
    assert torch.equal(saved.log_survival, loaded.log_survival)
    assert saved.unit == loaded.unit


@every_head
def test_a_copy_predicts_the_same(row: Row) -> None:
    case = example()
    head = fitted(row, case)
    assert torch.equal(
        copy.deepcopy(head).predict(case.embedding).log_survival, head.predict(case.embedding).log_survival
    )


@every_head
def test_curves_need_a_baseline_where_the_head_has_one(row: Row) -> None:
    head = built(row)
    if isinstance(head, BaselineHead):
        with pytest.raises(NotFittedError, match="fit_baseline"):
            head.predict(example().embedding)
    else:
        head.predict(example().embedding)


@every_head
def test_a_float32_head_predicts_in_float64_and_learns_in_float32(row: Row) -> None:
    case = example()
    head = built(row).float()
    embedding = case.embedding.float().requires_grad_()
    if isinstance(head, BaselineHead):
        head.fit_baseline(embedding, case.outcome)
    assert head.predict(embedding).log_survival.dtype == torch.float64
    losses = head.loss(embedding, case.outcome)
    assert losses.dtype == torch.float32
    losses.sum().backward()
    assert embedding.grad is not None
    assert embedding.grad.dtype == torch.float32


@every_head
def test_huge_embeddings_keep_losses_and_gradients_finite(row: Row) -> None:
    case = example()
    head = built(row).float()
    embedding = (case.embedding * 500).float().requires_grad_()
    losses = head.loss(embedding, case.outcome)
    losses.sum().backward()
    assert embedding.grad is not None
    assert bool(torch.isfinite(losses).all())
    assert bool(torch.isfinite(embedding.grad).all())
    if isinstance(head, BaselineHead):
        head.fit_baseline(embedding, case.outcome)
    assert not bool(torch.isnan(head.predict(embedding).survival).any())


@every_head
@pytest.mark.parametrize("extras", [False, True], ids=["plain", "truncated and weighted"])
def test_float32_agrees_with_float64(row: Row, extras: bool) -> None:
    case = example()
    outcome = with_extras(case.outcome) if extras else case.outcome
    single = built(row).float()
    double = copy.deepcopy(single).double()
    embedding = case.embedding.float()
    for head, there in ((single, embedding), (double, embedding.double())):
        if isinstance(head, BaselineHead):
            head.fit_baseline(there, replace(outcome, stratum=None))
    losses = single.loss(embedding, outcome), double.loss(embedding.double(), outcome)
    torch.testing.assert_close(losses[0].double(), losses[1], rtol=1e-4, atol=1e-6)
    curves = [head.predict(embedding.to(dtype)) for head, dtype in ((single, torch.float32), (double, torch.float64))]
    torch.testing.assert_close(curves[0].log_survival, curves[1].log_survival, rtol=1e-4, atol=1e-6)
    risks = single.risk(embedding).double(), double.risk(embedding.double())
    torch.testing.assert_close(*risks, rtol=1e-4, atol=1e-6)


@every_head
def test_a_saved_head_is_loaded_bit_by_bit(row: Row, tmp_path: Path) -> None:
    case = example()
    embedding = case.embedding.float()
    head = built(row).float()
    if isinstance(head, BaselineHead):
        head.fit_baseline(embedding, case.outcome)
    loaded: Any = load_model(save_model(cast(nn.Module, head), tmp_path / "head")).model
    before, after = head.predict(embedding), loaded.predict(embedding)
    assert torch.equal(before.times, after.times)
    assert torch.equal(before.log_survival, after.log_survival)
    assert torch.equal(head.risk(embedding), loaded.risk(embedding))
    assert torch.equal(head.loss(embedding, case.outcome), loaded.loss(embedding, case.outcome))
    assert (before.unit, before.interpolation) == (after.unit, after.interpolation)
    assert repr(head) == repr(loaded)


@every_competing_head
@few
@given(case=cases(width=WIDTH))
def test_incidences_and_survival_sum_to_1(row: Row, case: Case) -> None:
    head = built(row, case.grid)
    asked = torch.linspace(0, float(case.grid.edges[-1]), 20, dtype=torch.float64)[1:]
    there, curve = head.predict_incidence(case.embedding, asked), head.predict(case.embedding, asked)
    total = there.cumulative_incidence.sum(0) + curve.survival
    torch.testing.assert_close(total, torch.ones_like(total), rtol=0, atol=1e-12)
    torch.testing.assert_close(there.overall().log_survival, curve.log_survival, rtol=1e-12, atol=0)
    assert there.n_causes == head.n_causes

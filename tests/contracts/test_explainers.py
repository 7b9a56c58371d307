"""Every law over every explainer. A new explainer is one row of the table in explainer_rows.py."""

from __future__ import annotations

import copy
import inspect
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from contracts.explainer_rows import (
    EXPLAINERS,
    FEATURES,
    TIMES,
    UNUSED,
    Question,
    Row,
    TwoInputs,
    every_explainer,
    in_two,
    linear_model,
    model_with,
    pairs_where,
    references,
    rows_where,
    some_input,
    some_model,
    table,
)
from survlens import explain
from survlens.core.attribution import Attribution
from survlens.core.errors import InvalidTypeError, InvalidValueError
from survlens.core.targets import (
    Scope,
    Target,
    cumulative_hazard,
    incidence_of,
    log_hazard_rate,
    restricted_mean,
    survival,
)
from survlens.explain.interactions import IntegratedHessians
from survlens.explain.references import References

every_pair = pairs_where(lambda row: True)
additive = rows_where(lambda row: row.additive and row.by_feature)
by_feature = rows_where(lambda row: row.by_feature)


def ask(explainer: Any, row: Row, model: nn.Module, x: Tensor, target: Target | None = None) -> Attribution:
    """The attribution of the only modality."""
    times = torch.tensor(TIMES, dtype=torch.float64)
    (found,) = explainer(model, {"image" if row.image else "table": x}, times, target or row.target).values()
    return found


def explained(row: Row, model: nn.Module, x: Tensor, target: Target | None = None, times: Any = TIMES) -> Attribution:
    asked = torch.as_tensor(times, dtype=torch.float64)
    inputs = {"image" if row.image else "table": x}
    (found,) = row.build(references(image=row.image))(model, inputs, asked, target or row.target).values()
    return found


def close(found: Tensor, expected: Tensor, tolerance: float) -> None:
    scale = max(float(expected.abs().max()), 1e-12)
    torch.testing.assert_close(found, expected, rtol=0, atol=tolerance * scale)


def is_explainer(found: type) -> bool:
    """Whether calling it gives attributions by modality; global methods give another object."""
    call = vars(found).get("__call__")
    return call is not None and inspect.signature(call).return_annotation == "dict[str, Attribution]"


def test_every_public_explainer_has_a_row() -> None:
    public = {found for _, found in inspect.getmembers(explain, inspect.isclass) if is_explainer(found)}
    assert public == {type(row.build(references())) for row in EXPLAINERS.values()}


@every_explainer
def test_an_attribution_says_what_it_is(row: Row) -> None:
    found = explained(row, some_model(row, "CoxPH network"), some_input(row))
    assert found.method
    assert found.paper
    assert found.target
    assert found.unit == "months"
    assert found.additive == row.additive
    assert found.values.shape[0] == 3
    assert found.values.shape[-1] == (len(TIMES) if row.over_time else 1)
    assert not row.by_feature or found.values.shape[1:-1] == (FEATURES,)
    assert not row.image or found.values.shape[-3:-1] == (6, 5)
    assert not row.over_time or found.times.tolist() == list(TIMES)
    assert not row.any_target or found.target == row.target.name
    assert found.values.dtype == torch.float64
    assert not found.values.requires_grad
    assert bool(found.reference) == row.compares


@pairs_where(lambda row: row.predicts and row.by_feature)
def test_the_prediction_is_the_models(row: Row, head: str) -> None:
    model, x = model_with(head), table()
    found = explained(row, model, x)
    expected = Question(model, survival, x, references()).values(x).detach()
    assert found.prediction is not None
    close(found.prediction, expected, 1e-12)


@pytest.mark.parametrize(
    ("head", "activation"),
    [("CoxPH network", nn.Tanh), ("DeepHit network", nn.Tanh), ("CoxPH", nn.ReLU), ("DeepHit likelihood", nn.ReLU)],
)
@additive
def test_contributions_add_up(row: Row, head: str, activation: type[nn.Module]) -> None:
    model, x = model_with(head, activation), table()
    asked = Question(model, survival, x, references())
    found = explained(row, model, x)
    before = asked.values(asked.starts).mean(0).detach().expand(len(x), -1)
    now = asked.values(x).detach()
    assert found.reference_prediction is not None
    assert found.completeness_gap is not None
    close(found.reference_prediction, before, 1e-12)
    if row.exact_at_kinks or activation is nn.Tanh:
        close(found.total, now - before, row.tolerance)
    torch.testing.assert_close(found.completeness_gap, now - before - found.total, rtol=0, atol=1e-12)


@pairs_where(lambda row: row.path)
def test_what_is_missing_where_kinks_meet_curves_is_within_the_stated_error(row: Row, head: str) -> None:
    found = explained(row, model_with(head, nn.ReLU), table())
    assert found.quadrature_error is not None
    assert found.completeness_gap is not None
    stated = FEATURES * found.quadrature_error.amax(1)
    assert bool((found.completeness_gap.abs().amax(1) <= row.of_stated * stated + 1e-12).all())


@pairs_where(lambda row: not row.image)
def test_an_unused_feature_gets_nothing(row: Row, head: str) -> None:
    found = explained(row, model_with(head), table())
    assert float(found.values[:, UNUSED].abs().max()) <= row.nothing * float(found.values.abs().max())


@rows_where(lambda row: row.any_target and row.by_feature)
def test_a_linear_log_risk_gives_its_weights(row: Row) -> None:
    weights = torch.tensor([0.7, -1.1, 0.0, 0.4], dtype=torch.float64)
    x = table()
    found = explained(row, linear_model(weights), x, log_hazard_rate).values
    if row.additive:
        start = references().inputs["table"].mean(0)
        close(found, (weights * (x - start))[..., None].expand_as(found), row.tolerance)
    elif row.slopes:
        close(found, weights[None, :, None].expand_as(found), row.tolerance)
    else:
        close(found[:, :, :1].expand_as(found), found, row.tolerance)


@rows_where(lambda row: row.path)
def test_a_linear_log_risk_splits_survival_by_the_shares_of_the_log_risk(row: Row) -> None:
    weights = torch.tensor([0.7, -1.1, 0.0, 0.4], dtype=torch.float64)
    x, start, model = table(), references(rows=1), linear_model(weights)
    asked = Question(model, survival, x, start)
    difference = x - asked.starts
    rise = asked.values(x) - asked.values(asked.starts)
    expected = (weights * difference / (difference @ weights)[:, None])[..., None] * rise[:, None].detach()
    close(ask(row.build(start), row, model, x).values, expected, row.tolerance)


@rows_where(lambda row: row.any_target)
def test_proportional_hazards_give_one_log_hazard_attribution_for_all_times(row: Row) -> None:
    found = explained(row, some_model(row, "CoxPH network"), some_input(row), log_hazard_rate).values
    close(found, found[..., :1].expand_as(found), max(row.tolerance, 1e-10))


@rows_where(lambda row: row.slopes and row.exact is not None)
def test_proportional_hazards_keep_the_ratios_of_gradients(row: Row) -> None:
    found = explained(row, model_with("CoxPH network"), table(), survival).values
    ratio = found[:, 1] / found[:, 0]
    torch.testing.assert_close(ratio, ratio[:, :1].expand_as(ratio), rtol=1e-9, atol=0)


@pairs_where(lambda row: row.over_time)
def test_one_time_is_many(row: Row, head: str) -> None:
    model, x = some_model(row, head), some_input(row)
    whole = explained(row, model, x).values
    alone = [explained(row, model, x, times=[time]).values for time in TIMES]
    close(torch.cat(alone, dim=-1), whole, 1e-12)


@every_pair
def test_a_batch_is_its_members(row: Row, head: str) -> None:
    model, x = some_model(row, head), some_input(row)
    alone = [explained(row, model, x[each : each + 1]).values for each in range(len(x))]
    close(torch.cat(alone), explained(row, model, x).values, 1e-9)


@every_explainer
def test_rows_permute(row: Row) -> None:
    model, x, order = some_model(row, row.heads[-1]), some_input(row), torch.tensor([2, 0, 1])
    close(explained(row, model, x[order]).values, explained(row, model, x).values[order], 1e-9)


@rows_where(lambda row: row.by_modality and row.networks_only and row.seeded is None and row.by_feature)
def test_columns_as_two_inputs_are_columns_of_one(row: Row) -> None:
    model, x = model_with("DeepHit network"), table()
    start = references()
    two = References(in_two(start.inputs["table"]), start.description)
    times = torch.tensor(TIMES, dtype=torch.float64)
    parts = row.build(two)(TwoInputs(model), in_two(x), times, survival)
    joined = torch.cat([parts["first"].values, parts["second"].values], dim=1)
    close(joined, explained(row, model, x).values, max(row.tolerance, 1e-9))
    if row.additive:
        gaps = [part.completeness_gap for part in parts.values()]
        torch.testing.assert_close(gaps[0], gaps[1], rtol=0, atol=1e-12)


@rows_where(lambda row: row.restricted is not None)
def test_one_modality_alone_gets_what_it_gets_among_all(row: Row) -> None:
    assert row.restricted is not None
    model, x, start = model_with("DeepHit network"), table(), references()
    two, times = References(in_two(start.inputs["table"]), start.description), torch.tensor(TIMES, dtype=torch.float64)
    asked = in_two(x)
    whole = row.build(two)(TwoInputs(model), asked, times, survival)
    part = row.restricted(two, ("second",))(TwoInputs(model), asked, times, survival)
    assert list(part) == ["second"]
    close(part["second"].values, whole["second"].values, max(row.tolerance, 1e-9))
    with pytest.raises(InvalidValueError, match="modalities"):
        row.restricted(two, ("third",))(TwoInputs(model), asked, times, survival)


@rows_where(lambda row: row.any_target and "DeepHit network" in row.heads)
def test_causes_add_up_to_what_survival_loses(row: Row) -> None:
    model, x = some_model(row, "DeepHit network"), some_input(row)
    causes = sum(explained(row, model, x, incidence_of(cause)).values for cause in (1, 2))
    close(-causes, explained(row, model, x, survival).values, max(row.tolerance, 1e-9))


@rows_where(lambda row: row.slopes and row.exact is not None)
def test_gradients_of_survival_are_those_of_the_cumulative_hazard_times_minus_survival(row: Row) -> None:
    model, x = model_with("DeepHit network"), table()
    of_survival, of_hazard = explained(row, model, x), explained(row, model, x, cumulative_hazard)
    assert of_survival.prediction is not None
    close(-of_survival.prediction[:, None] * of_hazard.values, of_survival.values, 1e-9)


@rows_where(lambda row: row.any_target and "DeepHit network" in row.heads)
def test_a_restricted_mean_gets_the_integral_over_time(row: Row) -> None:
    model, x = some_model(row, "DeepHit network"), some_input(row)
    knots = model.head.grid.edges[1:]
    found = explained(row, model, x, survival, knots).values
    widths = torch.nn.functional.pad(knots, (1, 0)).diff()
    middle = (torch.nn.functional.pad(found, (1, 0))[..., :-1] + found) / 2  # straight between knots
    whole = explained(row, model, x, restricted_mean(float(knots[-1])))
    assert whole.times.tolist() == [float(knots[-1])]
    close(whole.values[..., 0], middle @ widths, max(row.tolerance, 1e-9))


@every_explainer
def test_same_call_same_result(row: Row) -> None:
    model, x = some_model(row, row.heads[-1]), some_input(row)
    before = torch.get_rng_state()
    first, again = explained(row, model, x), explained(row, model, x)
    assert torch.equal(first.values, again.values)
    assert torch.equal(torch.get_rng_state(), before)


@rows_where(lambda row: row.seeded is not None)
def test_seeds_decide(row: Row) -> None:
    assert row.seeded is not None
    model, x = some_model(row, row.heads[-1]), some_input(row)
    found = [ask(row.seeded(references(image=row.image), seed), row, model, x).values for seed in (1, 1, 2)]
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


class Unlucky(RuntimeError):
    pass


class Breaks(nn.Module):
    """Raises at the nth call of the network."""

    def __init__(self, inner: nn.Module, call: int):
        super().__init__()
        self.inner, self.call, self.calls = inner, call, 0
        self.out_features = inner.out_features

    def forward(self, table: Tensor) -> Tensor:
        self.calls += 1
        if self.calls >= self.call:
            raise Unlucky
        return self.inner(table)


def unusual_state(model: nn.Module) -> nn.Module:
    """A mixture of modes, of parameters that ask for gradients, and of gradients."""
    model.train()
    next(iter(model.head.children())).eval()
    for number, parameter in enumerate(model.parameters()):
        parameter.requires_grad_(number % 2 == 0)
        parameter.grad = torch.full_like(parameter, 0.25) if number % 3 == 0 else None
    return model


def state(model: nn.Module) -> dict[str, Any]:
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return {
        "values": copy.deepcopy(model.state_dict()),
        "training": [module.training for module in model.modules()],
        "asks": [parameter.requires_grad for parameter in model.parameters()],
        "gradients": [None if each.grad is None else (id(each.grad), each.grad.sum()) for each in model.parameters()],
        "identity": [id(each) for each in (*model.parameters(), *model.buffers(), *model.modules())],
        "hooks": [len(getattr(module, name)) for module in model.modules() for name in hooks],
        "attributes": [sorted(vars(module)) for module in model.modules()],
    }


def assert_untouched(model: nn.Module, before: dict[str, Any]) -> None:
    after = state(model)
    values = before.pop("values"), after.pop("values")
    assert before == after
    assert values[0].keys() == values[1].keys()
    assert all(torch.equal(values[0][name], values[1][name]) for name in values[0])


def refused(curves: Any, times: Tensor) -> Tensor:
    raise Unlucky


@every_pair
def test_the_model_is_untouched_after_success(row: Row, head: str) -> None:
    model = unusual_state(some_model(row, head))
    before = state(model)
    explained(row, model, some_input(row))
    assert_untouched(model, before)


@rows_where(lambda row: row.any_target)
def test_the_model_is_untouched_after_a_bad_target(row: Row) -> None:
    for scope in Scope:
        model = unusual_state(some_model(row, row.heads[-1]))
        before = state(model)
        with pytest.raises(Unlucky):
            explained(row, model, some_input(row), Target("bad", refused, scope))
        assert_untouched(model, before)


@every_explainer
@pytest.mark.parametrize("call", [1, 2])
def test_the_model_is_untouched_after_an_exception_in_the_network(row: Row, call: int) -> None:
    model = some_model(row, "CoxPH network")
    (name,) = model.modalities
    model.encoders[name] = Breaks(model.encoders[name], call)
    unusual_state(model)
    before = state(model)
    try:
        explained(row, model, some_input(row))
    except Unlucky:
        pass
    else:
        assert call > 1, "one call of the network was enough"
    model.encoders[name].calls = 0
    assert_untouched(model, before)


@every_explainer
def test_training_mode_and_grad_mode_do_not_matter(row: Row) -> None:
    model, x = some_model(row, row.heads[-1]), some_input(row)
    expected = explained(row, model, x).values
    with torch.no_grad():
        found = explained(row, model.train(), x).values
    assert torch.equal(found, expected)


@every_explainer
def test_inputs_are_unchanged(row: Row) -> None:
    model, start = some_model(row, row.heads[-1]), references(image=row.image)
    name = "image" if row.image else "table"
    inputs = {name: some_input(row).requires_grad_(True)}
    kept, kept_start = inputs[name].detach().clone(), start.inputs[name].clone()
    row.build(start)(model, inputs, torch.tensor(TIMES, dtype=torch.float64), row.target)
    assert list(inputs) == [name]
    assert inputs[name].requires_grad
    assert inputs[name].grad is None
    assert torch.equal(inputs[name].detach(), kept)
    assert torch.equal(start.inputs[name], kept_start)


@every_pair
def test_float32_is_near_float64(row: Row, head: str) -> None:
    double = some_model(row, head)
    single, x = copy.deepcopy(double).float(), some_input(row).float()
    start = references(image=row.image)
    single_start = References({name: each.float() for name, each in start.inputs.items()}, start.description)
    found = ask(row.build(single_start), row, single, x).values
    close(found, explained(row, double, x.double()).values, row.single)


@pytest.mark.parametrize("bad", [[], [-1.0], [3.0, 2.0], [float("nan")]])
@every_explainer
def test_bad_times_are_refused(row: Row, bad: list[float]) -> None:
    with pytest.raises(InvalidValueError, match="times"):
        explained(row, some_model(row, row.heads[-1]), some_input(row), times=bad)


@by_feature
def test_labelled_arrays_and_long_tables_agree(row: Row) -> None:
    found = explained(row, model_with("DeepHit network"), table(rows=2))
    feature = found.dims[0]
    labelled = found.to_xarray()
    assert labelled["attribution"].dims == ("instance", feature, "time")
    assert np.array_equal(labelled["attribution"].to_numpy(), found.numpy())
    frame = found.to_frame()
    features = list(dict.fromkeys(frame[feature]))
    columns = found.times.tolist()
    for each in frame.to_dict("records"):
        column = columns.index(each["time"]) if row.over_time else 0
        assert each["value"] == float(found.values[int(each["instance"]), features.index(each[feature]), column])
    assert len(frame) == found.values.numel()


@rows_where(lambda row: not row.networks_only)
def test_any_model_will_do(row: Row) -> None:
    model, x = some_model(row, row.heads[-1]), some_input(row)
    expected = explained(row, model, x).values
    found = explained(row, Predictor(model), x).values  # type: ignore[arg-type]
    close(found, expected, 1e-9)


@rows_where(lambda row: row.networks_only)
def test_a_model_without_gradients_is_refused_with_advice(row: Row) -> None:
    with pytest.raises(InvalidTypeError, match="model"):
        explained(row, Predictor(some_model(row, row.heads[-1])), some_input(row))  # type: ignore[arg-type]


class Predictor:
    """A model that only predicts."""

    def __init__(self, model: Any):
        self._model = model

    def predict_survival(self, inputs: Any, times: Tensor | None = None) -> Any:
        with torch.no_grad():
            return self._model.predict_survival(inputs, times)

    def risk(self, inputs: Any) -> Tensor:
        with torch.no_grad():
            return self._model.risk(inputs)


def test_rows_of_interactions_sum_to_integrated_gradients() -> None:
    model, x = model_with("DeepHit network"), table()
    pairs = IntegratedHessians(references(), nodes=24)(model, {"table": x}, torch.tensor(TIMES).double())["table"]
    single = explained(EXPLAINERS["IntegratedGradients"], model, x)
    assert pairs.values.shape == (3, FEATURES, FEATURES, len(TIMES))
    close(pairs.values.sum(2), single.values, 1e-6)
    close(pairs.values, pairs.values.transpose(1, 2), 1e-12)

"""Drawn Shapley values: exact where everything is drawn, unbiased elsewhere, with an honest standard error."""

import pytest
import torch

from explain.any_models import MODELS, TIMES, Formula, cox_network, rows, two_causes
from survlens.core.errors import InvalidValueError
from survlens.core.targets import cumulative_hazard, incidence_of, survival
from survlens.explain.coalitions import column_players
from survlens.explain.references import References
from survlens.explain.shapley import ExactSHAP
from survlens.explain.survshap import KernelSurvSHAP, PermutationSurvSHAP, kernel_design

REFERENCES = References(rows(6, seed=2), "six rows")
INSTANCES = rows(3, seed=5)
WIDE = 8
WIDE_REFERENCES, WIDE_ROWS = References(rows(5, WIDE, seed=3), "five rows"), rows(2, WIDE, seed=6)
WIDE_MODEL = Formula(lambda x: x[:, 0] * x[:, 1] + (x[:, 2] * x[:, 3] - x[:, 4]).tanh() + x[:, 5] * x[:, 6].relu())
every_model = pytest.mark.parametrize("build", MODELS.values(), ids=MODELS.keys())
drawn = pytest.mark.parametrize(
    "explain",
    [KernelSurvSHAP(WIDE_REFERENCES, coalitions=60), PermutationSurvSHAP(WIDE_REFERENCES, pairs=10)],
    ids=["kernel", "permutation"],
)


@every_model
def test_kernel_with_every_coalition_is_exact(build) -> None:
    model = build()
    exact = ExactSHAP(REFERENCES)(model, INSTANCES, TIMES)["table"]
    found = KernelSurvSHAP(REFERENCES)(model, INSTANCES, TIMES)["table"]
    torch.testing.assert_close(found.values, exact.values, rtol=0, atol=1e-10)
    torch.testing.assert_close(found.reference_prediction, exact.reference_prediction, rtol=0, atol=1e-12)
    assert found.sampling_error is None
    assert found.method == "SurvSHAP (kernel)"


def test_a_cause_is_explained_by_its_incidence() -> None:
    exact = ExactSHAP(REFERENCES)(two_causes(), INSTANCES, TIMES, incidence_of(2))["table"].values
    found = KernelSurvSHAP(REFERENCES)(two_causes(), INSTANCES, TIMES, incidence_of(2))["table"].values
    torch.testing.assert_close(found, exact, rtol=0, atol=1e-10)


@pytest.mark.parametrize("players", [1, 2, 3])
def test_few_players_are_exact_by_both_ways(players: int) -> None:
    references, inputs = References(rows(4, players), ""), rows(2, players, seed=1)
    model = Formula(lambda x: x.prod(1))
    exact = ExactSHAP(references)(model, inputs, TIMES)["table"].values
    kernel = KernelSurvSHAP(references, coalitions=6)(model, inputs, TIMES)["table"].values
    torch.testing.assert_close(kernel, exact, rtol=0, atol=1e-12)
    if players < 3:  # an order and its reverse are all orders
        pairs = PermutationSurvSHAP(references, pairs=2)(model, inputs, TIMES)["table"]
        torch.testing.assert_close(pairs.values, exact, rtol=0, atol=1e-12)
        assert float(pairs.sampling_error.max()) < 1e-12


@drawn
def test_contributions_add_up(explain) -> None:
    found = explain(WIDE_MODEL, WIDE_ROWS, TIMES)["table"]
    assert float(found.completeness_gap.abs().max()) < 1e-12


@drawn
def test_a_feature_that_the_model_does_not_use_gets_nothing(explain) -> None:
    found = explain(WIDE_MODEL, WIDE_ROWS, TIMES)["table"]
    unused = found.values[:, 7].abs()
    if isinstance(explain, PermutationSurvSHAP):
        assert float(unused.max()) < 1e-14
    else:  # least squares over drawn coalitions leave noise, and say how much
        assert bool((unused < 5 * found.sampling_error[:, 7]).all())


@drawn
def test_standard_error_is_honest_over_seeds(explain) -> None:
    """Over many seeds: the mean hits the exact value, and the spread is what one draw says of itself."""
    exact = ExactSHAP(WIDE_REFERENCES)(WIDE_MODEL, WIDE_ROWS, TIMES)["table"].values
    kind = type(explain)
    settings = {"coalitions": 60} if kind is KernelSurvSHAP else {"pairs": 10}
    draws = [kind(WIDE_REFERENCES, seed=seed, **settings)(WIDE_MODEL, WIDE_ROWS, TIMES)["table"] for seed in range(40)]
    values = torch.stack([each.values for each in draws])
    said = torch.stack([each.sampling_error for each in draws]).square().mean(0).sqrt()
    spread = values.std(0)
    used = spread > 1e-6
    ratio = (said / spread)[used]
    assert 0.8 < float(ratio.median()) < 1.25
    off = ((values.mean(0) - exact) / (spread / len(draws) ** 0.5))[used]
    bound = 4.5 if kind is PermutationSurvSHAP else 6.0  # least squares are consistent, with a bias of order 1 / budget
    assert float(off.abs().max()) < bound
    inside = ((values - exact).abs() < 2 * torch.stack([each.sampling_error for each in draws]))[:, used]
    assert 0.85 < float(inside.double().mean()) < 0.99


@drawn
def test_more_draws_come_closer(explain) -> None:
    exact = ExactSHAP(WIDE_REFERENCES)(WIDE_MODEL, WIDE_ROWS, TIMES)["table"].values
    kind = type(explain)
    budgets = ({"coalitions": 30}, {"coalitions": 200}) if kind is KernelSurvSHAP else ({"pairs": 3}, {"pairs": 200})
    few, many = (kind(WIDE_REFERENCES, **each)(WIDE_MODEL, WIDE_ROWS, TIMES)["table"].values for each in budgets)
    assert float((many - exact).norm()) < 0.5 * float((few - exact).norm())


@drawn
def test_the_same_seed_gives_the_same(explain) -> None:
    one, two = (explain(WIDE_MODEL, WIDE_ROWS, TIMES)["table"] for _ in range(2))
    assert bool((one.values == two.values).all())
    other = type(explain)(WIDE_REFERENCES, seed=1)(WIDE_MODEL, WIDE_ROWS, TIMES)["table"]
    if other.sampling_error is not None:
        assert not bool((one.values == other.values).all())


@drawn
def test_a_batch_is_its_members_and_many_times_are_single_ones(explain) -> None:
    whole = explain(WIDE_MODEL, WIDE_ROWS, TIMES)["table"]
    alone = explain(WIDE_MODEL, {"table": WIDE_ROWS["table"][1:]}, TIMES)["table"]
    torch.testing.assert_close(alone.values[0], whole.values[1], rtol=0, atol=1e-13)
    torch.testing.assert_close(alone.sampling_error[0], whole.sampling_error[1], rtol=1e-6, atol=1e-12)
    single = explain(WIDE_MODEL, WIDE_ROWS, TIMES[1:2])["table"].values
    torch.testing.assert_close(single[..., 0], whole.values[..., 1], rtol=0, atol=1e-13)


@drawn
@pytest.mark.parametrize("memory", [200, 10_000])
def test_memory_changes_nothing(explain, memory: int) -> None:
    settings = {"coalitions": 40} if isinstance(explain, KernelSurvSHAP) else {"pairs": 3}
    small, whole = (
        type(explain)(WIDE_REFERENCES, memory=each, **settings)(WIDE_MODEL, WIDE_ROWS, TIMES)["table"]
        for each in (memory, 10**9)
    )
    torch.testing.assert_close(small.values, whole.values, rtol=0, atol=1e-13)
    torch.testing.assert_close(small.sampling_error, whole.sampling_error, rtol=1e-6, atol=1e-12)


@drawn
def test_as_many_features_as_times_keep_their_axes(explain) -> None:
    times = torch.arange(1.0, WIDE + 1, dtype=torch.float64)
    model = Formula(lambda x: 0.3 * x[:, 0])
    found = explain(model, WIDE_ROWS, times, cumulative_hazard)["table"].values
    assert found.shape == (2, WIDE, WIDE)
    torch.testing.assert_close(found[0, 0] / found[0, 0, 0], times)
    assert float(found[:, 1:].abs().max()) < 1e-12


def test_groups_play_as_one() -> None:
    players = column_players("table", {"a": [0, 7], "b": [1, 2, 3], "c": [4, 5, 6]})
    exact = ExactSHAP(WIDE_REFERENCES, players)(WIDE_MODEL, WIDE_ROWS, TIMES)["table"]
    found = KernelSurvSHAP(WIDE_REFERENCES, players)(WIDE_MODEL, WIDE_ROWS, TIMES)["table"]
    assert found.coords["group"].tolist() == ["a", "b", "c"]
    torch.testing.assert_close(found.values, exact.values, rtol=0, atol=1e-12)


@pytest.mark.parametrize("budget", [16, 30, 90, 254])
def test_a_design_keeps_the_weight_of_every_size(budget: int) -> None:
    """Taken or drawn, the weights of all coalitions add up to the kernel's; the complement is always there."""
    design = kernel_design(WIDE, budget, 0)
    assert len(design.coalitions) <= budget
    total = sum((WIDE - 1) / (size * (WIDE - size)) for size in range(1, WIDE))
    assert float(design.weights.sum()) == pytest.approx(total if budget > 17 else 2.0)
    codes = {tuple(each) for each in design.coalitions.tolist()}
    assert len(codes) == len(design.coalitions)
    assert {tuple(not member for member in each) for each in codes} == codes
    normal = design.coalitions.double().T @ (design.weights[:, None] * design.coalitions.double())
    assert float(torch.linalg.eigvalsh(normal)[0]) > 0.1


def test_too_small_a_budget_is_refused() -> None:
    with pytest.raises(InvalidValueError, match="at least 16"):
        KernelSurvSHAP(WIDE_REFERENCES, coalitions=15)(WIDE_MODEL, WIDE_ROWS, TIMES)
    with pytest.raises(InvalidValueError, match="`pairs`"):
        PermutationSurvSHAP(WIDE_REFERENCES, pairs=1)(WIDE_MODEL, WIDE_ROWS, TIMES)


def test_the_model_is_as_it_was() -> None:
    model = cox_network()
    for explain in (KernelSurvSHAP(REFERENCES), PermutationSurvSHAP(REFERENCES)):
        explain(model, INSTANCES, TIMES, survival)
        assert all(each.training for each in model.modules())
        assert all(each.requires_grad for each in model.parameters())

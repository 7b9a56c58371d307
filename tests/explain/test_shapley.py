"""Exact Shapley values over time: axioms, a slow second route, and every kind of model."""

from itertools import permutations

import pytest
import torch
from torch import Tensor, nn

from contracts.head_rows import HEADS, example, fitted
from explain.any_models import (
    MODELS,
    TIMES,
    WIDTH,
    Formula,
    cox_network,
    logistic,
    network,
    outcome_of,
    rows,
    two_causes,
)
from survlens.core.errors import InvalidTypeError, InvalidValueError
from survlens.core.targets import (
    cumulative_hazard,
    density,
    incidence_of,
    restricted_mean,
    risk_at,
    survival,
)
from survlens.explain import curve_rows
from survlens.explain.coalitions import Player, column_players, region_players
from survlens.explain.references import References
from survlens.explain.shapley import ExactSHAP
from survlens.heads.cox import CoxPH
from survlens.models.survival_model import SurvivalModel

REFERENCES = References(rows(7, seed=2), "seven rows")
INSTANCES = rows(3, seed=5)
MODELS_OUTCOME = outcome_of(rows(60))
every_model = pytest.mark.parametrize("build", MODELS.values(), ids=MODELS.keys())


def by_permutations(model, inputs, references, times, value) -> Tensor:
    """The definition, in loops: the mean over all orders of what each feature adds when it joins."""
    table, background = inputs["table"], references.inputs["table"]
    if isinstance(model, nn.Module):
        model.eval()
    found = []
    for row in table:
        total = 0
        orders = list(permutations(range(len(row))))
        for order in orders:
            mixed = background.clone()
            before = value(model, {"table": mixed}, times).mean(0)
            added = [torch.zeros(())] * len(row)
            for feature in order:
                mixed[:, feature] = row[feature]
                after = value(model, {"table": mixed}, times).mean(0)
                added[feature], before = after - before, after
            total = total + torch.stack(added)
        found.append(total / len(orders))
    return torch.stack(found).detach()


@every_model
def test_exact_values_are_means_over_all_orders(build) -> None:
    model = build()
    found = ExactSHAP(REFERENCES)(model, INSTANCES, TIMES)["table"]
    slow = by_permutations(
        model, INSTANCES, REFERENCES, TIMES, lambda m, x, t: m.predict_survival(x, t).survival.double()
    )
    assert found.values.shape == (3, WIDTH, 3)
    torch.testing.assert_close(found.values, slow, rtol=0, atol=1e-12)


@pytest.mark.parametrize("drawn", [False, True])
def test_tables_of_two_values_share_values_with_references(drawn: bool) -> None:
    generator = torch.Generator().manual_seed(3)
    background = {"table": torch.randint(0, 2, (12, WIDTH), generator=generator).to(INSTANCES["table"])}
    background["table"][:, 1] = 1  # a constant column
    instances = {"table": torch.cat([background["table"][:2], 1 - background["table"][:1]])}
    instances["table"][:, 1] = 1
    references = References(background, "rows of zeros and ones", drawn=drawn)
    for model in (logistic(), cox_network()):
        found = ExactSHAP(references)(model, instances, TIMES)["table"]
        slow = by_permutations(
            model, instances, references, TIMES, lambda m, x, t: m.predict_survival(x, t).survival.double()
        )
        torch.testing.assert_close(found.values, slow, rtol=0, atol=1e-12)
        assert float(found.values[:, 1].abs().max()) == 0
        assert (found.sampling_error is not None) is drawn


@pytest.mark.parametrize("count", [1, 2, 9])
def test_an_instance_may_be_one_of_its_references(count: int) -> None:
    references = References.all({"table": INSTANCES["table"][:1].expand(count, -1).clone()})
    found = ExactSHAP(references)(logistic(), {"table": INSTANCES["table"][:1]}, TIMES[:1])["table"]
    assert found.values.shape == (1, WIDTH, 1)
    assert float(found.values.abs().max()) == 0
    assert found.sampling_error is None or float(found.sampling_error.abs().max()) == 0


def test_a_cause_is_explained_by_its_incidence() -> None:
    model = two_causes()
    found = [ExactSHAP(REFERENCES)(model, INSTANCES, TIMES, incidence_of(cause))["table"].values for cause in (1, 2)]
    slow = by_permutations(
        model, INSTANCES, REFERENCES, TIMES, lambda m, x, t: m.predict_incidence(x, t).incidence(2).double()
    )
    torch.testing.assert_close(found[1], slow, rtol=0, atol=1e-12)
    whole = ExactSHAP(REFERENCES)(model, INSTANCES, TIMES)["table"].values
    torch.testing.assert_close(found[0] + found[1], -whole, rtol=0, atol=1e-12)


class WithIncidence:
    """A predictor that is no network and tells causes apart."""

    def __init__(self) -> None:
        self.model = two_causes().eval()

    def predict_survival(self, inputs, times=None):
        return self.model.predict_survival(inputs, times)

    def predict_incidence(self, inputs, times=None):
        return self.model.predict_incidence(inputs, times)


def test_any_model_with_predict_incidence_has_causes() -> None:
    model = WithIncidence()
    found = ExactSHAP(REFERENCES)(model, INSTANCES, TIMES, incidence_of(1))["table"].values
    own = ExactSHAP(REFERENCES)(model.model, INSTANCES, TIMES, incidence_of(1))["table"].values
    torch.testing.assert_close(found, own, rtol=0, atol=1e-13)
    with pytest.raises(InvalidTypeError, match="predict_incidence"):
        ExactSHAP(REFERENCES)(MODELS["formula"](), INSTANCES, TIMES, incidence_of(1))


@every_model
def test_contributions_add_up(build) -> None:
    found = ExactSHAP(REFERENCES)(build(), INSTANCES, TIMES)["table"]
    assert found.additive
    assert found.unit == "months"
    assert float(found.completeness_gap.abs().max()) < 1e-12
    torch.testing.assert_close(found.total, found.prediction - found.reference_prediction, rtol=0, atol=1e-12)


def test_a_feature_that_the_model_does_not_use_gets_nothing() -> None:
    model = Formula(lambda x: x[:, 0] * x[:, 1] + x[:, 3].sin())
    found = ExactSHAP(REFERENCES)(model, INSTANCES, TIMES)["table"].values
    assert float(found[:, 2].abs().max()) < 1e-14 < float(found[:, [0, 1, 3]].abs().min())


def test_features_in_equal_roles_get_the_same() -> None:
    model = Formula(lambda x: (x[:, 0] + x[:, 1]).tanh() * x[:, 2])
    table = INSTANCES["table"].clone()
    table[:, 1] = table[:, 0]
    background = REFERENCES.inputs["table"].clone()
    background[:, 1] = background[:, 0]
    found = ExactSHAP(References({"table": background}, ""))(model, {"table": table}, TIMES)["table"].values
    torch.testing.assert_close(found[:, 0], found[:, 1], rtol=0, atol=1e-14)


def test_values_are_linear_in_the_game() -> None:
    """H of a sum of log risks is no sum; H itself is linear in exp(f), so games of H add up."""
    parts = [lambda x: x[:, 0] * x[:, 1], lambda x: x[:, 2] - x[:, 0]]
    both = Formula(lambda x: torch.log(parts[0](x).exp() + 2 * parts[1](x).exp()))
    explain = ExactSHAP(REFERENCES)
    whole = explain(both, INSTANCES, TIMES, cumulative_hazard)["table"].values
    one, two = (explain(Formula(part), INSTANCES, TIMES, cumulative_hazard)["table"].values for part in parts)
    torch.testing.assert_close(whole, one + 2 * two, rtol=0, atol=1e-12)


def test_additive_model_in_closed_form() -> None:
    """H that is linear in x gives coefficient times distance from the mean reference."""
    coefficients = torch.tensor([0.5, -1.0, 0.0, 2.0], dtype=torch.float64)
    linear = Formula(lambda x: torch.log(10 + x @ coefficients))
    found = ExactSHAP(REFERENCES)(linear, INSTANCES, TIMES, cumulative_hazard)["table"].values
    apart = INSTANCES["table"] - REFERENCES.inputs["table"].mean(0)
    torch.testing.assert_close(found, (coefficients * apart)[..., None] * TIMES / 8, rtol=0, atol=1e-13)


@every_model
def test_a_batch_is_its_members_and_many_times_are_single_ones(build) -> None:
    model, explain = build(), ExactSHAP(REFERENCES)
    whole = explain(model, INSTANCES, TIMES)["table"].values
    for row in range(3):
        alone = explain(model, {"table": INSTANCES["table"][row : row + 1]}, TIMES)["table"].values
        torch.testing.assert_close(alone[0], whole[row], rtol=0, atol=1e-13)
    for column in range(3):
        single = explain(model, INSTANCES, TIMES[column : column + 1])["table"].values
        torch.testing.assert_close(single[..., 0], whole[..., column], rtol=0, atol=1e-13)


@pytest.mark.parametrize("memory", [1, 5_000, 10**9])
def test_memory_bounds_the_batches_and_changes_nothing(memory: int) -> None:
    for model in (cox_network(), MODELS["formula"]()):
        whole = ExactSHAP(REFERENCES)(model, INSTANCES, TIMES)["table"]
        found = ExactSHAP(REFERENCES, memory=memory)(model, INSTANCES, TIMES)["table"]
        torch.testing.assert_close(found.values, whole.values, rtol=0, atol=1e-13)
        torch.testing.assert_close(found.reference_prediction, whole.reference_prediction, rtol=0, atol=1e-13)


def test_as_many_features_as_times_keep_their_axes() -> None:
    times = torch.tensor([1.0, 2.0, 5.0, 8.0], dtype=torch.float64)
    model = Formula(lambda x: 0.3 * x[:, 0])
    found = ExactSHAP(REFERENCES)(model, {"table": INSTANCES["table"][:1]}, times, cumulative_hazard)["table"].values
    assert found.shape == (1, 4, 4)
    assert float(found[0, 1:].abs().max()) < 1e-14
    torch.testing.assert_close(found[0, 0] / found[0, 0, 0], times)


@pytest.mark.parametrize("target", [survival, cumulative_hazard, density, risk_at(3.0), restricted_mean(6.0)])
def test_interpolation_in_the_log_risk_changes_no_digit(target, monkeypatch) -> None:
    """Against the curves of every row: a model with one raw output is asked at nodes only."""
    torch.manual_seed(0)
    model = SurvivalModel(nn.Linear(6, 3), CoxPH(3)).double()
    model.head.fit_baseline(model.embed(rows(60, 6)), MODELS_OUTCOME)
    explain, inputs = ExactSHAP(References(rows(20, 6, seed=3), "")), rows(2, 6, seed=4)
    times = TIMES if target is not density else torch.tensor([2.0, 5.0], dtype=torch.float64)
    fast = explain(model, inputs, times, target)["table"].values
    monkeypatch.setattr(curve_rows, "_DEGREES", ())
    slow = explain(model, inputs, times, target)["table"].values
    torch.testing.assert_close(fast, slow, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ["LogisticHazard", "MTLR", "PMF", "DeepHit network", "PCHazard", "Weibull", "CoxTime"])
def test_sums_at_knots_change_no_digit(name: str, monkeypatch) -> None:
    """Against the curves of every row: heads with several raw outputs, asked more often than they have knots."""
    case = example()
    model = SurvivalModel(nn.Identity(), fitted(HEADS[name], case))
    explain, inputs = ExactSHAP(References({"table": case.embedding[:6]}, "")), {"table": case.embedding[10:12]}
    times = torch.linspace(0.5, 38.0, 60, dtype=torch.float64)
    fast = explain(model, inputs, times)["table"].values
    monkeypatch.setattr(curve_rows, "_at_knots", lambda *_: None)
    slow = explain(model, inputs, times)["table"].values
    torch.testing.assert_close(fast, slow, rtol=0, atol=1e-13)


def test_equal_values_shrink_the_game_and_change_nothing() -> None:
    """A feature with the value of the reference plays no part; found by loops over the whole game."""
    table = INSTANCES["table"].round().clamp(-1, 1)
    background = REFERENCES.inputs["table"].round().clamp(-1, 1)
    references, inputs = References({"table": background}, "rounded"), {"table": table}
    model = MODELS["formula"]()
    found = ExactSHAP(references)(model, inputs, TIMES)["table"]
    slow = by_permutations(model, inputs, references, TIMES, lambda m, x, t: m.predict_survival(x, t).survival)
    torch.testing.assert_close(found.values, slow, rtol=0, atol=1e-13)
    itself = ExactSHAP(References(inputs, ""))(model, inputs, TIMES)["table"]
    assert float(itself.completeness_gap.abs().max()) < 1e-13
    alone = ExactSHAP(References({"table": table[:1]}, ""))(model, {"table": table[:1]}, TIMES)["table"]
    assert float(alone.values.abs().max()) == 0


def test_standard_error_over_references() -> None:
    drawn = References(REFERENCES.inputs, "drawn", drawn=True)
    found = ExactSHAP(drawn)(MODELS["formula"](), INSTANCES, TIMES)["table"]
    single = [
        ExactSHAP(References({"table": row[None]}, ""))(MODELS["formula"](), INSTANCES, TIMES)["table"].values
        for row in REFERENCES.inputs["table"]
    ]
    stacked = torch.stack(single)
    torch.testing.assert_close(found.values, stacked.mean(0), rtol=0, atol=1e-13)
    torch.testing.assert_close(found.sampling_error, stacked.std(0) / 7**0.5, rtol=1e-9, atol=1e-14)
    assert ExactSHAP(REFERENCES)(MODELS["formula"](), INSTANCES, TIMES)["table"].sampling_error is None


def test_weights_of_references_count() -> None:
    share = torch.tensor([2, 1, 1, 0, 0, 0, 0], dtype=torch.float64) / 4
    weighted = References(REFERENCES.inputs, "weighted", share)
    repeated = References({"table": REFERENCES.inputs["table"][[0, 0, 1, 2]]}, "repeated")
    found, same = (ExactSHAP(each)(logistic(), INSTANCES, TIMES)["table"] for each in (weighted, repeated))
    torch.testing.assert_close(found.values, same.values, rtol=0, atol=1e-13)
    torch.testing.assert_close(found.reference_prediction, same.reference_prediction, rtol=0, atol=1e-13)


def test_groups_play_as_one() -> None:
    """With two groups, the Shapley value is the mean of joining first and joining last."""
    players = column_players("table", {"left": [0, 2], "right": [1, 3]})
    model = MODELS["formula"]()
    found = ExactSHAP(REFERENCES, players)(model, INSTANCES, TIMES)["table"]
    assert found.dims == ("group",)
    assert found.coords["group"].tolist() == ["left", "right"]

    def worth(columns: list[int]) -> Tensor:
        mixed = REFERENCES.inputs["table"].repeat(3, 1, 1)
        mixed[:, :, columns] = INSTANCES["table"][:, None, columns]
        return model.predict_survival({"table": mixed.flatten(0, 1)}, TIMES).survival.reshape(3, 7, 3).mean(1)

    left = (worth([0, 2]) - worth([]) + worth([0, 1, 2, 3]) - worth([1, 3])) / 2
    torch.testing.assert_close(found.values[:, 0], left, rtol=0, atol=1e-14)


class Pooled(nn.Module):
    """A picture's mean brightness of its two halves, as an embedding."""

    def forward(self, image: Tensor) -> Tensor:
        return torch.stack([image[..., :2].mean((1, 2, 3)), image[..., 2:].mean((1, 2, 3))], dim=1)


def picture_model() -> tuple[SurvivalModel, dict[str, Tensor]]:
    torch.manual_seed(0)
    model = SurvivalModel({"image": Pooled(), "table": nn.Linear(2, 2)}, CoxPH(4)).double()
    inputs = rows(30, 2) | {"image": torch.rand((30, 1, 4, 4), dtype=torch.float64)}
    model.head.fit_baseline(model.embed(inputs), MODELS_OUTCOME[:30])
    return model, inputs


def test_a_picture_plays_as_a_whole_or_by_regions() -> None:
    model, inputs = picture_model()
    instances = {name: tensor[:2] for name, tensor in inputs.items()}
    references = References({name: tensor[5:9] for name, tensor in inputs.items()}, "four rows")
    whole = ExactSHAP(references)(model, instances, TIMES)
    assert whole["image"].values.shape == (2, 1, 3)
    assert whole["table"].dims == ("feature",)
    gap = whole["image"].completeness_gap
    torch.testing.assert_close(
        whole["image"].total + whole["table"].total, whole["table"].prediction - whole["table"].reference_prediction
    )
    assert float(gap.abs().max()) < 1e-13
    labels = torch.tensor([0, 0, 1, 1]).expand(4, 4)
    players = (*region_players("image", labels), Player("clinic", "table"))
    parts = ExactSHAP(references, players)(model, instances, TIMES)
    assert parts["image"].coords["group"].tolist() == ["image_0", "image_1"]
    assert parts["image"].values.shape == (2, 2, 3)
    assert parts["table"].values.shape == (2, 1, 3)
    assert float(parts["table"].completeness_gap.abs().max()) < 1e-13


def test_the_model_is_as_it_was_whatever_happens() -> None:
    model = cox_network()
    modes = {name: each.training for name, each in model.named_modules()}
    before = {name: each.clone() for name, each in model.state_dict().items()}
    ExactSHAP(REFERENCES)(model, INSTANCES, TIMES)
    with pytest.raises(InvalidTypeError):
        ExactSHAP(REFERENCES)(model, INSTANCES, TIMES, incidence_of(1))
    with pytest.raises(InvalidValueError):
        ExactSHAP(REFERENCES)(model, INSTANCES, torch.tensor([1.0, 1e6]))
    assert {name: each.training for name, each in model.named_modules()} == modes
    assert all(each.requires_grad and each.grad is None for each in model.parameters())
    assert all(bool((before[name] == each).all()) for name, each in model.state_dict().items())


def test_a_network_in_float32_is_close_to_float64() -> None:
    model = network(CoxPH(3)).float()
    single = ExactSHAP(REFERENCES)(model, INSTANCES, TIMES)["table"].values
    double = ExactSHAP(REFERENCES)(model.double(), INSTANCES, TIMES)["table"].values
    assert single.dtype == torch.float64
    torch.testing.assert_close(single, double, rtol=0, atol=1e-5)


def test_more_players_than_can_be_enumerated_are_refused() -> None:
    with pytest.raises(InvalidValueError, match="KernelSurvSHAP"):
        ExactSHAP(References(rows(2, 17), ""))(Formula(lambda x: x[:, 0]), rows(1, 17), TIMES)


@pytest.mark.parametrize(
    ("players", "words"),
    [
        (column_players("table", {"a": (0, 1)}), "cover every feature"),
        ((Player("a", "table"), *column_players("table", {"b": (0,)})), "of several"),
        ((Player("a", "table"), Player("a", "table")), "distinct names"),
        ((Player("a", "picture"),), "picture"),
        ((Player("a", "table", mask=torch.ones(3, dtype=torch.bool)),), "`mask`"),
    ],
)
def test_players_that_do_not_fit_are_refused(players, words) -> None:
    with pytest.raises(InvalidValueError, match=words):
        ExactSHAP(REFERENCES, players)(MODELS["formula"](), INSTANCES, TIMES)


def test_what_is_no_model_or_has_no_rows_is_refused() -> None:
    with pytest.raises(InvalidTypeError, match="predict_survival"):
        ExactSHAP(REFERENCES)(nn.Linear(4, 1), INSTANCES, TIMES)
    with pytest.raises(InvalidValueError, match="at least one row"):
        ExactSHAP(REFERENCES)(MODELS["formula"](), {"table": INSTANCES["table"][:0]}, TIMES)
    with pytest.raises(InvalidValueError, match="`memory`"):
        ExactSHAP(REFERENCES, memory=0)(MODELS["formula"](), INSTANCES, TIMES)

"""Permutation importance and partial dependence over time, against closed forms and loops."""

import numpy as np
import pytest
import torch

from explain.any_models import MODELS, TIMES, WIDTH, Formula, cox_network, cox_regression, outcome_of, rows, two_causes
from survlens.core.errors import InvalidValueError
from survlens.core.targets import cumulative_hazard, incidence_of, restricted_mean
from survlens.evaluate.accuracy import brier_score
from survlens.explain.coalitions import column_players
from survlens.explain.global_effects import PartialDependence, PermutationImportance, permuted_within

ROWS = rows(50, seed=5)
every_model = pytest.mark.parametrize("build", MODELS.values(), ids=MODELS.keys())


def brier(prediction, outcome):
    return brier_score(prediction, outcome, prediction.times, training=outcome).values


@every_model
def test_every_model_has_importances(build) -> None:
    found = PermutationImportance(repeats=2)(build(), ROWS, TIMES)
    assert found.values.shape == (WIDTH, 3)
    assert bool((found.values >= 0).all())
    assert found.names == ("table_0", "table_1", "table_2", "table_3")
    assert found.unit == "months"


def test_an_unused_feature_has_importance_zero() -> None:
    model = Formula(lambda x: x[:, 0] - 2 * x[:, 1] * x[:, 3])
    for settings, outcome in (({}, None), ({"loss": brier}, outcome_of(ROWS))):
        found = PermutationImportance(**settings)(model, ROWS, TIMES, outcome=outcome)
        assert float(found.repeats[:, 2].abs().max()) == 0
        assert float(found.values[[0, 1, 3]].abs().min()) > 1e-4


def test_importance_is_the_rise_of_the_loss_in_a_loop() -> None:
    model, outcome = cox_regression(), outcome_of(ROWS)
    found = PermutationImportance(loss=brier, repeats=3, seed=2)(model, ROWS, TIMES, outcome=outcome)
    before = brier(model.predict_survival(ROWS, TIMES), outcome)
    np.testing.assert_allclose(found.whole.numpy(), before)
    for column in range(WIDTH):
        generator = torch.Generator().manual_seed(2 * 1_000_003 + column)
        for repeat in range(3):
            table = ROWS["table"].clone()
            table[:, column] = table[permuted_within(torch.zeros(50, dtype=torch.int64), generator), column]
            after = brier(model.predict_survival({"table": table}, TIMES), outcome)
            np.testing.assert_allclose(found.repeats[repeat, column].numpy(), after - before, atol=1e-14)


def test_importance_of_an_additive_target_in_closed_form() -> None:
    """H that is linear in x changes by coefficient times the distance of two rows: its mean over all pairs is known."""
    inputs = rows(400, seed=1)
    model = Formula(lambda x: torch.log(10 + 0.5 * x[:, 0]))
    found = PermutationImportance(repeats=60)(model, inputs, TIMES, cumulative_hazard)
    column = inputs["table"][:, 0]
    truth = 0.5 * (column[:, None] - column).abs().sum() / (400 * 400) * TIMES / 8
    assert bool(((found.lower[0] < truth) & (truth < found.upper[0])).all())
    torch.testing.assert_close(found.values[0], truth, rtol=0.02, atol=0)


def test_the_interval_is_students() -> None:
    from scipy import stats

    found = PermutationImportance(repeats=5)(MODELS["formula"](), ROWS, TIMES)
    used = [0, 1, 2]
    spread = stats.sem(found.repeats[:, used].numpy())
    low, high = stats.t.interval(0.95, 4, found.values[used].numpy(), spread)
    np.testing.assert_allclose(found.lower[used].numpy(), low, rtol=1e-9)
    np.testing.assert_allclose(found.upper[used].numpy(), high, rtol=1e-9)
    assert bool(torch.isnan(PermutationImportance(repeats=1)(MODELS["formula"](), ROWS, TIMES).lower).all())


def test_groups_move_together() -> None:
    model = Formula(lambda x: 3 * (x[:, 0] - x[:, 1]))
    table = ROWS["table"].clone()
    table[:, 1] = table[:, 0]
    players = (*column_players("table", {"twins": [0, 1]}), *column_players("table", {"rest": [2, 3]}))
    found = PermutationImportance(players)(model, {"table": table}, TIMES)
    assert float(found.values.abs().max()) < 1e-12
    assert float(PermutationImportance()(model, {"table": table}, TIMES).values[0].min()) > 0.01


def test_strata_keep_rows_in_their_group() -> None:
    groups = torch.tensor([0, 1, 2, 0, 1, 0, 2, 0])
    drawn = permuted_within(groups, torch.Generator().manual_seed(0))
    assert sorted(drawn.tolist()) == list(range(8))
    assert bool((groups[drawn] == groups).all())
    by_sign = (ROWS["table"][:, 0] > 0).long()
    model = Formula(lambda x: x[:, 0].sign())
    assert float(PermutationImportance()(model, ROWS, TIMES, strata=by_sign).values.abs().max()) == 0
    assert float(PermutationImportance()(model, ROWS, TIMES).values[0].min()) > 0.01


def test_a_cause_is_scored_by_its_incidence() -> None:
    def loss(prediction, outcome):
        return (prediction.incidence(1) - (outcome.event == 1).double()[:, None]).square().mean(0)

    outcome = outcome_of(ROWS)
    found = PermutationImportance(loss=loss, memory=3_000)(two_causes(), ROWS, TIMES, incidence_of(1), outcome=outcome)
    model = two_causes().eval()
    whole = loss(model.predict_incidence(ROWS, TIMES), outcome).detach()
    torch.testing.assert_close(found.whole, whole, rtol=0, atol=1e-12)
    change = PermutationImportance(repeats=2)(two_causes(), ROWS, TIMES, incidence_of(1))
    assert bool((change.values > 0).all())


def test_the_same_seed_gives_the_same_and_memory_changes_nothing() -> None:
    model = cox_network()
    one, two, small = (
        PermutationImportance(repeats=2, memory=each)(model, ROWS, TIMES) for each in (10**8, 10**8, 500)
    )
    assert bool((one.repeats == two.repeats).all())
    torch.testing.assert_close(small.repeats, one.repeats, rtol=0, atol=1e-13)
    other = PermutationImportance(repeats=2, seed=1)(model, ROWS, TIMES)
    assert not bool((other.repeats == one.repeats).all())
    assert all(each.training for each in model.modules())


def test_one_time_is_many_and_axes_keep_their_order() -> None:
    times = torch.tensor([1.0, 2.0, 4.0, 8.0], dtype=torch.float64)
    model = MODELS["formula"]()
    whole = PermutationImportance(repeats=2)(model, ROWS, times)
    single = PermutationImportance(repeats=2)(model, ROWS, times[2:3])
    torch.testing.assert_close(single.values[:, 0], whole.values[:, 2])
    table = whole.to_xarray()
    assert table["importance"].dims == ("player", "time")
    assert table["importance"].sel(player="table_1", time=4.0).item() == float(whole.values[1, 2])


def test_importances_refuse_what_does_not_fit() -> None:
    model = MODELS["formula"]()
    with pytest.raises(InvalidValueError, match="`outcome`"):
        PermutationImportance(loss=brier)(model, ROWS, TIMES)
    with pytest.raises(InvalidValueError, match="`strata`"):
        PermutationImportance()(model, ROWS, TIMES, strata=torch.zeros(3, dtype=torch.int64))
    with pytest.raises(InvalidValueError, match="`loss`"):
        PermutationImportance(loss=lambda prediction, outcome: torch.zeros(1))(
            model, ROWS, TIMES, outcome=outcome_of(ROWS)
        )
    with pytest.raises(InvalidValueError, match="`repeats`"):
        PermutationImportance(repeats=0)


def test_partial_dependence_of_a_cox_regression_in_closed_form() -> None:
    """H(t | x with x_j = v) = H0(t) exp(rest) exp(b_j (v - centre_j)): the mean of the rest factors out."""
    model = cox_regression()
    found = PartialDependence(1, points=7)(model, ROWS, TIMES, cumulative_hazard)
    assert found.individual.shape == (50, 7, 3)
    coefficients, centre = torch.from_numpy(model.coef_), torch.from_numpy(model.centre_)
    rest = (ROWS["table"] - centre) * coefficients
    rest = (rest.sum(1) - rest[:, 1]).exp()
    baseline = torch.from_numpy(model.baseline_.at(TIMES.numpy())) if hasattr(model.baseline_, "at") else None
    ratio = (coefficients[1] * (found.grid - found.grid[0])).exp()
    torch.testing.assert_close(found.mean / found.mean[0], ratio[:, None].expand(7, 3))
    torch.testing.assert_close(found.individual[:, 0] / found.mean[0], (rest / rest.mean())[:, None].expand(50, 3))
    if baseline is not None:
        own = baseline * rest.mean() * (coefficients[1] * (found.grid[0] - centre[1])).exp()
        torch.testing.assert_close(found.mean[0], own)


@every_model
def test_the_mean_is_that_of_the_individual_curves(build) -> None:
    found = PartialDependence(2, points=4)(build(), ROWS, TIMES)
    torch.testing.assert_close(found.mean, found.individual.mean(0), rtol=0, atol=1e-13)
    without = PartialDependence(2, points=4, individual=False, memory=100)(build(), ROWS, TIMES)
    assert without.individual is None
    torch.testing.assert_close(without.mean, found.mean, rtol=0, atol=1e-12)


def test_a_row_at_its_own_value_keeps_its_prediction() -> None:
    model, value = MODELS["formula"](), float(ROWS["table"][7, 0])
    found = PartialDependence(0, grid=[value])(model, ROWS, TIMES)
    torch.testing.assert_close(found.individual[7, 0], model.predict_survival(ROWS, TIMES).survival[7])


def test_centred_curves_begin_at_zero() -> None:
    model = MODELS["formula"]()
    plain, centred = (PartialDependence(0, centred=each)(model, ROWS, TIMES) for each in (False, True))
    assert float(centred.individual[:, 0].abs().max()) == 0
    torch.testing.assert_close(centred.mean, plain.mean - plain.mean[0], rtol=0, atol=1e-14)
    torch.testing.assert_close(centred.individual, plain.individual - plain.individual[:, :1], rtol=0, atol=1e-14)


def test_the_grid_is_levels_or_quantiles() -> None:
    table = ROWS["table"].clone()
    table[:, 3] = table[:, 3].sign()
    model = MODELS["formula"]()
    levels = PartialDependence(3)(model, {"table": table}, TIMES)
    assert levels.grid.tolist() == [-1.0, 1.0]
    torch.testing.assert_close(levels.share[0], (table[:, 3] < 0).double().mean())
    quantiles = PartialDependence(0, points=5)(model, ROWS, TIMES).grid
    torch.testing.assert_close(quantiles, ROWS["table"][:, 0].quantile(torch.linspace(0, 1, 5).double()))


def test_dependence_of_a_single_number_and_of_an_unused_feature() -> None:
    model = Formula(lambda x: x[:, 0])
    whole = PartialDependence(1, points=3)(model, ROWS, TIMES, restricted_mean(5.0))
    assert whole.mean.shape == (3, 1)
    assert whole.times.tolist() == [5.0]
    assert float((whole.mean - whole.mean[0]).abs().max()) == 0
    table = whole.to_xarray()
    assert table["individual"].dims == ("instance", "value", "time")
    assert table.attrs["feature"] == "table_1"


def test_dependence_refuses_what_does_not_fit() -> None:
    model = MODELS["formula"]()
    for settings, words in (
        ({"column": 9}, "`column`"),
        ({"column": 0, "modality": "image"}, "`modality`"),
        ({"column": 0, "grid": [2.0, 1.0]}, "`grid`"),
        ({"column": 0, "points": 1}, "`points`"),
    ):
        with pytest.raises(InvalidValueError, match=words):
            PartialDependence(**settings)(model, ROWS, TIMES)

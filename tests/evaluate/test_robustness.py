"""Sensitivity and stability of explanations, where the right answer is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from evaluate.attribution_toys import TIMES, Additive, attribution, drawn
from survlens.core.errors import InvalidTypeError, InvalidValueError
from survlens.core.score import Category
from survlens.evaluate.attribution_values import rank_correlation, relative_distance, time_weights, top_membership
from survlens.evaluate.robustness import Repeats, sensitivity, stability
from survlens.evaluate.score_over_time import Intervals

TOY = Additive()
TABLE = drawn(30, 6, seed=9)
FEW = Intervals(draws=200)


def contributions(inputs):
    return TOY.explained(inputs["table"])


def test_constant_gradients_are_not_sensitive():
    found = sensitivity(lambda inputs: TOY.gradients(inputs["table"]), {"table": TABLE}, {"table": 0.1}, intervals=FEW)
    assert [score.value for score in found.scores] == [0, 0]
    assert found.scores[0].category is Category.ROBUSTNESS


def test_sensitivity_equals_a_slow_second_route():
    found = sensitivity(contributions, {"table": TABLE}, {"table": 0.1}, draws=4, seed=7, intervals=FEW)
    generator, weights = torch.Generator().manual_seed(7), torch.as_tensor(time_weights(TIMES.numpy()))
    original, changes = contributions({"table": TABLE})["table"].values, []
    for _ in range(4):
        noise = 2 * torch.rand(TABLE.shape, generator=generator, dtype=torch.float64) - 1
        moved = contributions({"table": TABLE + 0.1 * noise})["table"].values - original
        changes.append(torch.sqrt((moved**2 * weights).sum((1, 2)) / (original**2 * weights).sum((1, 2))))
    changes = torch.stack(changes)
    assert found.largest.score.value == pytest.approx(float(changes.amax(0).mean()))
    assert found.average.score.value == pytest.approx(float(changes.mean()))
    assert found.average.score.value < found.largest.score.value


def test_sensitivity_grows_with_the_radius_and_obeys_it():
    small, large = (sensitivity(contributions, {"table": TABLE}, {"table": r}, intervals=FEW) for r in (0.01, 0.1))
    assert large.average.score.value == pytest.approx(10 * small.average.score.value, rel=1e-6)
    still = sensitivity(contributions, {"table": TABLE}, {"table": torch.zeros(6)}, intervals=FEW)
    assert still.largest.score.value == 0


def test_seeds_decide():
    values = [
        sensitivity(contributions, {"table": TABLE}, {"table": 0.1}, seed=seed, intervals=FEW).average.score.value
        for seed in (0, 0, 1)
    ]
    assert values[0] == values[1] != values[2]


@pytest.mark.parametrize("wrong", [{"image": 0.1}, {}, {"table": -0.1}])
def test_a_radius_that_does_not_fit_is_refused(wrong):
    with pytest.raises(InvalidValueError, match="`radius` must"):
        sensitivity(contributions, {"table": TABLE}, wrong)


def test_equal_repeats_are_stable_and_noise_is_measured():
    plain = contributions({"table": TABLE})
    same = stability([plain, plain, plain], intervals=FEW)
    assert [score.value for score in same.scores] == [0, 1]
    assert same.distance.score.name == "seed_distance"
    values = plain["table"].values
    repeats = [attribution(values * (1 + 0.1 * k)) for k in range(3)]
    found = stability(repeats, Repeats.REFITS, intervals=FEW)
    assert found.distance.score.value == pytest.approx(np.mean([0.1, 0.2, 0.1 / 1.1]))
    assert found.rank.score.value == pytest.approx(1.0)
    assert found.rank.score.name == "refit_rank_correlation"
    noise = stability([attribution(drawn(30, 6, 3, seed=seed)) for seed in range(4)], intervals=FEW)
    assert abs(noise.rank.score.value) < 0.15


def test_permuting_instances_changes_no_value():
    repeats = [drawn(30, 6, 3, seed=seed) for seed in range(3)]
    order = torch.randperm(30, generator=torch.Generator().manual_seed(1))
    plain, turned = (
        stability([attribution(each[rows]) for each in repeats], intervals=FEW) for rows in (torch.arange(30), order)
    )
    for one, other in zip(plain.scores, turned.scores, strict=True):
        assert one.value == pytest.approx(other.value)


def test_a_single_repeat_and_repeats_of_other_rows_are_refused():
    plain = contributions({"table": TABLE})
    with pytest.raises(InvalidValueError, match="at least two"):
        stability([plain])
    with pytest.raises(InvalidValueError, match="must have the same instances"):
        stability([plain, contributions({"table": TABLE[:5]})])
    with pytest.raises(InvalidTypeError, match="`over` must be a Repeats"):
        stability([plain, plain], "seed")  # type: ignore[arg-type]


def test_rank_correlation_equals_scipy_and_has_no_nan():
    from scipy.stats import spearmanr

    first, second = drawn(9, 4).numpy().round(), drawn(9, 4, seed=1).numpy().round()
    expected = [spearmanr(first[:, k], second[:, k]).statistic for k in range(4)]
    np.testing.assert_allclose(rank_correlation(first, second), expected, atol=1e-12)
    constant = np.ones((9, 4))
    np.testing.assert_array_equal(rank_correlation(constant, 2 * constant), 1)
    np.testing.assert_array_equal(rank_correlation(constant, second), 0)
    np.testing.assert_array_equal(rank_correlation(first[:1], second[:1]), 1)


def test_distances_from_nothing_are_finite():
    zero, one = np.zeros((3, 2)), np.ones((3, 2))
    np.testing.assert_array_equal(relative_distance(zero, zero), 0)
    np.testing.assert_array_equal(relative_distance(zero, one), 1)
    np.testing.assert_array_equal(relative_distance(one, zero), 1)
    assert relative_distance(one, 3 * one, np.array([0.5, 0.5])) == pytest.approx(2.0)


def test_ties_share_the_last_places():
    values = np.array([[3.0, 1.0], [2.0, 1.0], [2.0, 1.0], [1.0, 1.0]])
    np.testing.assert_allclose(top_membership(values, 2).T, [[1, 0.5, 0.5, 0], [0.5] * 4])

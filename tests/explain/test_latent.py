"""What is said of latent dimensions, against known truth."""

import numpy as np
import pytest
import torch
from sklearn.exceptions import ConvergenceWarning

from survlens.core.errors import InvalidValueError
from survlens.core.outcome import SurvivalOutcome
from survlens.data.simulate.hazards import CensoringTarget, exponential_outcome
from survlens.explain import PrincipalComponents, dimension_reliability, latent_dimensions, traverse
from survlens.explain.latent import LatentRows, check_dimensions, variance_inflation


@pytest.fixture(scope="module")
def simulated():
    rng = np.random.default_rng(5)
    latents = rng.normal(size=(2000, 3)) * [2.0, 0.5, 1.0] + [1.0, 0.0, -1.0]
    log_hazard = 0.4 * latents[:, 0] - 1.0 * latents[:, 1]
    return latents, exponential_outcome(log_hazard, CensoringTarget(0.3), rng, unit="days")


def test_hazard_ratio_per_sd_covers_the_true_one(simulated):
    latents, outcome = simulated
    found = latent_dimensions(latents, outcome, mean_kl=np.array([1.0, 0.2, 0.01]))
    truth = np.exp([0.4 * 2.0, -1.0 * 0.5, 0.0])
    for dimension, ratio in zip(found, truth, strict=True):
        assert dimension.lower * 0.97 < ratio < dimension.upper * 1.03
    assert [d.active for d in found] == [True, True, False]
    assert found[0].importance > found[1].importance > found[2].importance


def test_hazard_ratio_does_not_depend_on_the_scale_of_the_latent(simulated):
    latents, outcome = simulated
    kl = np.ones(3)
    plain = latent_dimensions(latents, outcome, mean_kl=kl)
    scaled = latent_dimensions(latents * [10.0, 0.1, 3.0] + 5, outcome, mean_kl=kl)
    for one, two in zip(plain, scaled, strict=True):
        assert one.hazard_ratio == pytest.approx(two.hazard_ratio, rel=1e-6)


def test_order_follows_the_head_where_it_has_weights(simulated):
    latents, outcome = simulated
    found = latent_dimensions(latents, outcome, mean_kl=np.ones(3), head_weights=np.array([0.1, 0.2, -5.0]))
    assert max(found, key=lambda each: each.importance).dimension == 3
    assert found[2].importance == pytest.approx(5 * latents[:, 2].std())


def test_dead_dimension_is_reported_and_not_fitted(simulated):
    latents, outcome = simulated
    dead = latents.copy()
    dead[:, 2] = 4.0
    found = latent_dimensions(dead, outcome, mean_kl=np.array([1.0, 1.0, 0.0]))
    assert np.isnan(found[2].hazard_ratio)
    assert found[2].to_json()["hazard_ratio"] is None
    assert np.isfinite(found[0].hazard_ratio)


def test_patient_counts_once(simulated):
    latents, outcome = simulated
    patient = np.repeat(np.arange(2000), 3)
    rows = np.repeat(np.arange(2000), 3)
    thrice = latent_dimensions(latents[rows], outcome[rows], mean_kl=np.ones(3), patient=patient)
    once = latent_dimensions(latents, outcome, mean_kl=np.ones(3))
    assert thrice[0].upper == pytest.approx(once[0].upper, rel=1e-9)


def test_rows_must_agree(simulated):
    with pytest.raises(InvalidValueError, match="one row per instance"):
        latent_dimensions(simulated[0][:5], simulated[1], mean_kl=np.ones(3))


def test_reliability_finds_permuted_and_flipped_dimensions():
    rng = np.random.default_rng(0)
    own = rng.normal(size=(500, 4))
    other = -own[:, [2, 0, 3, 1]]
    np.testing.assert_allclose(dimension_reliability([own, other]), 1.0)
    unrelated = rng.normal(size=(500, 4))
    assert (dimension_reliability([own, unrelated]) < 0.2).all()
    assert dimension_reliability([own]) is None


def test_principal_components_equal_the_eigenvectors_of_the_covariance():
    rng = np.random.default_rng(1)
    rows = rng.normal(size=(300, 4)) @ rng.normal(size=(4, 4)) + 3
    fitted = PrincipalComponents.fit(rows)
    values, vectors = np.linalg.eigh(np.cov(rows.T))
    np.testing.assert_allclose(np.abs(fitted.components @ vectors[:, ::-1])[:, :2], np.eye(2), atol=1e-8)
    np.testing.assert_allclose(fitted.explained, values[::-1][:2] / values.sum())
    np.testing.assert_allclose(fitted.transform(rows).mean(0), 0, atol=1e-12)


class Linear:
    """Decodes z to the 1 x 1 x 2 image (z1, z1 + 10 z2)."""

    def decode(self, latent):
        return torch.stack([latent[:, 0], latent[:, 0] + 10 * latent[:, 1]], dim=1)[:, None, None]


def test_traversal_moves_one_dimension_and_holds_the_rest():
    centre, scale = np.array([1.0, 2.0]), np.array([0.5, 3.0])
    found = traverse(Linear(), centre=centre, scale=scale, steps=(-1, 0, 2), dimensions=(2, 1))
    assert found.images.shape == (2, 3, 1, 1, 2)
    np.testing.assert_allclose(found.images[0, :, 0, 0, 0], 1.0)
    np.testing.assert_allclose(found.images[0, :, 0, 0, 1], 1 + 10 * (2 + 3 * np.array([-1, 0, 2])))
    np.testing.assert_allclose(found.images[1, :, 0, 0, 0], 1 + 0.5 * np.array([-1, 0, 2]))
    np.testing.assert_allclose(found.difference, found.images[:, -1] - found.images[:, 0])


def test_unknown_dimension_is_refused():
    with pytest.raises(InvalidValueError, match=r"1\.\.2"):
        traverse(Linear(), centre=np.zeros(2), scale=np.ones(2), dimensions=(3,))


def test_too_few_events_leave_the_table_undefined():
    outcome = SurvivalOutcome.from_arrays([1.0, 2.0, 3.0], [0, 0, 0], "days")
    found = latent_dimensions(np.eye(3), outcome, mean_kl=np.ones(3))
    assert np.isnan(found[0].hazard_ratio)


def test_held_out_fit_uses_the_training_scale_and_covers_the_truth(simulated):
    latents, outcome = simulated
    found = _checked(latents, outcome, training=slice(0, 1000), held_out=slice(1000, 2000))
    for dimension, weight in zip(found, (0.4, -1.0, 0.0), strict=True):
        truth = np.exp(weight * dimension.sd)
        assert dimension.held_out.lower * 0.95 < truth < dimension.held_out.upper * 1.05
        assert dimension.held_out.hazard_ratio != dimension.hazard_ratio
        assert dimension.univariable_held_out
        assert dimension.variance_inflation < 1.1


def test_noise_chosen_on_training_patients_is_unclear_in_held_out_ones():
    rng = np.random.default_rng(2)
    noise = rng.normal(size=(300, 200))
    time = rng.exponential(size=300)
    outcome = SurvivalOutcome.from_arrays(time, np.ones(300, dtype=int), "days")
    logs = np.array([np.corrcoef(column[:150], np.log(time[:150]))[0, 1] for column in noise.T])
    fitted = noise[:, :100] @ logs[:100, None]  # a latent that looked at the training outcomes
    (found,) = _checked(fitted, outcome, training=slice(0, 150), held_out=slice(150, 300))
    assert found.upper < 1
    assert found.held_out.lower < 1 < found.held_out.upper


def test_without_held_out_rows_the_univariable_fit_is_of_training_rows(simulated):
    latents, outcome = simulated
    (first, *_) = _checked(latents, outcome, training=slice(0, 500), held_out=None)
    alone = latent_dimensions(latents[:500, :1], outcome[np.arange(500)], mean_kl=np.ones(1))[0]
    assert first.held_out is None
    assert first.to_json()["held_out"] is None
    assert not first.univariable_held_out
    assert first.univariable.hazard_ratio == pytest.approx(alone.hazard_ratio, rel=1e-9)


def test_held_out_rows_without_events_leave_nulls(simulated):
    latents, outcome = simulated
    training = LatentRows(latents, outcome, np.arange(2000))
    censored = SurvivalOutcome.from_arrays(np.arange(1.0, 21.0), np.zeros(20, dtype=int), "days")
    silent = LatentRows(latents[:20], censored, np.arange(20))
    plain = latent_dimensions(latents, outcome, mean_kl=np.ones(3))
    found = check_dimensions(plain, training=training, held_out=silent)
    nothing = dict.fromkeys(("hazard_ratio", "lower", "upper", "p"))
    assert found[0].to_json()["held_out"] == {**nothing, "separated": False}


def test_a_dimension_that_separates_the_events_has_no_ratio_and_is_named():
    rng = np.random.default_rng(0)
    time = np.arange(1.0, 41.0)
    outcome = SurvivalOutcome.from_arrays(time, (time <= 10).astype(int), "days")
    latents = np.stack([rng.normal(size=40), np.zeros(40), np.where(time <= 10, 1.0, -1.0)], axis=1)
    with pytest.warns(ConvergenceWarning, match="'latent dimension 3' separates the events"):
        found = latent_dimensions(latents, outcome, mean_kl=np.ones(3))
    nothing = dict.fromkeys(("hazard_ratio", "lower", "upper", "p"))
    assert found[2].to_json().items() >= {**nothing, "separated": True}.items()
    assert [each.separated for each in found] == [False, False, True]
    assert 0.1 < found[0].hazard_ratio < 10
    rows = LatentRows(latents, outcome, np.arange(40))
    with pytest.warns(ConvergenceWarning, match="'latent dimension 3'"):
        checked = check_dimensions(found, training=rows)
    assert checked[2].univariable.separated
    assert not checked[0].univariable.separated


def test_variance_inflation_equals_the_regression_on_the_others():
    rng = np.random.default_rng(8)
    values = rng.normal(size=(400, 3))
    values[:, 2] = values[:, 0] + 0.2 * rng.normal(size=400)
    centred = values - values.mean(0)
    for j, found in enumerate(variance_inflation(values)):
        others = np.delete(centred, j, axis=1)
        rest = centred[:, j] - others @ np.linalg.lstsq(others, centred[:, j], rcond=None)[0]
        assert found == pytest.approx((centred[:, j] ** 2).sum() / (rest**2).sum(), rel=1e-9)
    same = np.column_stack([values[:, 0], values[:, 0], np.ones(400)])
    np.testing.assert_array_equal(variance_inflation(same), [1e6, 1e6, np.nan])


def _checked(latents, outcome, *, training, held_out):
    rows = [
        None if part is None else LatentRows(latents[part], outcome[np.arange(2000)[part]], np.arange(2000)[part])
        for part in (training, held_out)
    ]
    plain = latent_dimensions(rows[0].latents, rows[0].outcome, mean_kl=np.ones(latents.shape[1]))
    return check_dimensions(plain, training=rows[0], held_out=rows[1])

"""Directions in latent spaces whose factors are known."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest

from survlens.core.errors import FitError, InvalidValueError
from survlens.core.outcome import SurvivalOutcome
from survlens.explain.direction_agreement import direction_agreement
from survlens.explain.direction_controls import permuted_directions, random_directions
from survlens.explain.directions import (
    LatentDirection,
    Metric,
    cosine,
    health_direction,
    moves,
    ridge_penalty,
    ridge_weights,
    value_direction,
    without,
)
from survlens.explain.latent_edits import edited
from survlens.explain.latent_frame import LatentFrame


@dataclass
class Toy:
    """Latents = factors @ loading + noise, with factors illness, age (correlated) and disturbance."""

    factors: np.ndarray
    latents: np.ndarray
    outcome: SurvivalOutcome
    loading: np.ndarray
    noise: float

    def read(self, latents: np.ndarray) -> np.ndarray:
        """Factors of latents by the loading, which no fit has seen."""
        return latents @ np.linalg.pinv(self.loading)


def toy(n: int, width: int = 12, *, seed: int = 0, noise: float = 0.4, together: float = 0.5) -> Toy:
    rng = np.random.default_rng(seed)
    loading = np.linalg.qr(np.random.default_rng(99).normal(size=(width, 3)))[0].T * np.array([[1.0], [1.5], [3.0]])
    illness, free, disturbance = rng.normal(size=(3, n))
    age = together * illness + np.sqrt(1 - together**2) * free
    factors = np.stack([illness, age, disturbance], axis=1)
    latents = factors @ loading + noise * rng.normal(size=(n, width)) + 2.0
    time = rng.exponential(np.exp(-(illness + 0.5 * age)))
    stop = rng.exponential(2.0, size=n)
    outcome = SurvivalOutcome.from_arrays(np.minimum(time, stop) + 1e-6, time <= stop, "years")
    return Toy(factors, latents, outcome, loading, noise)


@pytest.fixture(scope="module")
def known() -> Toy:
    return toy(600)


@pytest.fixture(scope="module")
def frame(known: Toy) -> LatentFrame:
    return LatentFrame.of(known.latents)


@pytest.fixture(scope="module")
def found(known: Toy, frame: LatentFrame) -> LatentDirection:
    return health_direction(frame, known.latents, known.outcome)


def slopes(known: Toy, edits) -> np.ndarray:
    """Change of each known factor per step, by least squares over the steps."""
    read = known.read(edits.latents)
    centred = edits.asked - edits.asked.mean()
    return (read * centred[:, None]).sum(1).mean(0) / (centred**2).sum()


def test_a_frame_whitens_and_returns(known: Toy, frame: LatentFrame):
    v = frame.standardise(known.latents)
    np.testing.assert_allclose(v.mean(0), 0, atol=1e-12)
    np.testing.assert_allclose(v.std(0), 1)
    np.testing.assert_allclose(np.cov((v @ frame.inverse).T), np.eye(12), atol=0.1)
    np.testing.assert_allclose(frame.restore(v), known.latents)
    np.testing.assert_allclose(frame.root @ frame.inverse, np.eye(12), atol=1e-10)


def test_reach_holds_of_patients_whom_the_frame_has_not_seen():
    wide = toy(400, 60)
    frame = LatentFrame.of(wide.latents[:200])
    beyond = (frame.distance(wide.latents[200:]) > frame.reach).mean()
    assert beyond < 0.05
    assert (frame.distance(wide.latents[:200]) > frame.reach).mean() < 0.01


def test_the_whitened_direction_is_that_of_the_hazard(known: Toy, frame: LatentFrame, found: LatentDirection):
    change = slopes(known, edited(found, known.latents))
    correlation = np.cov(known.factors.T)
    truth = correlation @ [1.0, 0.5, 0.0]
    np.testing.assert_allclose(change / np.linalg.norm(change), truth / np.linalg.norm(truth), atol=0.12)
    assert np.linalg.norm(found.vector) == pytest.approx(1)


def test_one_step_is_one_standard_deviation_of_predicted_risk(known: Toy, frame: LatentFrame):
    for metric in Metric:
        found = health_direction(frame, known.latents, known.outcome, metric=metric)
        assert found.predict(known.latents).std() == pytest.approx(1)
        edits = edited(found, known.latents[:50], (-1.0, 0.0, 0.5))
        risk = found.predict(edits.latents)
        inside = ~edits.capped.any(1)
        np.testing.assert_allclose((risk - risk[:, [1]])[inside], np.tile([-1, 0, 0.5], (inside.sum(), 1)), atol=1e-9)
        np.testing.assert_allclose(edits.latents[:, 1], known.latents[:50])


def test_projection_removes_the_slope_on_age(known: Toy, frame: LatentFrame, found: LatentDirection):
    age = value_direction(frame, known.latents, 60 + 10 * known.factors[:, 1])
    alone = without(found, age)
    np.testing.assert_allclose(age.weights @ alone.vector, 0, atol=1e-10)
    before, after = (slopes(known, edited(each, known.latents)) for each in (found, alone))
    assert before[1] > 0.3
    assert abs(after[1]) < before[1] / 5
    assert after[0] > 0.3


def test_age_as_a_covariate_takes_less_of_age_along(known: Toy, frame: LatentFrame):
    age = known.factors[:, [1]]
    raw, beside = (
        health_direction(frame, known.latents, known.outcome, covariates=each, metric=Metric.STANDARDISED)
        for each in (None, age)
    )
    first, second = (float(each.weights @ (frame.scale**-1 * known.loading[1])) for each in (raw, beside))
    assert abs(second) < first / 2


def test_unpenalised_covariates_are_those_of_a_plain_fit(known: Toy, frame: LatentFrame):
    from survlens.models.classical import CoxRegression
    from survlens.models.penalised import PartialRidgeCox

    v, age = frame.standardise(known.latents), known.factors[:, [1]]
    free = PartialRidgeCox(penalties=[1e3], unpenalised=(12,)).fit(np.hstack([v, age]), known.outcome)
    alone = CoxRegression().fit(age, known.outcome)
    np.testing.assert_allclose(free.coef_[:12], 0, atol=1e-3)
    np.testing.assert_allclose(free.coef_[12], alone.coef_[0], rtol=2e-3)
    with pytest.raises(InvalidValueError, match="`unpenalised` must name columns"):
        PartialRidgeCox(unpenalised=("age",)).fit(v, known.outcome)


def test_ridge_is_that_of_scikit_learn(known: Toy, frame: LatentFrame):
    from sklearn.linear_model import Ridge

    v = frame.standardise(known.latents)
    for penalty in (1e-3, 1.0):
        other = Ridge(alpha=penalty * len(v)).fit(v, known.factors[:, 1])
        np.testing.assert_allclose(ridge_weights(v, known.factors[:, 1], penalty), other.coef_, atol=1e-10)
    noise = np.random.default_rng(1).normal(size=len(v))
    assert ridge_penalty(v, noise, None, seed=0) > ridge_penalty(v, known.factors[:, 1], None, seed=0)


def test_directions_do_not_depend_on_the_scale_of_latents(known: Toy, frame: LatentFrame):
    stretched = known.latents * np.geomspace(0.1, 10, 12) - 3
    other = LatentFrame.of(stretched)
    first = health_direction(frame, known.latents, known.outcome)
    second = health_direction(other, stretched, known.outcome)
    np.testing.assert_allclose(first.vector, second.vector, atol=1e-6)


def test_edits_stay_within_the_training_range(known: Toy, frame: LatentFrame, found: LatentDirection):
    edits = edited(found, known.latents, (-30.0, -1.0, 0.0, 1.0, 30.0))
    allowed = np.maximum(frame.reach, frame.distance(known.latents))[:, None]
    assert (edits.distance <= allowed * (1 + 1e-9)).all()
    assert edits.capped[:, [0, 4]].all()
    assert not edits.capped[:, 2].any()
    assert (np.diff(edits.reached, axis=1) >= -1e-9).all()
    far = edited(found, known.latents[:1] + 50 * frame.scale, (-1.0, 0.0, 1.0))
    assert np.isfinite(far.latents).all()


def test_on_a_sphere_edits_stay_on_it():
    z = np.random.default_rng(0).normal(size=(300, 16))
    z *= 4 / np.linalg.norm(z, axis=1, keepdims=True)
    time = np.random.default_rng(1).exponential(np.exp(-z[:, 0]))
    outcome = SurvivalOutcome.from_arrays(time, np.ones(300, dtype=int), "years")
    found = health_direction(LatentFrame.of(z, sphere=True), z, outcome)
    edits = edited(found, z, (-2.0, 0.0, 2.0))
    np.testing.assert_allclose(np.linalg.norm(edits.latents, axis=-1), 4)
    assert (np.diff(edits.latents[..., 0], axis=1) > 0).mean() > 0.95
    assert edits.reached[:, 2].mean() < 1.95


def test_controls_are_as_long_and_lead_nowhere(known: Toy, frame: LatentFrame, found: LatentDirection):
    drawn = random_directions(found, 40, seed=3)
    dealt = permuted_directions(found, known.latents, known.outcome, 10, seed=3)
    for control in (*drawn, *dealt):
        assert control.length == pytest.approx(found.length)
        assert np.linalg.norm(control.vector) == pytest.approx(1)
    assert abs(np.mean([cosine(found, each) for each in drawn])) < 0.15
    assert abs(np.mean([cosine(found, each) for each in dealt])) < 0.4
    assert abs(np.mean([slopes(known, edited(each, known.latents))[0] for each in drawn])) < 0.1
    again = random_directions(found, 40, seed=3)
    np.testing.assert_array_equal(drawn[7].vector, again[7].vector)


def test_permuted_outcomes_stay_with_whole_patients(known: Toy, frame: LatentFrame, found: LatentDirection):
    twice = np.repeat(np.arange(600), 2)
    once = permuted_directions(found, known.latents, known.outcome, 1, seed=4)[0]
    doubled = permuted_directions(found, known.latents[twice], known.outcome[twice], 1, patient=twice, seed=4)[0]
    assert cosine(once, doubled) > 0.999


def test_agreement_grows_with_patients_and_tells_how_near_the_truth_is():
    truth = toy(5000, seed=5)
    whole = LatentFrame.of(truth.latents)
    ideal = health_direction(whole, truth.latents, truth.outcome)
    found = []
    for n in (60, 200, 800):
        part = toy(n, seed=6)
        frame = LatentFrame.of(part.latents)
        direction = health_direction(frame, part.latents, part.outcome)
        agreement = direction_agreement(direction, part.latents, part.outcome, draws=10, halvings=5)
        found.append(agreement)
        actual = float(moves(direction) @ (frame.inverse @ ideal.vector) / np.linalg.norm(frame.inverse @ ideal.vector))
        assert agreement.expected == pytest.approx(actual, abs=0.2)
    assert found[0].bootstrap.value < found[1].bootstrap.value < found[2].bootstrap.value
    assert found[0].halves.value < found[2].halves.value
    assert found[2].reliable
    assert not replace(found[2], chance=0.5).reliable
    assert found[2].bootstrap.interval is not None
    assert found[2].bootstrap.value in found[2].bootstrap.interval


def test_agreement_of_a_projected_direction_is_between_projected_refits(
    known: Toy, frame: LatentFrame, found: LatentDirection
):
    age = value_direction(frame, known.latents, known.factors[:, 1])
    apart = without(found, age)
    how = {"draws": 6, "halvings": 4}
    loose = direction_agreement(apart, known.latents, known.outcome, **how)
    held = direction_agreement(apart, known.latents, known.outcome, aside=age, **how)
    assert held.bootstrap.value > loose.bootstrap.value
    assert held.sentence("the hazard without age").startswith("The direction of the hazard without age is stable")
    # Of two dimensions one is left, in which every cosine is 1 or -1.
    flat = LatentFrame.of(known.latents[:, :2])
    first = health_direction(flat, known.latents[:, :2], known.outcome)
    other = value_direction(flat, known.latents[:, :2], known.factors[:, 1])
    alone = direction_agreement(
        without(first, other), known.latents[:, :2], known.outcome, aside=other, draws=5, halvings=2
    )
    assert 5 * alone.bootstrap.value == pytest.approx(round(5 * alone.bootstrap.value), abs=1e-9)


def test_many_dimensions_and_few_events_are_told_as_unreliable():
    rng = np.random.default_rng(2)
    latents = rng.normal(size=(160, 200))
    time = rng.exponential(np.exp(-latents[:, :10].sum(1) * 0.25))
    stop = np.quantile(time, 0.43)
    outcome = SurvivalOutcome.from_arrays(np.minimum(time, stop), time <= stop, "years")
    frame = LatentFrame.of(latents)
    direction = health_direction(frame, latents, outcome)
    agreement = direction_agreement(direction, latents, outcome, draws=5, halvings=4)
    assert not agreement.reliable
    assert "UNRELIABLE" in agreement.sentence()
    assert "200 dimensions" in agreement.sentence()
    assert agreement.bootstrap.value > agreement.halves.value


def test_noise_is_not_called_reliable_where_few_dimensions_lead():
    rng = np.random.default_rng(3)
    size = np.where(np.arange(20) < 3, 3.0, 0.5)
    turn = np.linalg.qr(rng.normal(size=(20, 20)))[0]
    patient = np.repeat(np.arange(60), 2)
    latents = (rng.normal(size=(60, 20)) * size @ turn)[patient] + 0.01 * rng.normal(size=(120, 20))
    outcome = SurvivalOutcome.from_arrays(rng.exponential(size=60), rng.random(60) < 0.4, "years")
    frame = LatentFrame.of(latents, patient=patient)
    direction = replace(health_direction(frame, latents, outcome[patient], patient=patient), penalty=1.0)
    found = []
    for _ in range(25):
        dealt = outcome[rng.permutation(60)[patient]]
        found.append(direction_agreement(direction, latents, dealt, patient=patient, draws=1, halvings=8))
    assert {each.n_events for each in found} == {outcome.n_events}  # patients, not photographs
    halves = np.array([each.halves.value for each in found])
    assert halves.std() == pytest.approx(found[0].chance, rel=0.3)
    assert np.mean([each.expected > 0.7 and each.halves.value > 2 / np.sqrt(20) for each in found]) > 0.1
    assert np.mean([each.reliable for each in found]) <= 0.05


def test_chance_is_that_of_equal_dimensions_where_they_are_equal():
    rng = np.random.default_rng(4)
    latents = rng.normal(size=(2000, 20))
    outcome = SurvivalOutcome.from_arrays(rng.exponential(np.exp(-latents[:, 0])), np.ones(2000, dtype=int), "years")
    direction = health_direction(LatentFrame.of(latents), latents, outcome)
    agreement = direction_agreement(direction, latents, outcome, draws=1, halvings=1)
    assert agreement.chance == pytest.approx(1 / np.sqrt(40), rel=0.02)


@pytest.mark.slow
def test_five_hundred_dimensions_need_a_thousand_events():
    truth = np.zeros(512)
    truth[:10] = 1 / np.sqrt(10)
    for n, enough in ((400, False), (3000, True)):
        rng = np.random.default_rng(7)
        latents = rng.normal(size=(n, 512))
        time = rng.exponential(np.exp(-0.8 * latents @ truth))
        stop = np.quantile(time, 0.43)
        outcome = SurvivalOutcome.from_arrays(np.minimum(time, stop), time <= stop, "years")
        direction = health_direction(LatentFrame.of(latents), latents, outcome, metric=Metric.STANDARDISED)
        agreement = direction_agreement(direction, latents, outcome, draws=2, halvings=3)
        assert agreement.expected == pytest.approx(float(direction.vector @ truth), abs=0.15)
        assert agreement.reliable == enough


def test_what_was_fitted_says_on_whom(known: Toy):
    names = [f"P{k}" for k in range(600)]
    frame = LatentFrame.of(known.latents, patient=names)
    found = health_direction(frame, known.latents, known.outcome, patient=names)
    assert found.fitted_on.seen(["P3", "nobody"]) == 1
    assert "2 of the 3 held-out patients" in found.fitted_on.remark(["P1", "P2", "Q"])
    assert "none of them held out" in frame.fitted_on.remark(["Q"])


def test_wrong_arguments_are_refused(known: Toy, frame: LatentFrame, found: LatentDirection):
    with pytest.raises(InvalidValueError, match="`latents` must vary"):
        LatentFrame.of(np.hstack([known.latents, np.ones((600, 1))]))
    with pytest.raises(InvalidValueError, match="one row per row of `outcome`"):
        health_direction(frame, known.latents[:5], known.outcome)
    with pytest.raises(InvalidValueError, match="share a frame"):
        without(found, health_direction(LatentFrame.of(known.latents[:400]), known.latents, known.outcome))
    with pytest.raises(FitError, match="must rise along"):
        without(found, found)
    with pytest.raises(InvalidValueError, match="`steps` must be finite and rise"):
        edited(found, known.latents, (1.0, 0.0))
    with pytest.raises(InvalidValueError, match="finite and vary"):
        value_direction(frame, known.latents, np.ones(600))

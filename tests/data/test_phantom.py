"""Phantoms: drawn volumes whose hazard is known."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from survlens.core.errors import InvalidTypeError, InvalidValueError
from survlens.core.pair_counts import pair_counts
from survlens.data.simulate.phantom import (
    LoadEffect,
    Organ,
    PhantomStudy,
    drawn_phantoms,
    phantom_hazard,
    phantom_outcome,
    phantom_survival,
)


@pytest.fixture(scope="module")
def study() -> PhantomStudy:
    return phantom_survival(300, size=16)


@pytest.fixture(scope="module")
def many() -> PhantomStudy:
    """Of so many patients that their outcomes can be tested."""
    return phantom_survival(1500, size=12, censored=0.2)


def with_effect(study: PhantomStudy, effect: LoadEffect, censored: float) -> PhantomStudy:
    """The same patients with survival drawn anew, as `phantom_survival` draws it."""
    outcome = phantom_outcome(study.load, study.age, effect=effect, censored=censored, seed=0)
    return replace(study, outcome=outcome, truth=phantom_hazard(effect))


def test_survival_drawn_for_the_same_patients_is_that_of_the_whole_draw():
    whole = phantom_survival(40, size=12, effect=LoadEffect.WEARS_OFF, censored=0.1)
    again = with_effect(phantom_survival(40, size=12), LoadEffect.WEARS_OFF, 0.1)
    assert torch.equal(whole.outcome.time, again.outcome.time)
    assert torch.equal(whole.outcome.event, again.outcome.event)


def test_the_same_seed_draws_the_same_and_a_longer_cohort_begins_with_the_shorter(study):
    again = phantom_survival(5, size=16)
    assert np.array_equal(again.volumes, study.volumes[:5])
    assert np.array_equal(again.load, study.load[:5])
    assert not np.array_equal(phantom_survival(5, size=16, seed=1).volumes, again.volumes)


def test_load_is_the_volume_of_what_is_labelled_tumour():
    fine = phantom_survival(12, size=48)
    labelled = (fine.labels == Organ.TUMOUR.value).sum((1, 2, 3)) * fine.spacing.prod(1) / 1000
    np.testing.assert_allclose(labelled, fine.load, rtol=0.1, atol=2)
    assert (fine.load > 0).sum() == (fine.tumours > 0).sum()


def test_load_does_not_change_with_the_number_of_voxels_but_for_their_size():
    coarse, fine = phantom_survival(20, size=32), phantom_survival(20, size=64)
    assert np.array_equal(coarse.age, fine.age)
    np.testing.assert_allclose(coarse.load, fine.load, rtol=0.2, atol=5)


def test_the_liver_says_nothing_of_load_and_tumours_lie_in_it(study):
    assert abs(np.corrcoef(study.load, study.liver)[0, 1]) < 0.2
    there = phantom_survival(10, size=32)
    liver = [there.volumes[i, 0][there.labels[i] == Organ.LIVER.value].mean() for i in range(10)]
    assert all(85 < value < 135 for value in liver)
    for i in np.flatnonzero(there.load > 20):
        assert there.volumes[i, 0][there.labels[i] == Organ.TUMOUR.value].mean() < liver[i] - 15


def test_the_liver_lies_on_the_right_side_of_a_canonical_volume(study):
    for row in range(5):
        voxels = np.argwhere(study.labels[row] == Organ.LIVER.value)
        spine = np.argwhere(study.labels[row] == Organ.SPINE.value)
        world = study.affine(row) @ np.r_[voxels.mean(0), 1]
        behind = study.affine(row) @ np.r_[spine.mean(0), 1]
        assert world[0] > 20
        assert behind[1] < -20


@pytest.mark.parametrize("effect", list(LoadEffect))
def test_outcomes_follow_the_stated_hazard(many, effect):
    drawn = with_effect(many, effect, 0.2)
    hazard = drawn.truth.predict_from_raw(drawn.truth.raw(torch.from_numpy(drawn.covariates)))
    at_end = hazard.at(drawn.outcome.time.unique(sorted=True).tolist())
    index = np.searchsorted(at_end.times.numpy(), drawn.outcome.time.numpy())
    residual = drawn.outcome.event.numpy() - at_end.cumulative_hazard.numpy()[np.arange(1500), index]
    # Martingale residuals have mean 0 and no relation with what the hazard depends on.
    assert abs(residual.mean()) < 0.08
    assert np.abs(np.corrcoef(residual, drawn.covariates.T)[0, 1:]).max() < 0.08


@pytest.mark.parametrize(("key", "value"), [("instances", 0), ("size", 8), ("noise", -1.0), ("censored", 1.0)])
def test_bad_arguments_are_named(key, value):
    settings = {"instances": 3, "size": 16} | {key: value}
    with pytest.raises(InvalidValueError, match="share" if key == "censored" else key):
        phantom_survival(**settings)  # pyright: ignore[reportArgumentType]


def test_an_effect_given_as_a_word_is_refused():
    with pytest.raises(InvalidTypeError, match="effect"):
        phantom_survival(2, size=16, effect="constant")  # pyright: ignore[reportArgumentType]


def test_the_true_hazard_orders_patients(study):
    assert 0.7 < pair_counts(study.log_hazard, study.outcome).concordance < 0.85


def test_the_size_of_the_liver_does_not_predict_and_is_drawn_apart_from_the_load(many):
    drawn = many
    standard = drawn.liver.argsort().argsort()
    # Standard errors are about 0.03 of a correlation and 0.012 of a concordance.
    assert abs(np.corrcoef(standard, drawn.load.argsort().argsort())[0, 1]) < 0.09
    assert abs(pair_counts(drawn.liver, drawn.outcome).concordance - 0.5) < 0.036
    oracle = pair_counts(drawn.log_hazard, drawn.outcome).concordance
    alone = [pair_counts(column, drawn.outcome).concordance for column in drawn.covariates.T]
    assert oracle > max(alone) + 0.02 > 0.66


def test_an_effect_that_wears_off_is_strong_early_and_gone_late(many):
    drawn = with_effect(many, LoadEffect.WEARS_OFF, 0.0)
    load, time = drawn.covariates[:, 0], drawn.outcome.time.numpy()
    truth = drawn.truth.predict(torch.from_numpy(drawn.covariates), torch.tensor([1.0, 12.0, 30.0])).log_hazard_rate
    assert truth is not None
    slope = [np.polyfit(load, column - 0.5 * drawn.covariates[:, 1], 1)[0] for column in truth.numpy().T]
    np.testing.assert_allclose(slope, 1.2 - 0.35 * np.log([1, 12, 30]), atol=1e-9)
    # Of those who die at one time against those who live on: the load tells them apart early, hardly later.
    gaps = []
    for low, high in ((0.0, 3.0), (14.0, 40.0)):
        ended, after = (time > low) & (time <= high), time > high
        gaps.append(load[ended].mean() - load[after].mean())
    assert gaps[0] > 0.5 > gaps[1]


def test_volumes_vary_in_noise_contrast_spacing_and_pose():
    there = list(drawn_phantoms(12, size=32))
    noise = [each.volume[:2, :2].std() for each in there]
    assert max(noise) > 1.5 * min(noise)
    inside = [np.median(each.volume[each.labels == Organ.LIVER.value]) for each in there]
    assert np.ptp(inside) > 20
    assert (np.ptp([each.spacing for each in there], axis=0) / there[0].spacing > 0.04).all()
    middle = np.array([np.argwhere(each.labels == Organ.LIVER.value).mean(0) * each.spacing for each in there])
    assert (middle.std(0) > 2).all()
    # Turned: the spine does not run straight up.
    lean = []
    for each in there:
        spine = each.labels == Organ.SPINE.value
        ends = [np.argwhere(spine[:, :, k])[:, :2].mean(0) * each.spacing[:2] for k in (2, -3)]
        lean.append(ends[1] - ends[0])
    assert (np.std(lean, axis=0) > 4).all()


def test_a_cohort_drawn_one_by_one_is_the_study(study):
    first = next(drawn_phantoms(300, size=16))
    assert np.array_equal(first.volume, study.volumes[0, 0])
    assert np.array_equal(first.affine, study.affine(0))
    again = phantom_outcome(study.load, study.age)
    assert np.array_equal(again.time.numpy(), study.outcome.time.numpy())

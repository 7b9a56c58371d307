import warnings

import pytest

from survlens.training.adaptive_augmentation import AugmentationControl


def control(**changes) -> AugmentationControl:
    return AugmentationControl(**{"target": 0.6, "images": 1000, "largest": 0.85} | changes)


def test_p_rises_by_the_photographs_seen_over_the_images():
    law = control()
    for _ in range(4):
        law.see(14.0, 16)  # r = 7/8
    assert law.adapt() == pytest.approx(0.875)
    assert law.p == pytest.approx(64 / 1000)
    assert (law.signs, law.seen) == (0.0, 0)


def test_p_falls_where_the_discriminator_is_unsure_and_not_below_zero():
    law = control(p=0.1)
    law.see(-3.0, 64)
    law.adapt()
    assert law.p == pytest.approx(0.1 - 64 / 1000)
    law.see(0.0, 64)
    law.adapt()
    assert law.p == 0.0


def test_p_stays_at_the_target_and_without_photographs():
    law = control(p=0.3, target=0.5)
    law.see(8.0, 16)
    assert law.adapt() == 0.5
    assert law.adapt() == 0.0
    assert law.p == 0.3


def test_p_meets_its_bound_with_one_warning():
    law = control(p=0.84)
    law.see(64.0, 64)
    with pytest.warns(UserWarning, match="by heart even though 85% of changes"):
        law.adapt()
    assert law.p == 0.85
    law.see(64.0, 64)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        law.adapt()
    assert law.p == 0.85


def test_p_settles_where_the_discriminator_is_as_sure_as_wanted():
    law = control(images=20_000)
    for _ in range(600):  # a discriminator that is less sure the more is changed: r = 1 - p, so p settles at 0.4
        law.see(64 * (1 - law.p), 64)
        law.adapt()
    assert law.p == pytest.approx(0.4, abs=64 / 20_000)

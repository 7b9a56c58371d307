"""Simulated outcomes have the hazard and the censoring that they say."""

import gzip

import numpy as np
import pytest

from survlens.core.errors import CorruptFileError, InvalidValueError
from survlens.data.simulate import CensoringTarget, exponential_outcome, mnist_survival, scikit_digits_survival


def test_mean_time_is_one_over_the_hazard():
    log_hazard = np.full(200_000, np.log(0.25))
    outcome = exponential_outcome(log_hazard, CensoringTarget(0.0), np.random.default_rng(0))
    assert float(outcome.time.mean()) == pytest.approx(4.0, rel=0.02)
    assert outcome.n_events == 200_000


def test_censored_share_is_met_and_leaves_the_hazard_alone():
    log_hazard = np.full(200_000, np.log(0.25))
    outcome = exponential_outcome(log_hazard, CensoringTarget(0.4), np.random.default_rng(0))
    assert outcome.n_events / len(outcome) == pytest.approx(0.6, abs=1e-4)
    assert outcome.n_events / float(outcome.time.sum()) == pytest.approx(0.25, rel=0.02)


def test_share_must_leave_events():
    with pytest.raises(InvalidValueError, match="share"):
        CensoringTarget(1.0)


def test_digits_follow_the_recipe():
    study = scikit_digits_survival(seed=1)
    assert study.images.shape == (1797, 1, 8, 8)
    assert study.images.min() == 0
    assert study.images.max() == 1
    assert study.outcome.n_events / 1797 == pytest.approx(0.83, abs=0.001)
    np.testing.assert_allclose(np.exp(study.log_hazard[study.digit == 0]), np.log(2) / 1000)
    steps = np.diff([study.log_hazard[study.digit == d][0] for d in range(10)])
    np.testing.assert_allclose(steps, 0.6)


def test_same_seed_same_times():
    first, second, third = (scikit_digits_survival(seed=s).outcome.time.numpy() for s in (1, 1, 2))
    assert (first == second).all()
    assert (first != third).any()


def test_mnist_is_read_from_files(shared):
    study = mnist_survival(shared("data", "mnist"))
    assert study.images.shape == (10_000, 1, 28, 28)
    assert np.bincount(study.digit).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]


def test_damaged_or_missing_idx_is_named(tmp_path):
    with pytest.raises(InvalidValueError, match="t10k-images"):
        mnist_survival(tmp_path)
    (tmp_path / "t10k-images-idx3-ubyte.gz").write_bytes(gzip.compress(b"\x00\x00\x08\x03" + b"\x00\x00\x00\x09" * 3))
    (tmp_path / "t10k-labels-idx1-ubyte.gz").write_bytes(b"no gzip")
    with pytest.raises(CorruptFileError, match="9x9x9"):
        mnist_survival(tmp_path)

"""Laws, known truths and a slow second derivation of cumulative incidences."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.strategies import permutations, whole_outcomes
from survlens.core.aalen_johansen import cumulative_incidence
from survlens.core.errors import InvalidValueError
from survlens.core.nonparametric import EmptyRiskSetWarning, Limits, kaplan_meier
from survlens.core.outcome import SurvivalOutcome

few = settings(max_examples=40, deadline=None)
early_zero = pytest.mark.filterwarnings(f"ignore::{EmptyRiskSetWarning.__module__}.{EmptyRiskSetWarning.__qualname__}")


def by_definition(outcome: SurvivalOutcome, causes: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """F_k and its variance, each sum written out anew for each time; and S."""
    time, event = outcome.numpy()
    entry, weight = outcome.entries().numpy(), outcome.weights().numpy()
    times = sorted(set(time))
    n = [weight[(entry < u) & (time >= u)].sum() for u in times]
    d = [[weight[(time == u) & (event == k + 1)].sum() for u in times] for k in range(causes)]
    total = [sum(d[k][j] for k in range(causes)) for j in range(len(times))]
    # By who stays, not by 1 - d / n, so that S is exactly 0 where nobody does.
    stays = [weight[(entry < u) & (time >= u) & ~((time == u) & (event > 0))].sum() for u in times]
    survival = np.cumprod([s / m for s, m in zip(stays, n, strict=True)])
    before = np.concatenate(([1.0], survival[:-1]))
    incidence = np.zeros((causes, len(times)))
    variance = np.zeros((causes, len(times)))
    for k in range(causes):
        for j in range(len(times)):
            incidence[k, j] = sum(before[i] * d[k][i] / n[i] for i in range(j + 1))
        for j in range(len(times)):
            for i in range(j + 1):
                still = incidence[k, j] - incidence[k, i]
                if stays[i] > 0 and survival[i] > 0:
                    variance[k, j] += still**2 * total[i] / (n[i] * stays[i])
                variance[k, j] += before[i] ** 2 * d[k][i] * (n[i] - d[k][i]) / n[i] ** 3
                variance[k, j] -= 2 * still * before[i] * d[k][i] / n[i] ** 2
    return incidence, variance, survival


@few
@given(outcome=whole_outcomes(max_size=15, causes=3))
def test_incidence_and_variance_equal_their_definition(outcome: SurvivalOutcome) -> None:
    found = cumulative_incidence(outcome, n_causes=3)
    incidence, variance, survival = by_definition(outcome, 3)
    np.testing.assert_allclose(found.incidence, incidence, atol=1e-13)
    np.testing.assert_allclose(found.survival, survival, atol=1e-13)
    np.testing.assert_allclose(found.std_error**2, variance, atol=1e-12)


@early_zero
@few
@given(outcome=whole_outcomes(max_size=15))
def test_one_cause_is_one_minus_kaplan_meier_with_greenwoods_error(outcome: SurvivalOutcome) -> None:
    found, curve = cumulative_incidence(outcome, n_causes=1), kaplan_meier(outcome)
    assert found.times.tolist() == curve.times.tolist()
    np.testing.assert_allclose(found.incidence[0], 1 - curve.survival, atol=1e-13)
    alive = curve.survival > 1e-12
    greenwood = curve.survival[alive] * curve.std_error[alive]
    np.testing.assert_allclose(found.std_error[0][alive], greenwood, rtol=1e-6, atol=1e-9)


@early_zero
@few
@given(outcome=whole_outcomes(max_size=15, causes=4))
def test_incidences_and_overall_survival_sum_to_one(outcome: SurvivalOutcome) -> None:
    found = cumulative_incidence(outcome, n_causes=4)
    np.testing.assert_allclose(found.incidence.sum(0) + kaplan_meier(outcome).survival, 1.0, atol=1e-12)
    assert (np.diff(found.incidence, axis=1) >= 0).all()


@few
@given(outcome=whole_outcomes(max_size=15, causes=2))
def test_limits_enclose_the_curve_within_zero_and_one(outcome: SurvivalOutcome) -> None:
    found = cumulative_incidence(outcome, n_causes=2)
    inside = ~np.isnan(found.lower)
    assert (found.incidence[~inside] >= 1 - 1e-12).all()
    assert ((0 <= found.lower) & (found.lower <= found.incidence + 1e-15))[inside].all()
    assert ((found.incidence <= found.upper + 1e-15) & (found.upper <= 1))[inside].all()


@few
@given(outcome=whole_outcomes(causes=2), data=st.data())
def test_row_order_changes_nothing_and_strata_are_pooled(outcome: SurvivalOutcome, data: st.DataObject) -> None:
    found = cumulative_incidence(outcome, n_causes=2)
    other = replace(outcome, stratum=None)[data.draw(permutations(len(outcome)))]
    np.testing.assert_allclose(cumulative_incidence(other, n_causes=2).incidence, found.incidence, atol=1e-13)


@few
@given(outcome=whole_outcomes(causes=2), counts=st.lists(st.integers(1, 4), min_size=12, max_size=12))
def test_whole_weights_are_repeated_rows(outcome: SurvivalOutcome, counts: list[int]) -> None:
    count = torch.tensor(counts[: len(outcome)])
    heavy = cumulative_incidence(replace(outcome, weight=count.double()), n_causes=2)
    repeated = replace(outcome, weight=None)[torch.arange(len(outcome)).repeat_interleave(count)]
    expected = cumulative_incidence(repeated, n_causes=2)
    np.testing.assert_allclose(heavy.incidence, expected.incidence, atol=1e-13)
    np.testing.assert_allclose(heavy.std_error, expected.std_error, atol=1e-9)
    np.testing.assert_allclose(heavy.n_event, expected.n_event)


def test_by_hand() -> None:
    # 5 at risk: cause 1; 4: cause 2; 3: censored; 2: cause 1; the last is censored.
    outcome = SurvivalOutcome.from_arrays([1.0, 2.0, 3.0, 4.0, 5.0], [1, 2, 0, 1, 0], "years")
    found = cumulative_incidence(outcome)
    np.testing.assert_allclose(found.incidence, [[0.2, 0.2, 0.2, 0.5, 0.5], [0, 0.2, 0.2, 0.2, 0.2]], atol=1e-15)
    np.testing.assert_allclose(found.survival, [0.8, 0.6, 0.6, 0.3, 0.3])
    assert found.n_event.tolist() == [[1, 0, 0, 1, 0], [0, 1, 0, 0, 0]]
    np.testing.assert_allclose(found.std_error[:, 0], [np.sqrt(0.2 * 0.8 / 5), 0.0])
    np.testing.assert_allclose(found.at([0.5, 1.0, 4.5, 99.0]), [[0, 0.2, 0.5, 0.5], [0, 0, 0.2, 0.2]], atol=1e-15)
    curve = found.of_cause(2)
    assert (curve.initial, float(curve.before(2.0)), curve.unit) == (0.0, 0.0, "years")
    assert found.lower[1, 0] == found.upper[1, 0] == 0.0


def test_limits_of_one_cause_are_the_log_log_limits_turned_over() -> None:
    # log(-log F) is not log(-log S), but at F = S = 1/2 both have the same spread.
    outcome = SurvivalOutcome.from_arrays(np.arange(1.0, 11.0), [1] * 5 + [0] * 5, "days")
    found, curve = cumulative_incidence(outcome), kaplan_meier(outcome, limits=Limits.LOG_LOG)
    assert found.lower[0, 4] == pytest.approx(curve.lower[4], rel=1e-12)
    assert found.upper[0, 4] == pytest.approx(curve.upper[4], rel=1e-12)


def test_a_wrong_number_of_causes_or_level_is_refused() -> None:
    outcome = SurvivalOutcome.from_arrays([1.0, 2.0], [2, 0], "days")
    with pytest.raises(InvalidValueError, match="`n_causes` must be >= 1"):
        cumulative_incidence(outcome, n_causes=1)
    with pytest.raises(InvalidValueError, match="nobody had an event"):
        cumulative_incidence(SurvivalOutcome.from_arrays([1.0], [0], "days"))
    with pytest.raises(InvalidValueError, match="`confidence`"):
        cumulative_incidence(outcome, confidence=1.0)
    with pytest.raises(InvalidValueError, match=r"`cause` must lie in 1 .. 2"):
        cumulative_incidence(outcome).of_cause(3)


@pytest.mark.parametrize(
    ("parts", "incidence", "std_error"),
    [
        ((), (0.19363395, 0.16445623), (0.06602592, 0.0616514)),
        (("entry",), (0.20917687, 0.18799433), (0.0704126, 0.0691331)),
        (("weight",), (0.24945103, 0.15744401), (0.05423279, 0.04475475)),
        (("entry", "weight"), (0.25892976, 0.17160736), (0.05585089, 0.04824947)),
    ],
)
def test_incidences_and_errors_equal_those_of_lifelines(
    parts: tuple[str, ...], incidence: tuple[float, float], std_error: tuple[float, float]
) -> None:
    # Ours at 8 on these 40 rows without ties; AalenJohansenFitter of lifelines 0.30.3 gave the same incidences,
    # standard errors and limits at every time, to 5e-16 (with ties it would shift the times by random amounts).
    k = np.arange(40)
    time = 1 + ((k * 17) % 41) * 0.37
    columns = {"entry": np.where(k % 4 == 0, time * ((k * 5) % 9) / 9, 0.0), "weight": 1.0 + (k * 3) % 4 * 0.5}
    outcome = SurvivalOutcome.from_arrays(time, k % 3, "days", **{part: columns[part] for part in parts})
    found = cumulative_incidence(outcome)
    np.testing.assert_allclose(found.at(8.0), incidence, atol=1e-8)
    place = np.searchsorted(found.times, 8.0, side="right") - 1
    np.testing.assert_allclose(found.std_error[:, place], std_error, atol=1e-8)

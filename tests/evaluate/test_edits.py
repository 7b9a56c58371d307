"""Judging edits whose effect is known."""

from __future__ import annotations

import inspect
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

import survlens.evaluate as evaluate
from survlens.core.errors import InvalidValueError
from survlens.core.score import Category, Direction, Score
from survlens.evaluate.edit_pictures import background_change, identity_kept
from survlens.evaluate.edits import EditResponse, against_controls, edit_response, slope_ratio
from survlens.evaluate.score_over_time import Intervals

STEPS = np.array([-2.0, -1.0, 0.0, 1.0, 2.0])
FEW = Intervals(draws=300)


def brightened() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Pictures, the same ones lit up step by step and unevenly, and their upper half."""
    original = torch.rand((12, 3, 8, 8), generator=torch.Generator().manual_seed(0))
    uneven = torch.rand((12, 1, 3, 8, 8), generator=torch.Generator().manual_seed(1))
    light = torch.linspace(0.02, 0.1, 5)[None, :, None, None, None] * uneven
    behind = torch.zeros((12, 8, 8), dtype=torch.bool)
    behind[:, :4] = True
    return original, original[:, None] + light, behind


def responses(seed: int = 0) -> list[EditResponse]:
    return [edit_response(STEPS, lines(at, noise=0.5, seed=seed), reader=str(at), intervals=FEW) for at in (0.2, 0.4)]


def scores_of_identity() -> list[Score]:
    original, edited, _ = brightened()
    found = identity_kept(original, edited, intervals=FEW)
    return [found.recognised, found.distance]


ROWS: dict[Callable[..., object], Callable[[], list[Score]]] = {
    edit_response: lambda: list(responses()[0].scores),
    slope_ratio: lambda: [slope_ratio(*responses(), name="ratio", intervals=FEW)],
    against_controls: lambda: [against_controls(responses()[1], {"a": responses(1)[0]}, intervals=FEW).excess],
    identity_kept: scores_of_identity,
    background_change: lambda: [background_change(*brightened(), intervals=FEW)],
}
"""Every public function that judges edits, and scores that it gives."""


def test_every_public_function_of_edits_has_a_row() -> None:
    modules = {"survlens.evaluate.edits", "survlens.evaluate.edit_pictures"}
    public = [each for each in vars(evaluate).values() if inspect.isfunction(each) and each.__module__ in modules]
    assert set(public) == set(ROWS)


@pytest.mark.parametrize("judge", ROWS, ids=lambda judge: judge.__name__)
def test_every_score_of_an_edit_says_of_how_many_and_how_surely(judge: Callable[..., object]) -> None:
    for score in ROWS[judge]():
        assert np.isfinite(score.value)
        assert score.interval is not None
        assert score.interval.lower <= score.value <= score.interval.upper
        assert score.interval.confidence == FEW.confidence
        assert isinstance(score.direction, Direction)
        where = judge in (identity_kept, background_change)  # where in the picture something changes, or by how much
        assert score.category is (Category.LOCALISATION if where else Category.FAITHFULNESS)
        assert int(score.settings["n"]) in (12, 60)
        assert score.name.replace("_", "").isalpha()


def lines(slope: float, n: int = 60, *, noise: float = 0.0, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, 1)) + slope * STEPS + noise * rng.normal(size=(n, 5))


def test_straight_rise_is_found_exactly():
    found = edit_response(STEPS, lines(0.3), reader="line", intervals=FEW)
    assert (found.strict.value, found.spearman.value) == (1, 1)
    assert found.slope.value == pytest.approx(0.3)
    np.testing.assert_allclose(found.slopes, 0.3)
    assert found.strict.settings["reader"] == "line"


def test_noisy_readings_equal_a_slow_second_route():
    values = lines(0.5, noise=0.8, seed=1)
    found = edit_response(STEPS, values, reader="noise", intervals=FEW)
    rising, ranks, slopes = [], [], []
    for row in values:
        rising.append(all(row[k + 1] > row[k] for k in range(4)))
        ranks.append(spearmanr(STEPS, row)[0])
        slopes.append(np.polyfit(STEPS, row, 1)[0])
    assert found.strict.value == pytest.approx(np.mean(rising))
    assert found.spearman.value == pytest.approx(np.mean(ranks))
    assert found.slope.value == pytest.approx(np.mean(slopes))
    for score in found.scores:
        assert score.interval is not None
        assert score.interval.lower < score.value < score.interval.upper


def test_readings_that_stand_still_do_not_rise():
    found = edit_response(STEPS, np.ones((4, 5)), reader="constant", intervals=FEW)
    assert [score.value for score in found.scores] == [0, 0, 0]


def test_interval_of_the_slope_covers_it_as_often_as_it_says():
    covered = 0
    for seed in range(60):
        values = lines(0.0, 40, seed=seed) + np.random.default_rng(1000 + seed).normal(0.2, 0.5, (40, 1)) * STEPS
        found = edit_response(STEPS, values, reader="random slopes", intervals=Intervals(draws=200, seed=seed))
        assert found.slope.interval is not None
        covered += 0.2 in found.slope.interval
    assert 50 <= covered <= 60


def test_rows_of_one_patient_are_drawn_together():
    values = lines(0.0, 10) + np.random.default_rng(3).normal(size=(10, 1)) * STEPS
    thrice = np.repeat(values, 3, axis=0)
    patients = Intervals(draws=500, patient=np.repeat(np.arange(10), 3))
    alone = edit_response(STEPS, values, reader="x", intervals=Intervals(draws=500))
    together = edit_response(STEPS, thrice, reader="x", intervals=patients)
    apart = edit_response(STEPS, thrice, reader="x", intervals=Intervals(draws=500))
    intervals = [each.slope.interval for each in (alone, together, apart)]
    widths = [each.upper - each.lower for each in intervals if each is not None]
    assert widths[1] == pytest.approx(widths[0], rel=1e-9)
    assert widths[2] < 0.75 * widths[0]


def test_ratio_of_slopes_is_paired():
    shared = np.random.default_rng(5).normal(1.0, 0.6, (80, 1))
    first = edit_response(STEPS, 0.2 * shared * STEPS, reader="age", intervals=FEW)
    second = edit_response(STEPS, shared * STEPS, reader="illness", intervals=FEW)
    ratio = slope_ratio(first, second, name="age_over_illness", intervals=FEW)
    assert ratio.value == pytest.approx(0.2)
    assert ratio.interval is not None
    assert ratio.interval.upper - ratio.interval.lower < 1e-9
    assert (ratio.settings["numerator"], ratio.settings["denominator"]) == ("age", "illness")


def test_an_effect_stands_out_of_controls_and_a_control_does_not():
    controls = {f"random {k}": edit_response(STEPS, lines(0.0, noise=0.5, seed=k), reader="r", intervals=FEW)
                for k in range(1, 20)}  # fmt: skip
    real = against_controls(edit_response(STEPS, lines(0.5, noise=0.5), reader="r"), controls, intervals=FEW)
    none = against_controls(edit_response(STEPS, lines(0.0, noise=0.5), reader="r"), controls, intervals=FEW)
    assert real.p_value == pytest.approx(1 / 20)
    assert real.excess.interval is not None
    assert real.excess.interval.lower > 0.3
    assert real.largest < 0.3
    assert none.p_value > 0.05
    assert none.excess.value < 0.1


def people(n: int = 12, size: int = 8) -> torch.Tensor:
    return torch.rand(n, 3, size, size, generator=torch.Generator().manual_seed(0))


def test_identity_is_kept_by_small_edits_and_lost_by_a_swap():
    faces = people()
    shift = torch.linspace(-0.02, 0.02, 5)[None, :, None, None, None]
    kept = identity_kept(faces, faces[:, None] + shift, intervals=FEW)
    assert kept.recognised.value == 1
    assert kept.distance.value < 0.1
    assert kept.by_step[2] == pytest.approx(0, abs=1e-6)
    swapped = identity_kept(faces, faces.roll(1, 0)[:, None], intervals=FEW)
    assert swapped.recognised.value == 0
    assert swapped.distance.value == pytest.approx(1, abs=0.2)


def test_identity_looks_only_where_it_is_told_and_through_the_given_eyes():
    faces, outside = people(), torch.ones(12, 8, 8, dtype=torch.bool)
    outside[:, 2:6, 2:6] = False
    edited = faces[:, None].clone()
    edited[..., 2:6, 2:6] = 0.5
    assert identity_kept(faces, edited, outside=outside, intervals=FEW).distance.value == pytest.approx(0, abs=1e-6)
    assert identity_kept(faces, edited, intervals=FEW).distance.value > 0.1
    blind = identity_kept(faces, edited, embedding=lambda p: p[:, :, 0, 0], reader="corner", intervals=FEW)
    assert (blind.recognised.value, blind.recognised.settings["reader"]) == (1, "corner")


def test_background_change_is_a_share():
    faces, background = people(), torch.zeros(12, 8, 8, dtype=torch.bool)
    background[:, :4] = True
    edited = faces[:, None].repeat(1, 3, 1, 1, 1)
    edited[:, :, :, 4:] += 0.2
    edited[:, :, :, :4] += 0.05
    score = background_change(faces, edited, background, intervals=FEW)
    assert score.value == pytest.approx(0.25, abs=1e-5)
    assert score.settings["change_elsewhere"] == pytest.approx(0.2, abs=1e-6)


def test_wrong_arguments_are_refused():
    faces = people()
    with pytest.raises(InvalidValueError, match="`steps` must"):
        edit_response([1.0, 0.0], np.ones((3, 2)), reader="x")
    with pytest.raises(InvalidValueError, match="`readings` must"):
        edit_response(STEPS, np.full((3, 5), np.nan), reader="x")
    with pytest.raises(InvalidValueError, match="same instances"):
        slope_ratio(
            edit_response(STEPS, lines(1, 3), reader="x"), edit_response(STEPS, lines(1, 4), reader="x"), name="r"
        )
    with pytest.raises(InvalidValueError, match="at least one response"):
        against_controls(edit_response(STEPS, lines(1, 3), reader="x"), {})
    with pytest.raises(InvalidValueError, match="`edited` must hold"):
        identity_kept(faces, faces)
    with pytest.raises(InvalidValueError, match="both background and foreground"):
        background_change(faces, faces[:, None], torch.ones(12, 8, 8, dtype=torch.bool))

"""Deletion and insertion curves, infidelity and local accuracy, where the right answer is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from evaluate.attribution_toys import (
    TIMES,
    Additive,
    attribution,
    bag_inputs,
    bag_prediction,
    drawn,
    multiplied,
)
from survlens.core.errors import InvalidValueError
from survlens.core.inputs import select_rows
from survlens.core.outcome import SurvivalOutcome
from survlens.core.score import Category, Direction
from survlens.core.targets import survival
from survlens.evaluate.attribution_values import Part, time_weights
from survlens.evaluate.faithfulness import (
    Focus,
    Removal,
    deletion_curve,
    insertion_curve,
    local_accuracy,
)
from survlens.evaluate.perturbation import GaussianNoise, SubsetRemoval, infidelity
from survlens.evaluate.score_over_time import Intervals
from survlens.explain.asked import asked
from survlens.explain.gradient import Gradient
from survlens.explain.references import References
from survlens.heads.cox import CoxPH
from survlens.models.survival_model import SurvivalModel

TOY = Additive()
TABLE = drawn(40, 6, seed=9)
EXPLAINED = TOY.explained(TABLE)
INPUTS = {"table": TABLE}
FEW = Intervals(draws=200)


def removal(**settings: object) -> Removal:
    return Removal(**({"filling": TOY.filling} | settings))  # type: ignore[arg-type]


@pytest.mark.parametrize("curve", [deletion_curve, insertion_curve])
@pytest.mark.parametrize("part", Part)
@pytest.mark.parametrize("focus", Focus)
def test_the_true_order_beats_random_orders_and_its_inverse(curve, part, focus):
    truth = curve(TOY.predict, INPUTS, EXPLAINED, removal(part=part, focus=focus), intervals=FEW)
    assert truth.score.interval.lower > 0
    assert (truth.area.values > 0).all()
    upside = (lambda v: 1 / v) if part is Part.ABSOLUTE else (lambda v: -v)
    inverse = curve(TOY.predict, INPUTS, multiplied(EXPLAINED, upside), removal(part=part, focus=focus), intervals=FEW)
    assert inverse.score.interval.upper < 0
    assert (truth.score.direction, truth.score.category) == (Direction.HIGHER, Category.FAITHFULNESS)
    assert truth.score.settings["filling"] == "the reference"


def test_the_deletion_curve_equals_a_slow_second_route():
    found = deletion_curve(TOY.predict, INPUTS, EXPLAINED, removal(part=Part.RAISING, steps=6), intervals=FEW)
    weights = torch.as_tensor(time_weights(TIMES.numpy()))
    curves = []
    for row, values in zip(TABLE, EXPLAINED["table"].values, strict=True):
        order = torch.argsort(values @ weights, descending=True)
        current, steps = row.clone(), []
        for j in [None, *order.tolist()]:
            if j is not None:
                current[j] = TOY.reference[0, j]
            steps.append((row - current) @ TOY.slopes)
        curves.append(torch.stack(steps))
    expected = torch.stack(curves).mean(0).numpy()
    np.testing.assert_allclose(found.change, expected, atol=1e-12)
    np.testing.assert_allclose(found.prediction, (TABLE @ TOY.slopes).mean(0).numpy() - expected, atol=1e-12)
    area = ((expected[1:] + expected[:-1]) / 2).mean(0)
    total = expected[-1] / 2  # the area of random orders of an additive target, on average
    np.testing.assert_allclose(found.area.values, area - total, atol=0.15)
    assert found.to_json()["value"] == pytest.approx((expected @ weights.numpy()).tolist())
    assert found.to_json(random=True)["share"] == pytest.approx(np.linspace(0, 1, 7).tolist())


def test_curves_start_and_end_where_they_must():
    removed = deletion_curve(TOY.predict, INPUTS, EXPLAINED, removal(), intervals=FEW)
    back = insertion_curve(TOY.predict, INPUTS, EXPLAINED, removal(), intervals=FEW)
    whole = (TABLE @ TOY.slopes).mean(0).numpy()
    nothing = (TOY.reference @ TOY.slopes)[0].numpy()
    for first, last in ((removed.prediction[0], removed.prediction[-1]), (back.prediction[-1], back.prediction[0])):
        np.testing.assert_allclose(first, whole, atol=1e-12)
        np.testing.assert_allclose(last, nothing, atol=1e-12)
    np.testing.assert_allclose(removed.change[0], 0, atol=1e-12)
    np.testing.assert_allclose(back.change[-1], 0, atol=1e-12)
    np.testing.assert_allclose(removed.change[-1], removed.random_change[-1], atol=1e-12)


@pytest.mark.parametrize("seed", range(4))
def test_a_random_or_constant_explanation_is_no_better_than_chance(seed):
    noise = {"table": attribution(drawn(40, 6, 3, seed=100 + seed))}
    found = deletion_curve(TOY.predict, INPUTS, noise, removal(random_orders=20, seed=seed), intervals=FEW)
    spread = found.score.interval.upper - found.score.interval.lower
    assert found.score.interval.lower - spread / 2 < 0 < found.score.interval.upper + spread / 2
    constant = {"table": attribution(torch.ones(40, 6, 3, dtype=torch.float64))}
    same = deletion_curve(TOY.predict, INPUTS, constant, removal(random_orders=20, seed=seed), intervals=FEW)
    assert abs(same.score.value) < spread


def test_intervals_cover_zero_on_repeats_of_a_random_explanation():
    covered = 0
    for seed in range(25):
        noise = {"table": attribution(drawn(20, 6, 3, seed=500 + seed))}
        table = {"table": drawn(20, 6, seed=900 + seed)}
        plan = removal(steps=6, seed=seed)
        covered += 0 in deletion_curve(TOY.predict, table, noise, plan, intervals=FEW).score.interval
    assert covered >= 20


def test_increasing_transformations_of_contributions_change_nothing_where_each_time_has_its_own_order():
    plan = removal(focus=Focus.EACH_TIME)
    plain = deletion_curve(TOY.predict, INPUTS, EXPLAINED, plan, intervals=FEW)
    cubed = deletion_curve(TOY.predict, INPUTS, multiplied(EXPLAINED, lambda v: v**3), plan, intervals=FEW)
    np.testing.assert_array_equal(plain.area.per_instance, cubed.area.per_instance)


def test_neither_the_order_nor_the_company_of_instances_matters():
    whole = deletion_curve(TOY.predict, INPUTS, EXPLAINED, removal(), intervals=FEW).area.per_instance
    order = torch.randperm(40, generator=torch.Generator().manual_seed(0))
    turned = deletion_curve(TOY.predict, {"table": TABLE[order]}, TOY.explained(TABLE[order]), removal(), intervals=FEW)
    np.testing.assert_allclose(turned.area.per_instance, whole[order.numpy()], atol=1e-12)
    alone = deletion_curve(TOY.predict, {"table": TABLE[:1]}, TOY.explained(TABLE[:1]), removal(), intervals=FEW)
    np.testing.assert_allclose(alone.area.per_instance, whole[:1], atol=1e-12)
    assert alone.score.interval.lower == pytest.approx(alone.score.interval.upper)


def test_seeds_decide_and_batches_do_not():
    plain, same, small, other = (
        deletion_curve(TOY.predict, INPUTS, EXPLAINED, removal(seed=seed, batch=batch), intervals=FEW)
        for seed, batch in ((0, 256), (0, 256), (0, 7), (1, 256))
    )
    np.testing.assert_array_equal(plain.area.per_instance, same.area.per_instance)
    np.testing.assert_allclose(plain.area.per_instance, small.area.per_instance, atol=1e-12)
    assert np.abs(plain.area.per_instance - other.area.per_instance).max() > 1e-3


def test_the_model_is_asked_in_batches_and_without_gradients():
    sizes = []

    def predict(inputs):
        assert not torch.is_grad_enabled()
        sizes.append(len(inputs["table"]))
        return TOY.predict(inputs)

    deletion_curve(predict, INPUTS, EXPLAINED, removal(batch=100), intervals=FEW)
    assert max(sizes) <= 100
    assert sum(sizes) == 40 * 11 * 7


def test_several_fillings_are_averaged():
    rows, some, explained = drawn(3, 6, seed=20), {"table": TABLE[:8]}, TOY.explained(TABLE[:8])
    whole, few, mean = (
        deletion_curve(TOY.predict, some, explained, removal(filling=filling, batch=batch), intervals=FEW)
        for filling, batch in (
            (References.all({"table": rows}), 256),
            (References.all({"table": rows}), 3),
            (References.mean({"table": rows}), 256),
        )
    )
    np.testing.assert_allclose(whole.prediction, mean.prediction, atol=1e-12)
    np.testing.assert_allclose(whole.area.per_instance, few.area.per_instance, atol=1e-12)


def test_a_survival_model_is_judged_through_its_curves():
    model = SurvivalModel(nn.Linear(6, 2).double(), CoxPH(2).double())
    with torch.no_grad():
        model.encoders["table"].weight.copy_(drawn(2, 6, seed=1))
    outcome = SurvivalOutcome.from_arrays(np.arange(1, 41) / 5, np.arange(40) % 3 > 0, "months")
    model.head.fit_baseline(model.embed(INPUTS), outcome)
    times = torch.tensor([1.0, 3.0, 6.0], dtype=torch.float64)
    explained = Gradient(times_input=True)(model, INPUTS, times)
    plan = removal(filling=References.mean(INPUTS))
    with asked(model) as held:
        found = deletion_curve(lambda rows: held.values(rows, times, survival), INPUTS, explained, plan, intervals=FEW)
    assert found.score.interval.lower > 0
    curves = model.predict_survival(INPUTS, times).survival.mean(0).detach()
    np.testing.assert_allclose(found.prediction[0], curves, atol=1e-12)


def test_a_horizon_decides_alone():
    early = multiplied(EXPLAINED, lambda v: torch.cat([v[..., :1], drawn(40, 6, 2, seed=1)], -1))
    found = deletion_curve(TOY.predict, INPUTS, early, removal(horizon=1.0), intervals=FEW)
    single = deletion_curve(
        lambda inputs: TOY.predict(inputs)[:, :1],
        INPUTS,
        multiplied(EXPLAINED, lambda v: v[..., :1]),
        removal(),
        intervals=FEW,
    )
    np.testing.assert_allclose(found.area.per_instance[:, 0], single.area.per_instance[:, 0], atol=1e-12)
    with pytest.raises(InvalidValueError, match="`horizon` must be one of the times"):
        deletion_curve(TOY.predict, INPUTS, early, removal(horizon=3.0))


def test_patches_of_images_are_removed_whole_with_all_channels():
    image, weight = drawn(3, 2, 5, 4), drawn(2, 5, 4, seed=1)
    seen = []

    def predict(inputs):
        seen.append(inputs["image"])
        return (inputs["image"] * weight).sum((1, 2, 3))[:, None]

    explained = {"image": attribution((image * weight)[..., None], additive=True)}
    filling = References({"image": torch.zeros(1, 2, 5, 4, dtype=torch.float64)}, "black")
    found = deletion_curve(predict, {"image": image}, explained, Removal(filling, patch=2, steps=6), intervals=FEW)
    assert found.score.value > 0
    for picture in torch.cat(seen):
        gone = (picture == 0).float()
        assert bool((gone[0] == gone[1]).all())
        for top in range(0, 5, 2):
            for left in range(0, 4, 2):
                assert gone[0, top : top + 2, left : left + 2].unique().numel() == 1


def test_bags_of_tiles_beside_a_table():
    inputs = bag_inputs([3, 0, 2])
    image = torch.zeros(5, 1, 4, 4, 2, dtype=torch.float64)
    image[:, :, 0] = inputs["image"][:, :, 0, :, None] * torch.tensor([1.0, 3.0])
    table = torch.stack([inputs["table"] * torch.tensor([2.0, 0.0]), inputs["table"] * torch.tensor([6.0, 0.0])], -1)
    explained = {
        "image": attribution(
            image, rows=torch.tensor([0, 0, 0, 2, 2]), additive=True, prediction=bag_prediction(inputs)
        ),
        "table": attribution(table, additive=True),
    }
    none = {"image": torch.zeros(1, 1, 4, 4).double(), "image.count": torch.ones(1, dtype=torch.int64)}
    filling = References(none | {"table": torch.zeros(1, 2, dtype=torch.float64)}, "nothing")
    found = deletion_curve(bag_prediction, inputs, explained, Removal(filling, steps=50), intervals=FEW)
    whole = bag_prediction(inputs).mean(0)
    np.testing.assert_allclose(found.prediction[0], whole, atol=1e-12)
    np.testing.assert_allclose(found.prediction[-1], 0, atol=1e-12)
    assert (found.area.per_instance > 0).all()
    members = [
        deletion_curve(
            bag_prediction,
            select_rows(inputs, torch.tensor([i])),
            {name: part[[i]] for name, part in explained.items()},
            Removal(filling, steps=50),
            intervals=FEW,
        ).area.per_instance
        for i in (0, 2)
    ]
    np.testing.assert_allclose(np.concatenate(members), found.area.per_instance[[0, 2]], atol=1e-12)
    images = {"image": explained["image"]}
    partly = deletion_curve(bag_prediction, inputs, images, Removal(filling), intervals=FEW)
    assert partly.score.settings["undefined_instances"] == 1
    assert math.isfinite(partly.score.value)


def test_what_does_not_fit_is_refused():
    with pytest.raises(InvalidValueError, match="keyed by modality"):
        deletion_curve(TOY.predict, INPUTS, EXPLAINED["table"], removal())
    with pytest.raises(InvalidValueError, match="a contribution for every value"):
        deletion_curve(TOY.predict, {"table": TABLE[:5]}, EXPLAINED, removal())
    with pytest.raises(InvalidValueError, match="`predict` must answer"):
        deletion_curve(lambda inputs: TOY.predict(inputs)[:, :2], INPUTS, EXPLAINED, removal())
    with pytest.raises(InvalidValueError, match="`horizon` must be None"):
        removal(horizon=1.0, focus=Focus.EACH_TIME)
    with pytest.raises(InvalidValueError, match="must be >= 1"):
        removal(steps=0)


def test_the_infidelity_of_an_exact_explanation_is_zero():
    by_sets = infidelity(TOY.predict, INPUTS, EXPLAINED, SubsetRemoval(TOY.filling), draws=20, intervals=FEW)
    by_noise = infidelity(TOY.predict, INPUTS, TOY.gradients(TABLE), GaussianNoise(0.3), draws=20, intervals=FEW)
    for found in (by_sets, by_noise):
        assert [score.value for score in found.scores] == pytest.approx([0, 0], abs=1e-12)


def test_explanations_of_zeros_and_of_the_wrong_scale():
    zero = multiplied(EXPLAINED, torch.zeros_like)
    found = infidelity(TOY.predict, INPUTS, zero, SubsetRemoval(TOY.filling), draws=20, intervals=FEW)
    assert found.relative.score.value == pytest.approx(1.0)
    double = multiplied(EXPLAINED, lambda v: 2 * v)
    wrong = infidelity(TOY.predict, INPUTS, double, SubsetRemoval(TOY.filling), draws=20, intervals=FEW)
    assert wrong.relative.score.value == pytest.approx(1.0)
    right = infidelity(TOY.predict, INPUTS, double, SubsetRemoval(TOY.filling), draws=20, scaled=True, intervals=FEW)
    assert right.relative.score.value == pytest.approx(0, abs=1e-12)
    scaled = infidelity(TOY.predict, INPUTS, zero, SubsetRemoval(TOY.filling), draws=20, scaled=True, intervals=FEW)
    assert scaled.relative.score.value == pytest.approx(1.0)


def test_infidelity_under_noise_equals_its_closed_form():
    slopes = TOY.gradients(TABLE)
    off = multiplied(slopes, lambda v: v + 0.5)
    found = infidelity(TOY.predict, INPUTS, off, GaussianNoise(0.2), draws=400, intervals=FEW)
    assert found.absolute.score.value == pytest.approx(6 * 0.5**2 * 0.2**2, rel=0.05)
    assert found.relative.values == pytest.approx((6 * 0.25 / (TOY.slopes**2).sum(0)).numpy(), rel=0.1)
    fixed = torch.tensor([0.2, 0.0, 0.0, 0.0, 0.0, 0.0])
    one = infidelity(TOY.predict, INPUTS, off, GaussianNoise({"table": fixed}), draws=400, intervals=FEW)
    assert one.absolute.score.value == pytest.approx(0.25 * 0.04, rel=0.05)


def test_infidelity_has_seeds_and_no_order():
    plain, same, other = (
        infidelity(
            TOY.predict, INPUTS, multiplied(EXPLAINED, abs), SubsetRemoval(TOY.filling), seed=seed, intervals=FEW
        )
        for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(plain.absolute.per_instance, same.absolute.per_instance)
    assert np.abs(plain.absolute.per_instance - other.absolute.per_instance).max() > 1e-4
    last = infidelity(
        *(TOY.predict, {"table": TABLE[-1:]}, multiplied(TOY.explained(TABLE[-1:]), abs)),
        SubsetRemoval(TOY.filling),
        intervals=FEW,
    )
    np.testing.assert_allclose(last.absolute.per_instance[0], plain.absolute.per_instance[-1], atol=1e-12)


def test_infidelity_of_contributions_under_noise_is_refused():
    with pytest.raises(InvalidValueError, match="must hold slopes"):
        infidelity(TOY.predict, INPUTS, EXPLAINED, GaussianNoise())


def test_local_accuracy_is_the_published_metric():
    exact = local_accuracy(EXPLAINED, intervals=FEW)
    assert exact.score.value == pytest.approx(0, abs=1e-12)
    part = EXPLAINED["table"]
    off = attribution(
        part.values + 0.01, additive=True, prediction=part.prediction, reference_prediction=part.reference_prediction
    )
    found = local_accuracy(off, intervals=FEW)
    expected = 0.06 / (part.prediction**2).mean(0).sqrt()
    np.testing.assert_allclose(found.values, expected.numpy(), rtol=1e-9)
    assert found.score.value == pytest.approx(float(expected.mean()))
    assert found.score.interval.lower <= found.score.value <= found.score.interval.upper
    given = attribution(
        part.values, additive=True, prediction=part.prediction, completeness_gap=torch.full((40, 3), 0.06).double()
    )
    assert local_accuracy(given, intervals=FEW).score.value == pytest.approx(found.score.value)
    with pytest.raises(InvalidValueError, match="additive"):
        local_accuracy(attribution(part.values))
    with pytest.raises(InvalidValueError, match="completeness_gap"):
        local_accuracy(attribution(part.values, additive=True, prediction=part.prediction))


def test_patients_are_drawn_together():
    part = np.repeat(np.arange(20), 2)
    twice = {"table": TABLE[:20].repeat_interleave(2, 0)}
    explained = TOY.explained(twice["table"])
    rows = deletion_curve(TOY.predict, twice, explained, removal(), intervals=Intervals(400))
    patients = deletion_curve(TOY.predict, twice, explained, removal(), intervals=Intervals(400, patient=part))
    single = deletion_curve(TOY.predict, {"table": TABLE[:20]}, TOY.explained(TABLE[:20]), removal(), intervals=FEW)
    widths = [each.score.interval.upper - each.score.interval.lower for each in (rows, patients, single)]
    assert widths[0] < 0.85 * widths[1]
    assert widths[1] == pytest.approx(widths[2], rel=0.15)
    with pytest.raises(InvalidValueError, match="`patient` must name"):
        deletion_curve(TOY.predict, twice, explained, removal(), intervals=Intervals(10, patient=part[:5]))

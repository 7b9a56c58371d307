"""SurvLIME finds the coefficients of Cox models, and says how far a model is from one."""

import pytest
import torch

from explain.any_models import MODELS, TIMES, WIDTH, Formula, cox_network, cox_regression, rows
from survlens.core.errors import InvalidTypeError, InvalidValueError
from survlens.core.targets import cumulative_hazard, survival
from survlens.explain.references import References
from survlens.explain.survlime import SurvLIME

REFERENCES = References(rows(40, seed=2), "forty rows")
INSTANCES = rows(3, seed=5)


def test_coefficients_of_a_cox_regression_are_found() -> None:
    model = cox_regression()
    explain = SurvLIME(REFERENCES, neighbours=100)
    found = explain(model, INSTANCES, TIMES)["table"]
    assert found.values.shape == (3, WIDTH, 1)
    assert bool(torch.isnan(found.times).all())
    assert not found.additive
    truth = torch.from_numpy(model.coef_).expand(3, WIDTH)
    torch.testing.assert_close(found.values[..., 0], truth, rtol=0, atol=1e-9)
    torch.testing.assert_close(explain.fit(model, INSTANCES, TIMES).r_squared, torch.ones(3).double())


def test_curves_of_the_surrogate_are_those_of_a_cox_model() -> None:
    model = cox_regression()
    fit = SurvLIME(REFERENCES, neighbours=100).fit(model, INSTANCES, TIMES)
    baseline = model.predict_survival(REFERENCES.inputs, TIMES).cumulative_hazard.mean(0)
    level = fit.level + (INSTANCES["table"] * fit.coefficients).sum(1)
    own = model.predict_survival(INSTANCES, TIMES).cumulative_hazard
    torch.testing.assert_close(level.exp()[:, None] * baseline, own)


def test_it_is_the_weighted_least_squares_that_it_says() -> None:
    """Every neighbour and time as a row of its own, by normal equations."""
    model, explain = MODELS["formula"](), SurvLIME(REFERENCES, neighbours=60, seed=4, penalty=0.2)
    found = explain.fit(model, INSTANCES, TIMES)
    scale = REFERENCES.inputs["table"].std(0, correction=0)
    half = torch.randn((30, WIDTH), generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    points = 0.5 * torch.cat([torch.zeros(1, WIDTH).double(), half, -half])[:60]
    log_baseline = model.predict_survival(REFERENCES.inputs, TIMES).cumulative_hazard.mean(0).log()
    widths = torch.tensor([2.5, 3.25, 3.25], dtype=torch.float64)
    for row in range(3):
        hazard = model.predict_survival({"table": INSTANCES["table"][row] + points * scale}, TIMES).cumulative_hazard
        lines, weights, answers = [], [], []
        for point, curve in zip(points, hazard, strict=True):
            near = torch.exp(-(point**2).sum() / (2 * WIDTH * 0.75**2))
            for width, value, base in zip(widths, curve, log_baseline, strict=True):
                lines.append(torch.cat([point, torch.ones(1).double()]))
                weights.append(near * width * (value / value.log().abs().clamp(min=0.1)) ** 2)
                answers.append(value.log() - base)
        design, weight, answer = torch.stack(lines), torch.stack(weights), torch.stack(answers)
        weight = weight / weight.sum()
        ridge = 0.2 * torch.eye(WIDTH + 1).double()
        ridge[-1, -1] = 0
        slow = torch.linalg.solve(design.T @ (weight[:, None] * design) + ridge, design.T @ (weight * answer))
        torch.testing.assert_close(found.coefficients[row] * scale, slow[:-1], rtol=0, atol=1e-12)
        left = (weight * (answer - design @ slow) ** 2).sum()
        total = (weight * (answer - (weight * answer).sum()) ** 2).sum()
        torch.testing.assert_close(found.r_squared[row], 1 - left / total, rtol=1e-9, atol=0)


def test_near_an_instance_it_is_the_slope_of_the_log_risk() -> None:
    model = Formula(lambda x: x[:, 0].sin() * x[:, 1] + x[:, 2] ** 2 / 4)
    table = INSTANCES["table"]
    slopes = torch.stack(
        [table[:, 0].cos() * table[:, 1], table[:, 0].sin(), table[:, 2] / 2, torch.zeros(3).double()], dim=1
    )
    near = SurvLIME(REFERENCES, spread=1e-3)(model, INSTANCES, TIMES)["table"].values[..., 0]
    torch.testing.assert_close(near, slopes, rtol=0, atol=1e-4)


@pytest.mark.parametrize("build", MODELS.values(), ids=MODELS.keys())
def test_every_model_can_be_asked(build) -> None:
    found = SurvLIME(REFERENCES, neighbours=50)(build(), INSTANCES, TIMES)["table"]
    assert bool(torch.isfinite(found.values).all())
    assert any("R2" in note for note in found.notes)


def test_a_batch_is_its_members_and_seeds_decide() -> None:
    model = MODELS["formula"]()
    explain = SurvLIME(REFERENCES, neighbours=50)
    whole = explain(model, INSTANCES, TIMES)["table"].values
    alone = explain(model, {"table": INSTANCES["table"][2:]}, TIMES)["table"].values
    torch.testing.assert_close(alone[0], whole[2], rtol=0, atol=1e-13)
    assert bool((explain(model, INSTANCES, TIMES)["table"].values == whole).all())
    assert not bool(
        (SurvLIME(REFERENCES, neighbours=50, seed=1)(model, INSTANCES, TIMES)["table"].values == whole).any()
    )
    torch.testing.assert_close(
        SurvLIME(REFERENCES, neighbours=50, memory=1)(model, INSTANCES, TIMES)["table"].values, whole
    )


def test_a_constant_column_gets_nothing() -> None:
    background = REFERENCES.inputs["table"].clone()
    background[:, 3] = 1.0
    found = SurvLIME(References({"table": background}, ""))(cox_regression(), INSTANCES, TIMES)["table"].values
    assert float(found[:, 3].abs().max()) == 0
    torch.testing.assert_close(found[0, :3, 0], torch.from_numpy(cox_regression().coef_[:3]), rtol=0, atol=1e-9)


def test_times_before_the_first_event_are_left_out() -> None:
    model = cox_regression()
    times = torch.tensor([1e-6, 1.5, 4.0], dtype=torch.float64)
    fit = SurvLIME(REFERENCES, neighbours=50).fit(model, INSTANCES, times)
    torch.testing.assert_close(fit.left_out, torch.full((3,), 1 / 3).double())
    torch.testing.assert_close(fit.coefficients[0], torch.from_numpy(model.coef_), rtol=0, atol=1e-9)
    with pytest.raises(InvalidValueError, match="first event"):
        SurvLIME(REFERENCES).fit(model, INSTANCES, times[:1])


def test_a_single_time_and_a_single_instance_do() -> None:
    model = cox_regression()
    found = SurvLIME(REFERENCES, neighbours=30)(model, {"table": INSTANCES["table"][:1]}, TIMES[:1])["table"].values
    torch.testing.assert_close(found[0, :, 0], torch.from_numpy(model.coef_), rtol=0, atol=1e-9)


def test_what_does_not_fit_is_refused() -> None:
    model = cox_regression()
    with pytest.raises(InvalidTypeError, match="cumulative_hazard"):
        SurvLIME(REFERENCES)(model, INSTANCES, TIMES, survival)
    with pytest.raises(InvalidValueError, match="`neighbours`"):
        SurvLIME(REFERENCES, neighbours=5)(model, INSTANCES, TIMES)
    with pytest.raises(InvalidValueError, match="`modality`"):
        SurvLIME(REFERENCES, modality="image")(model, INSTANCES, TIMES)
    with pytest.raises(InvalidValueError, match="`width`"):
        SurvLIME(REFERENCES, width=0.0)
    SurvLIME(REFERENCES, neighbours=10)(model, INSTANCES, TIMES, cumulative_hazard)


def test_the_model_is_as_it_was() -> None:
    model = cox_network()
    SurvLIME(REFERENCES, neighbours=20)(model, INSTANCES, TIMES)
    assert all(each.training for each in model.modules())

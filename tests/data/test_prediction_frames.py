"""A prediction leaves torch with its times, its unit and its instances."""

import numpy as np
import pandas as pd
import pytest
import torch

from survlens.core.competing import CompetingRisksPrediction
from survlens.core.errors import InvalidValueError
from survlens.core.prediction import Interpolation, SurvivalPrediction
from survlens.data.prediction_frames import FrameLayout, prediction_frame

TIMES = torch.tensor([6.0, 12.0, 30.5], dtype=torch.float64)


@pytest.fixture
def curves():
    log_survival = -torch.tensor([[0.1, 0.2, 0.9], [0.0, 0.5, 0.5]], requires_grad=True)
    return SurvivalPrediction(TIMES, log_survival, Interpolation.STEP, "months")


@pytest.fixture
def incidences():
    values = [[[0.1, 0.2, 0.3], [0.0, 0.0, 0.1]], [[0.2, 0.2, 0.4], [0.5, 0.6, 0.7]]]
    incidence = torch.tensor(values, dtype=torch.float64)
    return CompetingRisksPrediction(TIMES, incidence, Interpolation.LINEAR, "months")


def test_a_row_is_an_instance_and_a_column_a_time(curves):
    frame = prediction_frame(curves, pd.Series(["p7", "p2"], name="patient"))
    assert frame.index.tolist() == ["p7", "p2"]
    assert (frame.index.name, frame.columns.name) == ("patient", "time [months]")
    assert frame.columns.tolist() == TIMES.tolist()
    np.testing.assert_array_equal(frame.to_numpy(), curves.survival.detach().double().numpy())
    assert prediction_frame(curves.at([12.0])).loc[1, 12.0] == pytest.approx(np.exp(-0.5))


def test_the_other_layouts_hold_the_same_numbers(curves):
    wide = prediction_frame(curves, ["x", "y"])
    assert prediction_frame(curves, ["x", "y"], layout=FrameLayout.TIMES).equals(wide.T)
    long = prediction_frame(curves, ["x", "y"], layout=FrameLayout.LONG)
    assert long.columns.tolist() == ["instance", "time [months]", "survival"]
    back = long.pivot(index="instance", columns="time [months]", values="survival")
    pd.testing.assert_frame_equal(back, wide)


def test_causes_stand_beside_each_other(incidences):
    frame = prediction_frame(incidences, ["x", "y"])
    assert frame.index.names == ["instance", "cause"]
    assert frame.loc[("y", 2)].tolist() == [0.5, 0.6, 0.7]
    assert frame.loc[("x", 1)].tolist() == pytest.approx([0.1, 0.2, 0.3])
    long = prediction_frame(incidences, ["x", "y"], layout=FrameLayout.LONG)
    assert long.columns.tolist() == ["instance", "cause", "time [months]", "incidence"]
    only = long[(long["instance"] == "y") & (long["cause"] == 2)]
    assert only["incidence"].tolist() == [0.5, 0.6, 0.7]
    total = frame.groupby(level="instance").sum()
    np.testing.assert_allclose(1 - total, prediction_frame(incidences.overall()).to_numpy())


@pytest.mark.parametrize("layout", [FrameLayout.INSTANCES, FrameLayout.LONG])
@pytest.mark.parametrize("kind", ["curves", "incidences"])
def test_a_frame_comes_back_from_parquet(kind, layout, tmp_path, request):
    frame = prediction_frame(request.getfixturevalue(kind), ["x", "y"], layout=layout)
    frame.to_parquet(tmp_path / "curves.parquet")
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "curves.parquet"), frame)


def test_every_instance_must_be_named(curves):
    with pytest.raises(InvalidValueError, match="3 names for 2 instances"):
        prediction_frame(curves, ["x", "y", "z"])

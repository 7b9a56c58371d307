"""An exported file computes what the model computes, at any number of rows."""

import json
import sys

import numpy as np
import pytest
import torch
from torch import nn

from survlens.core.errors import CorruptFileError, InvalidTypeError, InvalidValueError, MissingDependencyError
from survlens.core.grid import TimeGrid
from survlens.core.outcome import SurvivalOutcome
from survlens.core.protocols import BaselineHead
from survlens.encoders.cnn import CNN
from survlens.encoders.mlp import MLP
from survlens.encoders.residual import ResidualCNN
from survlens.heads.cox import CoxPH
from survlens.heads.cox_time import CoxTime
from survlens.heads.deephit import DeepHit
from survlens.heads.logistic_hazard import LogisticHazard
from survlens.heads.mtlr import MTLR
from survlens.heads.pc_hazard import PCHazard
from survlens.heads.pmf import PMF
from survlens.heads.weibull import Weibull
from survlens.models.cox_vae import Architecture, cox_vae
from survlens.models.fusion import GatedFusion
from survlens.models.onnx_export import check_onnx, export_onnx
from survlens.models.survival_model import SurvivalModel
from survlens.training.table_estimators import TableSurvival

ROWS = 40
TIMES = [1.0, 5.0, 12.3, 20.0]
GRID = TimeGrid.equidistant(40.0, 6, "months")
HEADS = {
    "CoxPH": lambda width: CoxPH(width),
    "CoxTime": lambda width: CoxTime(width, time_scale=10.0, hidden=(8,)),
    "LogisticHazard": lambda width: LogisticHazard(width, GRID),
    "PMF": lambda width: PMF(width, GRID),
    "MTLR": lambda width: MTLR(width, GRID),
    "DeepHit": lambda width: DeepHit(width, GRID, n_causes=2),
    "PCHazard": lambda width: PCHazard(width, GRID),
    "Weibull": lambda width: Weibull(width, GRID, shape_depends=True),
    "Weibull, one shape": lambda width: Weibull(width, GRID),
}


def outcome(causes=1):
    generator = torch.Generator().manual_seed(1)
    time = torch.rand(ROWS, generator=generator, dtype=torch.float64) * 35 + 1
    time[0] = 36.5
    return SurvivalOutcome(time, torch.randint(0, causes + 1, (ROWS,), generator=generator), "months")


def inputs():
    generator = torch.Generator().manual_seed(2)
    return {
        "table": torch.randn(ROWS, 3, generator=generator),
        "image": torch.rand(ROWS, 1, 8, 8, generator=generator),
    }


def ready(model):
    """The model as after training: other weights than those it began with, and a baseline."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.1 * torch.randn(weight.shape, generator=generator))
        model.eval()
        if isinstance(model.head, BaselineHead):
            model.head.fit_baseline(model.embed(inputs()), outcome())
    return model


def encoders(*names):
    torch.manual_seed(0)
    built = {
        "table": lambda: MLP(3, (8,), batch_norm=True, dropout=0.2),
        "image": lambda: CNN(1, (4, 8)),
        "residual": lambda: ResidualCNN(1, (8,), image_size=(8, 8)),
    }
    return {"image" if name == "residual" else name: built[name]() for name in names}


def model_of(head, *names, gated=False):
    parts = encoders(*names)
    widths = [part.out_features for part in parts.values()]
    fusion = GatedFusion(tuple(parts), widths, max(widths)) if gated else None
    return ready(SurvivalModel(parts, HEADS[head](max(widths) if gated else sum(widths)), fusion=fusion))


def taken(model, rows):
    return {name: inputs()[name][rows] for name in model.modalities}


def deviations(model, path):
    """Against onnxruntime on one row, more rows than the example had, and all."""
    return max(check_onnx(path, model, taken(model, slice(0, n))) for n in (1, 7, ROWS))


@pytest.mark.parametrize(
    ("head", "parts", "gated"),
    [
        ("CoxPH", ("image", "table"), False),
        pytest.param("CoxTime", ("table",), False, marks=pytest.mark.slow),
        ("LogisticHazard", ("image",), False),
        pytest.param("PMF", ("table",), False, marks=pytest.mark.slow),
        ("MTLR", ("image", "table"), True),
        ("DeepHit", ("table",), False),
        pytest.param("PCHazard", ("residual",), False, marks=pytest.mark.slow),
        pytest.param("Weibull", ("table",), False, marks=pytest.mark.slow),
        ("Weibull, one shape", ("residual", "table"), False),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_every_head_gives_the_same_curves_outside_torch(head, parts, gated, tmp_path):
    import onnxruntime

    model = model_of(head, *parts, gated=gated)
    path = export_onnx(model, tmp_path / "model.onnx", times=TIMES, example=taken(model, slice(0, 3)))
    assert deviations(model, path) < 1e-5
    if head == "DeepHit":
        session = onnxruntime.InferenceSession(path)
        incidence, survival = session.run(["incidence", "survival"], {"table": inputs()["table"].numpy()})
        assert incidence.shape == (2, ROWS, len(TIMES))
        np.testing.assert_allclose(1 - incidence.sum(0), survival, atol=1e-9)


def test_a_cox_vae_is_exported(tmp_path):
    model = ready(cox_vae((1, 8, 8), latent=3, architecture=Architecture.RESIDUAL, widths=(8,), covariates=3))
    path = export_onnx(model, tmp_path / "model.onnx", times=TIMES, example=taken(model, slice(0, 1)))
    assert deviations(model, path) < 1e-5


def test_the_file_says_what_it_is_and_not_where_it_was_made(tmp_path):
    import onnx

    model = model_of("CoxPH", "table").train()
    names = ["age", "grade", "size"]
    path = export_onnx(
        model, tmp_path / "new" / "m.onnx", times=np.array(TIMES), example=taken(model, slice(0, 3)),
        feature_names=names,
    )  # fmt: skip
    assert model.training
    proto = onnx.load(path)
    onnx.checker.check_model(proto)
    facts = {each.key: each.value for each in proto.metadata_props}
    assert json.loads(facts["times"]) == TIMES
    assert json.loads(facts["feature_names"]) == names
    assert json.loads(facts["inputs"]) == {"table": ["instance", 3]}
    assert facts["unit"] == "months"
    assert "Not in this graph" in facts["preprocessing"]
    assert [each.name for each in proto.graph.output] == ["survival", "risk"]
    assert b"site-packages" not in path.read_bytes()
    assert b"survival_model" not in path.read_bytes()


class _LooksAtInputs(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 8)

    def forward(self, x):
        return self.linear(x) * float(x[0, 0])


def test_what_cannot_be_a_graph_is_refused(tmp_path):
    model = model_of("CoxPH", "table")
    path, example = tmp_path / "m.onnx", taken(model, slice(0, 3))
    with pytest.raises(InvalidValueError, match="in \\(0, 36.5\\] months"):
        export_onnx(model, path, times=[50.0], example=example)
    with pytest.raises(InvalidValueError, match="at least one row"):
        export_onnx(model, path, times=TIMES, example=taken(model, slice(0, 0)))
    with pytest.raises(InvalidValueError, match="must hold table; got image"):
        export_onnx(model, path, times=TIMES, example={"image": inputs()["image"]})
    with pytest.raises(InvalidValueError, match="3 features of 'table'; got 1"):
        export_onnx(model, path, times=TIMES, example=example, feature_names=["age"])
    with pytest.raises(InvalidTypeError, match="`embed` and `head`"):
        export_onnx(nn.Linear(3, 1), path, times=TIMES, example=example)
    with pytest.raises(InvalidTypeError, match="export `model_`"):
        export_onnx(TableSurvival(), path, times=TIMES, example=example)  # type: ignore[arg-type]
    looking = ready(SurvivalModel(_LooksAtInputs(), CoxPH(8)))
    with pytest.raises(InvalidTypeError, match="same way through its code"):
        export_onnx(looking, path, times=TIMES, example=example)
    assert not path.exists()


def test_a_file_of_another_kind_is_refused(tmp_path):
    model = model_of("CoxPH", "table")
    (tmp_path / "text.onnx").write_text("no graph")
    with pytest.raises(CorruptFileError, match="text.onnx cannot be run"):
        check_onnx(tmp_path / "text.onnx", model, taken(model, slice(0, 3)))
    with pytest.raises(CorruptFileError, match="got nothing"):
        check_onnx(tmp_path / "none.onnx", model, taken(model, slice(0, 3)))


@pytest.mark.parametrize("library", ["onnx", "onnxruntime", "onnxscript"])
def test_a_missing_library_is_named_with_its_extra(library, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, library, None)
    model = model_of("CoxPH", "table")
    with pytest.raises(MissingDependencyError, match=rf"{library} must be installed.*survlens\[onnx\]"):
        export_onnx(model, tmp_path / "m.onnx", times=TIMES, example=taken(model, slice(0, 3)))

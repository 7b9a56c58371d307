"""Every kind of network that a study file can name: built, fitted, saved and asked for curves."""

import numpy as np
import pandas as pd
import pytest
import torch

from survlens.artifacts.run_folder import RunFolder
from survlens.core.grid import EmptyIntervalWarning
from survlens.core.outcome import SurvivalOutcome
from survlens.models.fusion import Concatenation, GatedFusion
from survlens.models.saving import load_model
from survlens.study.model_settings import KINDS, Modality
from survlens.study.networks import network
from survlens.study.run import prepare, run_study
from survlens.study.toml_source import parse_study, read_study
from survlens.study.unit_tables import curve_columns

HEAD = """\
[study]
name = "kinds"
[data]
table = "t.csv"
time = "time"
event = "event"
unit = "months"
numeric = ["x", "noise"]
{image}
[split]
kind = "holdout"
[evaluation]
horizons = [3]
"""
HEADS = tuple(name for name, kind in KINDS.items() if kind.trained and name not in ("cox_vae", "cox_cnn"))


def frame(n: int = 80) -> pd.DataFrame:
    random = np.random.default_rng(1)
    x = random.normal(size=n).round(3)
    survival, censoring = random.exponential(6 * np.exp(-x)), random.exponential(12, n)
    return pd.DataFrame({
        "time": np.maximum(np.minimum(survival, censoring), 0.1).round(2),
        "event": (survival <= censoring).astype(int),
        "x": x, "noise": random.normal(size=n).round(3),
    })  # fmt: skip


def outcome() -> SurvivalOutcome:
    return SurvivalOutcome.from_arrays(frame()["time"].to_numpy(), frame()["event"].to_numpy(), "months")


def entry_of(folder, model: str):
    (folder / "t.csv").write_text("x\n1\n")
    text = HEAD.format(image='image = "image"') + f'[[model]]\nname = "m"\n{model}\n'
    return parse_study(text, "study.toml", folder).model("m")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kinds")
    frame().to_csv(folder / "t.csv", index=False)
    fit = 'hidden = [4]\nfit = { epochs = 2, batch = 32, device = "cpu" }\n'
    models = "".join(f'[[model]]\nname = "{kind}"\nkind = "{kind}"\n{fit}' for kind in HEADS)
    (folder / "study.toml").write_text(HEAD.format(image="") + models)
    home = RunFolder.create(folder / "run")
    run_study(prepare(read_study(folder / "study.toml")), home)
    return home


def test_there_is_a_kind_for_every_head():
    assert set(HEADS) == {
        *("deep_surv", "cox_time", "weibull", "logistic_hazard", "pmf", "mtlr", "deep_hit", "pc_hazard")
    }  # fmt: skip


@pytest.mark.parametrize("kind", HEADS)
def test_curves_of_every_kind_never_rise_and_its_model_is_loaded_again(finished, kind):
    table = pd.read_parquet(finished.predictions(kind)).query("part == 'test'")
    times, names = curve_columns(table)
    curves = table[names].to_numpy()
    assert (np.diff(curves, axis=1) <= 1e-12).all()
    assert ((curves >= 0) & (curves <= 1)).all()
    assert np.isfinite(table["risk"]).all()
    saved = load_model(finished.model(kind) / "fold1-seed0").model
    again = saved.predict_survival({"table": torch.zeros(3, 2)}).at(torch.tensor([float(times[0])]))
    assert bool(torch.isfinite(again.log_survival).all())


@pytest.mark.parametrize("kind", [*HEADS, "cox_cnn"])
def test_every_kind_sees_image_and_table_in_either_fusion(tmp_path, kind):
    size = "hidden = [4, 6]" if kind == "cox_cnn" else "hidden = [5]\nchannels = [4, 6]"
    inputs = {"image": torch.randn(4, 1, 16, 16), "table": torch.randn(4, 2)}
    for fusion, cls in (("concatenation", Concatenation), ("gated", GatedFusion)):
        entry = entry_of(tmp_path, f'kind = "{kind}"\ninputs = ["image", "table"]\nfusion = "{fusion}"\n{size}')
        model = network(entry, 0, (1, 16, 16), 2, outcome())
        assert isinstance(model.fusion, cls)
        loss = model.loss(inputs, outcome()[[0, 1, 2, 3]])
        assert loss.shape == (4,)
        assert bool(torch.isfinite(loss).all())
        changed = model.eval().embed(inputs) - model.embed({**inputs, "image": torch.zeros(4, 1, 16, 16)})
        assert float(changed.detach().abs().max()) > 0
    assert entry.inputs == (Modality.IMAGE, Modality.TABLE)


def test_time_is_cut_as_the_study_says(tmp_path):
    edges = {}
    for grid in ("quantile", "equidistant"):
        entry = entry_of(tmp_path, f'kind = "pmf"\ngrid = "{grid}"\nintervals = 4')
        edges[grid] = network(entry, 0, None, 2, outcome()).head.grid.edges.numpy()
        assert edges[grid][-1] == float(outcome().time.max())
    np.testing.assert_allclose(np.diff(edges["equidistant"], n=2), 0.0, atol=1e-12)
    assert np.ptp(np.diff(edges["quantile"])) > 0.1
    with pytest.warns(EmptyIntervalWarning, match="intervals without an event"):
        network(entry_of(tmp_path, 'kind = "pmf"\ngrid = "equidistant"\nintervals = 400'), 0, None, 2, outcome())


def test_deep_hit_takes_its_weights_of_likelihood_and_ranking(tmp_path):
    head = network(entry_of(tmp_path, 'kind = "deep_hit"\nalpha = 0.7\nsigma = 0.3'), 0, None, 2, outcome()).head
    assert (head.alpha, head.sigma) == (0.7, 0.3)

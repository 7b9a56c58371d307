"""Training on patients who lack modalities or have several images."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from survlens.core.errors import FitError
from survlens.core.grid import EmptyIntervalWarning, TimeGrid
from survlens.core.inputs import select_rows
from survlens.core.outcome import SurvivalOutcome
from survlens.core.pair_counts import pair_counts
from survlens.data.bags import BagSource
from survlens.data.cohort import Cohort
from survlens.data.loaders import TensorSource, subset
from survlens.data.preprocessing import Preprocessing
from survlens.encoders.cnn import CNN
from survlens.encoders.mlp import MLP
from survlens.encoders.pooling import AttentionPooling, MultipleInstance
from survlens.heads.cox import CoxPH
from survlens.heads.logistic_hazard import LogisticHazard
from survlens.models.fusion import Concatenation, GatedFusion, Missing
from survlens.models.survival_model import SurvivalModel
from survlens.training.fit import FitSettings, fit
from survlens.training.objectives import SurvivalObjective
from survlens.training.reading import embeddings_of, read_batches, rows_in_order
from survlens.training.settings import Device

SETTINGS = FitSettings(epochs=12, batch=64, learning_rate=0.01, device=Device.CPU)
NAMES, WIDTHS = ("image", "table"), (8, 8)
FUSIONS = {
    "learned": lambda: Concatenation(NAMES, WIDTHS),
    "learned with dropout": lambda: Concatenation(NAMES, WIDTHS, modality_dropout=0.2),
    "zero": lambda: Concatenation(NAMES, WIDTHS, missing=Missing.ZERO),
    "gated": lambda: GatedFusion(NAMES, WIDTHS, 16),
}


def _halves(count=800, seed=0):
    """Image and table carry half of the log-hazard each; 30 % of either are missing, and nobody lacks both."""
    rng = np.random.default_rng(seed)
    image, table = rng.normal(size=(count, 4)), rng.normal(size=(count, 4))
    time = rng.exponential(np.exp(-image[:, 0] - table[:, 0]))
    stop = rng.exponential(3.0, size=count)
    lacks = rng.choice(3, size=count, p=[0.4, 0.3, 0.3])
    inputs = {"image": torch.from_numpy(image).float(), "table": torch.from_numpy(table).float()}
    presence = {"image.present": torch.from_numpy(lacks != 1), "table.present": torch.from_numpy(lacks != 2)}
    return TensorSource({**inputs, **presence}, SurvivalOutcome.from_arrays(np.minimum(time, stop), time <= stop, "m"))


def _model(fusion, names=NAMES):
    with torch.random.fork_rng():
        torch.manual_seed(2)
        joint = FUSIONS[fusion]() if len(names) > 1 else None
        width = WIDTHS[0] if joint is None else joint.out_features
        return SurvivalModel({name: MLP(4, (16, 8)) for name in names}, CoxPH(width), fusion=joint)


def _concordance(model, source):
    return pair_counts(model.risk(source.inputs).detach().double().numpy(), source.outcome).concordance


def _where(source, name):
    return TensorSource(*source.batch(source.inputs[f"{name}.present"]))


@pytest.fixture(scope="module")
def alone():
    """Concordance of each modality alone on everyone: whoever lacks it has the risk of the mean patient."""
    found = {}
    for name in NAMES:
        train, test = _where(_halves(), name), _halves(seed=1)
        model = _model("learned", (name,))
        fit(model, train, None, SurvivalObjective(), SETTINGS)
        risk = np.full(len(test), float(model.risk(train.inputs).detach().mean()))
        seen = test.inputs[f"{name}.present"]
        risk[seen.numpy()] = model.risk(select_rows(test.inputs, seen.nonzero()[:, 0])).detach().numpy()
        found[name] = pair_counts(risk, test.outcome).concordance
    return found


@pytest.mark.parametrize("fusion", FUSIONS)
def test_the_fused_model_beats_each_modality_and_reads_nothing_that_is_missing(fusion, alone):
    train, test = _halves(), _halves(seed=1)
    model = _model(fusion)
    fit(model, train, None, SurvivalObjective(), SETTINGS)
    assert _concordance(model, test) > max(alone.values()) + 0.03
    garbage = dict(test.inputs)
    for name in NAMES:
        garbage[name] = torch.where(test.inputs[f"{name}.present"][:, None], test.inputs[name], torch.nan)
    assert torch.equal(model.risk(garbage), model.risk(test.inputs))
    assert torch.equal(model.predict_survival(garbage).log_survival, model.predict_survival(test.inputs).log_survival)


def test_placeholders_are_not_blamed_for_a_loss_that_is_not_finite():
    train = _halves(200)
    train.inputs["image"][~train.inputs["image.present"]] = torch.nan
    train.inputs["table"][train.inputs["table.present"].nonzero()[0]] = torch.inf
    with pytest.raises(FitError, match="values in table that are not finite"):
        fit(_model("learned"), train, None, SurvivalObjective(), SETTINGS)


def _tiles(count=60, seed=0):
    """Patients with one to six tiles; the brightness of one of them, in red, is the log-hazard."""
    rng = np.random.default_rng(seed)
    tiles = rng.integers(1, 7, size=count)
    patient = np.repeat(np.arange(count), tiles)
    hazard = rng.uniform(size=count)
    pixels = rng.integers(0, 40, size=(len(patient), 3, 8, 8)).astype(np.uint8)
    marked = np.cumsum(tiles) - 1
    pixels[marked, 0] = (255 * hazard[:, None, None]).astype(np.uint8)
    time = rng.exponential(np.exp(-4 * hazard))[patient]
    return Cohort.from_arrays((time, np.ones(len(patient), int)), unit="m", images=pixels, patient=patient)


def test_a_patient_with_many_tiles_is_one_row_from_source_to_score():
    cohort = _tiles()
    source = BagSource(cohort, Preprocessing.fit(cohort), max_items=4)
    encoder = MultipleInstance(CNN(3, (8,)), AttentionPooling(8, hidden=8))
    model = SurvivalModel({"image": encoder}, CoxPH(8))
    settings = replace(SETTINGS, epochs=8, batch=16)
    fit(model, subset(source, range(45)), subset(source, range(45, 60)), SurvivalObjective(), settings)
    embedding = embeddings_of(model, source)
    assert embedding.shape == (60, 8)
    curves = model.head.predict(embedding)
    assert curves.log_survival.shape[0] == 60
    with torch.no_grad():
        whole, _ = source.batch(range(60))
        torch.testing.assert_close(model.embed(whole), embedding, rtol=1e-4, atol=1e-5)
        weights = model.item_weights(whole, "image")
    assert weights.shape == (len(cohort),)


def test_small_sources_of_bags_are_cut_where_their_rows_end():
    counts = torch.tensor([2, 0, 1, 3])
    outcome = SurvivalOutcome.from_arrays([1.0, 2.0, 3.0, 4.0], [1, 1, 1, 1], "m")
    inputs = {"image": torch.arange(6.0)[:, None], "image.count": counts, "table": torch.arange(4.0)[:, None]}
    source = TensorSource(inputs, outcome)
    batches = [torch.tensor([3, 0]), torch.tensor([1]), torch.tensor([2])]
    for rows, (found, theirs) in zip(batches, read_batches(source, batches, lambda *both: both), strict=True):
        expected, own = source.batch(rows)
        assert {name: value.tolist() for name, value in found.items()} == {
            name: value.tolist() for name, value in expected.items()
        }
        assert theirs.time.tolist() == own.time.tolist()


def test_batches_in_order_hold_a_bounded_number_of_items():
    cohort = _tiles()
    source = BagSource(cohort, Preprocessing.fit(cohort))
    for batch in (1, 6, 20, 1000):
        parts = rows_in_order(source, batch)
        assert torch.cat(list(parts)).tolist() == list(range(60))
        assert all(len(rows) == 1 or int(source.items[rows].sum()) <= batch for rows in parts)
    assert len(rows_in_order(_halves(10), 4)) == 3


def test_embeddings_leave_the_model_as_it_was():
    model, source = _model("learned with dropout").train(), _halves(50)
    embedding = embeddings_of(model, source, batch=7, device="cpu")
    assert all(module.training for module in model.modules())
    torch.testing.assert_close(embedding, model.eval().embed(source.inputs).detach())
    assert not embedding.requires_grad


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_embeddings_are_computed_where_asked_and_come_back():
    model, source = _model("gated"), _halves(50)
    found = embeddings_of(model, source, device="cuda")
    assert found.device.type == "cpu"
    assert next(model.parameters()).device.type == "cpu"
    torch.testing.assert_close(found, embeddings_of(model, source), rtol=1e-3, atol=1e-4)


def test_a_grid_with_an_empty_interval_is_told_at_the_start():
    source = _where(_halves(100), "table")
    grid = TimeGrid(torch.tensor([0.0, 1.0, 500.0, 900.0], dtype=torch.float64), "m")
    model = SurvivalModel({"table": MLP(4, (8,))}, LogisticHazard(8, grid))
    with pytest.warns(EmptyIntervalWarning, match="1 of 3 intervals without an event"):
        fit(model, source, None, SurvivalObjective(), replace(SETTINGS, epochs=1))

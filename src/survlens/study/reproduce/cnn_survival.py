"""CNN-Survival on phantoms (Zhang et al.): pretrained on one cohort, fine-tuned on a second, tested on a third."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float64
from torch import Tensor

from survlens.core.errors import InvalidValueError
from survlens.core.grid import EmptyIntervalWarning
from survlens.core.outcome import SurvivalOutcome
from survlens.core.prediction import Interpolation, SurvivalPrediction
from survlens.data.loaders import TensorSource
from survlens.data.simulate.phantom import END_OF_STUDY, phantom_hazard
from survlens.encoders.radiomics.extraction import radiomics_table
from survlens.encoders.radiomics.settings import RadiomicsSettings
from survlens.evaluate.accuracy import brier_score
from survlens.evaluate.censoring import CensoringModel
from survlens.evaluate.concordance import concordance_index
from survlens.models.classical import CoxRegression
from survlens.models.cnn_survival import cnn_survival, half_life_grid
from survlens.models.penalised import LassoCox
from survlens.models.proportional import ProportionalHazards
from survlens.models.survival_model import SurvivalModel
from survlens.study.reproduce.phantom_slices import (
    ScannedPatients,
    Scanner,
    Slices,
    dropped_by,
    largest_of_cohort,
    largest_of_patient,
    patients_in_order,
    scanned_patients,
)
from survlens.training.fit import fit
from survlens.training.freezing import HeadOnly, cached_embeddings
from survlens.training.objectives import SurvivalObjective
from survlens.training.reading import embeddings_of
from survlens.training.settings import FitSettings

HORIZON = 18.0
"""Months at which the paper reports its index of prediction accuracy."""
IPA_TIMES = np.arange(3.0, 25.0, 3.0)
CURVE_TIMES = np.arange(1.0, 49.0)
PAPER_SLICES, PAPER_PATIENTS = 2500, 422
OTHER_HOSPITAL, OWN_HOSPITAL = Scanner(noise=30.0, contrast=0.5), Scanner(noise=15.0, contrast=1.0)
UNIT = "months"

SIZE, CLINICAL, BOTH = "Size only (Cox)", "Clinical only (Cox)", "Size + clinical (Cox)"
RADIOMICS, FEATURES, INTERVALS = (
    "Radiomics + LASSO-Cox",
    "Transfer features + LASSO-Cox",
    "Interval outputs + LASSO-Cox",
)
CNN, SCRATCH, UNTUNED = "CNN-Survival", "CNN from scratch on B", "CNN of A, not fine-tuned"
TRUTH = "True hazard"


@dataclass(frozen=True, slots=True, kw_only=True)
class CNNSurvivalPlan:
    """Sizes of the experiment.

    Attributes:
        pretrain: Patients of cohort A.
        shift: Whether A comes from another hospital, with more noise and less contrast.
        tune: Patients of cohort B.
        test: Patients of cohort C.
        repetitions: How often everything is drawn and fitted anew.
        larger: Repetitions in which larger cohorts B and C are used as well, with the same A.
        larger_tune: Patients of that B.
        larger_test: Patients of that C.
        voxels: Voxels along each axis of a scan.
        side: Side of a slice in voxels.
        channels: Width of the network.
        epochs: Most epochs of a training.
        seed: Seed of the first repetition.
    """

    pretrain: int = 422
    shift: bool = True
    tune: int = 68
    test: int = 30
    repetitions: int = 20
    larger: int = 3
    larger_tune: int = 204
    larger_test: int = 200
    voxels: int = 40
    side: int = 20
    channels: int = 16
    epochs: int = 10
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.pretrain, self.tune, self.test) < 10 or self.repetitions < 2 or self.side < 8:
            raise InvalidValueError(
                "`pretrain`, `tune` and `test` must be >= 10, `repetitions` >= 2 and `side` >= 8; got "
                f"{self.pretrain}, {self.tune}, {self.test}, {self.repetitions} and {self.side}."
            )
        if not 0 <= self.larger <= self.repetitions:
            raise InvalidValueError(f"`larger` must lie in 0 to {self.repetitions}; got {self.larger}.")


@dataclass(frozen=True, slots=True, eq=False)
class Scored:
    """One model on one cohort C.

    Attributes:
        concordance: Harrell's C.
        ipa: Index of prediction accuracy at `IPA_TIMES`; NaN past the follow-up of the cohort.
        curves: Survival of each patient at `CURVE_TIMES`.
    """

    concordance: float
    ipa: Float64[np.ndarray, " asked"]
    curves: Float64[np.ndarray, "instance time"]

    @property
    def at_horizon(self) -> float:
        """IPA at 18 months."""
        return float(self.ipa[IPA_TIMES == HORIZON][0])


@dataclass(frozen=True, slots=True, eq=False)
class Repetition:
    """One draw of all cohorts.

    Attributes:
        scores: Models on the cohort C of the paper's size.
        larger: Models on the larger cohort C, or nothing.
        slices: Rows about the choice of slices.
        undefined: Radiomics features left out because they have no value in some patient of B.
        pretraining: Slices of cohort A.
        tested: Slices of cohort C.
        outcome: Outcome of cohort C.
    """

    scores: Mapping[str, Scored]
    larger: Mapping[str, Scored]
    slices: Sequence[Mapping[str, Any]]
    undefined: int
    pretraining: Slices = field(repr=False)
    tested: Slices = field(repr=False)
    outcome: SurvivalOutcome = field(repr=False)


@dataclass(frozen=True, slots=True, eq=False)
class _Part:
    """A cohort with the slices chosen from it."""

    patients: ScannedPatients
    slices: Slices

    @property
    def source(self) -> TensorSource:
        outcome = self.patients.outcome[self.slices.patient]
        return TensorSource({"image": self.slices.images}, outcome)

    def rows_of(self, patients: np.ndarray) -> TensorSource:
        """The slices of some patients."""
        rows = torch.from_numpy(np.flatnonzero(np.isin(self.slices.patient, patients)))
        return TensorSource(*self.source.batch(rows))

    def mean(self, values: Float64[np.ndarray, "slice value"]) -> Float64[np.ndarray, "instance value"]:
        """Mean over the slices of each patient."""
        sums = np.zeros((len(self.patients), values.shape[1]))
        np.add.at(sums, self.slices.patient, values)
        return sums / np.bincount(self.slices.patient, minlength=len(self.patients))[:, None]


def repetition(plan: CNNSurvivalPlan, number: int) -> Repetition:
    """Draws cohorts A, B and C, fits everything and scores it on C.

    Args:
        plan: Sizes.
        number: Which repetition, from 0; sets the seed.
    """
    seed = 1000 * (plan.seed + 1) + 10 * number
    with_larger = number < plan.larger
    enrolled = (max(plan.tune, plan.larger_tune), max(plan.test, plan.larger_test))
    counts = (plan.pretrain, *(enrolled if with_larger else (plan.tune, plan.test)))
    scanners = (OTHER_HOSPITAL if plan.shift else OWN_HOSPITAL, OWN_HOSPITAL, OWN_HOSPITAL)
    everyone = [
        scanned_patients(count, scanner, size=plan.voxels, seed=seed + place)
        for place, (count, scanner) in enumerate(zip(counts, scanners, strict=True))
    ]
    asked = round(PAPER_SLICES * plan.pretrain / PAPER_PATIENTS)
    pretraining = _Part(everyone[0], largest_of_cohort(everyone[0], asked, plan.side))
    pretrained = _pretrained(pretraining, plan, seed)
    tune, test = _part(everyone[1], plan.tune, plan), _part(everyone[2], plan.test, plan)
    fitted = _fitted(pretrained, tune, plan, seed)
    larger: Mapping[str, Scored] = {}
    if with_larger:
        more = _fitted(pretrained, _part(everyone[1], plan.larger_tune, plan), plan, seed)
        larger = _scored(more, _part(everyone[2], plan.larger_test, plan))
    smallest = int(pretraining.slices.voxels.min())
    rows = [_slice_row(name, part, smallest) for name, part in zip("ABC", (pretraining, tune, test), strict=True)]
    slices = pretraining.slices, test.slices
    return Repetition(_scored(fitted, test), larger, rows, fitted.undefined, *slices, test.patients.outcome)


def _part(patients: ScannedPatients, count: int, plan: CNNSurvivalPlan) -> _Part:
    first = patients.first(count)
    return _Part(first, largest_of_patient(first, 5, plan.side))


def _slice_row(name: str, part: _Part, smallest: int) -> dict[str, Any]:
    return {
        "cohort": name,
        "patients": len(part.patients),
        "slices with tumour": part.slices.available,
        "slices used": len(part.slices),
        "patients dropped": len(part.slices.dropped),
        "smallest region in A": smallest,
        "dropped by that limit": dropped_by(part.patients, smallest),
    }


def _network(plan: CNNSurvivalPlan, seed: int) -> SurvivalModel:
    grid = half_life_grid(END_OF_STUDY, UNIT)
    size = (plan.side, plan.side)
    return cnn_survival(grid, size, channels=plan.channels, pools=(2, 2, 2), padded=True, dropout=0.2, seed=seed)


def _pretrained(part: _Part, plan: CNNSurvivalPlan, seed: int) -> SurvivalModel:
    return _trained(_network(plan, seed), part, plan, seed, batch=128)


def _trained(model: SurvivalModel, part: _Part, plan: CNNSurvivalPlan, seed: int, *, batch: int) -> SurvivalModel:
    """Trains all of a network; the epoch is chosen on a fifth of the patients."""
    settings = FitSettings(epochs=plan.epochs, batch=batch, learning_rate=2e-3, patience=3, seed=seed)
    learn, check = (part.rows_of(rows) for rows in _fifth(part, seed))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", EmptyIntervalWarning)
        fit(model, learn, check, SurvivalObjective(), settings)
    return model


def _fine_tuned(pretrained: SurvivalModel, part: _Part, plan: CNNSurvivalPlan, seed: int) -> SurvivalModel:
    """A copy whose interval outputs alone were trained on, from features computed once."""
    model = _network(plan, seed)
    model.load_state_dict(pretrained.state_dict())
    model.eval()
    settings = FitSettings(epochs=10 * plan.epochs, batch=32, learning_rate=1e-3, patience=10, seed=seed)
    learn, check = (cached_embeddings(model, part.rows_of(rows)) for rows in _fifth(part, seed))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", EmptyIntervalWarning)
        fit(HeadOnly(model), learn, check, SurvivalObjective(), settings)
    return model


def _fifth(part: _Part, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Patients with slices, four fifths and one, with equal shares of events."""
    patients = np.unique(part.slices.patient)
    event = part.patients.outcome.event.numpy()[patients] > 0
    order = np.random.default_rng(seed).permutation(len(patients))
    order = order[np.argsort(event[order], kind="stable")]
    return patients[np.delete(order, slice(2, None, 5))], patients[order[2::5]]


Table = Float64[np.ndarray, "instance feature"]


@dataclass(frozen=True, slots=True, eq=False)
class Fitted:
    """Everything that was fitted before cohort C is looked at.

    Attributes:
        regressions: Cox and LASSO-Cox models by name.
        networks: Networks by name.
        pretrained: The network whose features the regressions on features take.
        medians: Of the radiomics features in use, over B: they stand for what has no value in C.
        undefined: Radiomics features left out because they are constant or lack a value in B.
        outcome: Outcome of B, whose follow-up gives the censoring weights.
    """

    regressions: Mapping[str, ProportionalHazards]
    networks: Mapping[str, SurvivalModel]
    pretrained: SurvivalModel
    medians: pd.Series
    undefined: int
    outcome: SurvivalOutcome


def _fitted(pretrained: SurvivalModel, tune: _Part, plan: CNNSurvivalPlan, seed: int) -> Fitted:
    """Every model, from the network of A and from B: cohort C is no argument."""
    outcome, table = tune.patients.outcome, _radiomics(tune.patients)
    kept = table.columns[table.notna().all() & (table.std() > 0)]
    medians = pd.Series(table[kept].median())
    regressions: dict[str, ProportionalHazards] = {
        name: CoxRegression().fit(values, outcome) for name, values in _known(tune.patients).items()
    }
    for name, values in _tables(pretrained, tune, table, medians).items():
        with warnings.catch_warnings(), np.errstate(invalid="ignore"):
            warnings.filterwarnings("ignore", message="Optimization terminated early")  # columns that copy each other
            regressions[name] = LassoCox(penalties=40, folds=5, seed=seed).fit(values, outcome)
    networks = {
        UNTUNED: pretrained,
        CNN: _fine_tuned(pretrained, tune, plan, seed),
        SCRATCH: _trained(_network(plan, seed + 1), tune, plan, seed, batch=32),
    }
    return Fitted(regressions, networks, pretrained, medians, table.shape[1] - len(kept), outcome)


def _scored(fitted: Fitted, test: _Part) -> dict[str, Scored]:
    """Predictions for cohort C and their scores; nothing is fitted but the null curve of IPA, Kaplan-Meier of C."""
    score = partial(_score, test.patients.outcome, fitted.outcome)
    tables = _tables(fitted.pretrained, test, _radiomics(test.patients), fitted.medians)
    columns = {**_known(test.patients), **tables}
    scores = {
        name: score(model.risk(columns[name]), model.predict_survival(columns[name]))
        for name, model in fitted.regressions.items()
    }
    for name, model in fitted.networks.items():
        curves = _patient_curves(model, test)
        scores[name] = score(_risk(curves), curves)
    truth = phantom_hazard()
    with torch.no_grad():
        curves = truth.predict_from_raw(truth.raw(torch.from_numpy(test.patients.truth)))
    scores[TRUTH] = score(_risk(curves), curves)
    return scores


def _risk(curves: SurvivalPrediction) -> Tensor:
    return curves.risk(HORIZON)


def _score(outcome: SurvivalOutcome, training: SurvivalOutcome, risk: Any, curves: SurvivalPrediction) -> Scored:
    curves = curves.at(torch.from_numpy(CURVE_TIMES), extrapolate="hold")
    ipa = np.full(len(IPA_TIMES), np.nan)
    followed = IPA_TIMES[CensoringModel.fit(training, outcome).last_scored(outcome) >= IPA_TIMES]
    if len(followed):
        ipa[: len(followed)] = brier_score(curves, outcome, followed, training=training).ipa
    return Scored(concordance_index(risk, outcome).value, ipa, curves.survival.double().numpy())


def _known(patients: ScannedPatients) -> dict[str, pd.DataFrame]:
    """What needs no picture: size and the clinical table."""
    size, age = {"size": np.log1p(patients.size)}, {"age": patients.age}
    return {SIZE: pd.DataFrame(size), CLINICAL: pd.DataFrame(age), BOTH: pd.DataFrame(size | age)}


def _radiomics(patients: ScannedPatients) -> pd.DataFrame:
    return radiomics_table(patients_in_order(patients), RadiomicsSettings(margin=0)).features


def _tables(model: SurvivalModel, part: _Part, radiomics: pd.DataFrame, medians: pd.Series) -> dict[str, Table]:
    """Columns of the LASSO-Cox models: radiomics, the features before the interval outputs, and these outputs.

    Features and outputs of the network are means over the slices of each patient. Radiomics features that `medians`
    does not name are left out.
    """
    embedding = embeddings_of(model, part.source)
    with torch.no_grad():
        outputs: Tensor = model.head.raw(embedding)  # type: ignore[operator]
    return {
        RADIOMICS: radiomics.reindex(columns=medians.index).fillna(medians).to_numpy(dtype=np.float64),
        FEATURES: part.mean(embedding.double().numpy()),
        INTERVALS: part.mean(outputs.double().numpy()),
    }


@torch.no_grad()
def _patient_curves(model: SurvivalModel, part: _Part) -> SurvivalPrediction:
    """The mean of the survival curves of each patient's slices."""
    times = torch.from_numpy(CURVE_TIMES)
    head: Any = model.head
    curves: SurvivalPrediction = head.predict(embeddings_of(model, part.source), times)
    mean = part.mean(curves.survival.double().numpy())
    return SurvivalPrediction(times, torch.from_numpy(mean).log(), Interpolation.EXPONENTIAL, UNIT)

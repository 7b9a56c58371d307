"""Survival from embedded portraits: models of photo, table and both, scored on held-out patients.

One set of rows trains and another is held out; every penalty, setting and weight is chosen inside the training rows, in
folds of whole patients. A patient with several photographs counts once in every score, with the mean risk of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor, nn

from survlens.core.errors import InvalidValueError, LeakageError
from survlens.core.outcome import SurvivalOutcome
from survlens.core.score import Score
from survlens.evaluate.concordance import concordance_index
from survlens.evaluate.groups import SubgroupScore, subgroup_scores
from survlens.evaluate.uncertainty import Bootstrap, bootstrap, paired_difference
from survlens.explain.latent import per_patient
from survlens.models.classical import CoxRegression
from survlens.models.cox_inference import likelihood_ratio_tests
from survlens.models.cross_fitting import patient_folds
from survlens.models.estimator import SurvivalEstimator
from survlens.models.forest import RandomSurvivalForest
from survlens.models.late_fusion import LateFusion
from survlens.models.matrix import Covariates
from survlens.models.penalised import LassoCox, PartialRidgeCox, RidgeCox

if TYPE_CHECKING:
    import pandas as pd

Tell = Callable[[str], object]
PHOTO, CLINICAL, JOINT = "photo, ridge Cox", "clinical, Cox", "photo and clinical, ridge Cox"
LATE = "photo and clinical, late fusion"


@dataclass(frozen=True, slots=True, eq=False)
class PortraitRows:
    """Embedded photographs with what is known of their patients; a row per photograph.

    Attributes:
        latents: Latent vector of each photograph.
        clinical: Numeric clinical columns, such as age.
        outcome: Outcome of the patient.
        patient: Whose photograph it is.
        pictures: The photographs in [0, 1], for networks that see them; None without these.
        groups: Columns whose levels are scored apart.
    """

    latents: np.ndarray
    clinical: pd.DataFrame
    outcome: SurvivalOutcome
    patient: np.ndarray
    pictures: Tensor | None = None
    groups: Mapping[str, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        rows = {len(self.latents), len(self.clinical), len(self.outcome), len(self.patient)}
        rows |= {len(column) for column in self.groups.values()}
        rows |= set() if self.pictures is None else {len(self.pictures)}
        if len(rows) != 1:
            raise InvalidValueError(f"all parts must have one row per photograph; got {sorted(rows)}.")

    def __len__(self) -> int:
        return len(self.patient)


@dataclass(frozen=True, slots=True)
class Step:
    """One setting that is tried for a network: its step size and its weight decay."""

    learning_rate: float
    weight_decay: float


@dataclass(frozen=True, slots=True)
class SurvivalPlan:
    """How models are fitted.

    Attributes:
        inner_folds: Folds of whole training patients in which settings are chosen.
        tried: Settings that every network tries, those of latent vectors and those of pictures alike.
        epochs: Most epochs of a network.
        trees: Trees of the forest; 0 for none.
        pictures: Whether ResNet-18 and VGG-16 learn from the pictures themselves.
        draws: Resamples of patients behind every interval.
        seed: Seed of folds, networks and resamples.
    """

    inner_folds: int = 3
    tried: tuple[Step, ...] = (Step(1e-3, 1e-4), Step(3e-4, 1e-2))
    epochs: int = 30
    trees: int = 200
    pictures: bool = True
    draws: int = 1000
    seed: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class SurvivalFindings:
    """Scores of held-out patients.

    Attributes:
        risks: Risk of each held-out patient by each model, in the order of `outcome`.
        outcome: Outcomes of the held-out patients.
        scores: Concordance of each model, with its bootstrap.
        differences: Concordance of photo and clinical less that of one of them, on the same resamples.
        added: Likelihood-ratio statistic and p of the photo's risk beside the clinical risk, on held-out patients.
        subgroups: Concordance in each level of each column, of the model of photo and clinical data.
        photo: The ridge Cox model of the latent vectors.
    """

    risks: Mapping[str, np.ndarray]
    outcome: SurvivalOutcome
    scores: Mapping[str, Bootstrap]
    differences: Mapping[str, Score]
    added: tuple[float, float]
    subgroups: Mapping[str, tuple[SubgroupScore, ...]]
    photo: RidgeCox


def portrait_survival(
    rows: PortraitRows,
    train: np.ndarray,
    test: np.ndarray,
    plan: SurvivalPlan,
    *,
    known: Mapping[str, np.ndarray] | None = None,
    tell: Tell = lambda _: None,
) -> SurvivalFindings:
    """Fits all models on `train` and scores them on `test`.

    Args:
        rows: All photographs.
        train: Rows to learn from.
        test: Rows to score.
        plan: How.
        known: Risks of all rows that need no fit, such as a true hazard; scored beside the models.
        tell: Told of every model.

    Raises:
        LeakageError: If a patient has rows on both sides.
    """
    both = set(rows.patient[train]) & set(rows.patient[test])
    if both:
        raise LeakageError(
            f"each patient must stand on one side; got {len(both)} on both. Split patients, not photographs."
        )
    fitted = _fitted(rows, train, plan, tell)
    clinical = list(rows.clinical.columns)
    risks = {name: model.predict(table)[test] for name, (model, table) in fitted.items()}
    risks |= {name: values[test] for name, values in (known or {}).items()}
    means, outcome = per_patient(np.column_stack(list(risks.values())), rows.outcome[test], rows.patient[test])
    by_patient = dict(zip(risks, means.T, strict=True))
    scored = partial(concordance_index, confidence=0.95)
    scores = {
        name: bootstrap(concordance_index, risk, outcome, draws=plan.draws, seed=plan.seed)
        for name, risk in by_patient.items()
    }
    singles = [PHOTO, CLINICAL, *(["age, Cox"] if len(clinical) > 1 else [])]
    differences = {
        f"{whole} less {single}": paired_difference(scores[whole], scores[single]).score
        for whole in (JOINT, LATE)
        for single in singles
    }
    first = np.unique(rows.patient[test], return_index=True)[1]
    groups = {name: column[test][np.sort(first)] for name, column in rows.groups.items()}
    subgroups = {name: subgroup_scores(scored, by_patient[LATE], outcome, column) for name, column in groups.items()}
    photo = fitted[PHOTO][0]
    return SurvivalFindings(
        by_patient, outcome, scores, differences, _added(by_patient, outcome), subgroups, photo  # type: ignore[arg-type]
    )  # fmt: skip


def _fitted(
    rows: PortraitRows, train: np.ndarray, plan: SurvivalPlan, tell: Tell
) -> dict[str, tuple[SurvivalEstimator, Covariates]]:
    """Every model, fitted on `train`, with the covariates that it sees of all rows."""
    from survlens.training.table_estimators import DeepSurv

    outcome, patient = rows.outcome[train], rows.patient[train]
    latents = _standardised(rows.latents, train)
    clinical = rows.clinical.to_numpy(np.float64)
    both = np.hstack([latents, clinical])
    beside = tuple(range(latents.shape[1], both.shape[1]))
    seed = plan.seed
    members = {"photo": RidgeCox(seed=seed), "clinical": CoxRegression()}
    columns: dict[str, Sequence[str | int]] = {"photo": list(range(latents.shape[1])), "clinical": list(beside)}
    wanted: dict[str, tuple[SurvivalEstimator, np.ndarray]] = {
        CLINICAL: (CoxRegression(), clinical),
        PHOTO: (RidgeCox(seed=seed), latents),
        JOINT: (PartialRidgeCox(seed=seed, unpenalised=beside), both),
        LATE: (LateFusion(members, columns=columns, seed=seed), both),
    }
    if "age" in rows.clinical and clinical.shape[1] > 1:
        wanted["age, Cox"] = (CoxRegression(), rows.clinical[["age"]].to_numpy(np.float64))
    if plan.trees:
        forest = RandomSurvivalForest(trees=plan.trees, seed=seed)
        wanted["photo, forest"] = (forest, latents)
    fitted: dict[str, tuple[SurvivalEstimator, Covariates]] = {}
    for name, (model, table) in wanted.items():
        fitted[name] = (model.fit(table[train], outcome, groups=patient), table)
        tell(f"{name}: fitted")
    fitted["photo, elastic net Cox"] = (_elastic_net(latents[train], outcome, patient, seed), latents)
    makers: dict[str, tuple[Callable[[Step], SurvivalEstimator], Covariates]] = {
        "photo, DeepSurv": (
            lambda step: DeepSurv(
                epochs=plan.epochs, learning_rate=step.learning_rate, weight_decay=step.weight_decay, seed=seed
            ),
            latents,
        )
    }
    if plan.pictures and rows.pictures is not None:
        makers |= {name: (partial(_network, name, plan), rows.pictures.numpy()) for name in NETWORKS}
    for name, (make, seen) in makers.items():
        step, model = _tuned(make, seen, train, outcome, patient, plan)
        fitted[name] = (model, seen)
        tell(f"{name}: fitted with step {step.learning_rate:g}, weight decay {step.weight_decay:g}")
    return fitted


def _resnet() -> tuple[nn.Module, int]:
    from survlens.encoders.transfer_2d import TransferResNet2D

    return TransferResNet2D(18), 512


def _vgg() -> tuple[nn.Module, int]:
    from survlens.encoders.transfer_2d import TransferVGG16

    return TransferVGG16(), 512


NETWORKS: Mapping[str, Callable[[], tuple[nn.Module, int]]] = {"pictures, ResNet-18": _resnet, "pictures, VGG-16": _vgg}
"""Networks that learn from the pictures themselves, from random weights, with the widths of their embeddings."""


def _network(name: str, plan: SurvivalPlan, step: Step) -> SurvivalEstimator:
    from survlens.heads.cox import CoxPH
    from survlens.models.survival_model import SurvivalModel
    from survlens.training.estimator import NeuralSurvival
    from survlens.training.settings import FitSettings

    def build(_shapes: Mapping[str, list[int]], _outcome: SurvivalOutcome) -> nn.Module:
        encoder, width = NETWORKS[name]()
        return SurvivalModel({"image": encoder}, CoxPH(width))

    settings = FitSettings(
        epochs=plan.epochs, batch=64, learning_rate=step.learning_rate, weight_decay=step.weight_decay, patience=8,
        seed=plan.seed,
    )  # fmt: skip
    return NeuralSurvival(build, settings, seed=plan.seed)


def _tuned(
    make: Callable[[Step], SurvivalEstimator],
    seen: Covariates,
    train: np.ndarray,
    outcome: SurvivalOutcome,
    patient: np.ndarray,
    plan: SurvivalPlan,
) -> tuple[Step, SurvivalEstimator]:
    """The setting of the highest mean concordance over inner folds, and the model fitted with it on all of `train`."""
    values = np.asarray(seen, dtype=np.float32)[train]
    fold = patient_folds(outcome, patient, folds=plan.inner_folds, seed=plan.seed)
    means: list[float] = []
    tried = list(plan.tried)
    for step in tried if len(tried) > 1 else []:
        found = []
        for k in range(plan.inner_folds):
            inside, outside = fold != k, fold == k
            model = make(step).fit(values[inside], outcome[inside], groups=patient[inside])
            risk, held_out = per_patient(model.predict(values[outside])[:, None], outcome[outside], patient[outside])
            found.append(concordance_index(risk[:, 0], held_out).value)
        means.append(float(np.mean(found)))
    best = tried[int(np.argmax(means))] if means else tried[0]
    return best, make(best).fit(values, outcome, groups=patient)


def _elastic_net(latents: np.ndarray, outcome: SurvivalOutcome, patient: np.ndarray, seed: int) -> LassoCox:
    """The share of the LASSO, of three, whose best penalty has the smallest cross-validated deviance."""
    tried = [LassoCox(l1_ratio=share, penalties=30, seed=seed) for share in (0.1, 0.5, 0.9)]
    for model in tried:
        model.fit(latents, outcome, groups=patient)
    return tried[int(np.argmin([model.deviance_.min() for model in tried]))]


def _standardised(latents: np.ndarray, train: np.ndarray) -> np.ndarray:
    """All latents in the standard deviations of the training rows."""
    spread = latents[train].std(0)
    return (latents - latents[train].mean(0)) / np.where(spread > 0, spread, 1.0)


def _added(risks: Mapping[str, np.ndarray], outcome: SurvivalOutcome) -> tuple[float, float]:
    """What the photo's risk adds to the clinical risk in a Cox model of the held-out patients: chi-squared and p."""
    columns = np.column_stack([risks[CLINICAL], risks[PHOTO]])
    columns = (columns - columns.mean(0)) / columns.std(0)
    table = likelihood_ratio_tests(CoxRegression().fit(columns, outcome), columns, outcome)
    return float(table["statistic"].to_numpy()[1]), float(table["p"].to_numpy()[1])

"""CoxVAE on volumes (Weber et al.) with phantoms in place of scans, so that every claim has a truth beside it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import torch

from survlens.core.outcome import SurvivalOutcome
from survlens.core.prediction import SurvivalPrediction
from survlens.data.simulate.phantom import AGE_CENTRE, AGE_SPREAD, LOG_HAZARD_PER_LOAD, phantom_outcome
from survlens.evaluate.accuracy import integrated_brier_score
from survlens.evaluate.concordance import concordance_index
from survlens.explain.latent import HazardRatio
from survlens.models.classical import CoxRegression
from survlens.report.figures.tau_path import TauPoint, tau_path_figure
from survlens.report.figures.volume_traversal import VolumeWalk, volume_traversal_figure, walked_sizes_figure
from survlens.report.wording import compact
from survlens.study.reproduce.phantom_latents import (
    CHANNELS,
    KEPT,
    STEPS,
    WINDOW,
    CoxVAEPlan,
    FittedVAE,
    PhantomParts,
    Walk,
    chosen_on,
    fit_phantom_vae,
    largest_allowed,
    most_explained,
    own_risk,
    phantom_parts,
    started_vae,
    walk_towards_hazard,
)
from survlens.study.reproduce.tables import Findings, Record, ResultTable

LAST_MONTH = 36.0
"""Last time of the integrated Brier score."""
_DRAWS = 40
"""Outcomes drawn anew for the ratio of a dimension."""
_REDRAWN = 2**20
"""Seed of the first of them."""
CLOSE = 0.03
"""Largest distance from the oracle's concordance that the experiment aims at."""
PUBLISHED = {"CoxVAE": (0.560, 0.187), "CoxVAE latents, Cox": (0.546, 0.162), "VAE latents, Cox": (0.554, 0.158)}
"""C and integrated Brier score of the paper, on the validation patients of 492 liver scans."""


def phantom_cox_vae(
    plan: CoxVAEPlan, *, repetitions: int = 1, tell: Callable[[str], object] = lambda _: None
) -> Findings:
    """Trains along a path of τ, chooses one by rule, and compares it with the truth, a plain VAE and simple models.

    The truth's hazard ratio beside that of the most hazardous latent dimension is exp(1.2 s), with 1.2 the phantoms'
    change of the log-hazard per unit of their standardised log tumour load, and s the standard deviation of that load
    over the training patients: what a latent dimension would show that *is* the load, since it too is scaled by its
    standard deviation over the training patients. Both are fitted with age beside them.

    A dimension that correlates with the load by r shows about exp(1.2 s r), closer to 1.

    Args:
        plan: Sizes.
        repetitions: Cohorts, each with a seed of its own. τ is chosen on the first.
        tell: Told of every fit.
    """
    parts = phantom_parts(plan)
    start = started_vae(parts, plan)
    path = [_told(fit_phantom_vae(parts, plan, tau, start=start), tell) for tau in sorted({*plan.taus, 1.0})]
    chosen = chosen_on(path)
    tell(f"chosen: τ = {chosen.tau:g}{_doubt(path, chosen)}")
    claims = [claims_of(chosen, path[-1], parts, plan.seed)]
    for seed in range(plan.seed + 1, plan.seed + repetitions):
        again = replace(plan, seed=seed)
        other = phantom_parts(again)
        start = started_vae(other, again)
        pair = [_told(fit_phantom_vae(other, again, tau, start=start), tell) for tau in (chosen.tau, 1.0)]
        claims.append(claims_of(pair[0], pair[1], other, seed))
    models = {"CoxVAE": chosen, "VAE": path[-1]}
    walks = {"CoxVAE": (chosen, walk_towards_hazard(chosen, parts))}
    walks["CoxVAE, others follow"] = (chosen, walk_towards_hazard(chosen, parts, following=True))
    walks["VAE"] = (path[-1], walk_towards_hazard(path[-1], parts))
    return Findings(
        "coxvae",
        f"CoxVAE on {plan.patients} phantoms of {plan.size}³ voxels",
        (
            ResultTable("models", "Test patients", models_table(chosen, path[-1], parts)),
            ResultTable("tau_path", "Path of τ; error and C on validation patients", _path_table(path, chosen)),
            ResultTable("walk", "Along the most hazardous dimension, decoded volumes in ml", _walk_table(walks)),
            ResultTable("dimensions", "Latent dimensions, test patients", _dimension_table(models, parts)),
            ResultTable("claims", "What was claimed, by repetition", claims),
        ),
        _remarks(plan, path, chosen),
        {
            "coxvae_tau_path": lambda: _tau_figure(path, chosen, parts),
            "coxvae_traversal": lambda: _traversal_figure(walks, parts),
            "coxvae_sizes": lambda: walked_sizes_figure(
                STEPS, {name: (walk.tumour, walk.liver) for name, (_, walk) in walks.items()}
            ),
        },
    )


def models_table(chosen: FittedVAE, plain: FittedVAE, parts: PhantomParts) -> list[Record]:
    """C with its interval, distance to the truth's C, and integrated Brier score of every model on test patients.

    The size is the tumour volume measured on the mask that the networks are given, as its logarithm.
    """
    test = parts.test
    age, size = parts.covariates[:, 1], np.log1p(parts.measured("tumour"))
    true_curves = parts.truth.predict(torch.from_numpy(parts.covariates[test]))
    found = {
        "true hazard (oracle)": (parts.log_hazard[test], true_curves),
        "CoxVAE": (own_risk(chosen.model, parts, test), _own_curves(chosen, parts)),
        "CoxVAE latents, Cox": _cox(_latents(chosen).assign(age=age), parts),
        "VAE latents, Cox": _cox(_latents(plain).assign(age=age), parts),
        "size only": _cox(pd.DataFrame({"size": size}), parts),
        "clinical only": _cox(pd.DataFrame({"age": age}), parts),
        "size and clinical": _cox(pd.DataFrame({"size": size, "age": age}), parts),
    }
    return _scored(found, parts)


def claims_of(chosen: FittedVAE, plain: FittedVAE, parts: PhantomParts, seed: int) -> Record:
    """What the experiment is to show, as numbers; one row.

    Changes along a walk are from -2 to 2 SD of the dimension, in SD of the true volumes over all patients.
    """
    test = parts.test
    outcome = parts.outcome[test]
    oracle = concordance_index(parts.log_hazard[test], outcome).value
    own = concordance_index(own_risk(chosen.model, parts, test), outcome).value
    walk, other = walk_towards_hazard(chosen, parts), walk_towards_hazard(plain, parts)
    follow = walk_towards_hazard(chosen, parts, following=True)
    ratio, truth, own_truth = held_out_ratio(chosen, parts), true_ratio(parts), dimension_ratio(chosen, parts)
    loads, livers = parts.load, parts.liver
    return {
        "seed": seed,
        "tau": chosen.tau,
        "C": own,
        "oracle C": oracle,
        "within 0.03": oracle - own <= CLOSE,
        "hazard ratio": ratio.hazard_ratio,
        "lower": ratio.lower,
        "upper": ratio.upper,
        "true ratio": truth,
        "covered": ratio.lower <= truth <= ratio.upper,
        "dimension's own true ratio": own_truth,
        "own covered": ratio.lower <= own_truth <= ratio.upper,
        "tumour rises": never_falls(walk.tumour),
        "tumour, SD": float((walk.tumour[-1] - walk.tumour[0]) / loads.std()),
        "liver, SD": float((walk.liver[-1] - walk.liver[0]) / livers.std()),
        "following: tumour rises": never_falls(follow.tumour),
        "following: tumour, SD": float((follow.tumour[-1] - follow.tumour[0]) / loads.std()),
        "following: liver, SD": float((follow.liver[-1] - follow.liver[0]) / livers.std()),
        "r, log load": load_correlation(chosen, parts),
        "share of hazard": hazard_share(chosen, parts),
        "VAE ratio": held_out_ratio(plain, parts).hazard_ratio,
        "VAE tumour, SD": float((other.tumour[-1] - other.tumour[0]) / loads.std()),
        "VAE r, log load": load_correlation(plain, parts),
        "VAE largest |r|, log load": largest_load_correlation(plain, parts),
        "VAE share of hazard": hazard_share(plain, parts),
    }


def never_falls(values: np.ndarray) -> bool:
    """Whether values along a walk never fall and end higher than they began."""
    return bool((np.diff(values) >= 0).all() and values[-1] > values[0])


def true_ratio(parts: PhantomParts) -> float:
    """Hazard ratio of one standard deviation, over the training patients, of the phantoms' standardised log load."""
    return float(np.exp(LOG_HAZARD_PER_LOAD * parts.covariates[parts.train, 0].std()))


def held_out_ratio(fitted: FittedVAE, parts: PhantomParts) -> HazardRatio:
    """Hazard ratio of the most hazardous dimension per training SD, in a Cox fit with age on the test patients."""
    return _ratio(_along(fitted, parts), parts)


def oracle_ratio(parts: PhantomParts) -> HazardRatio:
    """The same fit with the true log load in place of the dimension."""
    load = parts.covariates[:, 0]
    return _ratio(load / load[parts.train].std(), parts)


def dimension_ratio(fitted: FittedVAE, parts: PhantomParts) -> float:
    """The ratio that `held_out_ratio` estimates: the same fit, on outcomes drawn anew from the true hazard.

    exp of the mean log-ratio over cohorts of the same patients, whose survival and censoring are drawn anew. It differs
    from `true_ratio` as far as the dimension is not the load.
    """
    age = AGE_CENTRE + AGE_SPREAD * parts.covariates[:, 1]
    column = _along(fitted, parts)
    drawn = (phantom_outcome(parts.load, age, seed=_REDRAWN + draw) for draw in range(_DRAWS))
    return float(np.exp(np.mean([np.log(_ratio(column, parts, outcome).hazard_ratio) for outcome in drawn])))


def load_correlation(fitted: FittedVAE, parts: PhantomParts) -> float:
    """Correlation of the most hazardous dimension with the true log load, over the test patients."""
    return float(np.corrcoef(_along(fitted, parts)[parts.test], parts.covariates[parts.test, 0])[0, 1])


def largest_load_correlation(fitted: FittedVAE, parts: PhantomParts) -> float:
    """Largest correlation, sign apart, of any dimension with the true log load, over the test patients."""
    rows = np.vstack([fitted.latents[parts.test].T, parts.covariates[parts.test, 0]])
    return float(np.abs(np.corrcoef(rows)[-1, :-1]).max())


def hazard_share(fitted: FittedVAE, parts: PhantomParts) -> float:
    """Share of the latents' variance of log-hazard that the most hazardous dimension carries alone.

    The log-hazard of the latents is that of a post-hoc Cox fit with age on the training patients, taken on the test
    patients; the share is its squared correlation with the dimension. Near 1 the hazard is ordered along one axis.
    """
    columns = _latents(fitted).assign(age=parts.covariates[:, 1])
    train, test = parts.train, parts.test
    cox = CoxRegression(unit=parts.outcome.unit).fit(columns.iloc[train], parts.outcome[train])
    whole = fitted.latents[test] @ cox.coef_[: fitted.latents.shape[1]]
    return float(np.corrcoef(whole, _along(fitted, parts)[test])[0, 1] ** 2)


def _told(fitted: FittedVAE, tell: Callable[[str], object]) -> FittedVAE:
    tell(
        f"τ = {fitted.tau:g}: error {fitted.error:.3f}, C {fitted.concordance:.3f} on validation patients, "
        f"{fitted.active} active dimensions, epoch {fitted.epoch}"
    )
    return fitted


@torch.no_grad()
def _own_curves(fitted: FittedVAE, parts: PhantomParts) -> SurvivalPrediction:
    latent = torch.from_numpy(fitted.latents[parts.test]).float()
    return fitted.model.head.predict(torch.cat([latent, parts.age[parts.test]], dim=1), None)  # type: ignore[operator]


def _latents(fitted: FittedVAE) -> pd.DataFrame:
    """Latent means of all patients, under the names that warnings call them by."""
    names = [f"latent dimension {each.dimension}" for each in fitted.dimensions]
    return pd.DataFrame(fitted.latents, columns=pd.Index(names))


def _cox(columns: pd.DataFrame, parts: PhantomParts) -> tuple[np.ndarray, SurvivalPrediction]:
    """Risk and curves of the test patients by a Cox model of the training patients."""
    outcome = parts.outcome[parts.train]
    model = CoxRegression(unit=outcome.unit).fit(columns.iloc[parts.train], outcome)
    tested = columns.iloc[parts.test]
    return tested.to_numpy() @ model.coef_, model.predict_survival(tested)


def _scored(found: Mapping[str, tuple[np.ndarray, SurvivalPrediction]], parts: PhantomParts) -> list[Record]:
    outcome, training = parts.outcome[parts.test], parts.outcome[parts.train]
    times = np.arange(1.0, LAST_MONTH + 1)
    best = concordance_index(parts.log_hazard[parts.test], outcome).value
    rows: list[Record] = []
    for name, (risk, curves) in found.items():
        score = concordance_index(risk, outcome, confidence=0.95)
        ends = (float("nan"),) * 2 if score.interval is None else (score.interval.lower, score.interval.upper)
        brier = integrated_brier_score(curves.at(torch.from_numpy(times)), outcome, training=training, times=times)
        published = PUBLISHED.get(name, (None, None))
        rows.append(
            {
                "model": name,
                "C": score.value,
                "95 % CI": "{:.3f} to {:.3f}".format(*ends),
                "C - oracle": score.value - best,
                f"IBS, {LAST_MONTH:g} months": brier.value,
                "published C": published[0],
                "published IBS": published[1],
            }
        )
    return rows


def _along(fitted: FittedVAE, parts: PhantomParts) -> np.ndarray:
    """The most hazardous dimension of all patients, rising with the hazard, in training SD."""
    column = fitted.latents[:, fitted.worst.dimension - 1]
    return fitted.towards_hazard * column / column[parts.train].std()


def _ratio(column: np.ndarray, parts: PhantomParts, outcome: SurvivalOutcome | None = None) -> HazardRatio:
    columns = np.stack([column, parts.covariates[:, 1]], axis=1)[parts.test]
    seen = (parts.outcome if outcome is None else outcome)[parts.test]
    cox = CoxRegression(unit=seen.unit).fit(pd.DataFrame(columns, columns=pd.Index(["dimension", "age"])), seen)
    first = cox.summary().iloc[0]
    value, lower, upper, p = (float(first[name]) for name in ("hazard_ratio", "lower", "upper", "p"))
    return HazardRatio(value, lower, upper, p, bool(first["separated"]))


def _path_table(path: Sequence[FittedVAE], chosen: FittedVAE) -> list[Record]:
    return [
        {
            "tau": each.tau,
            "unexplained": each.error,
            **dict(zip(CHANNELS, each.unexplained, strict=True)),
            "explained, of the best": _kept(each, path),
            "C": each.concordance,
            "active dimensions": each.active,
            "epoch": each.epoch,
            "chosen": "" if each is not chosen else "yes" if each.error <= largest_allowed(path) else "none is allowed",
        }
        for each in path
    ]


def _walk_table(walks: Mapping[str, tuple[FittedVAE, Walk]]) -> list[Record]:
    rows: list[Record] = []
    for position, step in enumerate(STEPS):
        row: dict[str, Any] = {"step, SD": step}
        for name, (_, walk) in walks.items():
            row[f"{name}: tumour"] = float(walk.tumour[position])
            row[f"{name}: liver"] = float(walk.liver[position])
        rows.append(row)
    return rows


def _dimension_table(models: Mapping[str, FittedVAE], parts: PhantomParts) -> list[Record]:
    load = parts.covariates[parts.test, 0]
    liver = parts.liver[parts.test]
    rows: list[Record] = []
    for name, fitted in models.items():
        for each in sorted(fitted.dimensions, key=lambda one: -one.importance):
            column = fitted.latents[parts.test, each.dimension - 1]
            rows.append(
                {
                    "model": name,
                    "dimension": each.dimension,
                    "head weight x SD": None if each.head_weight is None else each.head_weight * each.sd,
                    "hazard ratio per SD, training": "separated" if each.separated else each.hazard_ratio,
                    "mean KL, nats": each.mean_kl,
                    "r, log load": float(np.corrcoef(column, load)[0, 1]),
                    "r, liver": float(np.corrcoef(column, liver)[0, 1]),
                }
            )
    oracle = oracle_ratio(parts)
    rows.append({**dict.fromkeys(rows[0]), "model": "true log load, test patients"})
    rows[-1] = {**rows[-1], "hazard ratio per SD, training": oracle.hazard_ratio, "r, log load": 1.0}
    return rows


def _doubt(path: Sequence[FittedVAE], chosen: FittedVAE) -> str:
    """What is to be said where the rule allows no τ of the path."""
    if chosen.error <= largest_allowed(path):
        return ""
    kept = _kept(chosen, path)
    if kept is None:
        return (
            ", the largest below 1, although no model of the path explains any of the variance of validation patients: "
            "nothing here is to be believed. Train on more patients or for more passes (--patients, --epochs)"
        )
    return (
        f", the largest below 1, although it explains {kept:.2f} of what the best of the path explains: "
        "no τ of the path is allowed. Add larger ones, such as --tau 0.95 --tau 0.99"
    )


def _kept(fitted: FittedVAE, path: Sequence[FittedVAE]) -> float | None:
    """Share of the variance that the best of the path explains; None where no model explains any."""
    best = most_explained(path)
    return (1 - fitted.error) / best if best > 0 else None


def _remarks(plan: CoxVAEPlan, path: Sequence[FittedVAE], chosen: FittedVAE) -> list[str]:
    return [
        f"Volumes have three channels: intensities ({WINDOW[0]:g} to {WINDOW[1]:g} HU become 0 to 1), and the share of "
        "each voxel that is liver (tumours included) and tumour: phantoms drawn at twice the resolution and averaged. "
        "Age goes to the head beside the eight latents.",
        f"τ is the smallest that explains at least {KEPT:g} of the variance that the best of the path explains, on "
        f"validation patients and as the mean of the three channels: {chosen.tau:g}{_doubt(path, chosen)}. "
        "The bound is divided by the number of values of a volume before it is mixed with the survival loss. The epoch "
        "is the one with the smallest loss on validation patients.",
        "Tumour and liver volumes along the walk are sums of the decoded shares over all voxels, times the volume of a "
        "voxel. No threshold is used: where places are not known, no single voxel is tumour with a chance above 1/2, "
        "and the sum is still the mean volume.",
        "A walk moves the most hazardous dimension alone, as published, or lets the other dimensions follow by their "
        "regression on it over the training patients, which differs where dimensions are correlated.",
        "The true ratio is that of one training SD of the true standardised log load. Both ratios per SD; the interval "
        "is that of a Cox fit with age on the test patients. The dimension's own true ratio is the mean of that fit "
        f"over {_DRAWS} outcomes drawn anew from the true hazard: what the interval is an interval for.",
        "Published numbers are of 492 liver scans, whose best possible concordance is unknown; they stand here for "
        "orientation, not for comparison.",
        f"Each fit: {plan.epochs} epochs ({plan.epochs_at(1.0)} at τ = 1) in batches of {plan.batch}, one Adam with "
        f"rates {plan.learning_rate:g} and {plan.head_learning_rate:g} (head), residual blocks of "
        f"{', '.join(map(str, plan.widths))} channels, the tumour channel weighted {plan.tumour_weight:g}-fold, "
        f"squared covariances of latent dimensions weighted {plan.decorrelation:g} beside the survival loss (below "
        "τ = 1). Each starts at the mean and the principal components of the training volumes.",
    ]


def _tau_figure(path: Sequence[FittedVAE], chosen: FittedVAE, parts: PhantomParts) -> Any:
    rows = parts.validation
    return tau_path_figure(
        [TauPoint(each.tau, each.error, each.concordance) for each in path],
        chosen=chosen.tau,
        limit=largest_allowed(path),
        error_label="share of variance unexplained",
        oracle=concordance_index(parts.log_hazard[rows], parts.outcome[rows]).value,
    )


def _traversal_figure(walks: Mapping[str, tuple[FittedVAE, Walk]], parts: PhantomParts) -> Any:
    spacing = parts.spacing.mean(axis=0)
    strips = [
        VolumeWalk(
            label=name.replace(", ", "\n") + f", z{fitted.worst.dimension}",
            intensity=walk.volumes[:, 0],
            liver=walk.volumes[:, 1],
            tumour=walk.volumes[:, 2],
            spacing=list(spacing),
            tumour_volume=walk.tumour,
        )
        for name, (fitted, walk) in walks.items()
    ]
    return volume_traversal_figure(strips, steps=STEPS, window=f"{compact(WINDOW[0])} to {WINDOW[1]:g} HU")

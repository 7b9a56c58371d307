"""surv-digits over several seeds: what τ does to concordance, to the embedding and to the pictures (Weber et al.)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from scipy.stats import rankdata
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from survlens.data.loaders import TensorSource
from survlens.data.simulate.digits import DigitsStudy, scikit_digits_survival
from survlens.evaluate.concordance import concordance_index
from survlens.explain.latent import PrincipalComponents, latent_dimensions
from survlens.explain.traversal import traverse
from survlens.losses.evidence import kl_to_standard_normal
from survlens.models.cox_vae import Architecture, CoxVAE, cox_vae
from survlens.training.fit import fit
from survlens.training.objectives import CoxVAEObjective
from survlens.training.settings import FitSettings

TAUS = (0.01, 0.5, 0.9, 0.99, 1.0)


@dataclass(frozen=True, slots=True)
class DigitsFit:
    """One fit.

    Attributes:
        seed: Seed of the survival times, the split and the fit.
        tau: Weight of the evidence bound.
        epoch: Epoch whose weights were kept.
    """

    seed: int
    tau: float
    epoch: int


@dataclass(frozen=True, slots=True)
class DigitsRow:
    """What one fit reached on held-out pictures.

    Attributes:
        seed: Seed of the survival times, the split and the fit.
        tau: Weight of the evidence bound.
        concordance: Harrell's C of the head; NaN for the plain autoencoder.
        oracle: Harrell's C of the true log-hazard.
        component_truth: |Spearman| of the first principal component with the true log-hazard.
        component_time: |Spearman| of it with the logarithm of the observed time.
        digit_accuracy: Share of digits that the five nearest training embeddings name rightly.
        error: Mean squared error of the decoded pictures.
        traversal: Spearman correlation, along the most hazardous dimension towards higher hazard, of the steps with the
            digit that an independent classifier expects in the decoded picture.
        traversal_from: That expected digit at the first step.
        traversal_to: And at the last.
        epoch: Epoch whose weights were kept.
    """

    seed: int
    tau: float
    concordance: float
    oracle: float
    component_truth: float
    component_time: float
    digit_accuracy: float
    error: float
    traversal: float
    traversal_from: float
    traversal_to: float
    epoch: int


def surv_digits(
    *, seeds: Sequence[int] = (0, 1, 2, 3, 4), taus: Sequence[float] = TAUS, tell: Callable[[str], object] | None = None
) -> tuple[DigitsRow, ...]:
    """Fits a CoxVAE per seed and τ, by the recipe of the demo, and measures it on the 30 % held out.

    Args:
        seeds: Seeds; each has its own survival times and split.
        taus: Weights of the evidence bound.
        tell: Told of every fit.
    """
    rows = []
    for seed in seeds:
        digits = scikit_digits_survival(seed=seed)
        reader = _digit_reader(digits)
        for tau in taus:
            rows.append(_one_fit(digits, reader, seed, tau))
            if tell is not None:
                tell(f"seed {seed}, τ = {tau:g}: C {rows[-1].concordance:.3f}")
    return tuple(rows)


def summary(rows: Sequence[DigitsRow]) -> list[dict[str, Any]]:
    """Mean and standard deviation over seeds, a row per τ."""
    found = []
    for tau in sorted({row.tau for row in rows}):
        part = [asdict(row) for row in rows if row.tau == tau]
        values = {name: np.array([row[name] for row in part]) for name in part[0] if name not in ("seed", "tau")}
        spread = {name: (float(v.mean()), float(v.std(ddof=1)) if len(v) > 1 else 0.0) for name, v in values.items()}
        found.append({"tau": tau, "seeds": len(part), **spread})
    return found


def _one_fit(digits: DigitsStudy, reader: Any, seed: int, tau: float) -> DigitsRow:
    _, event = digits.outcome.numpy()
    learn, test = train_test_split(np.arange(len(digits)), test_size=0.3, random_state=seed, stratify=event)
    train, validation = train_test_split(learn, test_size=0.15, random_state=seed, stratify=event[learn])
    images = torch.from_numpy(digits.images)
    model = cox_vae((1, 8, 8), latent=8, architecture=Architecture.DENSE, seed=seed)
    settings = FitSettings(epochs=40, batch=128, learning_rate=1e-3, patience=10, seed=seed)
    parts = [TensorSource({"image": images[rows]}, digits.outcome[rows]) for rows in (train, validation)]
    history = fit(model, parts[0], parts[1], CoxVAEObjective(tau=tau, sample_head=True), settings)
    return _measured(
        model, digits, reader, np.asarray(train), np.asarray(test), DigitsFit(seed, tau, history.best_epoch)
    )


@torch.no_grad()
def _measured(
    model: CoxVAE, digits: DigitsStudy, reader: Any, train: np.ndarray, test: np.ndarray, fitted: DigitsFit
) -> DigitsRow:
    images = torch.from_numpy(digits.images)
    mean, log_var = model.vae.encode(images)
    latents = mean.double().numpy()
    truth, held_out = digits.log_hazard[test], digits.outcome[test]
    risk = model.risk({"image": images[test]}).double().numpy()
    component = PrincipalComponents.fit(latents[train]).transform(latents[test])[:, 0]
    nearest = KNeighborsClassifier(5).fit(latents[train], digits.digit[train])
    kl = kl_to_standard_normal(mean, log_var)[train].double().mean(0).numpy()
    walk, seen = _hazard_walk(model, latents[train], digits, train, kl, reader)
    return DigitsRow(
        seed=fitted.seed,
        tau=fitted.tau,
        concordance=float("nan") if fitted.tau == 1 else concordance_index(risk, held_out).value,
        oracle=concordance_index(truth, held_out).value,
        component_truth=abs(_spearman(component, truth)),
        component_time=abs(_spearman(component, np.log(held_out.numpy()[0]))),
        digit_accuracy=float(nearest.score(latents[test], digits.digit[test])),
        error=float((model.decode(mean[test]) - images[test]).square().mean()),
        traversal=_spearman(walk, seen),
        traversal_from=float(seen[0]),
        traversal_to=float(seen[-1]),
        epoch=fitted.epoch,
    )


def _hazard_walk(
    model: CoxVAE, latents: np.ndarray, digits: DigitsStudy, train: np.ndarray, kl: np.ndarray, reader: Any
) -> tuple[np.ndarray, np.ndarray]:
    """Steps along the most hazardous dimension, towards higher hazard, and the digit expected at each."""
    weights = model.get_parameter("head.linear.weight").detach().double().numpy()[0]
    dimensions = latent_dimensions(latents, digits.outcome[train], mean_kl=kl, head_weights=weights)
    worst = max(dimensions, key=lambda each: each.importance)
    sign = 1.0 if weights[worst.dimension - 1] >= 0 else -1.0
    steps = np.linspace(-2, 2, 9)
    found = traverse(
        model, centre=latents.mean(0), scale=sign * latents.std(0), steps=list(steps), dimensions=[worst.dimension]
    )
    chance = reader.predict_proba(found.images[0].reshape(len(steps), -1))
    return steps, chance @ np.arange(10)


def _spearman(first: np.ndarray, second: np.ndarray) -> float:
    return float(np.corrcoef(rankdata(first), rankdata(second))[0, 1])


def _digit_reader(digits: DigitsStudy) -> Any:
    """A classifier of digits that has never seen a latent space."""
    reader = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000, C=0.1))
    return reader.fit(digits.images.reshape(len(digits), -1), digits.digit)

"""Digits with simulated survival as a folder of images with a clinical table, and the study file that runs on it.

The pictures are real, the survival times are simulated: low digits live long. The folder is laid out like a user's own
data, so the same command line runs on it and on theirs.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from survlens.artifacts.atomic import write_text
from survlens.artifacts.run_folder import write_table
from survlens.data.simulate.digits import DigitsStudy

DATA = "data"
TAUS = (1.0, 0.99, 0.5, 0.01)
"""From the plain autoencoder to nearly Cox alone."""
_STAGES = ("I", "II", "III", "IV")


@dataclass(frozen=True, slots=True, kw_only=True)
class DigitsPlan:
    """What is fitted to a set of digits.

    Attributes:
        name: Name of the study.
        pictures: Where the pictures come from.
        seeds: One fit of every autoencoder per seed; the first is also the seed of the study.
        side: Height and width of the pictures.
        hidden: Widths of the autoencoders.
        epochs: Epochs of the autoencoders, at most.
        cnn_epochs: Epochs of the end-to-end network, at most.
        bootstrap: Draws behind every interval.
    """

    name: str
    pictures: str
    seeds: tuple[int, ...]
    side: int = 8
    hidden: tuple[int, ...] = (256, 256)
    epochs: int = 40
    cnn_epochs: int = 15
    bootstrap: int = 500


_HEAD = """\
# Real pictures of digits whose survival times are simulated: the higher the digit, the shorter.
# The digit itself is hidden from every model. Change what you like and run it again:
#   survlens run study.toml --out another-folder

[study]
name = "{name}"
description = "Can a model find in a picture what decides about survival, and show what it has found?"
seed = {seed}
simulated = true
data_note = "Pictures: {pictures}. Survival times: exponential, the hazard 1.82 times as high per digit. \
Stage: a coarse, noisy reading of the digit. Age: without any effect."

[data]
root = "data"
table = "clinical.csv"
instance = "picture"
patient = "patient"
time = "time_days"
event = "died"
unit = "days"
image = "image"
image_size = {side}
numeric = ["age_years"]
ordered = {{ stage = ["I", "II", "III", "IV"] }}
true_log_hazard = "true_log_hazard"

[split]
kind = "holdout"
test_fraction = 0.3
validation_fraction = 0.15
"""

_VAE = """
[[model]]
name = "{name}"
kind = "cox_vae"
label = "{label}"
encoder = "mlp"
hidden = {hidden}
latent = 8
tau = {tau}
seeds = {seeds}
[model.fit]
epochs = {epochs}
batch = 128
learning_rate = 1e-3
patience = 6
"""

_CNN = """
[[model]]
name = "cox_cnn"
kind = "cox_cnn"
label = "Cox CNN"
encoder = "cnn"
hidden = [16, 32, 64]
dropout = 0.2
seeds = {seeds}
[model.fit]
epochs = {epochs}
batch = 128
learning_rate = 1e-3
patience = 6
"""

_FUSION = """
[[model]]
name = "fusion"
kind = "late_fusion"
label = "Clinical Cox + CoxVAE (τ = 0.5)"
members = ["clinical_cox", "coxvae_0.5"]
folds = 2
"""

_DOWNSTREAM = """
[[model]]
name = "{name}_{estimator}"
kind = "downstream"
label = "{label} → {shown}"
embedding = "{name}"
estimator = "{estimator}"
trees = 100
"""

_TAIL = """
[evaluation]
horizons = [30, 100, 400]
bootstrap = {bootstrap}
groups = 3
subgroups = ["stage"]
primary = "coxvae_0.5"

[report]
title = "{name}: what a survival model sees in a picture"
"""


def write_digits(folder: Path, digits: DigitsStudy, plan: DigitsPlan) -> Path:
    """Writes `folder`/data (pictures and clinical.csv) and `folder`/study.toml, and returns the latter.

    Args:
        folder: Where to.
        digits: Pictures and outcome.
        plan: What shall be fitted.
    """
    _write_data(folder / DATA, digits, np.random.default_rng([plan.seeds[0], 1]))
    file = folder / "study.toml"
    write_text(file, study_text(plan))
    return file


def study_text(plan: DigitsPlan) -> str:
    """The study file: the rows of the CoxVAE paper's Table 1, beside what the clinical table says."""
    names = {("vae" if tau == 1 else f"coxvae_{tau:g}"): tau for tau in TAUS}
    labels = {name: "VAE" if tau == 1 else f"CoxVAE (τ = {tau:g})" for name, tau in names.items()}
    seed, seeds = plan.seeds[0], list(plan.seeds)
    parts = [_HEAD.format(name=plan.name, pictures=plan.pictures, seed=seed, side=plan.side)]
    for name, tau in names.items():
        fill = {"name": name, "label": labels[name], "tau": tau, "hidden": list(plan.hidden), "seeds": seeds}
        parts.append(_VAE.format(**fill, epochs=plan.epochs))
    parts.append(_CNN.format(seeds=[seed], epochs=plan.cnn_epochs))
    for name, label in {**labels, "cox_cnn": "Cox CNN"}.items():
        for estimator, shown in (("cox", "Cox"), ("forest", "forest")):
            parts.append(_DOWNSTREAM.format(name=name, label=label, estimator=estimator, shown=shown))
    parts.append(_FUSION)
    parts.append(_TAIL.format(bootstrap=plan.bootstrap, name=plan.name))
    return "".join(parts)


def _write_data(folder: Path, study: DigitsStudy, rng: np.random.Generator) -> None:
    pictures = folder / "images"
    pictures.mkdir(parents=True, exist_ok=True)
    names = [f"{number:05d}" for number in range(1, len(study) + 1)]
    for name, image in zip(names, study.images, strict=True):
        Image.fromarray(np.rint(255 * image[0]).astype(np.uint8)).save(pictures / f"{name}.png")
    time, event = study.outcome.numpy()
    reading = study.digit + rng.normal(scale=3.0, size=len(study))
    stage = np.searchsorted(np.quantile(reading, [0.25, 0.5, 0.75]), reading)
    table = {
        "picture": [f"digit-{name}" for name in names],
        "patient": [f"P{name}" for name in names],
        "image": [f"images/{name}.png" for name in names],
        "age_years": np.rint(rng.normal(62, 11, size=len(study))).clip(18, 95).astype(int),
        "stage": np.array(_STAGES)[stage],
        "time_days": time.round(6),
        "died": event,
        "true_log_hazard": study.log_hazard.round(6),
        "digit": study.digit,
    }
    write_table(folder / "clinical.csv", pd.DataFrame(table))

"""Every family of survival models on METABRIC and GBSG, survlens and pycox side by side: accuracy and time per epoch.

    .venv-peers/bin/python benchmarks/families.py [--data FOLDER] [--folds 5] [--seeds 5] [--only 'PMF;MTLR']

Both libraries get the same folds, the same validation patients, the same network (two hidden layers of 32, ReLU,
dropout 0.1), the same optimiser (Adam, 0.01), batches of 256, as many intervals, the same early stopping, and are
judged by the same scores. Time per epoch is taken apart from that, without early stopping: a training of 50 epochs less
one of 10, over 40, so that set-up and baseline do not count; the libraries take turns. Writes results/families.md.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from peers import SHIMS, load_pycox
from sklearn.model_selection import StratifiedKFold, train_test_split
from torch import nn

from survlens.core.grid import TimeGrid
from survlens.core.outcome import SurvivalOutcome
from survlens.core.prediction import Interpolation, SurvivalPrediction
from survlens.data.loaders import TensorSource
from survlens.encoders.mlp import MLP
from survlens.evaluate.accuracy import integrated_brier_score
from survlens.evaluate.concordance import concordance_index_antolini
from survlens.heads.cox import CoxPH
from survlens.heads.cox_time import CoxTime
from survlens.heads.deephit import DeepHit
from survlens.heads.logistic_hazard import LogisticHazard
from survlens.heads.mtlr import MTLR
from survlens.heads.pc_hazard import PCHazard
from survlens.heads.pmf import PMF
from survlens.heads.weibull import Weibull
from survlens.models.survival_model import SurvivalModel
from survlens.training.fit import FitSettings, fit
from survlens.training.objectives import SurvivalObjective

HERE = Path(__file__).resolve()
DATA = HERE.parents[2] / "shared" / "data" / "benchmarks"
WIDTHS, DROPOUT, BATCH, RATE, INTERVALS, EPOCHS, PATIENCE, FINER = (32, 32), 0.1, 256, 0.01, 20, 200, 10, 10
SHORT, LONG, REPEATS = 10, 50, 7


@dataclass(frozen=True)
class Part:
    """Rows of one part of a split."""

    table: np.ndarray
    outcome: SurvivalOutcome

    @property
    def source(self) -> TensorSource:
        return TensorSource({"table": torch.from_numpy(self.table)}, self.outcome)

    @property
    def target(self) -> tuple[np.ndarray, np.ndarray]:
        times, event = self.outcome.numpy()
        return times.astype(np.float32), event.astype(np.float32)


@dataclass(frozen=True)
class Fold:
    """Rows of one fold; a fifth of the training rows is kept back to stop early."""

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray


Trained = Callable[[Part], SurvivalPrediction]
Trainer = Callable[[Part, Part | None, int, int], Trained]


def load(name: str, folder: Path) -> tuple[np.ndarray, SurvivalOutcome]:
    frame = pd.read_csv(folder / f"{name}.csv")
    features = frame[[column for column in frame.columns if column.startswith("x")]].to_numpy(float)
    followed = frame.time.clip(lower=0.1)  # one patient of METABRIC has 0 months of follow-up
    return features, SurvivalOutcome.from_arrays(followed.to_numpy(), frame.event.to_numpy(int), "months")


def parts_of(features: np.ndarray, outcome: SurvivalOutcome, fold) -> tuple[Part, Part, Part]:
    """Training, validation and test rows; features scaled by the training rows."""
    mean, sd = features[fold.train].mean(0), features[fold.train].std(0)
    scaled = ((features - mean) / sd).astype(np.float32)
    train, validation, test = (Part(scaled[rows], outcome[rows]) for rows in (fold.train, fold.validation, fold.test))
    return train, validation, test


def folds_of(outcome: SurvivalOutcome, folds: int) -> list[Fold]:
    event = outcome.event.numpy()
    found = []
    for learnt, test in StratifiedKFold(folds, shuffle=True, random_state=0).split(event, event):
        train, validation = train_test_split(learnt, test_size=0.2, random_state=0, stratify=event[learnt])
        found.append(Fold(train, validation, test))
    return found


# survlens

Heads = Mapping[str, Callable[[Part], nn.Module]]
HEADS: Heads = {
    "CoxPH": lambda train: CoxPH(WIDTHS[-1]),
    "CoxTime, whole risk sets": lambda train: CoxTime(
        WIDTHS[0], hidden=WIDTHS[1:], time_scale=float(train.outcome.time.median())
    ),
    "CoxTime, one control": lambda train: CoxTime(
        WIDTHS[0], hidden=WIDTHS[1:], time_scale=float(train.outcome.time.median()), controls=1
    ),
    "LogisticHazard": lambda train: LogisticHazard(WIDTHS[-1], grid_of(train)),
    "PMF": lambda train: PMF(WIDTHS[-1], grid_of(train)),
    "MTLR": lambda train: MTLR(WIDTHS[-1], grid_of(train)),
    "DeepHit": lambda train: DeepHit(WIDTHS[-1], grid_of(train), alpha=0.2, sigma=0.1),
    "PCHazard": lambda train: PCHazard(WIDTHS[-1], grid_of(train)),
    "Weibull": lambda train: Weibull(WIDTHS[-1], grid_of(train)),
}


def grid_of(train: Part) -> TimeGrid:
    return TimeGrid.quantile(train.outcome, INTERVALS)


def with_survlens(name: str) -> Trainer:
    def train_one(train: Part, validation: Part | None, seed: int, epochs: int) -> Trained:
        torch.manual_seed(seed)
        head = HEADS[name](train)
        # CoxTime's second layer belongs to its head, where time enters; pycox's lets time enter in the first.
        encoder = MLP(train.table.shape[1], WIDTHS[:1] if name.startswith("CoxTime") else WIDTHS, dropout=DROPOUT)
        model = SurvivalModel(encoder, head)
        patience = None if validation is None else PATIENCE
        settings = FitSettings(epochs=epochs, batch=BATCH, learning_rate=RATE, patience=patience, seed=seed)
        held_out = None if validation is None else validation.source
        fit(model, train.source, held_out, SurvivalObjective(), settings)

        @torch.no_grad()
        def predict(part: Part) -> SurvivalPrediction:
            return model.predict_survival(part.source.inputs)

        return predict

    return train_one


# pycox


def with_pycox(name: str) -> Trainer:
    models, torchtuples = load_pycox("pycox.models"), load_pycox("torchtuples")
    kinds = {"PMF": models.PMF, "MTLR": models.MTLR, "DeepHit": models.DeepHitSingle, "PCHazard": models.PCHazard}
    kinds["LogisticHazard"] = models.LogisticHazard

    def train_one(train: Part, validation: Part | None, seed: int, epochs: int) -> Trained:
        torch.manual_seed(seed)
        np.random.seed(seed)  # its label transforms and batches draw from the global state
        features = train.table.shape[1]
        optimiser, y, transform = torchtuples.optim.Adam(RATE), train.target, None
        vanilla = torchtuples.practical.MLPVanilla
        if name == "CoxPH":
            network = vanilla(features, WIDTHS, 1, batch_norm=False, dropout=DROPOUT, output_bias=False)
            model = models.CoxPH(network, optimiser)
        elif name.startswith("CoxTime"):
            transform = models.CoxTime.label_transform()
            y = transform.fit_transform(*y)
            network = models.cox_time.MLPVanillaCoxTime(features, WIDTHS, batch_norm=False, dropout=DROPOUT)
            model = models.CoxTime(network, optimiser, labtrans=transform)
        else:
            transform = kinds[name].label_transform(INTERVALS, scheme="quantiles")
            y = transform.fit_transform(*y)
            network = vanilla(features, WIDTHS, transform.out_features, batch_norm=False, dropout=DROPOUT)
            extra = {"alpha": 0.2, "sigma": 0.1} if name == "DeepHit" else {}
            model = kinds[name](network, optimiser, duration_index=transform.cuts, **extra)
        held_out, callbacks = None, None
        if validation is not None:
            known = validation.target if transform is None else transform.transform(*validation.target)
            held_out, callbacks = (validation.table, known), [torchtuples.callbacks.EarlyStopping(patience=PATIENCE)]
            if name.startswith("CoxTime"):  # its validation loss draws controls; its tutorial repeats them ten times
                held_out = torchtuples.tuplefy(validation.table, known).repeat(10).cat()
        model.fit(train.table, y, BATCH, epochs, callbacks, verbose=False, val_data=held_out)
        stepwise = name.startswith("Cox")
        if stepwise:
            model.compute_baseline_hazards()

        def predict(part: Part) -> SurvivalPrediction:
            finer = not stepwise and name != "PCHazard"
            asked = model.interpolate(FINER) if finer else model
            frame = asked.predict_surv_df(part.table)
            return as_prediction(frame, Interpolation.LINEAR if finer else Interpolation.STEP)

        if name == "PCHazard":
            model.sub = FINER
        return predict

    return train_one


def as_prediction(frame: pd.DataFrame, rule: Interpolation) -> SurvivalPrediction:
    times = frame.index.to_numpy(float)
    survival = np.minimum.accumulate(np.clip(frame.to_numpy(float).T, 0, 1), axis=1)[:, times > 0]
    knots = torch.from_numpy(np.unique(times[times > 0]))
    if len(knots) != survival.shape[1]:
        raise SystemExit("pycox gave two curves for one time")
    with np.errstate(divide="ignore"):
        return SurvivalPrediction(knots, torch.from_numpy(np.log(survival)), rule, "months")


# Accuracy


def judged(prediction: SurvivalPrediction, train: Part, test: Part) -> tuple[float, float]:
    """Antolini's concordance and the integrated Brier score, both up to where one in ten test patients is left."""
    last = min(float(test.outcome.time.quantile(0.9)), float(train.outcome.time.max()) * (1 - 1e-9))
    times = np.linspace(float(test.outcome.time.min()), last, 100)
    held = prediction.at(np.union1d(times, test.outcome.time.numpy()), extrapolate="hold")
    concordance = concordance_index_antolini(held, test.outcome, horizon=last).value
    return concordance, integrated_brier_score(held, test.outcome, training=train.outcome, times=times).value


def accuracy(name: str, folds, features, outcome, seeds: int) -> dict[str, np.ndarray]:
    """C and IBS of each library: (fold, seed, score)."""
    trainers = {"survlens": with_survlens(name)} | ({} if name == "Weibull" else {"pycox": with_pycox(name)})
    found = {library: np.empty((len(folds), seeds, 2)) for library in trainers}
    for i, fold in enumerate(folds):
        train, validation, test = parts_of(features, outcome, fold)
        for seed in range(seeds):
            for library, trainer in trainers.items():
                found[library][i, seed] = judged(trainer(train, validation, seed, EPOCHS)(test), train, test)
    return found


# Time


def epoch_times(name: str, fold, features, outcome) -> dict[str, list[float]]:
    train, _, _ = parts_of(features, outcome, fold)
    trainers = {"survlens": with_survlens(name)} | ({} if name == "Weibull" else {"pycox": with_pycox(name)})
    seconds: dict[str, list[float]] = {library: [] for library in trainers}
    for repeat in range(REPEATS + 1):
        for library, trainer in trainers.items():
            taken = []
            for epochs in (SHORT, LONG):
                start = time.perf_counter()
                trainer(train, None, 0, epochs)
                taken.append(time.perf_counter() - start)
            if repeat:
                seconds[library].append((taken[1] - taken[0]) / (LONG - SHORT))
    return seconds


def line(name: str, found: dict[str, np.ndarray], seconds: dict[str, list[float]]) -> str:
    cells = []
    for score in (0, 1):
        own = found["survlens"][..., score]
        text = f"{own.mean():.4f} ± {own.mean(1).std(ddof=1):.3f}"
        if "pycox" in found:
            theirs = found["pycox"][..., score]
            gaps = (own - theirs).mean(1)  # one paired difference per fold, over seeds
            text += f" | {theirs.mean():.4f} ± {theirs.mean(1).std(ddof=1):.3f}"
            text += f" | {gaps.mean():+.4f} ± {gaps.std(ddof=1):.4f}"
        else:
            text += " | – | –"
        cells.append(text)
    ratio = "–"
    if "pycox" in seconds:
        ratio = f"{statistics.median(a / b for a, b in zip(seconds['survlens'], seconds['pycox'], strict=True)):.2f}"
    times = " / ".join(f"{1e3 * statistics.median(values):.1f}" for values in seconds.values())
    return f"| {name} | {cells[0]} | {cells[1]} | {times} | {ratio} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--only", default=";".join(HEADS))
    parser.add_argument("--out", type=Path, default=HERE.parent / "results" / "families.md")
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    body = []
    for cohort in ("metabric", "gbsg"):
        features, outcome = load(cohort, options.data)
        splits = folds_of(outcome, options.folds)
        body += [
            f"## {cohort.upper()}: {len(outcome):,} patients, {features.shape[1]} covariates, "
            f"{outcome.n_events / len(outcome):.0%} events",
            "",
            "| family | C survlens | C pycox | difference | IBS survlens | IBS pycox | difference | ms per epoch, "
            "survlens / pycox | × pycox |",
            "|---|---|---|---|---|---|---|---|---|",
        ]
        for name in options.only.split(";"):
            found = accuracy(name, splits, features, outcome, options.seeds)
            body.append(line(name, found, epoch_times(name, splits[0], features, outcome)))
            print(cohort, body[-1], flush=True)
        body.append("")
    head = [
        "# Families side by side",
        "",
        f"{os.cpu_count()} cores ({platform.machine()}), load average {os.getloadavg()[0]:.1f} at the end, one thread, "
        f"Python {platform.python_version()}, torch {torch.__version__}, pycox 0.3.0.",
        "Made by `python benchmarks/families.py`.",
        "",
        f"{options.folds} folds × {options.seeds} seeds, mean over both ± standard deviation over folds; difference: "
        "survlens − pycox, paired by fold. C is Antolini's, IBS the integrated Brier score, both up to the 90th "
        "percentile of the test follow-up and computed by survlens for both. Time per epoch: a training of "
        f"{LONG} epochs less one of {SHORT}, over the difference, without set-up and baseline; median of {REPEATS} "
        "taken in turn; × pycox is the median over neighbouring pairs. pycox's CoxTime compares each event with one "
        "drawn control.",
        "",
    ]
    options.out.write_text("\n".join([*head, *body, SHIMS, ""]), encoding="utf-8")


if __name__ == "__main__":
    main()

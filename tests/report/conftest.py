"""A small made-up run folder, as a study writes it."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from survlens.core.nonparametric import kaplan_meier
from survlens.core.outcome import SurvivalOutcome

UNIT = "days"
HORIZONS = (500.0, 1000.0)
MODELS = (
    ("kaplan_meier", "Kaplan-Meier", [], 0.5, 0.0),
    ("clinical_cox", "Clinical-only Cox", ["table"], 0.66, 0.09),
    ("vae", "VAE (τ = 1)", ["image"], 0.55, 0.01),
    ("coxvae_0.5", "CoxVAE (τ = 0.5)", ["image"], 0.71, 0.17),
    ("fused", "CoxVAE + table", ["image", "table"], 0.76, 0.24),
)


def score(name: str, value: float | None, half: float | None = 0.04, direction: str = "higher", **settings) -> dict:
    bounded = value is not None and half is not None
    return {
        "name": name,
        "value": value,
        "lower": value - half if bounded else None,
        "upper": value + half if bounded else None,
        "confidence": 0.95 if bounded else None,
        "interval_method": "bootstrap by patient, 200 draws" if bounded else None,
        "direction": direction,
        "category": "discrimination",
        "settings": settings,
    }


def _groups(rng: np.random.Generator) -> dict:
    groups, counts, ticks = [], [], [0.0, 500.0, 1000.0, 1500.0]
    for label, scale in (("low risk", 1500.0), ("middle", 900.0), ("high risk", 400.0)):
        time = np.round(rng.exponential(scale, 40) + 1, 1)
        event = (time < 1800).astype(np.int64)
        time = np.minimum(time, 1800.0)
        km = kaplan_meier(SurvivalOutcome.from_arrays(time, event, UNIT))
        curves = {
            k: [None if np.isnan(v) else float(v) for v in getattr(km, k)] for k in ("survival", "lower", "upper")
        }
        groups.append({"label": label, "n": 40, "n_events": int(event.sum()), "times": km.times.tolist(), **curves})
        counts.append([int((time >= tick).sum()) for tick in ticks])
    logrank = {"chi2": 31.2, "df": 2, "p": 1.7e-7}
    return {
        "cutpoints": [-0.3, 0.4],
        "groups": groups,
        "at_risk": {"times": ticks, "counts": counts},
        "logrank": logrank,
    }


def _calibration(horizon: float) -> dict:
    groups = [
        {"predicted": p, "observed": p * 0.9 + 0.04, "lower": p * 0.7, "upper": min(p + 0.15, 1), "n": 24}
        for p in (0.1, 0.3, 0.5, 0.7)
    ]
    grid = np.linspace(0.05, 0.9, 20)
    curve = {"predicted": grid.tolist(), "observed": (grid * 0.92 + 0.03).tolist()}
    return {
        "horizon": horizon,
        "observed_expected": 1.12,
        "slope": 0.91,
        "ici": 0.031,
        "e50": 0.024,
        "e90": 0.066,
        "groups": groups,
        "curve": curve,
    }


def _model(rng: np.random.Generator, name: str, label: str, inputs: list[str], c: float, ipa: float) -> dict:
    times = np.linspace(50, 1500, 60)
    null = 0.25 * np.sin(np.pi * np.clip(times / 1600, 0, 1)) + 0.01
    scores = [
        score("concordance_index", c, 0.05, ties="half"),
        score("concordance_index_ipcw", c - 0.004, 0.06, horizon=1500.0),
        score("integrated_brier_score", 0.18 * (1 - ipa), 0.02, "lower"),
        score("integrated_ipa", ipa, 0.05),
        *(score("ipa", ipa + 0.01, 0.05, horizon=h) for h in HORIZONS),
        *(score("cumulative_dynamic_auc", c + 0.02, 0.05, horizon=h) for h in HORIZONS),
    ]
    subgroups = [
        {"variable": "site", "level": level, "n": 60, "n_events": 50, "score": score("concordance_index", c + d, 0.08)}
        for level, d in (("A", 0.02), ("B", -0.05))
    ]
    return {
        "name": name,
        "label": label,
        "inputs": inputs,
        "family": "test",
        "note": "",
        "scores": scores,
        "seed_spread": {"concordance_index": {"mean": c, "sd": 0.006, "n": 5}} if "image" in inputs else None,
        "brier_curve": {
            "times": times.tolist(),
            "brier": (null * (1 - ipa)).tolist(),
            "null": null.tolist(),
            "ipa": [ipa] * 60,
        },
        "calibration": [_calibration(h) for h in HORIZONS] if inputs else [],
        "risk_groups": _groups(rng) if inputs else None,
        "subgroups": subgroups if inputs else [],
    }


def metrics_json() -> dict:
    rng = np.random.default_rng(3)
    models = [_model(rng, *row) for row in MODELS]
    gaps = (("vae", -0.11), ("coxvae_0.5", 0.05), ("fused", 0.10))
    differences = [
        {
            "score": "concordance_index",
            "model": m,
            "reference": "clinical_cox",
            "difference": d,
            "lower": d - 0.04,
            "upper": d + 0.04,
        }
        for m, d in gaps
    ]
    study = {
        "name": "Made-up glioma",
        "description": "A small made-up study.",
        "seed": 7,
        "simulated": False,
        "data_note": "Made up for tests.",
    }
    return {
        "study": study,
        "unit": UNIT,
        "horizons": list(HORIZONS),
        "scored_on": "held-out test patients",
        "n_patients": 120,
        "n_events": 101,
        "primary": "coxvae_0.5",
        "clinical": "clinical_cox",
        "reference": "kaplan_meier",
        "oracle": score("concordance_index", 0.82, None),
        "models": models,
        "differences": differences,
    }


def _cohort_json() -> dict:
    flow = [
        {"step": s, "instances": 5 * n, "patients": n, "events": n - 60}
        for s, n in (("in the table", 420), ("image readable", 400), ("test", 120))
    ]
    covariates = [
        {
            "name": "age",
            "kind": "numeric",
            "n": 400,
            "missing": 3,
            "summary": "47 (35 to 59)",
            "by_part": {"train": "46 (35 to 58)", "test": "48 (36 to 60)"},
        },
        {"name": "grade", "kind": "ordered", "n": 400, "missing": 0, "summary": "G2 48 %; G3 52 %", "by_part": None},
    ]
    return {
        "flow": flow,
        "covariates": covariates,
        "follow_up": {"median": 1432.0, "lower": 1201.0, "upper": 1650.0, "unit": UNIT},
        "events": 340,
        "unit": UNIT,
    }


def _dimensions_json(label: str) -> dict:
    ratios = ((1, 1.86, 1.40, 2.47), (2, 1.10, 0.90, 1.34), (3, 0.62, 0.51, 0.75), (4, 1.00, 0.97, 1.03))
    dimensions = [
        {
            "dimension": number,
            "head_weight": float(np.log(ratio)) * 1.2,
            "head_weight_per_sd": float(np.log(ratio)) * 0.9,
            "hazard_ratio": ratio,
            "lower": lower,
            "upper": upper,
            "p": 0.01,
            "mean_kl": 1.9 if number < 4 else 0.01,
            "active": number < 4,
            "reliability": 0.9 - 0.2 * number,
            "importance": abs(float(np.log(ratio))),
        }
        for number, ratio, lower, upper in ratios
    ]
    return {
        "model": "coxvae_0.5",
        "label": label,
        "latent_sd_scale": True,
        "dimensions": dimensions,
        "reconstruction": {"mse": 0.0271},
    }


def _write_traversal(path: Path) -> None:
    rows, columns = np.mgrid[0:16, 0:16] / 15.0
    steps = np.linspace(-4, 4, 9)
    moves = ((0.06, 0.0, 0.0), (0.0, 0.05, 0.0), (0.0, 0.0, 0.04), (0.0, 0.0, 0.0))
    images = np.zeros((4, 9, 1, 16, 16), dtype=np.float32)
    for d, (dx, dy, size) in enumerate(moves):
        for s, step in enumerate(steps):
            r2 = (rows - 0.5 - dy * step) ** 2 + (columns - 0.5 - dx * step) ** 2
            images[d, s, 0] = np.exp(-r2 / (2 * (0.18 + size * step / 2) ** 2))
    np.savez(path, images=images, difference=images[:, -1] - images[:, 0], steps=steps, order=np.array([1, 3, 2, 4]))


def _write_embedding(path: Path, rng: np.random.Generator, weight: float) -> None:
    n = 150
    hazard = rng.normal(size=n)
    time = rng.exponential(800 * np.exp(-hazard)) + 1
    frame = pd.DataFrame(
        {
            "instance": [f"i{k}" for k in range(n)],
            "patient": [f"p{k}" for k in range(n)],
            "part": np.where(np.arange(n) < 100, "test", "train"),
            "time": np.minimum(time, 2000.0),
            "event": (time < 2000).astype(int),
            "pc1": weight * hazard + 0.6 * rng.normal(size=n),
            "pc2": rng.normal(size=n),
            "true_log_hazard": hazard,
        }
    )
    frame.to_parquet(path)


def _write_run(folder: Path) -> Path:
    """Writes every file that a report reads."""
    rng = np.random.default_rng(11)
    for name in ("embeddings", "explanations/coxvae_0.5", "models/coxvae_0.5", "models/vae"):
        (folder / name).mkdir(parents=True)
    files = {
        "metrics.json": metrics_json(),
        "cohort.json": _cohort_json(),
        "audit.json": {
            "findings": [
                {
                    "code": "constant",
                    "severity": "warning",
                    "message": "a constant column",
                    "rows": 400,
                    "column": "site2",
                }
            ]
        },
        "splits.json": {"hash": "c0ffee" * 8},
        "environment.json": {
            "survlens": "0.1.0",
            "python": "3.11.9",
            "torch": "2.13.0",
            "platform": "Linux",
            "seed": 7,
            "command": "survlens run study.toml",
            "date": "2024-05-01",
            "packages": {"numpy": "2.4"},
        },
        "explanations/coxvae_0.5/dimensions.json": _dimensions_json("CoxVAE (τ = 0.5)"),
    }
    for name, value in files.items():
        (folder / name).write_text(json.dumps(value), encoding="utf-8")
    _write_traversal(folder / "explanations/coxvae_0.5/traversal.npz")
    _write_embedding(folder / "embeddings/vae.parquet", rng, 0.1)
    _write_embedding(folder / "embeddings/coxvae_0.5.parquet", rng, 1.0)
    epoch = np.arange(1, 41)
    for name in ("vae", "coxvae_0.5"):
        total = 1.2 * np.exp(-epoch / 12) + 0.4
        history = pd.DataFrame(
            {"epoch": epoch, "train_total": total, "validation_total": total + 0.02 + 0.0003 * epoch}
        )
        history.to_csv(folder / f"models/{name}/history.csv", index=False)
    return folder


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    """A complete run folder."""
    return _write_run(tmp_path / "run")


@pytest.fixture(scope="session")
def write_run() -> Callable[[Path], Path]:
    """Writes a complete run folder at a path."""
    return _write_run


@pytest.fixture
def change(run_folder: Path) -> Callable[..., None]:
    """Rewrites one json file of the run folder by a function of its contents."""

    def rewrite(name: str, edit: Callable[[dict], object]) -> None:
        path = run_folder / name
        value = json.loads(path.read_text(encoding="utf-8"))
        edit(value)
        path.write_text(json.dumps(value), encoding="utf-8")

    return rewrite

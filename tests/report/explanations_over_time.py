"""Made-up explanations over time, as a study writes them."""

import json
from pathlib import Path

import numpy as np
import torch

from survlens.artifacts.attribution_files import write_attributions
from survlens.artifacts.tensors import save_tensors
from survlens.core.attribution import Attribution

FEATURES = ("age", "IDH mutation", "1p/19q codeletion", "grade")
SECRET = "TCGA-SECRET"
SIZE = 16


def attribution(
    instances=3, features=20, times=None, *, seed=0, errors=True, predicted=True, names=None, target="survival"
):
    """Contributions of features in a list that sum to prediction less reference prediction, but for a small gap."""
    rng = np.random.default_rng(seed)
    times = np.linspace(3, 60, 20) if times is None else np.asarray(times, dtype=np.float64)
    at = np.where(np.isnan(times), 30.0, times)
    size = rng.normal(size=(instances, features, 1)) * 0.1 * np.exp(-np.arange(features) / 4)[:, None]
    values = size * np.sin(np.pi * at / 70 * (1 + 0.3 * np.arange(features)[:, None] / features))
    reference = np.repeat(np.exp(-at / 50)[None], instances, axis=0)
    gap = np.full_like(reference, 1e-6)
    names = [f"covariate {number + 1}" for number in range(features)] if names is None else list(names)
    known = {
        "prediction": torch.from_numpy(reference + values.sum(1) + gap),
        "reference_prediction": torch.from_numpy(reference),
        "completeness_gap": torch.from_numpy(gap),
    }
    return Attribution(
        torch.from_numpy(values),
        torch.from_numpy(times),
        "months",
        target,
        "GradSHAP",
        reference="25 training patients",
        coords={"feature": np.array(names, dtype=object)},
        additive=True,
        sampling_error=torch.from_numpy(np.abs(values) * 0.1 + 1e-3) if errors else None,
        **(known if predicted else {}),
    )


def picture_attribution(
    items=2, channels=3, size=SIZE, times=(12.0, 24.0), *, rows=None, depth=None, seed=0, affine=None
):
    """Contributions of pictures or volumes."""
    rng = np.random.default_rng(seed)
    shape = (items, channels, size, size + 4, *(() if depth is None else (depth,)), len(times))
    dims = ("channel", "height", "width", *(() if depth is None else ("depth",)))
    return Attribution(
        torch.from_numpy(rng.normal(size=shape) * 1e-3), torch.tensor(times, dtype=torch.float64), "months", "survival",
        "IntGrad", dims, additive=True, rows=None if rows is None else torch.tensor(rows), affine=affine,
    )  # fmt: skip


def write_over_time(home: Path, *, patients: int = 12, image: bool = True) -> Path:
    """Writes one explanation of a model that sees an image and a table."""
    home.mkdir(parents=True)
    names = np.array([f"{SECRET}-{number}" for number in range(patients)], dtype=object)
    chosen = [7, 2]
    table = attribution(patients, len(FEATURES), names=FEATURES)
    table = table.labelled({"instance": names})
    groups = attribution(patients, len(FEATURES) + 1, names=[*FEATURES, "image"])
    groups = Attribution(
        groups.values, groups.times, groups.unit, groups.target, groups.method, ("group",), additive=True,
        coords={"group": groups.coords["feature"], "instance": names}, prediction=groups.prediction,
        reference_prediction=groups.reference_prediction, completeness_gap=groups.completeness_gap,
    )  # fmt: skip
    found = {"table": table, "groups": groups}
    if image:
        maps = picture_attribution(3, rows=[0, 0, 1], times=tuple(table.times.tolist()))
        found["image"] = maps.labelled({"instance": names[sorted(chosen)]})
        pictures = np.random.default_rng(1).random((3, 3, SIZE, SIZE + 4)).astype(np.float32)
        save_tensors(
            home / "pictures.safetensors",
            {"image": torch.from_numpy(pictures), "row": torch.tensor([0, 1, 1])},
        )
    write_attributions(home / "attributions.safetensors", found)
    settings = {
        "model": "fused", "label": "CoxVAE + table", "fold": 1, "seed": 0, "method": "gradshap",
        "method_label": "GradSHAP", "target": "survival", "target_label": "survival", "unit": "months",
        "times": table.times.tolist(), "reference": "25 training patients", "rule": "nearest to the 10th percentile",
        "patients": names.tolist(), "chosen": chosen, "modalities": ["image", "table"], "seconds": 1.0,
        "notes": ["A note."],
    }  # fmt: skip
    files = {"settings.json": settings, "global.json": _global(), "checks.json": _checks()}
    for name, value in files.items():
        (home / name).write_text(json.dumps(value), encoding="utf-8")
    return home


def _feature(name: str, rank: int, scale: float) -> dict:
    importance = scale * 0.05 / rank
    return {
        "modality": "image" if name == "image" else "table", "feature": name, "mean_absolute": [importance],
        "signed": [0.0], "importance": importance, "lower": 0.8 * importance, "upper": 1.2 * importance,
        "rank": rank, "rank_lower": max(rank - 1, 1), "rank_upper": rank + 1,
    }  # fmt: skip


def _global() -> dict:
    names = ["age", "image", "IDH mutation", "grade", "1p/19q codeletion"]
    made = {key: [_feature(n, k + 1, s) for k, n in enumerate(names)] for key, s in (("A", 1.0), ("B", 0.7))}
    return {"features": made["A"], "bootstrap": "1000 draws", "subgroups": {"site": made}}


def check(name, value, lower, upper, direction="higher", category="faithfulness", **more) -> dict:
    """A check as it stands in a file."""
    return {
        "name": name, "label": name.replace("_", " ").capitalize(), "value": value, "lower": lower, "upper": upper,
        "direction": direction, "category": category, "meaning": "A sentence.", **more,
    }  # fmt: skip


def _checks() -> dict:
    share = np.linspace(0, 1, 11)
    return {
        "scores": [
            check("deletion_area", 0.05, 0.02, 0.08),
            check("insertion_area", 0.01, -0.02, 0.04),
            check("weight_randomisation", 0.8, 0.7, 0.9, "lower", "randomisation"),
            check("effective_features", 3.2, 2.9, 3.6, "lower", "complexity"),
        ],
        "curves": {
            "deletion": {"share": share.tolist(), "value": (0.3 * (1 - np.exp(-4 * share))).tolist()},
            "random": {"share": share.tolist(), "value": (0.3 * share).tolist()},
        },
        "patients": 8,
    }

"""What the latent dimensions of a run's generative models are: embeddings and saved models -> explanations/."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from survlens.artifacts.atomic import write_bytes
from survlens.artifacts.run_folder import RunFolder, read_json, read_table, write_json
from survlens.core.errors import CorruptFileError
from survlens.explain.latent import (
    LatentDimension,
    LatentRows,
    PrincipalComponents,
    check_dimensions,
    dimension_reliability,
    latent_dimensions,
)
from survlens.explain.traversal import Traversal, traverse
from survlens.models.cox_vae import CoxVAE
from survlens.models.saving import load_model
from survlens.study.model_settings import ModelEntry
from survlens.study.network_settings import CoxVaeModel
from survlens.study.resolved import from_resolved
from survlens.study.unit_tables import outcome_of

_VISIBLE_STEP = 2.0


def explain_run(run: RunFolder) -> None:
    """Explains every CoxVAE of a run, by its first fold and first seed; needs no images.

    Raises:
        CorruptFileError: If a saved model or a table is not whole.
    """
    settings = from_resolved(read_json(run.resolved))
    for entry in settings.models:
        if isinstance(entry.settings, CoxVaeModel) and run.embeddings(entry.name).exists():
            explain_model(run, entry, settings.data.unit)


def explain_model(run: RunFolder, entry: ModelEntry, unit: str) -> None:
    """Writes dimensions.json and traversal.npz of one model.

    Args:
        run: The run.
        entry: A CoxVAE of the study.
        unit: Unit of time.
    """
    table = read_table(run.embeddings(entry.name))
    table = table.loc[table["fold"] == table["fold"].min()]
    held_out, table = table.loc[table["part"] == "test"], table.loc[table["part"] == "train"]
    seeds = [seed for seed in entry.seeds if seed in set(table["seed"].unique())]
    by_seed = [_latents(table.loc[table["seed"] == seed]) for seed in seeds]
    own, latents = table.loc[table["seed"] == seeds[0]], by_seed[0]
    folder = run.model(entry.name) / f"fold{int(own['fold'].iloc[0])}-seed{seeds[0]}"
    try:
        facts, model = _latent_facts(folder / "latent.json"), load_model(folder).model
    except CorruptFileError as error:
        raise CorruptFileError(f"{error} Or remove {run.progress} and go on with --resume to fit anew.") from error
    training = _rows(own, unit)
    held_out = held_out.loc[held_out["seed"] == seeds[0]]
    dimensions = latent_dimensions(
        latents,
        training.outcome,
        mean_kl=np.asarray(facts["mean_kl"]),
        head_weights=_head_weights(model, latents.shape[1]),
        reliability=dimension_reliability(by_seed),
        patient=training.patient,
    )
    dimensions = check_dimensions(
        dimensions, training=training, held_out=_rows(held_out, unit) if len(held_out) else None
    )
    walk = _walk(model, dimensions) if isinstance(model, CoxVAE) else None
    if walk is not None:
        changes = _pixel_changes(walk)
        dimensions = tuple(replace(d, pixel_change=c) for d, c in zip(dimensions, changes, strict=True))
    home = run.explanations(entry.name)
    write_json(
        home / "dimensions.json",
        {
            "model": entry.name,
            "label": entry.label,
            "latent_sd_scale": True,
            "dimensions": [each.to_json() for each in dimensions],
            "reconstruction": facts["reconstruction"],
            "explained": _explained(table),
        },
    )
    if walk is not None:
        order = [each.dimension for each in sorted(dimensions, key=lambda each: -each.importance)]
        write_traversal(home / "traversal.npz", walk, order)


def _latent_facts(path: Path) -> dict[str, Any]:
    """What the fit noted of the training pictures."""
    facts = read_json(path)
    if not isinstance(facts, dict) or not {"mean_kl", "reconstruction"} <= facts.keys():
        raise CorruptFileError(f"`{path}` must hold mean_kl and reconstruction; got other content. Copy it again.")
    return facts


def _latents(table: pd.DataFrame) -> np.ndarray:
    names = [name for name in table.columns if name.startswith("z") and name[1:].isdigit()]
    return table[names].to_numpy(dtype=np.float64)


def _rows(table: pd.DataFrame, unit: str) -> LatentRows:
    return LatentRows(_latents(table), outcome_of(table, unit), table["patient"].to_numpy())


def _pixel_changes(walk: Traversal) -> list[float]:
    """Mean absolute change of each dimension's image from -2 to +2 standard deviations."""
    low, high = (int(np.abs(walk.steps - end).argmin()) for end in (-_VISIBLE_STEP, _VISIBLE_STEP))
    change = np.abs(walk.images[:, high] - walk.images[:, low])
    return [float(row.mean()) for row in change]


def _explained(training: pd.DataFrame) -> list[float]:
    """Shares of the variance along PC 1 and PC 2 of the seed that embeddings are drawn of, the smallest."""
    return PrincipalComponents.fit(
        _latents(training.loc[training["seed"] == training["seed"].min()])
    ).explained.tolist()


def _head_weights(model: object, latent: int) -> np.ndarray | None:
    """Weights of a linear head on the latents; covariates beside them have weights of their own."""
    linear = getattr(getattr(model, "head", None), "linear", None)
    return None if linear is None else linear.weight.detach().double().numpy()[0, :latent]


def _walk(model: CoxVAE, dimensions: tuple[LatentDimension, ...]) -> Traversal:
    centre = np.array([each.mean for each in dimensions])
    scale = np.array([each.sd for each in dimensions])
    return traverse(model, centre=centre, scale=scale)


def write_traversal(path: Path, walk: Traversal, order: list[int]) -> None:
    """Writes the pictures of a traversal in one step.

    Args:
        path: File to write.
        walk: Pictures of all dimensions, in their own order.
        order: Numbers of the dimensions by importance.
    """
    content = io.BytesIO()
    np.savez_compressed(
        content,
        images=walk.images.astype(np.float32),
        difference=walk.difference.astype(np.float32),
        steps=walk.steps,
        order=np.asarray(order),
    )
    write_bytes(path, content.getvalue())

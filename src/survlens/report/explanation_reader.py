"""Reads the latent dimensions of one model from its explanation folder."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np

from survlens.core.errors import CorruptFileError
from survlens.report.json_node import JsonNode
from survlens.report.records import Dimension, Explanation, Ratio, Traversal

_REMEDY = "Write it anew: survlens run STUDY.toml --resume."


def read_explanation(folder: Path, label: str) -> Explanation:
    """Reads `dimensions.json` and, where it is there, `traversal.npz`.

    Args:
        folder: `explanations/NAME` of a run.
        label: Name of the model for people.

    Raises:
        CorruptFileError: If a file cannot be read or its arrays do not fit each other.
    """
    top = JsonNode.read(folder / "dimensions.json", remedy=_REMEDY)
    dimensions = sorted((_dimension(node) for node in top.each("dimensions")), key=lambda d: -d.importance)
    reconstruction = top.get("reconstruction")
    errors = (
        {} if reconstruction is None else {k: v.as_number() for k, v in reconstruction.items() if v.value is not None}
    )
    return Explanation(
        model=folder.name,
        label=top.text("label", label),
        sd_scale=top.flag("latent_sd_scale"),
        dimensions=tuple(dimensions),
        reconstruction={key: value for key, value in errors.items() if value is not None},
        traversal=_traversal(folder / "traversal.npz", len(dimensions)),
        explained=top.numbers("explained"),
    )


def _ratio(node: JsonNode | None) -> Ratio | None:
    """A hazard ratio; None where it was not fitted or not written."""
    if node is None:
        return None
    value = node.number("hazard_ratio")
    fitted = value is not None or node.flag("separated")
    return Ratio(value, node.number("lower"), node.number("upper")) if fitted else None


def _dimension(node: JsonNode) -> Dimension:
    alone = node.get("univariable")
    return Dimension(
        dimension=node.count("dimension"),
        head_weight=node.number("head_weight"),
        head_weight_per_sd=node.number("head_weight_per_sd"),
        hazard_ratio=node.number("hazard_ratio"),
        lower=node.number("lower"),
        upper=node.number("upper"),
        p=node.number("p"),
        mean_kl=node.number("mean_kl"),
        active=node.get("active") is None or node.flag("active"),
        reliability=node.number("reliability"),
        importance=node.number("importance") or 0.0,
        held_out=_ratio(node.get("held_out")),
        univariable=_ratio(alone),
        univariable_held_out=alone is not None and alone.flag("held_out"),
        variance_inflation=node.number("variance_inflation"),
        pixel_change=node.number("pixel_change"),
        separated=node.flag("separated"),
    )


def _traversal(path: Path, n_dimensions: int) -> Traversal | None:
    if not path.is_file():
        return None
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as arrays:
            images, difference, steps, order = (arrays[k] for k in ("images", "difference", "steps", "order"))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as err:
        raise CorruptFileError(
            f"`traversal.npz` must hold images, difference, steps and order; got an error: {err}. {_REMEDY}"
        ) from err
    if images.ndim == 6 and difference.ndim == 5 and images.shape[-1]:
        images, difference = _axial(images, difference)
    fits = images.ndim == 5 and steps.ndim == 1 and images.shape[1] == len(steps)
    if not fits or difference.shape != images.shape[:1] + images.shape[2:]:
        raise CorruptFileError(
            "`images` must be (dimension, step, channel, height, width), or with x, y and z for volumes, and "
            "`difference` the same without step; "
            f"got {images.shape}, {difference.shape} and {len(steps)} steps. {_REMEDY}"
        )
    numbers = tuple(range(1, len(images) + 1)) if len(images) == n_dimensions else tuple(int(n) for n in order)
    if len(numbers) != len(images):
        raise CorruptFileError(
            f"`order` must name the dimension of each picture row; got {len(numbers)} for {len(images)} rows. {_REMEDY}"
        )
    return Traversal(images.astype(np.float64), difference.astype(np.float64), steps.astype(np.float64), numbers)


def _axial(images: np.ndarray, difference: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """One axial slice of volumes (..., x, y, z), that in which most changes, with the patient's right on the left."""
    at = int(np.abs(difference).sum(axis=tuple(range(difference.ndim - 1))).argmax())
    return tuple(each[..., ::-1, ::-1, at].swapaxes(-1, -2) for each in (images, difference))  # type: ignore[return-value]

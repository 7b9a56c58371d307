"""Saving and loading a classical model: one folder of safetensors and json, no pickle, no patient rows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from survlens.artifacts.run_folder import read_json, write_json
from survlens.artifacts.tensors import load_tensors, save_tensors
from survlens.core.errors import CorruptFileError, InvalidValueError
from survlens.models.classical import CoxRegression, KaplanMeierModel
from survlens.models.estimator import SurvivalEstimator, restore
from survlens.models.forest import RandomSurvivalForest
from survlens.models.late_fusion import LateFusion
from survlens.models.penalised import LassoCox, PartialRidgeCox, RidgeCox

FORMAT = 2
"""1 did not say which covariates of a Cox fit separate the events."""
ARRAYS, DESCRIPTION = "arrays.safetensors", "estimator.json"
KNOWN = (KaplanMeierModel, CoxRegression, RidgeCox, PartialRidgeCox, LassoCox, RandomSurvivalForest, LateFusion)
"""Every classical estimator of survlens; importing them is what makes `load_estimator` know them."""


def save_estimator(estimator: SurvivalEstimator, folder: Path) -> Path:
    """Writes the state of a fitted estimator into `folder`, which is made if it does not exist.

    Raises:
        NotFittedError: If the estimator is not fitted.
        WriteError: If the disk is full or the folder cannot be written.
    """
    state = estimator.state()
    arrays = {name: torch.from_numpy(np.ascontiguousarray(v)) for name, v in state.items() if isinstance(v, np.ndarray)}
    values = {name: value for name, value in state.items() if name not in arrays}
    folder.mkdir(parents=True, exist_ok=True)
    save_tensors(folder / ARRAYS, arrays)
    write_json(folder / DESCRIPTION, {"format": FORMAT, "arrays": sorted(arrays), "values": values})
    return folder


def load_estimator(folder: Path) -> SurvivalEstimator:
    """The estimator that `save_estimator` wrote; it predicts the same bits.

    Networks such as `DeepSurv` and `CoxVAESurvival` are known after `import survlens.training`.

    Raises:
        CorruptFileError: If a file is missing, truncated or of another format, or the two do not belong together.
    """
    content = read_json(folder / DESCRIPTION)
    found = content.get("format") if isinstance(content, dict) else None
    if found != FORMAT:
        raise CorruptFileError(
            f"{DESCRIPTION} in {folder.name}/ must have format {FORMAT}; got {found!r}. Load it with the survlens that "
            "wrote it, or fit and save the model again."
        )
    if not isinstance(content.get("values"), dict):
        raise CorruptFileError(f"{DESCRIPTION} in {folder.name}/ must hold `values`; got none. Save the model again.")
    arrays = {name: tensor.numpy() for name, tensor in load_tensors(folder / ARRAYS).items()}
    if sorted(arrays) != content.get("arrays"):
        raise CorruptFileError(f"{ARRAYS} in {folder.name}/ does not belong to {DESCRIPTION}. Save the model again.")
    try:
        return restore({**content["values"], **arrays})
    except (InvalidValueError, TypeError, ValueError, KeyError) as err:
        raise CorruptFileError(f"{DESCRIPTION} in {folder.name}/ is damaged ({err}). Save the model again.") from err

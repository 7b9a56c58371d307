"""A network of a run as an ONNX file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from survlens.artifacts.run_folder import RunFolder
from survlens.core.errors import UsageError
from survlens.data.preprocessing import Preprocessing
from survlens.encoders.pooling import MultipleInstance
from survlens.models.onnx_export import PREPROCESSING_NOTE, export_onnx
from survlens.models.saving import DESCRIPTION, load_model


def export_model(run: RunFolder, name: str, out: Path, *, times: Sequence[float], fit: str | None = None) -> Path:
    """Writes one fit of a network of a run as an ONNX graph; see `survlens.models.onnx_export`.

    The preprocessing of its training rows is not part of the graph; it goes into the metadata of the file, as json.

    Args:
        run: The run.
        name: Name of the model in the study.
        out: File to write.
        times: Where survival is asked, in the unit of the study.
        fit: Which fit, such as "fold1-seed3"; the first where None.

    Raises:
        UsageError: If the run has no such network or fit.
        InvalidValueError: If `times` lie outside the fitted range.
        MissingDependencyError: Without the extra `[onnx]`.
    """
    saved = load_model(_folder(run, name, fit))
    model: Any = saved.model
    if any(isinstance(module, MultipleInstance) for module in model.modules()):
        raise UsageError(f"`name` must be a network of single images; {name!r} pools those of a patient.")
    preprocessing: Any = saved.extra["preprocessing"]
    fitted = Preprocessing.from_json(preprocessing)
    features = fitted.feature_names
    shapes = {"image": fitted.image_shape, "table": (len(features),) if features else None}
    example = {}
    for modality in model.modalities:
        shape = shapes.get(modality)
        if shape is None:
            raise UsageError(f"`name` must be a network of images and tables; {name!r} looks at {modality!r} as well.")
        example[modality] = torch.rand(2, *shape, generator=torch.Generator().manual_seed(0))
    return export_onnx(
        model, out, times=times, example=example, feature_names=features if "table" in example else (),
        preprocessing=f"{PREPROCESSING_NOTE} {json.dumps(preprocessing)}",
    )  # fmt: skip


def _folder(run: RunFolder, name: str, fit: str | None) -> Path:
    home = run.model(name)
    fits = sorted(path.parent.name for path in home.glob(f"*/{DESCRIPTION}"))
    if not fits:
        networks = sorted({path.parent.parent.name for path in run.model("x").parent.glob(f"*/*/{DESCRIPTION}")})
        raise UsageError(
            f"`name` must be a network of the run; got {name!r}. Its networks are: {', '.join(networks) or 'none'}."
        )
    if fit is not None and fit not in fits:
        raise UsageError(f"`fit` must be one of {', '.join(fits)}; got {fit!r}.")
    return home / (fits[0] if fit is None else fit)

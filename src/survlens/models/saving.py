"""Saving and loading a fitted model: one folder of safetensors and json, no pickle, no patient rows."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from survlens.artifacts.atomic import write_bytes
from survlens.artifacts.tensors import load_tensors, save_tensors
from survlens.core.errors import CorruptFileError, InvalidTypeError, InvalidValueError
from survlens.core.grid import TimeGrid
from survlens.core.ties import Ties
from survlens.encoders.cnn import CNN
from survlens.encoders.cnn_survival import CNNSurvivalEncoder
from survlens.encoders.mlp import MLP
from survlens.encoders.pooling import AttentionPooling, MeanPooling, MultipleInstance, WorstPooling
from survlens.encoders.residual import ResidualCNN
from survlens.encoders.transfer_2d import TransferResNet2D, TransferVGG16
from survlens.encoders.transfer_3d import TransferResNet3D
from survlens.encoders.transfer_blocks import Shortcut
from survlens.generators.decoders import DenseDecoder, ResidualDecoder
from survlens.generators.vae import Likelihood, VariationalAutoencoder
from survlens.heads.cox import CoxPH
from survlens.heads.cox_time import CoxTime
from survlens.heads.deephit import DeepHit
from survlens.heads.logistic_hazard import LogisticHazard
from survlens.heads.mtlr import MTLR
from survlens.heads.pc_hazard import PCHazard
from survlens.heads.pmf import PMF
from survlens.heads.weibull import Weibull
from survlens.models.cox_vae import CoxVAE
from survlens.models.fusion import Concatenation, GatedFusion, Missing
from survlens.models.survival_model import SurvivalModel

FORMAT = 1
WEIGHTS, DESCRIPTION = "weights.safetensors", "model.json"

_MODULES: dict[str, type[nn.Module]] = {
    cls.__name__: cls
    for cls in (
        *(SurvivalModel, CoxVAE, Concatenation, VariationalAutoencoder, DenseDecoder, ResidualDecoder),
        *(MLP, CNN, ResidualCNN, MultipleInstance, MeanPooling, AttentionPooling, WorstPooling, GatedFusion),
        *(CNNSurvivalEncoder, TransferResNet2D, TransferVGG16, TransferResNet3D),
        *(CoxPH, LogisticHazard, PMF, MTLR, DeepHit, PCHazard, Weibull, CoxTime),
        *(nn.Sequential, nn.Linear, nn.ReLU, nn.SiLU, nn.GELU, nn.Tanh, nn.Softplus, nn.Identity, nn.Dropout),
    )
}
_ENUMS: dict[str, type[Enum]] = {cls.__name__: cls for cls in (Ties, Likelihood, Missing, Shortcut)}


@dataclass(frozen=True, slots=True, eq=False)
class SavedModel:
    """A loaded model with what was saved beside it.

    Attributes:
        model: The module, in eval mode.
        extra: Plain values saved with it: preprocessing, unit, versions, fingerprint of the training data.
    """

    model: nn.Module
    extra: Mapping[str, object] = field(default_factory=dict)


def save_model(
    model: nn.Module,
    folder: Path,
    *,
    extra: Mapping[str, object] | None = None,
    modules: Mapping[str, type[nn.Module]] | None = None,
) -> Path:
    """Writes `weights.safetensors` and `model.json` into `folder`.

    The architecture is written as the constructor arguments of each module, which every class of survlens keeps as
    attributes of the same names. Modules of your own take part by the same convention and are named in `modules`.

    Args:
        model: A `SurvivalModel`, `CoxVAE` or other module of known classes.
        folder: Made if it does not exist.
        extra: Plain values to keep: preprocessing, unit, fingerprint. Never patient rows.
        modules: Your own classes by name.

    Raises:
        InvalidTypeError: If a module or an argument cannot be described.
    """
    described = _describe(model, {**_MODULES, **(modules or {})})
    content = {
        "format": FORMAT,
        "versions": {"torch": torch.__version__.split("+")[0]},
        "architecture": described,
        "extra": dict(extra or {}),
    }
    text = json.dumps(content, indent=1, allow_nan=False)
    folder.mkdir(parents=True, exist_ok=True)
    save_tensors(folder / WEIGHTS, model.state_dict())
    write_bytes(folder / DESCRIPTION, text.encode())
    return folder


def load_model(folder: Path, *, modules: Mapping[str, type[nn.Module]] | None = None) -> SavedModel:
    """Rebuilds the model that `save_model` wrote; its predictions are bit-identical.

    Args:
        folder: A folder written by `save_model`.
        modules: Your own classes by name.

    Raises:
        CorruptFileError: If a file is missing, truncated, of another format, or its weights do not fit.
    """
    path = folder / DESCRIPTION
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["format"] != FORMAT:
            raise CorruptFileError(
                f"{path.name} must have format {FORMAT}; got {content['format']!r}. Load it with the survlens that "
                "wrote it."
            )
        model = cast(nn.Module, _build(content["architecture"], {**_MODULES, **(modules or {})}))
        extra = content["extra"]
    except FileNotFoundError as err:
        raise CorruptFileError(f"`folder` must hold {DESCRIPTION}; {folder.name}/ does not. Is it a model?") from err
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as err:
        raise CorruptFileError(f"{path.name} in {folder.name}/ is damaged ({err}). Save the model again.") from err
    _load_weights(model, load_tensors(folder / WEIGHTS), folder)
    return SavedModel(model.eval(), extra)


def _load_weights(model: nn.Module, weights: Mapping[str, Tensor], folder: Path) -> None:
    try:
        model.load_state_dict(dict(weights))
    except RuntimeError as err:
        reason = str(err).splitlines()[-1].strip()
        raise CorruptFileError(f"{WEIGHTS} in {folder.name}/ does not fit {DESCRIPTION}: {reason}") from err


def _describe(value: object, modules: Mapping[str, type]) -> object:
    if isinstance(value, nn.Module):
        return _describe_module(value, modules)
    if isinstance(value, type) and value.__name__ in modules:
        return {"class": value.__name__}
    if isinstance(value, Enum) and type(value).__name__ in _ENUMS:
        return {"enum": type(value).__name__, "member": value.name}
    if isinstance(value, TimeGrid):
        return {"grid": value.edges.tolist(), "unit": value.unit}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping):
        return {"mapping": [[str(key), _describe(item, modules)] for key, item in value.items()]}
    if isinstance(value, list | tuple):
        return [_describe(item, modules) for item in value]
    raise InvalidTypeError(
        f"`model` must be made of known modules and plain settings to be saved; got {type(value).__name__}. "
        "Name your own classes in `modules`."
    )


def _describe_module(module: nn.Module, modules: Mapping[str, type]) -> object:
    name = type(module).__name__
    if modules.get(name) is not type(module):
        raise InvalidTypeError(
            f"`model` must be made of known modules to be saved; got {name}. "
            f'Pass modules={{"{name}": {name}}} to save_model and load_model.'
        )
    if isinstance(module, nn.ModuleDict):
        return {"mapping": [[key, _describe(item, modules)] for key, item in module.items()]}
    if isinstance(module, nn.Sequential):
        return {"module": name, "layers": [_describe(item, modules) for item in module]}
    arguments = {}
    for argument in inspect.signature(type(module).__init__).parameters:
        if argument in ("self", "args", "kwargs") or not hasattr(module, argument):
            continue
        found = getattr(module, argument)
        if isinstance(found, nn.ModuleDict):
            found = dict(found.items())
        if isinstance(module, nn.Linear) and argument == "bias":
            found = module.bias is not None
        arguments[argument] = _describe(found, modules)
    return {"module": name, "arguments": arguments}


def _build(value: object, modules: Mapping[str, type]) -> object:
    if isinstance(value, list):
        return tuple(_build(item, modules) for item in value)
    if not isinstance(value, dict):
        return value
    if "mapping" in value:
        return {key: _build(item, modules) for key, item in value["mapping"]}
    if "grid" in value:
        return TimeGrid(torch.tensor(value["grid"], dtype=torch.float64), value["unit"])
    if "enum" in value:
        return _ENUMS[value["enum"]][value["member"]]
    name = value["class"] if "class" in value else value["module"]
    if name not in modules:
        raise InvalidValueError(f"`modules` must name the class {name!r}, which the model was saved with.")
    if "class" in value:
        return modules[name]
    if "layers" in value:
        return nn.Sequential(*(cast(nn.Module, _build(item, modules)) for item in value["layers"]))
    return modules[name](**{key: _build(item, modules) for key, item in value["arguments"].items()})

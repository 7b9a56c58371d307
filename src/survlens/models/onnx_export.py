"""A fitted model as an ONNX file: inputs in, survival probabilities at fixed times out."""

from __future__ import annotations

import importlib
import json
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from jaxtyping import Float64
from torch import Tensor, nn

from survlens.artifacts.atomic import write_bytes
from survlens.core.errors import CorruptFileError, InvalidTypeError, InvalidValueError, MissingDependencyError
from survlens.core.prediction import Times
from survlens.core.protocols import CompetingRisksHead, Inputs
from survlens.models.value_reads import ReplayedReads, Value, recorded

PREPROCESSING_NOTE = (
    "Not in this graph: impute, encode and scale tables, and resize and scale images, as for training, beforehand."
)
_SURVIVAL, _RISK, _INCIDENCE = "survival", "risk", "incidence"
_LARGEST_DEVIATION = 1e-4


def export_onnx(
    model: nn.Module,
    path: Path | str,
    *,
    times: Times,
    example: Inputs,
    feature_names: Sequence[str] = (),
    preprocessing: str = PREPROCESSING_NOTE,
) -> Path:
    """Writes a fitted `SurvivalModel` or `CoxVAE` as an ONNX graph, and compares the file with the model.

    The graph takes the tensors of `example` by name, with any number of rows, and gives "survival" (instance, time),
    S at `times`; "risk" (instance), higher is worse; and from a head of several causes "incidence" (cause, instance,
    time). It computes what `model.predict_survival(inputs, times)` computes, without the checks: NaN in, NaN out.

    Preprocessing is not part of it. The metadata of the file hold the times, their unit, the names of the features, the
    shape of each input and the note on preprocessing.

    Args:
        model: The module; from an estimator, its `model_`.
        path: File to write.
        times: Where S is asked, > 0 and increasing, within the fitted range.
        example: One row or more of inputs, for the shapes and for the comparison.
        feature_names: Names of the features of "table".
        preprocessing: What has to be done to raw data first, for the reader of the file.

    Raises:
        MissingDependencyError: Without the extra `[onnx]`.
        InvalidTypeError: If the model has no `embed` and `head`, or its code depends on the values of the inputs.
        InvalidValueError: If `times` lie outside the fitted range, `example` does not fit the model, or the file
            computes something else than the model.
    """
    onnx, _, _ = (_library(name) for name in ("onnx", "onnxscript", "onnxruntime"))
    graph = _Graph(model, times)
    rows = {name: len(tensor) for name, tensor in example.items()}
    if not rows or min(rows.values()) < 1:
        raise InvalidValueError(f"`example` must hold at least one row; got {rows}. Pass some training rows.")
    modalities = tuple(getattr(model, "modalities", tuple(example)))
    missing = [name for name in modalities if name not in example]
    if missing:
        raise InvalidValueError(f"`example` must hold {', '.join(modalities)}; got {', '.join(rows)}.")
    inputs = {name: example[name].detach() for name in modalities}
    if feature_names and len(feature_names) != inputs["table"].shape[1]:
        raise InvalidValueError(
            f"`feature_names` must name the {inputs['table'].shape[1]} features of 'table'; got {len(feature_names)}."
        )
    was_training = model.training
    model.eval()
    try:
        proto = _traced(graph, inputs)
        _forget_source(proto)
        onnx.helper.set_model_props(proto, graph.facts(inputs, feature_names, preprocessing))
        write_bytes(Path(path), proto.SerializeToString())
        deviation = check_onnx(path, model, _turned(inputs))
    finally:
        model.train(was_training)
    if not deviation <= _LARGEST_DEVIATION:
        raise InvalidValueError(
            f"the written file must compute what `model` computes; it deviates by {deviation:.3g}. Do not use it."
        )
    return Path(path)


def check_onnx(path: Path | str, model: nn.Module, inputs: Inputs) -> float:
    """Largest absolute deviation of an exported file, run by onnxruntime, from the model, over all outputs.

    Args:
        path: A file of `export_onnx`.
        model: The model it was made of.
        inputs: Rows to compare on.

    Raises:
        MissingDependencyError: Without the extra `[onnx]`.
        CorruptFileError: If the file is no ONNX graph of `export_onnx`.
    """
    runtime = _library("onnxruntime")
    session = _opened(runtime, path)
    facts = session.get_modelmeta().custom_metadata_map
    if "times" not in facts:
        raise CorruptFileError(f"{Path(path).name} must be written by survlens; its metadata hold no times.")
    was_training = model.training
    model.eval()
    with torch.no_grad():
        expected = _Graph(model, json.loads(facts["times"])).outputs(inputs)
    model.train(was_training)
    found = session.run(list(expected), {each.name: inputs[each.name].numpy() for each in session.get_inputs()})
    pairs = zip(expected.values(), found, strict=True)
    return max(float((torch.from_numpy(got) - wanted).abs().max()) for wanted, got in pairs)


class _Graph(nn.Module):
    """What is exported: from inputs to a tensor per output."""

    times: Float64[Tensor, " time"]

    def __init__(self, model: nn.Module, times: Times) -> None:
        super().__init__()
        if not isinstance(model, nn.Module) or not hasattr(model, "embed") or not hasattr(model, "head"):
            raise InvalidTypeError(
                f"`model` must be a module with `embed` and `head`, such as SurvivalModel; got {type(model).__name__}. "
                "Of an estimator, export `model_`."
            )
        self.model: Any = model
        self.register_buffer("times", torch.as_tensor(times, dtype=torch.float64).reshape(-1))
        self.reads: list[Value] | None = None

    def outputs(self, inputs: Inputs) -> dict[str, Tensor]:
        embedding, head = self.model.embed(inputs), self.model.head
        found = {_SURVIVAL: head.predict(embedding, self.times).survival, _RISK: head.risk(embedding)}
        if isinstance(head, CompetingRisksHead) and head.n_causes > 1:
            found[_INCIDENCE] = head.predict_incidence(embedding, self.times).cumulative_incidence
        return found

    def forward(self, inputs: Inputs) -> dict[str, Tensor]:
        if self.reads is None:
            return self.outputs(inputs)
        with ReplayedReads(self.reads):
            return self.outputs(inputs)

    def facts(self, inputs: Inputs, feature_names: Sequence[str], preprocessing: str) -> dict[str, str]:
        with torch.no_grad():
            unit = self.model.head.predict(self.model.embed(inputs), self.times).unit
        return {
            "producer": "survlens",
            "times": json.dumps(self.times.tolist()),
            "unit": unit,
            "inputs": json.dumps({name: ["instance", *tensor.shape[1:]] for name, tensor in inputs.items()}),
            "feature_names": json.dumps(list(feature_names)),
            "preprocessing": preprocessing,
        }


def _traced(graph: _Graph, inputs: Inputs) -> Any:
    first, second = _turned(inputs), _turned(_turned(inputs))
    graph.reads = recorded(lambda: graph.outputs(first), lambda: graph.outputs(second))
    outputs = list(graph.outputs(first))
    instance = torch.export.Dim("instance")
    sizes = {"inputs": {name: {0: instance} for name in first}}
    with _quiet(), torch.no_grad():
        program = torch.export.export(graph, (), {"inputs": first}, dynamic_shapes=sizes, strict=False)
        exported = torch.onnx.export(
            program, (), kwargs={"inputs": first}, input_names=list(first), output_names=outputs, dynamo=True,
            verbose=False,
        )  # fmt: skip
    if exported is None:
        raise InvalidTypeError("`model` must be one that torch.onnx can export; it gave nothing.")
    return exported.model_proto


def _turned(inputs: Inputs) -> dict[str, Tensor]:
    """The rows in reverse and the last of them once more: other values and another size, never 0 or 1 rows."""
    rows = next(iter(inputs.values())).shape[0]
    order = torch.tensor([*range(rows - 1, -1, -1), 0])
    return {name: tensor[order] for name, tensor in inputs.items()}


def _forget_source(proto: Any) -> None:
    """Removes the stack traces that the exporter writes into every node: they hold paths of this machine."""
    for graph in (proto.graph, *proto.functions):
        for part in (graph, *graph.node):
            del part.metadata_props[:]
            part.doc_string = ""
    for value in (*proto.graph.value_info, *proto.graph.input, *proto.graph.output, *proto.graph.initializer):
        del value.metadata_props[:]


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's remarks on PyTorch's own code and on libraries that are not installed."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _opened(runtime: ModuleType, path: Path | str) -> Any:
    try:
        return runtime.InferenceSession(Path(path).read_bytes(), providers=["CPUExecutionProvider"])
    except FileNotFoundError as error:
        raise CorruptFileError(f"`path` must be an ONNX file; got nothing at {path}.") from error
    except Exception as error:  # onnxruntime's own kinds of error share no public root
        raise CorruptFileError(f"{Path(path).name} cannot be run ({error}). Export the model again.") from error


def _library(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise MissingDependencyError(
            f"{name} must be installed to write or run ONNX files; it is not. Run: pip install 'survlens[onnx]'."
        ) from error

"""From the shapes in which covariates come to one float64 matrix with named columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from survlens.core.errors import InvalidTypeError, InvalidValueError
from survlens.core.protocols import Inputs

Covariates = pd.DataFrame | np.ndarray | Tensor | Inputs
"""A frame of numbers, an (instance, feature) array or tensor, or a mapping from modality to tensor."""


@dataclass(frozen=True, slots=True, eq=False)
class CovariateMatrix:
    """Covariates of a set of instances; finite.

    Attributes:
        values: One row per instance, one column per feature; C-contiguous, so that a frame and an array give the same
            bits.
        names: One name per column.
        modalities: The modalities that the columns came from, in order; empty where covariates came as one table.
    """

    values: Float64[np.ndarray, "instance feature"]
    names: tuple[str, ...]
    modalities: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        wrong = ~np.isfinite(self.values)
        if wrong.any():
            counts = wrong.sum(0)
            columns = np.flatnonzero(counts)
            shown = ", ".join(f"{self.names[i]!r} ({counts[i]} of {len(self.values)} rows)" for i in columns[:5])
            more = f" and {len(columns) - 5} more columns" if len(columns) > 5 else ""
            raise InvalidValueError(
                f"`X` must be finite; got NaN or infinity in {shown}{more}, first in row "
                f"{int(wrong[:, columns[0]].argmax())}. Impute missing values on training rows first."
            )


def covariate_matrix(
    X: Covariates, *, names: tuple[str, ...] | None = None, modalities: tuple[str, ...] | None = None
) -> CovariateMatrix:
    """The matrix of `X`.

    A mapping is flattened per modality and concatenated, by default in its own order. The columns of a frame are taken
    by name, so a frame in another order, or with more columns, gives the same matrix.

    Args:
        X: Covariates of one of the shapes of `Covariates`; numbers and booleans only.
        names: Columns seen by the fit; None while fitting.
        modalities: Modalities seen by the fit; None while fitting.

    Raises:
        InvalidTypeError: If `X` has another shape, or a column is not numeric.
        InvalidValueError: If a value is not finite, or columns or modalities differ from those of the fit.
    """
    if isinstance(X, pd.DataFrame):
        matrix = _from_frame(X, names)
    elif isinstance(X, Mapping):
        matrix = _from_inputs(X, modalities or tuple(X))
    else:
        matrix = _from_array(X, names)
    if names is not None and len(matrix.names) != len(names):
        raise InvalidValueError(
            f"`X` must have the {len(names)} columns of the fit; got {len(matrix.names)}. Pass the same covariates."
        )
    return matrix


def _from_frame(X: pd.DataFrame, names: tuple[str, ...] | None) -> CovariateMatrix:
    frame = X.set_axis([str(name) for name in X.columns], axis=1)
    twice = frame.columns[frame.columns.duplicated()]
    if len(twice):
        raise InvalidValueError(f"`X` must have distinct column names; got {twice[0]!r} twice. Rename one.")
    missing = [name for name in names or () if name not in frame.columns]
    positional = names is not None and names == _numbered("x", len(names)) and len(names) == frame.shape[1]
    if missing and not positional:
        raise InvalidValueError(
            f"`X` must have the columns of the fit; got none named {', '.join(missing[:5])}. Add them to the frame."
        )
    if names is not None and not missing:
        frame = frame[list(names)]
    for name in frame.columns:
        if not pd.api.types.is_numeric_dtype(frame[name].dtype):
            raise InvalidTypeError(
                f"`X` must be numeric; got column {name!r} of type {frame[name].dtype}. One-hot encode it first."
            )
    values = np.ascontiguousarray(frame.to_numpy(dtype=np.float64, na_value=np.nan))
    return CovariateMatrix(values, tuple(frame.columns))


def _from_inputs(X: Mapping, modalities: tuple[str, ...]) -> CovariateMatrix:
    missing = [name for name in modalities if name not in X]
    if missing or not modalities:
        raise InvalidValueError(
            f"`X` must hold the modalities of the fit ({', '.join(modalities)}); got {', '.join(X) or 'nothing'}."
        )
    blocks = {name: torch.as_tensor(X[name]).detach().cpu().double().flatten(1).numpy() for name in modalities}
    rows = {name: len(block) for name, block in blocks.items()}
    if len(set(rows.values())) > 1:
        raise InvalidValueError(f"`X` must have one number of rows in every modality; got {rows}.")
    names = [name for key, block in blocks.items() for name in _numbered(f"{key}_", block.shape[1])]
    return CovariateMatrix(np.concatenate(list(blocks.values()), axis=1), tuple(names), modalities)


def _from_array(X: np.ndarray | Tensor | Sequence, names: tuple[str, ...] | None) -> CovariateMatrix:
    array = X.detach().cpu().numpy() if isinstance(X, Tensor) else np.asarray(X)
    _check_matrix(array)
    fitted = names if names is not None and len(names) == array.shape[1] else None
    return CovariateMatrix(np.ascontiguousarray(array, dtype=np.float64), fitted or _numbered("x", array.shape[1]))


def _check_matrix(array: np.ndarray) -> None:
    if array.dtype.kind not in "iufb" or array.ndim != 2:
        raise InvalidTypeError(
            f"`X` must be a numeric matrix of (instance, feature); got {array.dtype} of shape {array.shape}. "
            "Reshape one feature to (n, 1), flatten images, or pass a data frame of numbers."
        )


def _numbered(prefix: str, count: int) -> tuple[str, ...]:
    return tuple(f"{prefix}{i}" for i in range(count))


def rows_of(X: Covariates, rows: Int64[np.ndarray, " row"]) -> Covariates:
    """Some rows of covariates, in the shape they came in."""
    if isinstance(X, pd.DataFrame):
        return X.iloc[rows]
    if isinstance(X, Mapping):
        return {name: values[torch.from_numpy(rows)] for name, values in X.items()}
    return X[rows]


def columns_of(X: Covariates, columns: Sequence[str | int]) -> Covariates:
    """Some columns of a frame (by name) or matrix (by number), or some modalities of a mapping.

    Raises:
        InvalidValueError: If one is missing.
        InvalidTypeError: If `X` is an array that is not a matrix of numbers.
    """
    if isinstance(X, Mapping):
        _check_known(columns, list(X))
        return {str(name): X[str(name)] for name in columns}
    if isinstance(X, pd.DataFrame):
        _check_known(columns, list(X.columns))
        return X.loc[:, list(columns)]
    array = X.detach().cpu().numpy() if isinstance(X, Tensor) else np.asarray(X)
    _check_matrix(array)
    _check_known(columns, list(range(array.shape[1])))
    return array[:, np.array(columns, dtype=np.int64)]


def _check_known(columns: Sequence[str | int], known: list) -> None:
    missing = [name for name in columns if name not in known]
    if missing:
        raise InvalidValueError(
            f"`columns` must name columns or modalities of `X`; got {missing[:5]}. It has: {known[:12]}."
        )

"""What an explanation says: how much each feature of each instance moves a target at each time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from survlens.core.errors import InvalidValueError

if TYPE_CHECKING:
    import xarray


@dataclass(frozen=True, slots=True, eq=False)
class Attribution:
    """Contributions of the features of one modality to a target over time, with their doubt.

    Where `additive`, the contributions of an instance over all modalities sum to F(x) - E F(x'), with F the target and
    x' the reference; `completeness_gap` is what they miss of it. Three doubts are told apart: the numerical error of
    the path integral (`quadrature_error`), the error from drawing references (`sampling_error`), and the gap, which is
    a diagnostic only, since a rule can force it to 0 whatever else is wrong.

    Attributes:
        values: One row per instance, or per item where an instance has several; the axes `dims`; then times.
        times: Times of the last axis, in `unit`; of a target without times its horizon, or NaN.
        unit: Unit of time.
        target: What is explained, such as "survival".
        method: How, such as "GradSHAP".
        dims: Names of the axes between instance and time: ("feature",) or ("channel", "height", "width").
        reference: What the explanation compares with, in words; empty where with nothing.
        paper: Where the method comes from.
        coords: Labels along "instance" and along any of `dims`.
        additive: Whether contributions sum to a difference of the target.
        prediction: Target of the instances, F(x), one row per instance.
        reference_prediction: Its mean over the references of each instance.
        completeness_gap: F(x) - E F(x') - (sum of contributions), over all modalities; per instance and time.
        quadrature_error: Estimated numerical error of a contribution, the largest over features; per instance and time.
        sampling_error: Standard error of `values` over the drawn references; in the shape of `values`.
        rows: Instance of each row of `values` where an instance has several items, else None.
        affine: Voxel to world matrix of the scan, or one per instance; None without geometry.
        notes: What a reader should know of how the values came about.

    Raises:
        InvalidValueError: If shapes, names and labels do not fit together.
    """

    values: Float[Tensor, "instance *feature time"]
    times: Float[Tensor, " time"]
    unit: str
    target: str
    method: str
    dims: tuple[str, ...] = ("feature",)
    reference: str = ""
    paper: str = ""
    coords: Mapping[str, np.ndarray] = field(default_factory=dict)
    additive: bool = False
    prediction: Float[Tensor, "row time"] | None = None
    reference_prediction: Float[Tensor, "row time"] | None = None
    completeness_gap: Float[Tensor, "row time"] | None = None
    quadrature_error: Float[Tensor, "row time"] | None = None
    sampling_error: Float[Tensor, "instance *feature time"] | None = None
    rows: Int64[Tensor, " instance"] | None = None
    affine: np.ndarray | None = None
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.values.ndim != len(self.dims) + 2 or self.values.shape[-1] != self.times.shape[0]:
            raise InvalidValueError(
                f"`values` must have the axes instance, {', '.join(self.dims)}, time with {len(self.times)} times; "
                f"got the shape {tuple(self.values.shape)}. Name every axis between in `dims`."
            )
        sizes = dict(zip(("instance", *self.dims, "time"), self.values.shape, strict=True))
        for name, labels in self.coords.items():
            expected = self.instances if name == "instance" else sizes.get(name)
            if expected is None or len(labels) != expected:
                raise InvalidValueError(
                    f"`coords[{name!r}]` must label an axis of {tuple(sizes)} with one label per entry; "
                    f"got {len(labels)} labels for {expected}."
                )
        per_row = (self.prediction, self.reference_prediction, self.completeness_gap, self.quadrature_error)
        shapes = {tuple(each.shape) for each in per_row if each is not None}
        if shapes - {(self.instances, len(self.times))}:
            raise InvalidValueError(
                f"Predictions and errors must have the shape {(self.instances, len(self.times))}; got {shapes}."
            )
        if self.sampling_error is not None and self.sampling_error.shape != self.values.shape:
            raise InvalidValueError("`sampling_error` must have the shape of `values`.")

    def __len__(self) -> int:
        return int(self.values.shape[0])

    @property
    def instances(self) -> int:
        """Number of instances explained; less than the rows of `values` where an instance has several items."""
        if self.rows is None:
            return int(self.values.shape[0])
        for each in (self.prediction, self.completeness_gap):
            if each is not None:
                return int(each.shape[0])
        return int(self.rows.max()) + 1 if len(self.rows) else 0

    @property
    def total(self) -> Float[Tensor, "row time"]:
        """Sum of the contributions of each instance."""
        per_row = self.values.flatten(1, -2).sum(1)
        if self.rows is None:
            return per_row
        return per_row.new_zeros((self.instances, per_row.shape[1])).index_add(0, self.rows, per_row)

    def numpy(self) -> np.ndarray:
        """The values as an array."""
        return self.values.detach().cpu().numpy()

    def to_xarray(self) -> xarray.Dataset:
        """A labelled data set: `attribution`, and under their own names the predictions and errors that there are."""
        import xarray

        item = "instance" if self.rows is None else "item"
        axes = (item, *self.dims, "time")
        coords: dict[str, object] = {name: (name, np.asarray(labels)) for name, labels in self.coords.items()}
        coords["time"] = ("time", self.times.detach().cpu().numpy(), {"units": self.unit})
        coords.setdefault("instance", ("instance", np.arange(self.instances)))
        if self.rows is not None:
            coords["row"] = ("item", self.rows.cpu().numpy())
        variables = {"attribution": (axes, self.numpy())}
        for name in ("prediction", "reference_prediction", "completeness_gap", "quadrature_error"):
            if (value := getattr(self, name)) is not None:
                variables[name] = (("instance", "time"), value.detach().cpu().numpy())
        if self.sampling_error is not None:
            variables["sampling_error"] = (axes, self.sampling_error.detach().cpu().numpy())
        words = {name: getattr(self, name) for name in ("target", "method", "reference", "paper", "unit")}
        attributes = words | {"additive": int(self.additive), "notes": " ".join(self.notes)}
        return xarray.Dataset(variables, coords=coords, attrs=attributes)


def row_sums(values: Float[Tensor, "instance *feature time"], rows: Tensor, count: int) -> Tensor:
    """Sums of the items of each of `count` rows."""
    return torch.zeros((count, *values.shape[1:]), dtype=values.dtype, device=values.device).index_add(0, rows, values)

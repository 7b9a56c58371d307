"""What an explanation says: how much each feature of each instance moves a target at each time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from survlens.core.errors import InvalidValueError, MissingDependencyError
from survlens.core.inputs import items_of_rows

if TYPE_CHECKING:
    import xarray

_PER_ROW = ("prediction", "reference_prediction", "completeness_gap", "quadrature_error")
_SPACE = ("height", "width", "depth")
_ALIKE = ("unit", "target", "method", "dims", "reference", "paper", "additive")


@dataclass(frozen=True, slots=True, eq=False)
class Attribution:
    """Contributions of the features of one modality to a target over time, with their doubt.

    Where `additive`, the contributions of an instance over all modalities sum to F(x) - E F(x'), with F the target and
    x' the reference; `completeness_gap` is what they miss of it. Three doubts are told apart: the numerical error of
    the path integral (`quadrature_error`), the error from drawing references (`sampling_error`), and the gap, which is
    a diagnostic only, since a rule can force it to 0 whatever else is wrong. Where a network is integrated piece by
    piece without nodes, the numerical error is the mean over the references of the size of their gaps, so there the two
    are not independent.

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
        sampling_error: Standard error of `values` over the drawn references; in the shape of `values`. Where many times
            are asked at once, explainers may take it at a few: then it is right to a share of its largest value.
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
        sizes = dict(zip((*self.dims, "time"), self.values.shape[1:], strict=True)) | {"instance": self.instances}
        for name, labels in self.coords.items():
            expected = sizes.get(name)
            if expected is None or len(labels) != expected:
                raise InvalidValueError(
                    f"`coords[{name!r}]` must label an axis of {tuple(sizes)} with one label per entry; "
                    f"got {len(labels)} labels for {expected}."
                )
        shapes = {tuple(each.shape) for each in (getattr(self, name) for name in _PER_ROW) if each is not None}
        if shapes - {(self.instances, len(self.times))}:
            raise InvalidValueError(
                f"Predictions and errors must have the shape {(self.instances, len(self.times))}; got {shapes}."
            )
        if self.sampling_error is not None and self.sampling_error.shape != self.values.shape:
            raise InvalidValueError("`sampling_error` must have the shape of `values`.")
        if self.affine is not None and np.shape(self.affine) not in ((4, 4), (self.instances, 4, 4)):
            raise InvalidValueError(
                f"`affine` must be a 4 x 4 matrix, or one per instance ({self.instances}); "
                f"got the shape {np.shape(self.affine)}."
            )

    def __len__(self) -> int:
        return int(self.values.shape[0])

    @property
    def instances(self) -> int:
        """Number of instances explained; less than the rows of `values` where an instance has several items."""
        if self.rows is None:
            return int(self.values.shape[0])
        for each in (*(getattr(self, name) for name in _PER_ROW), self.coords.get("instance")):
            if each is not None:
                return int(each.shape[0])
        return int(self.rows.max()) + 1 if len(self.rows) else 0

    def __getitem__(self, index: int | slice | Sequence[int] | np.ndarray | Tensor) -> Attribution:
        """Some instances, in the order asked for, with all their items and labels.

        Args:
            index: A position, a slice, a mask or positions of instances; the axis stays where it is one position.

        Raises:
            InvalidValueError: If there is no such instance.
        """
        chosen = _positions(index, self.instances)
        values, rows = torch.from_numpy(chosen).to(self.values.device), None
        if self.rows is not None:
            order = torch.argsort(self.rows, stable=True)
            count = torch.bincount(self.rows, minlength=self.instances)
            rows = torch.repeat_interleave(torch.arange(len(chosen), device=count.device), count[values])
            values = order[items_of_rows(count, values)]
        at = torch.from_numpy(chosen)
        found: dict[str, Any] = {
            name: None if (each := getattr(self, name)) is None else each[at.to(each.device)] for name in _PER_ROW
        }
        if self.affine is not None and np.ndim(self.affine) == 3:
            found["affine"] = self.affine[chosen]
        labels = dict(self.coords)
        if "instance" in labels:
            labels["instance"] = np.asarray(labels["instance"])[chosen]
        error = None if self.sampling_error is None else self.sampling_error[values]
        return replace(self, values=self.values[values], sampling_error=error, rows=rows, coords=labels, **found)

    @staticmethod
    def concatenate(parts: Iterable[Attribution]) -> Attribution:
        """The instances of several attributions of one kind in one, in order.

        Raises:
            InvalidValueError: If there are no parts, or they differ in times, target, method, axes or labels of
                features, or in what is known of them.
        """
        them = list(parts)
        if not them:
            raise InvalidValueError("`parts` must hold at least one attribution; got none.")
        first = them[0]
        for other in them[1:]:
            _check_alike(first, other)
        joined: dict[str, Any] = {
            name: None if getattr(first, name) is None else torch.cat([getattr(each, name) for each in them])
            for name in (*_PER_ROW, "sampling_error")
        }
        starts = np.cumsum([0, *(each.instances for each in them)])
        if first.rows is not None:
            moved = [each.rows + int(start) for each, start in zip(them, starts, strict=False) if each.rows is not None]
            joined["rows"] = torch.cat(moved)
        labels = dict(first.coords)
        if "instance" in labels:
            labels["instance"] = np.concatenate([np.asarray(each.coords["instance"]) for each in them])
        notes = tuple(dict.fromkeys(note for each in them for note in each.notes))
        values = torch.cat([each.values for each in them])
        return replace(first, values=values, coords=labels, affine=_joined_affine(them), notes=notes, **joined)

    def labelled(self, coords: Mapping[str, np.ndarray | Sequence[object]]) -> Attribution:
        """The same with names along "instance" and any of `dims`, in place of those it had there.

        Raises:
            InvalidValueError: If an axis is unknown, or the names are not as many as its entries.
        """
        return replace(self, coords={**self.coords, **{name: np.asarray(each) for name, each in coords.items()}})

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

    def to_frame(self) -> Any:
        """A long data frame: one row per instance (or item), entry of `dims`, and time, in the order of the array.

        The columns are "instance", "item" where an instance has several, the names of `dims`, "time", "value", and
        those of "sampling_error", "prediction", "reference_prediction", "completeness_gap" and "quadrature_error" that
        there are; the last four stand once per instance and time, so they repeat along the features. Labels stand in
        place of positions where there are any. `frame["value"].to_numpy().reshape(values.shape)` is `values`.
        """
        import xarray

        axes = ("_row", *self.dims, "_column")
        of_rows = torch.arange(len(self)) if self.rows is None else self.rows.cpu()
        variables = {"value": (axes, self.numpy())}
        if self.sampling_error is not None:
            variables["sampling_error"] = (axes, self.sampling_error.detach().cpu().numpy())
        for name in _PER_ROW:
            if (value := getattr(self, name)) is not None:
                variables[name] = (("_row", "_column"), value.detach().cpu()[of_rows].numpy())
        # Without labels the index is made of positions, so labels may repeat, be NaN or be of any type.
        frame: Any = xarray.Dataset(variables).to_dataframe(dim_order=axes).reset_index()
        row, column = frame.pop("_row").to_numpy(), frame.pop("_column").to_numpy()
        labels = np.asarray(self.coords.get("instance", np.arange(self.instances)))
        for name in self.dims:
            if name in self.coords:
                frame[name] = np.asarray(self.coords[name])[frame[name].to_numpy()]
        frame.insert(len(self.dims), "time", self.times.detach().cpu().numpy()[column])
        if self.rows is not None:
            frame.insert(0, "item", row)
        frame.insert(0, "instance", labels[of_rows.numpy()[row]])
        return frame

    def to_nifti(
        self, path: Path | str, *, instance: int = 0, time: float | None = None, channel: int | None = None
    ) -> Path:
        """Writes the map of one instance as a NIfTI file, in the geometry of its scan.

        The axes of the file are height, width, depth, and time where several are written; so `affine` must map the
        voxel (row, column, slice) of the scan as the model saw it to the world, and a voxel keeps its place in the
        world. A picture of two dimensions becomes one slice.

        Args:
            path: File to write, ending in .nii or .nii.gz.
            instance: Position of the instance; of the item where an instance has several.
            time: One of `times`; all of them where None.
            channel: Position of the channel; the sum over channels where None.

        Raises:
            MissingDependencyError: Without the extra `[imaging]`.
            InvalidValueError: If there is no such instance, time or channel, or the values are no image.
        """
        nibabel = _nibabel()
        space = tuple(name for name in self.dims if name != "channel")
        if space not in (_SPACE[:2], _SPACE) or self.dims not in (space, ("channel", *space)):
            raise InvalidValueError(
                f"`dims` must be channel (or none), height, width and, of a volume, depth to write a map; "
                f"got {self.dims}. Use to_frame() for tables."
            )
        (at,) = _positions(instance, len(self))
        volume = self.values[int(at)].detach().cpu()
        volume = volume if "channel" in self.dims else volume[None]
        volume = volume.sum(0) if channel is None else volume[int(_positions(channel, len(volume))[0])]
        volume = volume if space == _SPACE else volume.unsqueeze(2)
        if time is not None or len(self.times) == 1:
            volume = volume[..., self._column(time)]
        affine = self.affine
        if affine is not None and np.ndim(affine) == 3:
            affine = affine[int(at) if self.rows is None else int(self.rows[int(at)])]
        image = nibabel.Nifti1Image(volume.numpy(), affine)
        image.header["descrip"] = f"{self.method} of {self.target}"[:79].encode("ascii", "replace")
        nibabel.save(image, str(path))
        return Path(path)

    def _column(self, time: float | None) -> int:
        known = self.times.detach().cpu().double()
        if time is None:
            return 0
        near = (known - time).abs()
        if bool((near <= 1e-6 * max(1.0, abs(time))).any()):
            return int(near.argmin())
        shown = ", ".join(f"{each:g}" for each in known.tolist()[:8])
        raise InvalidValueError(f"`time` must be one of the times explained, {shown}; got {time:g}. Explain it first.")


def _positions(index: int | slice | Sequence[int] | np.ndarray | Tensor, count: int) -> np.ndarray:
    """Positions that `index` picks out of `count`."""
    if isinstance(index, slice):
        return np.arange(count)[index].copy()  # torch knows no negative strides
    chosen = np.asarray(index.cpu() if isinstance(index, Tensor) else index)
    chosen = chosen if chosen.size else chosen.astype(np.int64)
    try:
        return np.atleast_1d(np.arange(count)[chosen])
    except IndexError as error:
        raise InvalidValueError(f"`index` must pick among {count} instances; got {index!r}.") from error


def _check_alike(one: Attribution, other: Attribution) -> None:
    """Raises where two attributions cannot be rows of one."""
    for name in _ALIKE:
        if getattr(one, name) != getattr(other, name):
            raise InvalidValueError(
                f"`parts` must agree in `{name}`; got {getattr(one, name)!r} and {getattr(other, name)!r}. "
                "Explain them alike."
            )
    if one.times.shape != other.times.shape or not torch.equal(one.times.nan_to_num(-1), other.times.nan_to_num(-1)):
        raise InvalidValueError(f"`parts` must have the same times; got {one.times.tolist()}, {other.times.tolist()}.")
    if one.values.shape[1:] != other.values.shape[1:]:
        raise InvalidValueError(
            f"`parts` must have the same features; got the shapes {tuple(one.values.shape[1:])} and "
            f"{tuple(other.values.shape[1:])} of an instance."
        )
    known = [
        {each.name for each in fields(part) if getattr(part, each.name) is not None} | set(part.coords)
        for part in (one, other)
    ]
    if known[0] != known[1]:
        raise InvalidValueError(f"`parts` must know the same of their instances; got {known[0] ^ known[1]} in one.")
    for name in one.dims:
        if name in one.coords and not np.array_equal(one.coords[name], other.coords[name]):
            raise InvalidValueError(f"`parts` must have the same labels of {name!r}; got others.")


def _joined_affine(parts: Sequence[Attribution]) -> np.ndarray | None:
    """One matrix where all share it, else one per instance."""
    given = [each.affine for each in parts if each.affine is not None]
    if not given:
        return None
    if all(np.ndim(each) == 2 and np.array_equal(each, given[0]) for each in given):
        return given[0]
    spread = [np.broadcast_to(each.affine, (each.instances, 4, 4)) for each in parts if each.affine is not None]
    return np.concatenate(spread)


def _nibabel() -> ModuleType:
    try:
        import nibabel
    except ImportError as error:
        raise MissingDependencyError(
            "`to_nifti` must find nibabel; got none. Install the extra: pip install 'survlens[imaging]'."
        ) from error
    return nibabel


def row_sums(values: Float[Tensor, "instance *feature time"], rows: Tensor, count: int) -> Tensor:
    """Sums of the items of each of `count` rows."""
    return torch.zeros((count, *values.shape[1:]), dtype=values.dtype, device=values.device).index_add(0, rows, values)

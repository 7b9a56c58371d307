"""Which features matter over all instances: mean contributions over time, ranks with intervals, by subgroup."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float64, Int64
from scipy import stats

from survlens.core.attribution import Attribution
from survlens.core.errors import InvalidValueError

if TYPE_CHECKING:
    import pandas

_CHUNK = 1 << 21
"""Multiplicities held at once."""


@dataclass(frozen=True, slots=True, eq=False)
class Regions:
    """Named regions of an image, each of which counts as one feature over all channels.

    Attributes:
        labels: Region of each pixel or voxel, one map for all rows of the attribution or one per row; what is negative
            belongs to none.
        names: Names of the regions 0, 1, ...
    """

    labels: Int64[np.ndarray, "..."]
    names: Sequence[str]

    def __post_init__(self) -> None:
        if not len(self.names) or not np.issubdtype(self.labels.dtype, np.integer):
            raise InvalidValueError(
                f"`labels` must be integers with a name for each region; got {self.labels.dtype} and "
                f"{len(self.names)} names."
            )
        if self.labels.size and int(self.labels.max()) >= len(self.names):
            raise InvalidValueError(
                f"`names` must name every region; got {len(self.names)} names and the region {int(self.labels.max())}."
            )


@dataclass(frozen=True, slots=True, eq=False)
class GlobalImportance:
    """How much each feature matters over all instances.

    Attributes:
        modality: Modality of each feature.
        feature: Name of each feature.
        times: Times, in `unit`.
        unit: Unit of time.
        mean_absolute: Mean over instances of |phi(t)|.
        signed: Mean over instances of phi(t).
        importance: `mean_absolute` averaged over times (trapezoidal mean over their range).
        lower: Lower limit of `importance`.
        upper: Upper limit of `importance`.
        rank: 1 for the largest importance; equal ones share the best of their ranks.
        rank_lower: Best rank that the bootstrap leaves plausible.
        rank_upper: Worst.
        instances: Number of instances.
        bootstrap: How the limits were made, in words.
        subgroups: By column and value, the same among the instances of that value.
    """

    modality: tuple[str, ...]
    feature: tuple[str, ...]
    times: Float64[np.ndarray, " time"]
    unit: str
    mean_absolute: Float64[np.ndarray, "feature time"]
    signed: Float64[np.ndarray, "feature time"]
    importance: Float64[np.ndarray, " feature"]
    lower: Float64[np.ndarray, " feature"]
    upper: Float64[np.ndarray, " feature"]
    rank: Int64[np.ndarray, " feature"]
    rank_lower: Int64[np.ndarray, " feature"]
    rank_upper: Int64[np.ndarray, " feature"]
    instances: int
    bootstrap: str
    subgroups: Mapping[str, Mapping[str, GlobalImportance]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.feature)

    def to_frame(self) -> pandas.DataFrame:
        """A long data frame: one row per feature and time, and again for each subgroup.

        The columns "column" and "value" name the subgroup and are empty for all instances.
        """
        import pandas

        return pandas.concat(
            [
                pandas.DataFrame(
                    {
                        "column": column,
                        "value": value,
                        "modality": np.repeat(found.modality, len(found.times)),
                        "feature": np.repeat(found.feature, len(found.times)),
                        "time": np.tile(found.times, len(found)),
                        "mean_absolute": found.mean_absolute.reshape(-1),
                        "signed": found.signed.reshape(-1),
                    }
                    | {name: np.repeat(getattr(found, name), len(found.times)) for name in _PER_FEATURE}
                )
                for column, value, found in self._all()
            ],
            ignore_index=True,
        )

    def to_json(self) -> dict[str, object]:
        """Plain values for a json file: "features" in the order of their ranks, "bootstrap" and "subgroups"."""
        return {
            "features": self._records(),
            "instances": self.instances,
            "bootstrap": self.bootstrap,
            "subgroups": {
                column: {value: found._records() for value, found in values.items()}
                for column, values in self.subgroups.items()
            },
        }

    def _records(self) -> list[dict[str, object]]:
        return [
            {
                "modality": self.modality[j],
                "feature": self.feature[j],
                "mean_absolute": self.mean_absolute[j].tolist(),
                "signed": self.signed[j].tolist(),
            }
            | {name: getattr(self, name)[j].item() for name in _PER_FEATURE}
            for j in np.argsort(self.rank, kind="stable")
        ]

    def _all(self) -> Iterator[tuple[str, str, GlobalImportance]]:
        yield "", "", self
        for column, values in self.subgroups.items():
            for value, found in values.items():
                yield column, value, found


_PER_FEATURE = ("importance", "lower", "upper", "rank", "rank_lower", "rank_upper")


def global_importance(
    explained: Attribution | Mapping[str, Attribution],
    *,
    subgroups: Mapping[str, Sequence[object] | np.ndarray] | None = None,
    regions: Mapping[str, Regions] | None = None,
    patient: Sequence[object] | np.ndarray | None = None,
    draws: int = 1000,
    seed: int = 0,
) -> GlobalImportance:
    """Averages contributions over instances: I_j(t) = mean_i |phi_ij(t)|, their signs, and ranks with their doubt.

    The importance is the trapezoidal mean of I_j(t) over the times, and ranks order it. Limits are 95 % percentiles of
    a bootstrap of instances. An image counts by channel, or by region where `regions` name some; items of one instance
    count together. The contribution of such a part is the sum of its contributions, and its size the absolute value of
    that sum where contributions are additive, else the sum of the absolute values.

    Aumann-Shapley values (IntegratedGradients, GradSHAP) and Shapley values (SurvSHAP) share an interaction of
    features differently, so their rankings may differ without either being wrong.

    Args:
        explained: Attributions of one modality, or of several keyed by their names, which are then ranked together.
        subgroups: By column, the value of each instance; an instance whose value is None or NaN is in no subgroup.
        regions: By modality, regions of its images.
        patient: Whose each instance is; those of one patient are drawn together. By default each is a patient.
        draws: Number of draws of the bootstrap.
        seed: The same seed gives the same draws.

    Returns:
        The importance of every feature, with subgroups inside.

    Raises:
        InvalidValueError: If modalities, subgroups, regions and patients do not fit together, or `draws` < 1.
    """
    parts = {"": explained} if isinstance(explained, Attribution) else dict(explained)
    first = _checked(parts, regions or {}, draws)
    columns = {"patient": patient} if patient is not None else {}
    for name, values in (columns | dict(subgroups or {})).items():
        if len(values) != first.instances:
            raise InvalidValueError(
                f"`{name}` must have a value for each of the {first.instances} instances; got {len(values)}."
            )
    pieces = [_by_feature(part, (regions or {}).get(name)) for name, part in parts.items()]
    table = _Table(
        modality=tuple(name for name, piece in zip(parts, pieces, strict=True) for _ in piece[0]),
        feature=tuple(label for piece in pieces for label in piece[0]),
        signed=np.concatenate([piece[1] for piece in pieces], axis=1),
        absolute=np.concatenate([piece[2] for piece in pieces], axis=1),
        times=first.times.detach().cpu().double().numpy(),
        unit=first.unit,
        patient=np.arange(first.instances)
        if patient is None
        else np.unique(np.asarray(patient), return_inverse=True)[1],
        words="patients" if patient is not None else "instances",
    )
    inside = {
        column: {value: table.summary(rows, draws, seed) for value, rows in _rows_by_value(values).items()}
        for column, values in (subgroups or {}).items()
    }
    return table.summary(np.arange(first.instances), draws, seed, inside)


@dataclass(frozen=True, slots=True, eq=False)
class _Table:
    """Contributions of every instance, feature and time."""

    modality: tuple[str, ...]
    feature: tuple[str, ...]
    signed: np.ndarray
    absolute: np.ndarray
    times: np.ndarray
    unit: str
    patient: np.ndarray
    words: str

    def summary(
        self,
        rows: np.ndarray,
        draws: int,
        seed: int,
        subgroups: Mapping[str, Mapping[str, GlobalImportance]] | None = None,
    ) -> GlobalImportance:
        mean_absolute = self.absolute[rows].mean(0)
        weights = _time_weights(self.times)
        importance = mean_absolute @ weights
        drawn = _drawn_means(self.absolute[rows] @ weights, self.patient[rows], draws, seed)
        lower, upper = np.quantile(drawn, [0.025, 0.975], axis=0)
        ranks = stats.rankdata(-drawn, method="min", axis=1)
        rank_lower, rank_upper = np.quantile(ranks, [0.025, 0.975], axis=0, method="inverted_cdf")
        return GlobalImportance(
            modality=self.modality,
            feature=self.feature,
            times=self.times,
            unit=self.unit,
            mean_absolute=mean_absolute,
            signed=self.signed[rows].mean(0),
            importance=importance,
            lower=lower,
            upper=upper,
            rank=stats.rankdata(-importance, method="min").astype(np.int64),
            rank_lower=rank_lower.astype(np.int64),
            rank_upper=rank_upper.astype(np.int64),
            instances=len(rows),
            bootstrap=f"95 % percentile bootstrap of {self.words}, {draws} draws, seed {seed}",
            subgroups=subgroups or {},
        )


def _checked(parts: Mapping[str, Attribution], regions: Mapping[str, Regions], draws: int) -> Attribution:
    if not parts or not next(iter(parts.values())).instances:
        raise InvalidValueError("`explained` must hold an attribution of at least one instance; got none.")
    first = next(iter(parts.values()))
    for name, part in parts.items():
        if part.instances != first.instances or not np.array_equal(
            part.times.detach().cpu().numpy(), first.times.detach().cpu().numpy(), equal_nan=True
        ):
            raise InvalidValueError(
                f"`explained` must have the same instances and times in every modality; got {first.instances} "
                f"instances and {len(first.times)} times, and {part.instances} and {len(part.times)} in {name}."
            )
    if set(regions) - set(parts):
        unknown = ", ".join(sorted(set(regions) - set(parts)))
        raise InvalidValueError(f"`regions` must be of explained modalities, {', '.join(parts)}; got {unknown}.")
    if draws < 1:
        raise InvalidValueError(f"`draws` must be >= 1; got {draws}.")
    return first


def _by_feature(part: Attribution, regions: Regions | None) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Labels of features, and their contributions and sizes: (instance, feature, time)."""
    rows = np.arange(len(part)) if part.rows is None else part.rows.cpu().numpy()
    labels = _labels(part) if regions is None else [str(name) for name in regions.names]
    of_rows = None if regions is None else _fitted(part, regions)
    sums = np.zeros((2, part.instances, len(labels), len(part.times)))
    step = max(1, _CHUNK // max(1, part.values[0].numel() if len(part) else 1))
    for start in range(0, len(part), step):
        values = part.values[start : start + step].detach().cpu().double().numpy()
        chunk = None if of_rows is None else of_rows[start : start + step]
        for k, each in enumerate((values, np.abs(values))):
            np.add.at(sums[k], rows[start : start + step], _added(each, chunk, len(labels), part.dims))
    return labels, sums[0], np.abs(sums[0]) if part.additive else sums[1]


def _labels(part: Attribution) -> list[str]:
    axis = part.dims[0] if part.dims else "feature"
    count = part.values.shape[1] if part.dims else 1
    return [str(label) for label in part.coords.get(axis, [f"{axis} {j + 1}" for j in range(count)])]


def _fitted(part: Attribution, regions: Regions) -> np.ndarray:
    """The regions of every row of `part`."""
    space = part.values.shape[2:-1] if part.dims[:1] == ("channel",) else part.values.shape[1:-1]
    expected = (len(part), *space)
    if regions.labels.shape not in (expected, expected[1:]):
        raise InvalidValueError(
            f"`regions` must label each of the {expected[1:]} pixels, for one row or all {expected[0]}; "
            f"got the shape {regions.labels.shape}."
        )
    return np.broadcast_to(regions.labels, expected)


def _added(values: np.ndarray, regions: np.ndarray | None, count: int, dims: tuple[str, ...]) -> np.ndarray:
    """Sums of (item, *dims, time) along all but the first axis of `dims`, or within regions: (item, feature, time)."""
    if regions is None:
        return values.reshape(len(values), count, -1, values.shape[-1]).sum(2)
    pixels = values.sum(1) if dims[:1] == ("channel",) else values
    pixels = pixels.reshape(len(values), -1, values.shape[-1])
    flat = regions.reshape(len(values), -1)
    return np.stack([np.einsum("np,npt->nt", (flat == k).astype(np.float64), pixels) for k in range(count)], axis=1)


def _rows_by_value(values: Sequence[object] | np.ndarray) -> dict[str, np.ndarray]:
    """Positions of each value, in the order of the values as words; None and NaN have none."""
    listed = np.asarray(values, dtype=object).tolist()
    words = [None if each is None or each != each else str(each) for each in listed]
    return {
        value: np.array([i for i, word in enumerate(words) if word == value])
        for value in sorted({word for word in words if word is not None})
    }


def _time_weights(times: np.ndarray) -> np.ndarray:
    """Weights of the trapezoidal mean over the range of the times; 1 for a single one."""
    if len(times) == 1:
        return np.ones(1)
    gaps = np.diff(times)
    return (np.append(gaps, 0.0) + np.append(0.0, gaps)) / (2 * (times[-1] - times[0]))


def _drawn_means(values: np.ndarray, patient: np.ndarray, draws: int, seed: int) -> np.ndarray:
    """Means over resampled patients of values (instance, feature), one row per draw."""
    generator = np.random.default_rng(seed)
    names, code = np.unique(patient, return_inverse=True)
    count, step = len(names), max(1, _CHUNK // len(names))
    found = []
    for start in range(0, draws, step):
        drawn = generator.multinomial(count, np.full(count, 1 / count), min(step, draws - start))[:, code]
        found.append(drawn.astype(np.float64) @ values / drawn.sum(1, keepdims=True))
    return np.concatenate(found)

"""Attributions as plain arrays: the units of one instance over all modalities and items, compared per time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from enum import Enum

import numpy as np
from scipy import stats
from torch import Tensor

from survlens.core.attribution import Attribution
from survlens.core.errors import InvalidValueError
from survlens.core.protocols import Inputs
from survlens.evaluate.squared_errors import trapezoid_weights

Explained = Attribution | Mapping[str, Attribution]
"""The attributions of one modality, or of several, each once."""

Predict = Callable[[Inputs], Tensor]
"""The target of every row of `inputs` at all times at once: (row, time)."""


class Part(Enum):
    """Which contributions count, and with which sign."""

    ABSOLUTE = "absolute contributions"
    RAISING = "contributions that raise the target"
    LOWERING = "contributions that lower the target"

    def of(self, values: np.ndarray) -> np.ndarray:
        """|phi|, phi or -phi: what is larger counts more."""
        if self is Part.ABSOLUTE:
            return np.abs(values)
        return values if self is Part.RAISING else -values

    def mass(self, values: np.ndarray) -> np.ndarray:
        """|phi|, max(phi, 0) or max(-phi, 0)."""
        return np.maximum(self.of(values), 0.0)


def parts_of(explained: Explained) -> dict[str, Attribution]:
    """Attributions by modality, once they are known to speak of the same instances and times.

    Raises:
        InvalidValueError: If there is none, or instances or times differ.
    """
    parts = {"attribution": explained} if isinstance(explained, Attribution) else dict(explained)
    if not parts or not next(iter(parts.values())).instances:
        raise InvalidValueError("`explained` must hold an attribution of at least one instance; got none.")
    first = next(iter(parts.values()))
    for name, part in parts.items():
        if part.instances != first.instances or not _same_times(part, first):
            raise InvalidValueError(
                "`explained` must have the same instances and times in every modality; "
                f"got {first.instances} instances and {len(first.times)} times, and {part.instances} and "
                f"{len(part.times)} in {name}. Explain all modalities in one call."
            )
    return parts


def times_of(explained: Explained) -> np.ndarray:
    """Times of the last axis."""
    return next(iter(parts_of(explained).values())).times.detach().cpu().double().numpy()


def time_weights(times: np.ndarray) -> np.ndarray:
    """Weights of the trapezoidal mean over the range of `times`; 1 for a single time."""
    return trapezoid_weights(np.asarray(times, dtype=np.float64))


def items_by_instance(part: Attribution) -> list[np.ndarray]:
    """Rows of `part.values` of each instance."""
    if part.rows is None:
        return list(np.arange(len(part))[:, None])
    rows = part.rows.cpu().numpy()
    ends = np.cumsum(np.bincount(rows, minlength=part.instances))
    return np.split(np.argsort(rows, kind="stable"), ends[:-1])


def instance_values(explained: Explained) -> Iterator[np.ndarray]:
    """The contributions of one instance after another: (unit, time), units of all modalities and items in a row."""
    parts = list(parts_of(explained).values())
    items = [items_by_instance(part) for part in parts]
    for i in range(parts[0].instances):
        of_instance = [
            part.values[items[k][i]].detach().cpu().double().reshape(-1, len(part.times)).numpy()
            for k, part in enumerate(parts)
        ]
        yield np.concatenate(of_instance)


def paired_values(first: Explained, second: Explained) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The contributions of each instance in both.

    Raises:
        InvalidValueError: If the two have other instances, times or features.
    """
    parts = (parts_of(first), parts_of(second))
    shapes = [{name: (tuple(part.values.shape), part.instances) for name, part in each.items()} for each in parts]
    one, other = (next(iter(each.values())) for each in parts)
    if list(shapes[0].values()) != list(shapes[1].values()) or not _same_times(one, other):
        raise InvalidValueError(
            f"Two attributions must have the same instances, features and times to be compared; got {shapes[0]} at "
            f"{len(one.times)} times and {shapes[1]} at {len(other.times)}. Explain the same rows at the same times."
        )
    return zip(instance_values(first), instance_values(second), strict=True)


def rank_correlation(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Spearman's correlation along the first axis; ties share their mean rank.

    Equal ranks count 1, also where all values are the same; a constant against anything else counts 0.
    """
    ranks = [stats.rankdata(values, axis=0) for values in (first, second)]
    centred = [each - each.mean(0) for each in ranks]
    product = (centred[0] * centred[1]).sum(0)
    scale = np.sqrt((centred[0] ** 2).sum(0) * (centred[1] ** 2).sum(0))
    equal = (ranks[0] == ranks[1]).all(0)
    return np.where(equal, 1.0, product / np.where(scale > 0, scale, 1.0)).clip(-1.0, 1.0)


def relative_distance(first: np.ndarray, second: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """||second - first|| / ||first|| along the first axis, or over both axes with `weights` of the second.

    Where `first` is 0 everywhere, 0 if `second` is as well and else 1.
    """
    moved, size = (second - first) ** 2, first**2
    if weights is None:
        moved, size = moved.sum(0), size.sum(0)
    else:
        moved, size = (moved @ weights).sum(), (size @ weights).sum()
    ratio = np.sqrt(moved / np.where(size > 0, size, 1.0))
    return np.where(size > 0, ratio, (moved > 0).astype(np.float64))


def top_membership(values: np.ndarray, count: int) -> np.ndarray:
    """How much each entry of the first axis belongs to the `count` largest; those tied at the edge share what is left.

    Each column sums to `count`.
    """
    edge = -np.partition(-values, count - 1, axis=0)[count - 1]
    above, tied = values > edge, values == edge
    left = count - above.sum(0)
    return above + tied * (left / tied.sum(0))


def _same_times(first: Attribution, second: Attribution) -> bool:
    one, other = (each.times.detach().cpu().double().numpy() for each in (first, second))
    return one.shape == other.shape and bool(np.allclose(one, other, equal_nan=True))

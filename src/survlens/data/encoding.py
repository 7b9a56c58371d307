"""How one covariate becomes numbers; every constant comes from training rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import ClassVar, Protocol

import numpy as np
import pandas as pd

from survlens.core.errors import DataError
from survlens.data.columns import as_text, is_none, parse_numbers, row_text, value_text
from survlens.data.table import Covariate, CovariateKind


class ColumnEncoding(Protocol):
    """The fitted encoding of one column."""

    kind: ClassVar[CovariateKind]

    @property
    def name(self) -> str:
        """Its column."""
        ...

    def features(self) -> tuple[str, ...]:
        """Names of the features it gives."""
        ...

    def encode(self, values: pd.Series, *, unseen_as_missing: bool) -> np.ndarray:
        """Its features, (instance, feature)."""
        ...


@dataclass(frozen=True, slots=True)
class NumericEncoding:
    """(x - mean) / std, with the training median where x is missing.

    Attributes:
        name: Its column.
        median: What stands in for a missing value.
        mean: Mean of the imputed training values; 0 where nothing is scaled.
        std: Their standard deviation; 1 where they are constant, or nothing is scaled.
        indicator: Whether a feature says that the value is missing; only where training values were.
    """

    kind: ClassVar[CovariateKind] = CovariateKind.NUMERIC
    name: str
    median: float
    mean: float
    std: float
    indicator: bool

    @classmethod
    def fit(cls, name: str, numbers: np.ndarray, *, scale: bool) -> NumericEncoding:
        """Fits on training values, NaN where missing."""
        missing = np.isnan(numbers)
        if missing.all():
            raise DataError(f"`{name}` must have a value in some training row; got none. Leave this covariate out.")
        median = float(np.median(numbers[~missing]))
        filled = np.where(missing, median, numbers)
        mean, std = (float(filled.mean()), float(filled.std())) if scale else (0.0, 1.0)
        constant = not np.ptp(filled) > 0
        return cls(name, median, mean, 1.0 if constant or std == 0 else std, bool(missing.any()))

    def features(self) -> tuple[str, ...]:
        """Its name, and "name missing" where there is an indicator."""
        return (self.name, f"{self.name} missing") if self.indicator else (self.name,)

    def encode(self, values: pd.Series, *, unseen_as_missing: bool) -> np.ndarray:
        """Scaled values, and the indicator."""
        numbers, unreadable = parse_numbers(values)
        if unreadable.any() and not unseen_as_missing:
            wrong = np.flatnonzero(unreadable)
            raise DataError(
                f"`{self.name}` must hold numbers; got {value_text(values.iloc[wrong])} in {row_text(wrong)}."
            )
        return self.scaled(numbers)

    def scaled(self, numbers: np.ndarray) -> np.ndarray:
        """Features of numbers that are NaN where missing."""
        missing = np.isnan(numbers)
        value = (np.where(missing, self.median, numbers) - self.mean) / self.std
        return np.stack([value, missing], axis=1) if self.indicator else value[:, None]


@dataclass(frozen=True, slots=True)
class OrderedEncoding:
    """The rank of the level, from 0, treated as a number.

    Attributes:
        levels: Levels in order.
        rank: Encoding of the ranks.
    """

    kind: ClassVar[CovariateKind] = CovariateKind.ORDERED
    levels: tuple[str, ...]
    rank: NumericEncoding

    @property
    def name(self) -> str:
        """Its column."""
        return self.rank.name

    @classmethod
    def fit(cls, name: str, values: pd.Series, levels: tuple[str, ...], *, scale: bool) -> OrderedEncoding:
        """Fits on training values."""
        ranks = _codes(as_text(values), levels)
        return cls(levels, NumericEncoding.fit(name, np.where(ranks < 0, np.nan, ranks), scale=scale))

    def features(self) -> tuple[str, ...]:
        """As those of a number."""
        return self.rank.features()

    def encode(self, values: pd.Series, *, unseen_as_missing: bool) -> np.ndarray:
        """Scaled ranks, and the indicator."""
        words = as_text(values)
        ranks = _codes(words, self.levels)
        if not unseen_as_missing:
            _refuse_unseen(self.name, words, ranks, self.levels)
        return self.rank.scaled(np.where(ranks < 0, np.nan, ranks))


@dataclass(frozen=True, slots=True)
class CategoricalEncoding:
    """One feature per level but the first, which is the reference.

    Attributes:
        name: Its column.
        levels: Levels of the training rows, sorted.
        mode: The most frequent one, which stands in for a missing value where training rows had none.
        missing: Whether missing is a level of its own; only where training values were missing.
    """

    kind: ClassVar[CovariateKind] = CovariateKind.CATEGORICAL
    name: str
    levels: tuple[str, ...]
    mode: str
    missing: bool

    @classmethod
    def fit(cls, name: str, values: pd.Series) -> CategoricalEncoding:
        """Fits on training values."""
        words = as_text(values)
        present = [word for word in words if word is not None]
        if not present:
            raise DataError(f"`{name}` must have a value in some training row; got none. Leave this covariate out.")
        levels, counts = np.unique(np.array(present, dtype=str), return_counts=True)
        return cls(name, tuple(map(str, levels)), str(levels[counts.argmax()]), len(present) < len(words))

    def features(self) -> tuple[str, ...]:
        """`name=level` for every level but the reference, then `name missing`."""
        named = tuple(f"{self.name}={level}" for level in self.levels[1:])
        return (*named, f"{self.name} missing") if self.missing else named

    def encode(self, values: pd.Series, *, unseen_as_missing: bool) -> np.ndarray:
        """Zeros and ones."""
        words = as_text(values)
        codes = _codes(words, self.levels)
        if not unseen_as_missing:
            _refuse_unseen(self.name, words, codes, self.levels)
        filled = np.where(codes < 0, len(self.levels) if self.missing else self.levels.index(self.mode), codes)
        return np.eye(len(self.levels) + int(self.missing))[filled][:, 1:]


def _codes(words: np.ndarray, levels: tuple[str, ...]) -> np.ndarray:
    position = {level: code for code, level in enumerate(levels)}
    return np.array([position.get(word, -1) for word in words], dtype=np.int64)


def _refuse_unseen(name: str, words: np.ndarray, codes: np.ndarray, levels: tuple[str, ...]) -> None:
    unseen = np.flatnonzero((codes < 0) & ~is_none(words))
    if unseen.size:
        raise DataError(
            f"`{name}` must be one of the levels seen in training, {', '.join(levels)}; got "
            f"{value_text(words[unseen])} in {len(unseen)} row{'s' if len(unseen) > 1 else ''}. Set unseen to "
            "'as_missing' to treat them as missing, or merge rare levels."
        )


def fit_encoding(covariate: Covariate, values: pd.Series, *, scale: bool) -> ColumnEncoding:
    """Fits the encoding of one covariate on its training values.

    The levels of a categorical covariate are those of these values, whatever `covariate` lists: no test row adds one.
    """
    if covariate.kind is CovariateKind.NUMERIC:
        return NumericEncoding.fit(covariate.name, parse_numbers(values)[0], scale=scale)
    if covariate.kind is CovariateKind.ORDERED:
        return OrderedEncoding.fit(covariate.name, values, covariate.levels or (), scale=scale)
    return CategoricalEncoding.fit(covariate.name, values)


def encoding_to_json(encoding: ColumnEncoding) -> dict[str, object]:
    """Plain values for a json file."""
    return {"kind": encoding.kind.value} | asdict(encoding)  # type: ignore[call-overload]


def encoding_from_json(plain: Mapping[str, object]) -> ColumnEncoding:
    """The encoding that `encoding_to_json` wrote."""
    fields = dict(plain)
    kind = CovariateKind(fields.pop("kind"))
    if "levels" in fields:
        fields["levels"] = tuple(fields["levels"])  # type: ignore[arg-type]
    if kind is CovariateKind.NUMERIC:
        return NumericEncoding(**fields)  # type: ignore[arg-type]
    if kind is CovariateKind.CATEGORICAL:
        return CategoricalEncoding(**fields)  # type: ignore[arg-type]
    return OrderedEncoding(fields["levels"], NumericEncoding(**fields["rank"]))  # type: ignore[arg-type]

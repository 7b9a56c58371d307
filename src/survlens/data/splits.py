"""Which rows train, tune and test: always whole patients, stratified by event, saved with a hash."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from survlens.core.errors import DataError, InvalidValueError, LeakageError
from survlens.data.cohort import Cohort, concatenate
from survlens.data.columns import as_text, column_of, is_none, nearest
from survlens.data.dealing import PatientKFold as PatientKFold
from survlens.data.dealing import deal, part_of, warn_about_events


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """Rows of the parts of one split.

    Attributes:
        train: Rows to fit on.
        validation: Rows to tune or stop on, or None.
        test: Rows to score on.
        name: What it is called ("fold 1", "holdout", ...).
    """

    train: np.ndarray
    validation: np.ndarray | None
    test: np.ndarray
    name: str = "holdout"

    def parts(self) -> dict[str, np.ndarray]:
        """The parts that exist, by name."""
        parts = {"train": self.train, "validation": self.validation, "test": self.test}
        return {name: rows for name, rows in parts.items() if rows is not None}

    def to_json(self) -> dict[str, Any]:
        """Plain lists for a json file."""
        return {"name": self.name} | {name: rows.tolist() for name, rows in self.parts().items()}


@dataclass(frozen=True, slots=True, eq=False)
class Splits:
    """One or several splits of one cohort.

    Attributes:
        items: The splits.
        n_instances: Number of rows of the cohort they belong to.
    """

    items: tuple[Split, ...]
    n_instances: int

    def __post_init__(self) -> None:
        for split in self.items:
            rows = np.concatenate(list(split.parts().values()))
            if rows.size and (rows.min() < 0 or rows.max() >= self.n_instances):
                raise DataError(
                    f"rows of {split.name!r} must lie in 0 to {self.n_instances - 1}; got {rows.min()} to "
                    f"{rows.max()}. The splits were made for another cohort: make them again."
                )
            if len(np.unique(rows)) < len(rows):
                raise LeakageError(f"each row must stand in one part of {split.name!r}; got a row in two. Redo it.")

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[Split]:
        return iter(self.items)

    def __getitem__(self, index: int) -> Split:
        return self.items[index]

    @property
    def hash(self) -> str:
        """SHA-256 of all rows of all parts."""
        return hashlib.sha256(json.dumps(self._plain(), sort_keys=True).encode()).hexdigest()

    def _plain(self) -> dict[str, Any]:
        return {"n_instances": self.n_instances, "splits": [split.to_json() for split in self.items]}

    def to_json(self) -> dict[str, Any]:
        """Plain values for a json file, with the hash."""
        return self._plain() | {"hash": self.hash}

    @staticmethod
    def from_json(plain: Mapping[str, Any]) -> Splits:
        """Splits from what `to_json` gave.

        Raises:
            DataError: If the content does not match its hash.
        """
        try:
            items = tuple(_split(entry) for entry in plain["splits"])
            splits = Splits(items, int(plain["n_instances"]))
        except (KeyError, TypeError) as error:
            raise DataError(f"saved splits must hold {error}; got none. Make the splits again.") from error
        if splits.hash != plain.get("hash"):
            raise DataError("saved splits must match their hash; got other rows. The file was edited: make it again.")
        return splits


def _split(entry: Mapping[str, Any]) -> Split:
    train, validation, test = (
        None if entry.get(part) is None else np.asarray(entry[part], dtype=np.int64)
        for part in ("train", "validation", "test")
    )
    if train is None or test is None:
        raise KeyError("train and test")
    return Split(train, validation, test, str(entry["name"]))


def check_leak(split: Split, patient: np.ndarray) -> None:
    """Raises `LeakageError`, with up to three names, where a patient stands in two parts of `split`."""
    parts = {name: set(patient[rows]) for name, rows in split.parts().items()}
    names = list(parts)
    for i, first in enumerate(names):
        for second in names[i + 1 :]:
            both = sorted(parts[first] & parts[second], key=str)
            if both:
                raise LeakageError(
                    f"each patient must stand in one part of {split.name!r}; got {len(both)} in {first} and {second}: "
                    f"{', '.join(map(str, both[:3]))}{', ...' if len(both) > 3 else ''}. Move them to one."
                )


def _checked(cohort: Cohort, splits: Sequence[Split]) -> Splits:
    for split in splits:
        check_leak(split, cohort.patient)
        for part in ("train", "test"):
            if not len(getattr(split, part)):
                raise DataError(
                    f"the {part} part of {split.name!r} must have rows; got none. Change the fraction or value."
                )
    return Splits(tuple(splits), len(cohort))


def holdout(cohort: Cohort, *, test_fraction: float, seed: int, validation_fraction: float = 0.0) -> Splits:
    """One split: a share of the patients is held out, stratified by event.

    Args:
        cohort: The cohort.
        test_fraction: Share of the patients to test on, in (0, 1).
        seed: Seed of the shuffle.
        validation_fraction: Share of the *training* patients to tune on, in [0, 1).

    Raises:
        DataError: If there are no events, or fewer patients than parts.
    """
    everyone = np.arange(len(cohort))
    train, test = part_of(
        cohort.patient, cohort.outcome, everyone, fraction=test_fraction, seed=seed, what="test_fraction"
    )
    validation = None
    if validation_fraction:
        train, validation = validation_part(cohort, train, fraction=validation_fraction, seed=seed + 1)
    split = Split(train, validation, test, "holdout")
    warn_about_events(cohort.outcome, split.parts())
    return _checked(cohort, [split])


def validation_part(cohort: Cohort, rows: np.ndarray, *, fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Parts `rows` into rows to fit on and rows to stop on: whole patients, stratified by event.

    Args:
        cohort: The cohort.
        rows: Training rows.
        fraction: Share of their patients to stop on, in (0, 1).
        seed: Seed of the shuffle.
    """
    return part_of(cohort.patient, cohort.outcome, np.asarray(rows), fraction=fraction, seed=seed, what="fraction")


def k_fold(cohort: Cohort, *, folds: int, seed: int, repeats: int = 1) -> Splits:
    """Every patient is tested once per repeat; folds are stratified by event.

    Args:
        cohort: The cohort.
        folds: Number of folds, at least 2.
        seed: Seed of the first shuffle; each repeat takes the next one.
        repeats: How often the whole is repeated with other folds.

    Raises:
        DataError: If there are fewer patients than folds, or fewer than two patients with an event.
    """
    if repeats < 1:
        raise InvalidValueError(f"`repeats` must be >= 1; got {repeats}.")
    splits = []
    for repeat in range(repeats):
        fold = deal(cohort.patient, cohort.outcome, folds=folds, seed=seed + repeat)
        for k in range(folds):
            name = f"fold {k + 1}" if repeats == 1 else f"repeat {repeat + 1} fold {k + 1}"
            splits.append(Split(np.flatnonzero(fold != k), None, np.flatnonzero(fold == k), name))
    warn_about_events(cohort.outcome, {split.name: split.test for split in splits})
    return _checked(cohort, splits)


def by_column(
    cohort: Cohort, column: str, test_values: Sequence[object], *, validation_values: Sequence[object] = ()
) -> Splits:
    """One split given by a column: rows with one of `test_values` test, the others train.

    Raises:
        DataError: If no row has one of the values, or a cell is empty.
        LeakageError: If rows of one patient stand on two sides.
    """
    words = _column(cohort, column)
    test = np.isin(words, _words(test_values))
    validation = np.isin(words, _words(validation_values))
    if not test.any():
        found = ", ".join(sorted(set(words))[:8])
        raise DataError(f"`test_values` must occur in {column!r}; got {list(test_values)}, but it holds {found}.")
    split = Split(
        np.flatnonzero(~test & ~validation),
        np.flatnonzero(validation) if validation.any() else None,
        np.flatnonzero(test),
        f"{column} in {', '.join(_words(test_values))}",
    )
    return _checked(cohort, [split])


def by_date(cohort: Cohort, column: str, cutoff: str | int) -> Splits:
    """One split in time: patients whose first date is before `cutoff` train, the later ones test.

    Args:
        cohort: The cohort.
        column: A kept column of dates (YYYY-MM-DD) or years.
        cutoff: First date, or year, of the test part.
    """
    words = _column(cohort, column)
    years = all(re.fullmatch(r"\d{4}", word) for word in words)
    dates, limit = _ordinals(words, years), _ordinals(np.array([str(cutoff)]), years)
    wrong = [*words[np.isnan(dates)], *([str(cutoff)] if np.isnan(limit[0]) else [])]
    if wrong:
        raise DataError(
            f"{column!r} and `cutoff` must be dates as YYYY-MM-DD, or years; got {str(wrong[0])!r}. Rewrite it."
        )
    first = pd.Series(dates).groupby(cohort.patient).transform("min").to_numpy()
    later = first >= limit[0]
    split = Split(np.flatnonzero(~later), None, np.flatnonzero(later), f"{column} from {cutoff}")
    return _checked(cohort, [split])


def leave_one_site_out(cohort: Cohort, column: str) -> Splits:
    """One split per value of `column`: that site tests, all the others train.

    Raises:
        DataError: If there is only one site.
        LeakageError: If one patient has rows at two sites.
    """
    words = _column(cohort, column)
    sites = sorted(set(words))
    if len(sites) < 2:
        raise DataError(f"`column` must hold two or more sites; got {sites} in {column!r}. Use k_fold instead.")
    return _checked(
        cohort, [Split(np.flatnonzero(words != site), None, np.flatnonzero(words == site), site) for site in sites]
    )


def site_folds(cohort: Cohort, column: str, *, folds: int, seed: int) -> Splits:
    """Folds of whole sites: nobody is tested who was treated where a training patient was.

    What a model knows of a site (its stains, scanners, referral) does not help it here. Sites are dealt so that the
    folds have about equal shares of events.

    Args:
        cohort: The cohort.
        column: Kept column that names the site of each row.
        folds: Number of folds, at least 2.
        seed: Seed of the shuffle.

    Raises:
        DataError: If there are fewer sites than folds.
        LeakageError: If one patient has rows at two sites.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    words = _column(cohort, column)
    sites = len(set(words))
    if folds < 2 or sites < folds:
        raise DataError(f"`folds` must lie in 2 .. {sites}, the number of sites in {column!r}; got {folds}.")
    event = (cohort.outcome.numpy()[1] > 0).astype(int)
    dealt = StratifiedGroupKFold(folds, shuffle=True, random_state=seed).split(event, event, groups=words)
    splits = [Split(train, None, test, f"sites {k + 1}") for k, (train, test) in enumerate(dealt)]
    warn_about_events(cohort.outcome, {split.name: split.test for split in splits})
    return _checked(cohort, splits)


def external(cohort: Cohort, other: Cohort) -> tuple[Cohort, Splits]:
    """Trains on one cohort and tests on another: both as one cohort, and the split between them.

    Raises:
        LeakageError: If a patient name occurs in both.
        DataError: If their covariates, units or images differ in kind.
    """
    both = sorted(set(cohort.patient) & set(other.patient))
    if both:
        raise LeakageError(
            f"no patient must stand in both cohorts; got {len(both)}: {', '.join(both[:3])}. If they are different "
            "people, put the name of the hospital before their names."
        )
    joined = concatenate(cohort, other)
    rows = np.arange(len(joined))
    return joined, _checked(joined, [Split(rows[: len(cohort)], None, rows[len(cohort) :], "external")])


def _ordinals(words: np.ndarray, years: bool) -> np.ndarray:
    """Years or dates as numbers that can be compared, NaN where they cannot be read."""
    column = pd.Series(words)
    if years:
        return np.asarray(pd.to_numeric(column, errors="coerce"), dtype=np.float64)
    dates = np.asarray(pd.to_datetime(column, format="ISO8601", errors="coerce"), dtype="datetime64[s]")
    return np.where(np.isnat(dates), np.nan, dates.astype(np.int64).astype(np.float64))


def _words(values: Sequence[object]) -> list[str]:
    return [str(word) for word in as_text(pd.Series(list(values), dtype=object))]


def _column(cohort: Cohort, column: str) -> np.ndarray:
    if column not in cohort.groups.columns:
        names = [str(name) for name in cohort.groups.columns]
        raise DataError(
            f"`column` must be kept in the cohort (site, date, split or keep of its schema); got {column!r}. "
            f"{nearest(column, names) if names else 'None is kept.'}"
        )
    words = as_text(column_of(cohort.groups, column))
    empty = int(is_none(words).sum())
    if empty:
        raise DataError(f"{column!r} must be filled in every row to split by it; got {empty} empty. Fill them in.")
    return words.astype(str)

"""From the [split] section to rows of training, validation and test."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from survlens.data.cohort import Cohort
from survlens.data.splits import (
    Split,
    Splits,
    by_column,
    by_date,
    check_leak,
    holdout,
    k_fold,
    leave_one_site_out,
    site_folds,
    validation_part,
)
from survlens.study.settings import DataSettings, SplitKind, SplitSettings


def make_splits(cohort: Cohort, data: DataSettings, split: SplitSettings, seed: int) -> Splits:
    """The splits of a study, each with a validation part taken from its training patients.

    An external test cohort is joined before, by `survlens.data.splits.external`.

    Args:
        cohort: The cohort.
        data: Section [data], for the site and date columns.
        split: Section [split].
        seed: Seed of every shuffle.

    Raises:
        DataError: If a part would be empty.
        LeakageError: If a patient would stand on two sides.
    """
    makers: Mapping[SplitKind, Callable[[], Splits]] = {
        SplitKind.HOLDOUT: lambda: holdout(cohort, test_fraction=split.test_fraction, seed=seed),
        SplitKind.FOLDS: lambda: k_fold(cohort, folds=split.folds, seed=seed, repeats=split.repeats),
        SplitKind.COLUMN: lambda: by_column(cohort, str(split.column), split.test_values),
        SplitKind.DATE: lambda: by_date(cohort, str(data.date), str(split.cutoff)),
        SplitKind.SITE: lambda: leave_one_site_out(cohort, str(data.site)),
        SplitKind.SITE_FOLDS: lambda: site_folds(cohort, str(data.site), folds=split.folds, seed=seed),
    }
    return with_validation(cohort, makers[split.kind](), split.validation_fraction, seed)


def with_validation(cohort: Cohort, splits: Splits, fraction: float, seed: int) -> Splits:
    """The same splits, with a share of the training patients set apart to tell when to stop."""
    if not fraction:
        return splits
    parted: list[Split] = []
    for at, split in enumerate(splits):
        if split.validation is None:
            train, validation = validation_part(cohort, split.train, fraction=fraction, seed=seed + 1000 + at)
            split = replace(split, train=train, validation=validation)
        check_leak(split, cohort.patient)
        parted.append(split)
    return Splits(tuple(parted), splits.n_instances)

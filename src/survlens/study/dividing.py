"""The cohort of a study with its splits, and what would stop a fit, found before the first one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from survlens.core.errors import DataError, InvalidTypeError, InvalidValueError
from survlens.data.cohort import Cohort
from survlens.data.splits import Splits, external
from survlens.study.bench import check_tables
from survlens.study.estimators import estimator, is_classical
from survlens.study.model_settings import KaplanMeierModel, ModelEntry
from survlens.study.settings import DataSettings, SplitKind, StudySettings
from survlens.study.splitting import make_splits, with_validation

_ONE_BASELINE = frozenset({"cox_time"})
"""Kinds of networks whose baseline is of one stratum."""


def divided(settings: StudySettings, cohort: Cohort, other: Cohort | None) -> tuple[Cohort, Splits]:
    """The cohort, joined with the external one, and its splits, which every model of the study can be fitted on.

    Args:
        settings: The study.
        cohort: Its cohort.
        other: The external test cohort, or None.

    Raises:
        DataError: If a part would be empty, a test row has a category that training rows lack, or a model refuses
            delayed entry, weights or strata.
        InvalidValueError: If [split] asks for more folds than there are patients or sites.
    """
    split, seed = settings.split, settings.study.seed
    if split.kind is SplitKind.EXTERNAL and other is not None:
        cohort, splits = external(cohort, other)
        splits = with_validation(cohort, splits, split.validation_fraction, seed)
    else:
        splits = make_splits(cohort, settings.data, split, seed)
    check_tables(cohort, splits, settings.data)
    for entry in settings.models:
        with naming_refusals(entry, settings.data):
            _check_honoured(entry, cohort, splits)
    return cohort, splits


def _check_honoured(entry: ModelEntry, cohort: Cohort, splits: Splits) -> None:
    if is_classical(entry) and not isinstance(entry.settings, KaplanMeierModel):
        estimator(entry, entry.seeds[0]).check_honoured(cohort.outcome)
    if entry.kind in _ONE_BASELINE:
        count = max(len(cohort.outcome[split.train].strata().unique()) for split in splits)
        if count > 1:
            raise InvalidValueError(
                f"`y` must be of one stratum for {entry.kind}; got {count}. "
                "Give the stratum as a covariate: its risks may change with time, so hazards may cross."
            )


@contextmanager
def naming_refusals(entry: ModelEntry, data: DataSettings) -> Iterator[None]:
    """Says which model refuses an outcome with delayed entry, weights or strata, and which columns these are.

    Raises:
        DataError: In place of what the model raised.
    """
    given = {name: getattr(data, name) for name in ("entry", "weight", "stratum") if getattr(data, name) is not None}
    try:
        yield
    except (InvalidValueError, InvalidTypeError) as error:
        if not given:
            raise
        columns = ", ".join(f'{name} = "{column}"' for name, column in given.items())
        raise DataError(
            f"the model {entry.name} ({entry.kind}) must take what [data] says ({columns}); it was refused: {error} "
            "Leave the model out (--models), or the column."
        ) from error

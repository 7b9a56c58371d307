"""From the [data] section to what the data floor understands."""

from __future__ import annotations

from survlens.data.schema import CohortSchema
from survlens.study.settings import DataSettings, SplitSettings


def schema_of(data: DataSettings, split: SplitSettings | None = None) -> CohortSchema:
    """What the columns of a study's table are.

    Args:
        data: Section [data].
        split: Section [split], which may name one more column.
    """
    return CohortSchema(
        time=data.time,
        event=data.event,
        unit=data.unit,
        patient=data.patient,
        image=data.image,
        mask=data.mask,
        scan=data.scan,
        structure=data.structure,
        scan_folder=data.scan_folder,
        scans=data.scans.settings if data.has_scans else None,
        scan_cache=data.scans.cache if data.has_scans else None,
        instance=data.instance,
        entry=data.entry,
        weight=data.weight,
        stratum=data.stratum,
        numeric=data.numeric,
        categorical=data.categorical,
        ordered=dict(data.ordered),
        site=data.site,
        date=data.date,
        split=None if split is None else split.column,
        keep=data.keep if data.true_log_hazard is None else (*data.keep, data.true_log_hazard),
        event_values={name: code for name, code in data.event_values.items()} or None,
        zero_times=data.zero_times,
    )

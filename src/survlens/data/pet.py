"""Standardised uptake values of PET: activity per body weight, decay undone up to the start of the scan."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from survlens.core.errors import DataError

_DAY = 86_400.0


@dataclass(frozen=True, slots=True)
class UptakeFacts:
    """What a header says about the dose; None where it is silent.

    Attributes:
        units: "BQML", "GML" ...
        decay: What activity is corrected to: "START" of the scan, or "ADMIN"istration.
        weight: Of the patient, in kilograms.
        dose: At administration, in becquerel.
        half_life: In seconds.
        given: Time of administration, in seconds of the day.
        series: Start of the series, in seconds of the day.
        acquired: Start of this slice, in seconds of the day.
    """

    units: str
    decay: str
    weight: float | None
    dose: float | None
    half_life: float | None
    given: float | None
    series: float | None
    acquired: float | None

    @classmethod
    def of(cls, header: Any) -> UptakeFacts:
        """What a header says."""
        sequence = header.get("RadiopharmaceuticalInformationSequence") or [{}]
        drug = sequence[0]
        started = str(drug.get("RadiopharmaceuticalStartDateTime") or "")[8:]
        return cls(
            units=str(header.get("Units") or "").strip().upper(),
            decay=str(header.get("DecayCorrection") or "").strip().upper(),
            weight=_positive(header.get("PatientWeight")),
            dose=_positive(drug.get("RadionuclideTotalDose")),
            half_life=_positive(drug.get("RadionuclideHalfLife")),
            given=_seconds(started or drug.get("RadiopharmaceuticalStartTime")),
            series=_seconds(header.get("SeriesTime")),
            acquired=_seconds(header.get("AcquisitionTime")),
        )


def uptake_factor(facts: Sequence[UptakeFacts], name: str) -> float:
    r"""By what the voxels of a PET series are multiplied to become standardised uptake values.

    .. math:: 1000\, w / (d\, 2^{-\Delta / h})

    with the patient's weight w in kilograms, the dose d in becquerel, the time Δ from administration to the start
    of the scan and the half-life h in seconds. Where activity is corrected to administration, Δ is 0. The start of the
    scan is that of the series, or of its first slice where that was taken earlier.

    Args:
        facts: Of every slice.
        name: What messages call the series.

    Raises:
        DataError: If a fact is missing, or the unit is another one than Bq/ml or g/ml.
    """
    first = facts[0]
    if {each.units for each in facts} == {"GML"}:
        return 1.0
    if {each.units for each in facts} != {"BQML"}:
        raise DataError(f"the units of {name} must be BQML or GML, for uptake values; they are others. Convert them.")
    starts = [at for each in facts for at in (each.series, each.acquired) if at is not None]
    needed = {
        "PatientWeight": first.weight,
        "RadionuclideTotalDose": first.dose,
        "RadionuclideHalfLife": first.half_life,
        "RadiopharmaceuticalStartTime": first.given,
        "SeriesTime": min(starts) if starts else None,
    }
    missing = [key for key, value in needed.items() if value is None]
    if missing or first.decay not in {"START", "ADMIN"}:
        listed = ", ".join([*missing, *([] if first.decay in {"START", "ADMIN"} else ["DecayCorrection"])])
        raise DataError(f"{name} must say what uptake values need; it lacks {listed}. Export it with these attributes.")
    weight, dose, half_life, given, _ = (float(value or 0.0) for value in needed.values())
    # Clocks start again at midnight: the earliest is the one soonest after the dose was given.
    waited = 0.0 if first.decay == "ADMIN" else min((at - given) % _DAY for at in starts)
    return 1000 * weight / (dose * 2 ** (-waited / half_life))


def _positive(value: Any) -> float | None:
    number = float(value) if value not in (None, "") else 0.0
    return number if number > 0 else None


def _seconds(value: Any) -> float | None:
    text = str(value if value is not None else "").strip()
    if len(text) < 6 or not text[:6].isdigit():
        return None
    return int(text[:2]) * 3600 + int(text[2:4]) * 60 + float(text[4:].split("+")[0].split("-")[0])

"""Portraits as the files that a clinic would give: photographs and a table, with the truth apart from them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from survlens.core.errors import DataError
from survlens.core.outcome import SurvivalOutcome
from survlens.data.raster import FileImage
from survlens.data.simulate.portrait_drawing import LANDMARKS, draw
from survlens.data.simulate.portrait_factors import checked_factors
from survlens.data.simulate.portraits import STAGES, Known, PortraitCohort, expected_log_hazard
from survlens.data.table import read_table

SEXES = ("F", "M")


def photograph_paths(patient: Int64[np.ndarray, " instance"]) -> list[str]:
    """Paths of the photographs below the folder of a cohort: photos/P00001-1.png is the first of the first patient."""
    numbers = pd.Series(patient).groupby(patient).cumcount()
    return [f"photos/P{who + 1:05d}-{number + 1}.png" for who, number in zip(patient, numbers, strict=True)]


def write_photograph(path: Path, picture: Float[Tensor, "3 height width"]) -> None:
    """Writes one picture in [0, 1] as a PNG file of 8 bits; its folder is made where it is missing."""
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = torch.round(picture * 255).to(torch.uint8).permute(1, 2, 0).numpy()
    Image.fromarray(pixels).save(path, format="PNG")


def cohort_table(
    factors: pd.DataFrame,
    stage: Int64[np.ndarray, " instance"],
    patient: Int64[np.ndarray, " instance"],
    outcome: SurvivalOutcome,
    landmarks: Float64[np.ndarray, "instance landmark 2"],
) -> pd.DataFrame:
    """What a clinic would know: photograph, patient, age, sex, stage, follow-up, and the landmarks of the face.

    Args:
        factors: Of each photograph.
        stage: 0 to 3.
        patient: Number of the patient.
        outcome: Survival.
        landmarks: In pixels of the photographs.
    """
    time, event = outcome.numpy()
    table = {
        "photo": photograph_paths(patient),
        "patient": [f"P{number + 1:05d}" for number in patient],
        "time": time.round(6).clip(1e-6),
        "event": event,
        "age": factors["age"].to_numpy().round(1),
        "sex": np.array(SEXES)[factors["sex"].to_numpy().astype(int)],
        "stage": np.array(STAGES)[stage],
    }
    for place, point in enumerate(LANDMARKS):
        for axis, name in enumerate("xy"):
            table[f"{point}_{name}"] = landmarks[:, place, axis].round(3)
    return pd.DataFrame(table)


def truth_table(
    factors: pd.DataFrame, stage: Int64[np.ndarray, " instance"], patient: Int64[np.ndarray, " instance"]
) -> pd.DataFrame:
    """What no clinic knows: every factor, the true log-hazard, and its mean given the photograph or the table alone.

    Args:
        factors: Of each photograph.
        stage: 0 to 3.
        patient: Number of the patient.
    """
    truth = checked_factors(factors)
    truth.insert(0, "photo", pd.Series(photograph_paths(patient)))
    truth["log_hazard"] = expected_log_hazard(factors, stage, Known.EVERYTHING)
    truth["log_hazard_photograph"] = expected_log_hazard(factors, stage, Known.PHOTOGRAPH)
    truth["log_hazard_clinical"] = expected_log_hazard(factors, stage, Known.CLINICAL)
    numbers = [name for name in truth.columns if name != "photo"]
    truth[numbers] = truth[numbers].round(9)
    return truth


def read_portraits(folder: Path | str) -> PortraitCohort:
    """Reads back a whole cohort that `survlens simulate portraits` wrote: photographs, tables and truth.

    Pictures have the 8 bits of their files; masks are those of the drawn factors.

    Args:
        folder: With cohort.csv, truth.csv and photos/.

    Raises:
        DataError: If a table is missing, or the two tables name other photographs.
        CorruptFileError: If a file cannot be read.
    """
    folder = Path(folder)
    cohort, truth = read_table(folder / "cohort.csv"), read_table(folder / "truth.csv")
    if list(cohort["photo"]) != list(truth["photo"]):
        raise DataError(
            f"cohort.csv and truth.csv must name the same photographs in one order; those in {folder.name} do not. "
            "Write the cohort again."
        )
    pixels = [FileImage(folder / str(name), str(name)).read() for name in cohort["photo"]]
    pictures = torch.from_numpy(np.stack(pixels))
    factors = checked_factors(truth)
    drawing = draw(factors, size=pictures.shape[-1])
    return PortraitCohort(
        pictures=pictures,
        factors=factors,
        stage=np.array([STAGES.index(str(each)) for each in cohort["stage"]], dtype=np.int64),
        patient=pd.factorize(cohort["patient"])[0].astype(np.int64),
        outcome=SurvivalOutcome.from_arrays(cohort["time"].to_numpy(), cohort["event"].to_numpy(), "months"),
        face=drawing.face,
        background=drawing.background,
        landmarks=drawing.landmarks,
    )

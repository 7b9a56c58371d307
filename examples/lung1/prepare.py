"""Joins the clinical table and the radiomics features of NSCLC-Radiomics (Lung1) into one csv file.

    python prepare.py FOLDER_OF_LUNG1 FOLDER_TO_WRITE

The first folder holds clinical.csv and pyradiomics_features.csv, both with the column PatientID.
"""

import sys
from pathlib import Path

import pandas as pd

CLINICAL = {
    "PatientID": "patient",
    "age": "age",
    "clinical.T.Stage": "t_stage",
    "Clinical.N.Stage": "n_stage",
    "Overall.Stage": "stage",
    "Histology": "histology",
    "gender": "gender",
    "Survival.time": "days",
    "deadstatus.event": "died",
}


def main(source: Path, target: Path) -> None:
    """Writes `target`/lung1.csv: the patients who are in both tables, with the features that all have."""
    clinical = pd.read_csv(source / "clinical.csv").rename(columns=CLINICAL)[list(CLINICAL.values())]
    radiomics = pd.read_csv(source / "pyradiomics_features.csv").rename(columns={"PatientID": "patient"})
    features = radiomics.dropna(subset="patient").set_index("patient").add_prefix("r_")
    # One patient has no shape features, and a few features could not be computed for many patients.
    features = features.dropna(thresh=features.shape[1] - 10).dropna(axis=1)
    target.mkdir(parents=True, exist_ok=True)
    clinical.merge(features, on="patient").to_csv(target / "lung1.csv", index=False, lineterminator="\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))

"""Tables of radiomics that other programs wrote."""

import numpy as np
import pytest

from survlens.core.errors import DataError
from survlens.data.radiomics_csv import RadiomicsWriter, read_radiomics_csv

PYRADIOMICS = """PatientID,Image,diagnostics_Versions_PyRadiomics,original_shape_Sphericity,wavelet-HLH_glcm_Idmn
007,a.nii.gz,v3.0.1,0.5,0.9
008,b.nii.gz,v3.0.1,0.25,
"""
MIRP = """sample_name,image_modality,morph_volume,stat_mean,wavelet_coif1_hlh_cm_joint_max_d1_3d_avg_fbs_w25.0
a,ct,1.5,2,0.25
b,ct,2.5,3,0.5
"""


def written(folder, text):
    path = folder / "features.csv"
    path.write_text(text)
    return path


def test_diagnostics_are_dropped_and_said(tmp_path):
    found = read_radiomics_csv(written(tmp_path, PYRADIOMICS), identifier="PatientID")
    assert found.writer is RadiomicsWriter.PYRADIOMICS
    assert list(found.features.columns) == ["original_shape_Sphericity", "wavelet-HLH_glcm_Idmn"]
    assert list(found.features.index) == ["007", "008"]
    assert found.diagnostics == ("diagnostics_Versions_PyRadiomics",)
    assert found.other == ("Image",)
    assert found.missing == {"wavelet-HLH_glcm_Idmn": 1}
    assert np.isnan(found.features.loc["008", "wavelet-HLH_glcm_Idmn"])
    assert [each.name for each in found.covariates] == list(found.features.columns)
    text = found.describe()
    assert all(part in text for part in ("2 PyRadiomics features of 2 cases", "1 diagnostic", "'Image'", "empty cells"))


def test_mirp_is_known_by_its_names(tmp_path):
    found = read_radiomics_csv(written(tmp_path, MIRP), identifier="sample_name")
    assert found.writer is RadiomicsWriter.MIRP
    assert found.features.shape == (2, 3)
    assert found.other == ("image_modality",)


def test_the_table_of_a_real_cohort(shared):
    found = read_radiomics_csv(shared("data", "lung1", "pyradiomics_features.csv"), identifier="PatientID")
    assert found.features.shape == (211 - 5, 1004)  # five rows of the published table name no patient
    assert found.unnamed == (178, 179, 186, 189, 192)
    assert "rows 180, 181, 188, 191, 194 dropped" in found.describe()
    assert (found.diagnostics, found.other) == ((), ())
    assert found.features.index[0] == "LUNG1-002"


@pytest.mark.parametrize(
    ("text", "identifier", "words"),
    [
        (PYRADIOMICS, "patient", "Did you mean|Its columns"),
        (PYRADIOMICS.replace("008", "007"), "PatientID", "each case once"),
        (PYRADIOMICS.replace("007", "").replace("008", ""), "PatientID", "got none"),
        (PYRADIOMICS.replace("0.25", "broken"), "PatientID", "finite numbers"),
        ("id,age\na,3\n", "id", "PyRadiomics or MIRP"),
    ],
)
def test_what_is_no_such_table_is_refused(tmp_path, text, identifier, words):
    with pytest.raises(DataError, match=words):
        read_radiomics_csv(written(tmp_path, text), identifier=identifier)

"""`survlens export` on the networks of a run."""

import json

import numpy as np

from survlens.artifacts.run_folder import RunFolder
from survlens.models.onnx_export import check_onnx
from survlens.models.saving import load_model

FAILURE, USAGE = 1, 2


def test_a_network_of_a_run_becomes_a_file(survlens, finished, tmp_path):
    import onnxruntime
    import torch

    out = tmp_path / "vae.onnx"
    result = survlens("export", finished, "vae", "--out", out, "--times", "3,6,12", "--fit", "fold1-seed4")
    assert result.exit_code == 0, result.output
    assert "wrote" in result.output
    session = onnxruntime.InferenceSession(out)
    facts = session.get_modelmeta().custom_metadata_map
    assert json.loads(facts["times"]) == [3.0, 6.0, 12.0]
    assert facts["unit"] == "months"
    assert '"image_scaling"' in facts["preprocessing"]
    model = load_model(RunFolder.open(finished).model("vae") / "fold1-seed4").model
    images = torch.rand(5, 1, 16, 16)
    assert check_onnx(out, model, {"image": images}) < 1e-5
    assert np.shape(session.run(["survival"], {"image": images.numpy()})[0]) == (5, 3)


def test_what_cannot_be_exported_is_said_in_one_line(survlens, finished, tmp_path):
    def line(model, *options, times="6"):
        result = survlens("export", finished, model, "--out", tmp_path / "m.onnx", "--times", times, *options)
        return result.exit_code, result.output

    code, said = line("clinical_cox")
    assert (code, "Its networks are: vae" in " ".join(said.split())) == (USAGE, True)
    code, said = line("vae", "--fit", "fold9-seed9")
    assert (code, "fold1-seed3" in said) == (USAGE, True)
    code, said = line("vae", times="6,twelve")
    assert (code, "commas" in said) == (USAGE, True)
    code, said = line("vae", times="6000")
    assert (code, "fitted range" in " ".join(said.split())) == (FAILURE, True)
    assert not (tmp_path / "m.onnx").exists()

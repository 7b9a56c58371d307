"""A small study of pictures and a table, and the command line."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from survlens.cli.main import main

STUDY = """\
[study]
name = "small"
seed = 3

[data]
table = "clinical.csv"
time = "months"
event = "died"
unit = "months"
patient = "patient"
image = "image"
numeric = ["age"]
categorical = ["arm"]
site = "hospital"
image_size = 16
channels = "grey"

[split]
kind = "holdout"
test_fraction = 0.4

[[model]]
name = "vae"
kind = "cox_vae"
latent = 3
hidden = [4, 8]
seeds = [3, 4]
[model.fit]
epochs = 2
batch = 32
device = "cpu"

[[model]]
name = "down"
kind = "downstream"
embedding = "vae"
penalty = 0.1

[[model]]
name = "fused"
kind = "late_fusion"
members = ["vae", "clinical_cox"]

[evaluation]
horizons = [6, 12]
bootstrap = 40
subgroups = ["hospital", "age"]
"""


def write_study(folder: Path, text: str = STUDY, patients: int = 60) -> Path:
    """A study of `patients` patients with one or two small pictures each, whose brightness is their hazard."""
    random = np.random.default_rng(5)
    (folder / "images").mkdir(parents=True)
    rows = []
    for number in range(patients):
        hazard = random.normal()
        time = max(0.5, round(float(min(random.exponential(10 * np.exp(-hazard)), 20 + random.random())), 2))
        for picture in range(1 + number % 2):
            name = f"images/{number}_{picture}.png"
            pixels = np.clip(110 + 40 * hazard + random.normal(0, 20, (16, 16)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name)
            rows.append({
                "patient": f"p{number}", "image": name, "months": time, "died": int(time < 20),
                "age": round(60 + 5 * hazard + 3 * (number % 7)), "arm": "ab"[number % 2],
                "hospital": "xyz"[number % 3],
            })  # fmt: skip
    pd.DataFrame(rows).to_csv(folder / "clinical.csv", index=False)
    (folder / "study.toml").write_text(text, encoding="utf-8")
    return folder / "study.toml"


def call(*arguments: object) -> Result:
    """Calls the command line in this process."""
    return CliRunner().invoke(main, [str(each) for each in arguments])


@pytest.fixture
def survlens() -> Callable[..., Result]:
    """The command line."""
    return call


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """A study file with its data."""
    return write_study(tmp_path / "study")


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that went through; do not change it."""
    home = tmp_path_factory.mktemp("finished")
    result = call("--traceback", "run", write_study(home / "study"), "--out", home / "run")
    assert result.exit_code == 0, result.output
    return home / "run"

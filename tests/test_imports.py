"""What `import survlens` costs and brings, measured in processes of its own."""

import json
import subprocess
import sys

import pytest

HEAVY = {
    *("monai", "sksurv", "matplotlib", "lightning_fabric", "lightning", "lifelines"),
    *("torchvision", "pydicom", "nibabel", "highdicom"),
}
LONGEST_IMPORT = 2.5  # seconds of processor time beyond torch

MEASURE = """
import importlib, json, pkgutil, sys, time
import torch

begin = time.process_time()
import survlens
result = {"seconds": time.process_time() - begin, "survlens": sorted(sys.modules), "broken": {}}

for package in pkgutil.iter_modules(survlens.__path__):
    for name in [name for name in sys.modules if name.split(".")[0] == "survlens"]:
        del sys.modules[name]
    try:
        importlib.import_module(f"survlens.{package.name}")
    except Exception as error:
        result["broken"][package.name] = repr(error)

result["packages"] = sorted(sys.modules)
json.dump(result, sys.stdout)
"""


def _measure() -> dict:
    command = [sys.executable, "-W", "error", "-c", MEASURE]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    return json.loads(finished.stdout)


@pytest.fixture(scope="module")
def measured() -> dict:
    return _measure()


def _heavy(modules: list[str]) -> set[str]:
    return {module.split(".")[0] for module in modules} & HEAVY


def test_survlens_brings_no_heavy_library(measured: dict) -> None:
    assert _heavy(measured["survlens"]) == set()


def test_no_package_brings_a_heavy_library(measured: dict) -> None:
    """Each is imported where it is used, so that `survlens check` does not wait for a plotting library."""
    assert _heavy(measured["packages"]) == set()


def test_every_package_can_be_imported_alone(measured: dict) -> None:
    """No package leans on another having been imported before it."""
    assert measured["broken"] == {}


def test_import_is_quick(measured: dict) -> None:
    """Processor time, with a second try: neither a busy machine nor a cold disk makes the library slower."""
    assert measured["seconds"] < LONGEST_IMPORT or _measure()["seconds"] < LONGEST_IMPORT

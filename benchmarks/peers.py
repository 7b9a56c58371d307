"""Opens the libraries that the benchmarks compare with, in the state in which a user finds them today.

Import pycox through `load_pycox`: version 0.3.0 calls `scipy.integrate.simps`, which SciPy 1.14 removed, so its
integrated Brier score crashes. The name is put back here, for this process only; nothing on disk is changed.
Tables made with the shim say so: `SHIMS` is the sentence to print under them.
"""

from __future__ import annotations

import importlib
from importlib import metadata
from types import ModuleType

import scipy.integrate

SHIMS = "pycox 0.3.0 runs with scipy.integrate.simps put back (gone since SciPy 1.14); its integrated scores need it."
PEERS = ("pycox", "torchtuples", "torchsurv", "scikit-survival", "lifelines")


def load_pycox(module: str = "pycox") -> ModuleType:
    """A module of pycox ("pycox.models", "pycox.evaluation"), importable on current SciPy."""
    if not hasattr(scipy.integrate, "simps"):
        scipy.integrate.simps = scipy.integrate.simpson
    return importlib.import_module(module)


def versions() -> dict[str, str]:
    """Installed versions of the peers and of what they stand on, for the head of a table."""
    names = ("survlens", *PEERS, "torch", "numpy", "scipy", "numba", "pandas")
    return {name: metadata.version(name) for name in names}

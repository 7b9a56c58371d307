"""Quadratic forms and the table of their chi-squared tests."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from jaxtyping import Float64
from scipy.stats import chi2

_SINGULAR = 1e-10


def quadratic_form(
    vector: Float64[np.ndarray, " feature"],
    variance: Float64[np.ndarray, "feature feature"],
    *,
    out_of: Float64[np.ndarray, " feature"] | None = None,
) -> tuple[float, int]:
    """The form v' V^-1 v and its degrees of freedom: the rank of V, of which the pseudo-inverse is taken.

    A sandwich of fewer patients than covariates has a lower rank. V is scaled to a diagonal of one first, so that units
    do not matter.

    Args:
        vector: v.
        variance: V, positive.
        out_of: Where V is what is left of something, the diagonal of that: a 1e-10th of it is rounding. None for V.
    """
    own = np.diag(variance)
    told = own > _SINGULAR * (own if out_of is None else out_of)
    if not told.any():
        return 0.0, 0
    spread = np.sqrt(np.where(told, own, 1.0))
    scaled = vector[told] / spread[told]
    solution, _, rank, _ = np.linalg.lstsq(
        variance[np.ix_(told, told)] / np.outer(spread[told], spread[told]), scaled, rcond=_SINGULAR
    )
    return float(scaled @ solution), int(rank)


def chi_squared_table(tests: Mapping[str, tuple[float, int]], index: str) -> pd.DataFrame:
    """One row per test: statistic, degrees of freedom and p of a chi-squared; NaN where there is nothing to test.

    Args:
        tests: Name to statistic and degrees of freedom.
        index: What the names name.
    """
    df = np.array([freedom for _, freedom in tests.values()], dtype=np.int64)
    statistic = np.where(df > 0, [value for value, _ in tests.values()], np.nan)
    p = np.where(df > 0, chi2.sf(statistic, np.maximum(df, 1)), np.nan)
    return pd.DataFrame({"statistic": statistic, "df": df, "p": p}, index=pd.Index(list(tests), name=index))

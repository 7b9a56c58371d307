"""What was compared with R, and the largest deviation. Run: python benchmarks/golden_table.py

The golden values stand in the shared data beside the checkout. `log_risk`, `survival_at` and `score` in them come from
the Breslow fit of R's coxph: they agree with its coefficients, and not with Efron's.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from survlens.core.nonparametric import Limits, breslow_baseline, kaplan_meier
from survlens.core.outcome import SurvivalOutcome
from survlens.core.prediction import Interpolation, SurvivalPrediction
from survlens.core.ties import Ties
from survlens.evaluate.accuracy import brier_score
from survlens.evaluate.calibration_fit import fit_cox
from survlens.evaluate.concordance import concordance_index, concordance_index_antolini, concordance_index_ipcw
from survlens.evaluate.discrimination import cumulative_dynamic_auc
from survlens.evaluate.groups import log_rank_test, risk_groups
from survlens.losses.cox import cox_partial_likelihood

GOLDEN = Path(__file__).resolve().parents[2] / "shared" / "golden"
RESULT = Path(__file__).resolve().parent / "results" / "golden.md"
DATA = ("lung", "veteran", "gbsg")


@dataclass(frozen=True)
class Comparison:
    """Values of one kind on one data set, and how far they are from R's."""

    what: str
    source: str
    data: str
    values: int
    deviation: float


def compared(what: str, source: str, data: str, ours: object, theirs: object) -> Comparison:
    """Largest absolute deviation over the values that R gives (its NA is left out)."""
    expected = np.array([np.nan if value == "NA" else value for value in np.ravel(np.asarray(theirs, object))], float)
    found = np.ravel(np.asarray(ours, dtype=np.float64))
    assert found.shape == expected.shape, (what, found.shape, expected.shape)
    given = ~np.isnan(expected)
    assert given.any(), what
    apart = np.zeros(found.shape)
    differs = given & (found != expected)  # equal infinities do not differ
    apart[differs] = np.abs(found[differs] - expected[differs])
    return Comparison(what, source, data, int(given.sum()), float(apart.max()))


def comparisons(data: str, folder: Path = GOLDEN) -> Iterator[Comparison]:
    """Every comparison on one data set."""
    golden = json.loads((folder / f"{data}.json").read_text())
    frame = pd.read_csv(folder / f"{data}.csv")
    outcome = SurvivalOutcome.from_arrays(frame["time"].to_numpy(), frame["event"].to_numpy(), "days")
    design = frame[golden["covariates"]].to_numpy(float)
    yield from _kaplan_meier(data, golden, outcome)
    for ties in Ties:
        yield from _cox(data, golden, outcome, design, ties)
    log_risk = np.array(golden["log_risk"])
    yield from _concordance(data, golden, outcome, log_risk)
    chi2 = log_rank_test(risk_groups(log_risk).assign(log_risk), outcome).chi2
    yield compared("log-rank chi2, median split", "survdiff", data, chi2, golden["logrank_median_split"]["chisq"])
    yield from _probabilities(data, golden, outcome, design @ coefficients(golden, Ties.BRESLOW))


def coefficients(golden: dict, ties: Ties) -> np.ndarray:
    return np.array([golden[ties.value]["coef"][name] for name in golden["covariates"]])


def _kaplan_meier(data: str, golden: dict, outcome: SurvivalOutcome) -> Iterator[Comparison]:
    expected, plain = golden["kaplan_meier"], kaplan_meier(outcome)
    for what, ours, key in (
        ("Kaplan-Meier times", plain.times, "time"),
        ("Kaplan-Meier S", plain.survival, "survival"),
        ("Kaplan-Meier numbers at risk", plain.n_risk, "n_risk"),
        ("Kaplan-Meier standard error of log S", plain.std_error, "se_log"),
        ("Kaplan-Meier lower limit, log", plain.lower, "lower"),
        ("Kaplan-Meier upper limit, log", plain.upper, "upper"),
    ):
        yield compared(what, "survfit", data, ours, expected[key])
    double = kaplan_meier(outcome, limits=Limits.LOG_LOG)
    for side, ours in (("lower", double.lower), ("upper", double.upper)):
        what = f"Kaplan-Meier {side} limit, log-log"
        yield compared(what, "survfit", data, ours, golden["kaplan_meier_log_log"][side])


def _cox(data: str, golden: dict, outcome: SurvivalOutcome, design: np.ndarray, ties: Ties) -> Iterator[Comparison]:
    expected, name = golden[ties.value], ties.value.capitalize()
    beta = coefficients(golden, ties)
    for share, key in ((0.0, "loglik_null"), (0.5, "loglik_at_half_coef"), (1.0, "loglik")):
        log_likelihood = -float(
            cox_partial_likelihood(torch.from_numpy(share * (design @ beta)), outcome, ties=ties).sum()
        )
        what = f"Cox log partial likelihood, {name}, at {share:g} times the coefficients"
        yield compared(what, "coxph", data, log_likelihood, expected[key])
    baseline = breslow_baseline(design @ beta, outcome, ties=ties)
    hazard = expected["cumulative_baseline_hazard"]
    what = f"cumulative baseline hazard, {name}"
    yield compared(what, "basehaz(centered = FALSE)", data, baseline.at(np.array(hazard["time"])), hazard["hazard"])
    if ties is Ties.EFRON:
        fit = fit_cox(design, outcome)
        assert fit is not None
        yield compared("Cox coefficients of the calibration fit, Efron", "coxph", data, fit.coefficients, beta)
        errors = [expected["se"][name] for name in golden["covariates"]]
        yield compared("their standard errors", "coxph", data, fit.standard_errors, errors)


def _concordance(data: str, golden: dict, outcome: SurvivalOutcome, log_risk: np.ndarray) -> Iterator[Comparison]:
    for what, risk, key in (
        ("Harrell's C", log_risk, "harrell_c"),
        ("Harrell's C, tied risks", np.round(log_risk, 1), "harrell_c_rounded_scores"),
    ):
        expected = golden[key]
        score = concordance_index(risk, outcome, confidence=0.95)
        yield compared(what, "concordance", data, score.value, expected["value"])
        names = ("concordant", "discordant", "tied_risk", "tied_time", "tied_both")
        counts = [score.settings[name] for name in names]
        theirs = [expected["counts"][name] for name in ("concordant", "discordant", "tied.x", "tied.y", "tied.xy")]
        yield compared(f"{what}: five pair counts", "concordance", data, counts, theirs)
        if "se" in expected:
            yield compared(f"{what}: standard error", "concordance", data, score.settings["std_error"], expected["se"])
    uno = concordance_index_ipcw(log_risk, outcome, outcome).value
    yield compared("Uno's C", 'concordance(timewt = "n/G2")', data, uno, golden["uno_c"]["value"])


def prediction_of(log_risk: np.ndarray, outcome: SurvivalOutcome, ties: Ties) -> SurvivalPrediction:
    """Curves of a Cox model, S = exp(-H0(t) exp(log_risk)), to the end of follow-up."""
    baseline = breslow_baseline(log_risk, outcome, ties=ties)
    knots = np.unique(np.append(baseline.times, float(outcome.time.max())))
    log_survival = -np.exp(log_risk)[:, None] * baseline.at(knots)
    return SurvivalPrediction(torch.from_numpy(knots), torch.from_numpy(log_survival), Interpolation.STEP, outcome.unit)


def _probabilities(data: str, golden: dict, outcome: SurvivalOutcome, log_risk: np.ndarray) -> Iterator[Comparison]:
    prediction = prediction_of(log_risk, outcome, Ties.BRESLOW)
    yield compared("log-risks", "predict.coxph", data, log_risk, golden["log_risk"])
    asked, expected = golden["survival_at"]["times"], golden["survival_at"]["first_ten"]
    yield compared("S(t, x) of ten rows", "survfit.coxph", data, prediction[:10].at(asked).survival.numpy(), expected)
    score = golden["score"]
    curve = brier_score(prediction, outcome, score["times"], training=outcome)
    auc = cumulative_dynamic_auc(prediction, outcome, score["times"], training=outcome)
    for what, ours, key in (
        ("Brier score", curve.values, "brier"),
        ("Brier score of Kaplan-Meier", curve.null_values, "brier_null"),
        ("IPA", curve.ipa, "ipa"),
        ("AUC(t)", auc.values, "auc"),
    ):
        yield compared(what, "riskRegression::Score", data, ours, score[key])
    antolini = concordance_index_antolini(prediction, outcome).value
    what = "Antolini's C of a Cox model, which is Harrell's"
    yield compared(what, "concordance", data, antolini, golden["harrell_c"]["value"])


def markdown(rows: list[Comparison], software: str) -> str:
    """One line per kind of value, one column per data set."""
    names = list(dict.fromkeys((row.what, row.source) for row in rows))
    found = {(row.what, row.data): row for row in rows}
    head = "| what | R function | values | " + " | ".join(DATA) + " |"
    lines = [head, "|---|---|---|" + "---|" * len(DATA)]
    for what, source in names:
        cells = [found[what, data] for data in DATA]
        deviations = " | ".join(f"{cell.deviation:.1e}" for cell in cells)
        lines.append(f"| {what} | `{source}` | {sum(cell.values for cell in cells)} | {deviations} |")
    worst = max(rows, key=lambda row: row.deviation)
    total = sum(row.values for row in rows)
    return "\n".join(
        [
            "# Golden values: what was compared with R, and the largest absolute deviation",
            "",
            f"{software}. {total} values; the largest deviation is {worst.deviation:.1e} ({worst.what}, {worst.data}).",
            "`log_risk`, `survival_at` and `score` of the golden files come from the Breslow fit, so the curves are",
            "rebuilt from its coefficients and a Breslow baseline. Made by `python benchmarks/golden_table.py`.",
            "",
            *lines,
            "",
        ]
    )


def main() -> None:
    rows = [row for data in DATA for row in comparisons(data)]
    software = json.loads((GOLDEN / "lung.json").read_text())["software"]
    text = markdown(rows, software)
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(text)
    print(text)


if __name__ == "__main__":
    main()

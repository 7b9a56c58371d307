"""What every score means: one record per name, which the metric cards read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType


@dataclass(frozen=True, slots=True)
class Definition:
    """What a score is, wherever it was computed.

    Attributes:
        meaning: The definition in a sentence.
        formula: The definition in symbols: T observed time, S predicted survival, F predicted cumulative incidence, r
            risk, G survival of the censoring time.
        risk: Which number of the prediction orders or is compared.
        ties: What happens to equal numbers, where the settings of the score do not say.
        paper: Where it was proposed.
    """

    meaning: str
    formula: str
    risk: str
    ties: str
    paper: str


_NO_PAIRS = "no pairs are compared; at equal times an event comes before a censoring"
_AT_HORIZON = "1 - S(horizon)"
_AT_HORIZON_OF_CAUSE = "F(horizon) of the cause"
_ORDER = "the given number per row, higher is worse"

_CONCORDANCE = Definition(
    "Share of comparable pairs in which the row with the earlier event had the higher risk.",
    "(concordant + tied_risk / 2) / (concordant + discordant + tied_risk)",
    _ORDER,
    "equal risks count one half",
    "Harrell et al. 1982",
)
_IPCW = replace(
    _CONCORDANCE,
    meaning="Concordance with each pair weighted by the inverse probability of having seen it.",
    formula="sum of w [r_i > r_j] + w [r_i = r_j] / 2 over sum of w, with w = 1 / G(T_i-)^2",
    paper="Uno et al. 2011",
)
_AUC = Definition(
    "Probability that a row with an event by the horizon t had a higher risk than one followed beyond t.",
    "sum of w_i ([r_i > r_j] + [r_i = r_j] / 2) over sum of w_i, T_i <= t < T_j, with w_i = 1 / G(T_i-)",
    "1 - S(t), or the given number per row",
    "equal risks count one half",
    "Uno et al. 2007",
)
_BRIER = Definition(
    "Mean squared distance of predicted survival from survival at t, censored rows replaced by weights.",
    "1/n sum of [T <= t, event] S(t)^2 / G(T-) + [T > t] (1 - S(t))^2 / G(t)",
    "S(t)",
    _NO_PAIRS,
    "Graf et al. 1999",
)
_IPA = replace(
    _BRIER,
    meaning="Share by which the prediction lowers the Brier score of the same curve for everybody.",
    formula="1 - Brier(t) / Brier(t) of the null model",
    paper="Kattan and Gerds 2018",
)
_RATIO = Definition(
    "Observed risk by the horizon divided by the mean predicted risk.",
    "(1 - Kaplan-Meier(horizon)) / mean of (1 - S(horizon))",
    _AT_HORIZON,
    _NO_PAIRS,
    "Crowson et al. 2016",
)
_SMOOTH = Definition(
    "Mean distance between smooth observed and predicted risk at the horizon, in probability.",
    "mean of |observed(p) - p|, observed by a Cox model on a spline of log(-log S(horizon))",
    _AT_HORIZON,
    "Efron's rule for equal event times in the Cox model",
    "Austin et al. 2020",
)
_SLOPE = replace(
    _SMOOTH,
    meaning="Coefficient of log(-log S(horizon)) in a Cox model of the outcome.",
    formula="argmax over b of the partial likelihood of b log(-log S(horizon)), follow-up cut at the horizon",
    paper="Cox 1958; Royston and Altman 2013",
)


def _averaged(definition: Definition, formula: str) -> Definition:
    return replace(definition, meaning=f"{definition.meaning} Averaged over time.", formula=formula)


def _within(definition: Definition, share: int) -> Definition:
    return replace(
        definition,
        meaning=f"Distance between smooth observed and predicted risk that {share} % of rows do not exceed.",
        formula=f"{share} % quantile of |observed(p) - p|, observed as in the integrated calibration index",
    )


_SINGLE: dict[str, Definition] = {
    "concordance_index": _CONCORDANCE,
    "concordance_index_ipcw": _IPCW,
    "concordance_index_antolini": replace(
        _CONCORDANCE,
        meaning="Share of comparable pairs in which the row with the earlier event had the lower survival then.",
        formula="share of pairs with S_i(T_i) < S_j(T_i), equal values counting one half",
        risk="1 - S(T) at the time T of the earlier event of each pair",
        paper="Antolini et al. 2005",
    ),
    "cumulative_dynamic_auc": _AUC,
    "brier_score": _BRIER,
    "integrated_brier_score": _averaged(_BRIER, "integral of Brier(t) dt / (t_last - t_first), trapezoid"),
    "index_of_prediction_accuracy": _IPA,
    "integrated_index_of_prediction_accuracy": _averaged(
        _IPA, "1 - integral of Brier(t) dt / integral of Brier(t) dt of the null model"
    ),
    "observed_expected_ratio": _RATIO,
    "calibration_slope": _SLOPE,
    "integrated_calibration_index": _SMOOTH,
    **{f"calibration_error_e{share}": _within(_SMOOTH, share) for share in range(101)},
    "calibration_error_maximum": replace(
        _SMOOTH,
        meaning="Largest distance between smooth observed and predicted risk over the rows.",
        formula="maximum of |observed(p) - p|, observed as in the integrated calibration index",
    ),
    "d_calibration": Definition(
        "Pearson's statistic of S_i(T_i) against the uniform distribution: are the curves right as a whole?",
        "sum over bins of (count - expected)^2 / expected; a censored row is spread over the bins up to its own",
        "S_i(T_i)",
        "a value on the limit of two bins belongs to the upper one",
        "Haider et al. 2020",
    ),
    "net_benefit": Definition(
        "True positives less false positives weighted by the odds of the threshold, per row.",
        "q (F - (1 - F) p / (1 - p)), q the share with risk >= p and F their observed risk by the horizon",
        "predicted probability of the event by the horizon",
        "a risk equal to the threshold is treated",
        "Vickers et al. 2008",
    ),
    "restricted_mean_error": Definition(
        "Mean predicted survival time within the horizon minus the area under the Kaplan-Meier curve.",
        "mean of integral of S from 0 to the horizon - integral of Kaplan-Meier from 0 to the horizon",
        "integral of S from 0 to the horizon",
        _NO_PAIRS,
        "Royston and Parmar 2013",
    ),
}

_BRIER_OF_CAUSE = replace(
    _BRIER,
    meaning="Mean squared distance of predicted incidence from whether the cause had happened by t, with weights.",
    formula="1/n sum of [T <= t, any event] ([cause] - F(t))^2 / G(T-) + [T > t] F(t)^2 / G(t)",
    risk="F(t) of the cause",
    paper="Schoop et al. 2011",
)
_IPA_OF_CAUSE = replace(_IPA, risk="F(t) of the cause")

_OF_CAUSE: dict[str, Definition] = {
    "concordance_index_of_cause": replace(
        _CONCORDANCE,
        meaning="Concordance for one cause: rows that had another cause outlive every event of this one.",
        paper="Wolbers et al. 2009",
    ),
    "concordance_index_ipcw_of_cause": replace(
        _IPCW,
        meaning="Concordance for one cause, each pair weighted by the inverse probability of having seen it.",
        formula="as Harrell's, with w = 1 / G(T_i-)^2, or 1 / (G(T_i-) G(T_j-)) where j had another cause before",
        paper="Wolbers et al. 2014",
    ),
    "cumulative_dynamic_auc_of_cause": replace(
        _AUC,
        meaning="Probability that a row with the cause by t had a higher risk than one without it by t.",
        formula="sum of w_i w_j ([r_i > r_j] + [r_i = r_j] / 2) over sum of w_i w_j, with w = 1 / G(min(T-, t))",
        risk="F(t) of the cause, or the given number per row",
        paper="Blanche et al. 2013",
    ),
    "brier_score_of_cause": _BRIER_OF_CAUSE,
    "integrated_brier_score_of_cause": _averaged(
        _BRIER_OF_CAUSE, "integral of Brier(t) dt / (t_last - t_first), trapezoid"
    ),
    "index_of_prediction_accuracy_of_cause": _IPA_OF_CAUSE,
    "integrated_index_of_prediction_accuracy_of_cause": _averaged(
        _IPA_OF_CAUSE, "1 - integral of Brier(t) dt / integral of Brier(t) dt of the null model"
    ),
    "observed_expected_ratio_of_cause": replace(
        _RATIO,
        formula="Aalen-Johansen(horizon) / mean of F(horizon)",
        risk=_AT_HORIZON_OF_CAUSE,
        paper="Crowson et al. 2016; Aalen and Johansen 1978",
    ),
}


def _difference(definition: Definition) -> Definition:
    return replace(
        definition,
        meaning=f"First model minus second, on the same resampled patients. {definition.meaning}",
        formula=f"difference of two values of: {definition.formula}",
    )


_ALL = _SINGLE | _OF_CAUSE

DEFINITIONS: Mapping[str, Definition] = MappingProxyType(
    _ALL | {f"{name}_difference": _difference(definition) for name, definition in _ALL.items()}
)
"""The definition of every score, and of the difference of two models in it, by the name of the score."""

"""The same data through R and five Python libraries, number by number. Run: .venv-peers/bin/python benchmarks/parity.py

R's values are the golden ones in the shared data beside the checkout. Every cell that differs from R must have an entry
in `parity_reasons.REASONS` whose changed rule gives that number, or the script fails.
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from golden_table import DATA, GOLDEN, coefficients, prediction_of
from parity_reasons import REASONS
from peers import SHIMS, load_pycox
from side_by_side import RESULTS, version

from survlens.core.nonparametric import kaplan_meier
from survlens.core.outcome import SurvivalOutcome
from survlens.core.ties import Ties
from survlens.evaluate.accuracy import brier_score
from survlens.evaluate.concordance import concordance_index, concordance_index_antolini, concordance_index_ipcw
from survlens.evaluate.discrimination import cumulative_dynamic_auc
from survlens.evaluate.restricted_mean import restricted_mean_survival_time
from survlens.losses.cox import cox_partial_likelihood
from survlens.models.classical import CoxRegression

LIBRARIES = ("R", "survlens", "scikit-survival", "lifelines", "torchsurv", "pycox")
SAME = 5e-7
"""Relative distance from R below which two numbers count as the same: solvers stop at different tolerances."""

EXPLAINED = 5e-7
"""Distance at which a changed rule counts as the reason of a difference."""

Values = dict[str, float]


@dataclass(frozen=True)
class Data:
    """One data set in every library's form, with the curves that all of them score."""

    name: str
    golden: dict
    frame: pd.DataFrame
    outcome: SurvivalOutcome

    @staticmethod
    def read(name: str) -> Data:
        golden, frame = json.loads((GOLDEN / f"{name}.json").read_text()), pd.read_csv(GOLDEN / f"{name}.csv")
        outcome = SurvivalOutcome.from_arrays(frame["time"].to_numpy(), frame["event"].to_numpy(), "days")
        return Data(name, golden, frame, outcome)

    @property
    def time(self) -> np.ndarray:
        return self.frame["time"].to_numpy(float)

    @property
    def died(self) -> np.ndarray:
        return self.frame["event"].to_numpy(bool)

    @property
    def design(self) -> np.ndarray:
        return self.frame[self.golden["covariates"]].to_numpy(float)

    @property
    def records(self) -> np.ndarray:
        return np.array(list(zip(self.died, self.time, strict=True)), dtype=[("event", bool), ("time", float)])

    @property
    def tensors(self) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.from_numpy(self.died), torch.from_numpy(self.time)

    @property
    def horizon(self) -> float:
        return float(self.golden["score"]["times"][2])


def close_to_median(data: Data) -> int:
    """Row of R's Kaplan-Meier table at which numbers are compared."""
    return int(np.searchsorted(-np.array(data.golden["kaplan_meier"]["survival"]), -0.5))


def kaplan_meier_row(data: Data) -> Values:
    from lifelines import KaplanMeierFitter
    from sksurv.nonparametric import kaplan_meier_estimator
    from torchsurv.stats.kaplan_meier import KaplanMeierEstimator

    table, k = data.golden["kaplan_meier"], close_to_median(data)
    at = float(table["time"][k])
    times, survival = kaplan_meier_estimator(data.died, data.time)
    estimator = KaplanMeierEstimator()
    estimator(*data.tensors)
    theirs = load_pycox("pycox.utils").kaplan_meier(data.time, data.died.astype(float))
    return {
        "R": float(table["survival"][k]),
        "survlens": float(kaplan_meier(data.outcome).at(at)),
        "scikit-survival": float(survival[np.searchsorted(times, at, side="right") - 1]),
        "lifelines": float(KaplanMeierFitter().fit(data.time, data.died).predict(at)),
        "torchsurv": float(estimator.predict(torch.tensor([at], dtype=torch.float64))[0]),
        "pycox": float(theirs.loc[:at].iloc[-1]),
    }


def restricted_mean_row(data: Data) -> Values:
    """R's value is the area under its Kaplan-Meier table."""
    from lifelines import KaplanMeierFitter
    from lifelines.utils import restricted_mean_survival_time as theirs

    table = data.golden["kaplan_meier"]
    times, survival = np.array(table["time"], float), np.array(table["survival"], float)
    knots = np.concatenate(([0.0], times[times < data.horizon], [data.horizon]))
    area = np.diff(knots) @ np.append(1.0, survival[times < data.horizon])
    return {
        "R": float(area),
        "survlens": restricted_mean_survival_time(data.outcome, data.horizon).value,
        "lifelines": float(theirs(KaplanMeierFitter().fit(data.time, data.died), data.horizon)),
    }


def fits(data: Data, ties: Ties) -> dict[str, object]:
    """Fitted Cox models of every library that has them."""
    from lifelines import CoxPHFitter
    from sksurv.linear_model import CoxPHSurvivalAnalysis

    columns = [*data.golden["covariates"], "time", "event"]
    own = CoxRegression(ties=ties, unit="days").fit(data.frame[data.golden["covariates"]], data.outcome)
    found: dict[str, object] = {
        "survlens": own,
        "scikit-survival": CoxPHSurvivalAnalysis(ties=ties.value, tol=1e-12).fit(data.design, data.records),
    }
    if ties is Ties.EFRON:
        settings = {"precision": 1e-12, "r_precision": 1e-14}
        found["lifelines"] = CoxPHFitter().fit(data.frame[columns], "time", "event", fit_options=settings)
    return found


def coefficient_row(ties: Ties) -> Callable[[Data], Values]:
    """The coefficient that is farthest from R's in any library."""

    def row(data: Data) -> Values:
        expected, models = coefficients(data.golden, ties), fits(data, ties)
        found = {
            name: np.asarray(getattr(model, "params_", getattr(model, "coef_", None)), dtype=float)
            for name, model in models.items()
        }
        k = int(np.argmax(np.max([np.abs(value - expected) for value in found.values()], axis=0)))
        return {"R": float(expected[k])} | {name: float(value[k]) for name, value in found.items()}

    return row


def likelihood_row(ties: Ties) -> Callable[[Data], Values]:
    """At R's coefficients."""

    def row(data: Data) -> Values:
        from torchsurv.loss.cox import neg_partial_log_likelihood

        log_risk = torch.from_numpy(data.design @ coefficients(data.golden, ties))
        died, time = data.tensors
        order = torch.argsort(time, descending=True, stable=True)
        pycox_loss = load_pycox("pycox.models.loss").cox_ph_loss_sorted(log_risk[order], died[order].double(), eps=0.0)
        values = {
            "R": float(data.golden[ties.value]["loglik"]),
            "survlens": -float(cox_partial_likelihood(log_risk, data.outcome, ties=ties).sum()),
            "torchsurv": -float(
                neg_partial_log_likelihood(log_risk, died, time, ties_method=ties.value, reduction="sum")
            ),
            "pycox": -float(pycox_loss) * int(died.sum()),
        }
        if ties is Ties.EFRON:
            values["lifelines"] = float(fits(data, ties)["lifelines"].log_likelihood_)
        return values

    return row


def survival_row(ties: Ties) -> Callable[[Data], Values]:
    """S(t) of the first row at the third scored time, from each library's own fit and baseline."""

    def row(data: Data) -> Values:
        models, t = fits(data, ties), data.horizon
        hazard = data.golden[ties.value]["cumulative_baseline_hazard"]
        at = np.searchsorted(hazard["time"], t, side="right") - 1
        relative = math.exp(float(data.design[0] @ coefficients(data.golden, ties)))
        first = data.frame[data.golden["covariates"]].iloc[:1]
        found = {
            "R": math.exp(-float(hazard["hazard"][at]) * relative),
            "survlens": float(models["survlens"].predict_survival(first).at([t]).survival[0, 0]),
            "scikit-survival": float(models["scikit-survival"].predict_survival_function(data.design[:1])[0](t)),
        }
        if ties is Ties.EFRON:
            found["lifelines"] = float(models["lifelines"].predict_survival_function(first, times=[t]).iloc[0, 0])
        return found

    return row


def harrell_row(rounded: bool) -> Callable[[Data], Values]:
    def row(data: Data) -> Values:
        from lifelines.utils import concordance_index as theirs
        from sksurv.metrics import concordance_index_censored
        from torchsurv.metrics.cindex import ConcordanceIndex

        risk = np.array(data.golden["log_risk"])
        risk = np.round(risk, 1) if rounded else risk
        key = "harrell_c_rounded_scores" if rounded else "harrell_c"
        return {
            "R": float(data.golden[key]["value"]),
            "survlens": concordance_index(risk, data.outcome).value,
            "scikit-survival": float(concordance_index_censored(data.died, data.time, risk)[0]),
            "lifelines": float(theirs(data.time, -risk, data.died)),
            "torchsurv": float(ConcordanceIndex()(torch.from_numpy(risk), *data.tensors)),
        }

    return row


def uno_row(data: Data) -> Values:
    from sksurv.metrics import concordance_index_ipcw as theirs
    from torchsurv.metrics.cindex import ConcordanceIndex
    from torchsurv.stats.ipcw import get_ipcw

    risk = np.array(data.golden["log_risk"])
    found = {
        "R": float(data.golden["uno_c"]["value"]),
        "survlens": concordance_index_ipcw(risk, data.outcome, data.outcome).value,
        "torchsurv": float(
            ConcordanceIndex()(torch.from_numpy(risk), *data.tensors, weight=get_ipcw(*data.tensors).double())
        ),
    }
    try:
        found["scikit-survival"] = float(theirs(data.records, data.records, risk)[0])
    except ValueError:
        found["scikit-survival"] = math.nan
    return found


def antolini_row(data: Data) -> Values:
    """R's value is Harrell's, which it must be for the curves of a Cox model."""
    prediction = prediction_of(np.array(data.golden["log_risk"]), data.outcome, Ties.BRESLOW)
    theirs = pycox_curves(data).concordance_td
    return {
        "R": float(data.golden["harrell_c"]["value"]),
        "survlens": concordance_index_antolini(prediction, data.outcome).value,
        "pycox": float(theirs("antolini")),
        "pycox, adjusted": float(theirs("adj_antolini")),
    }


def pycox_curves(data: Data):
    prediction = prediction_of(np.array(data.golden["log_risk"]), data.outcome, Ties.BRESLOW)
    times, survival = prediction.numpy()
    curves = pd.DataFrame(np.vstack([np.ones(len(data.outcome)), survival.T]), index=np.append(0.0, times))
    module = load_pycox("pycox.evaluation")
    return module.EvalSurv(curves, data.time, data.died.astype(int), censor_surv="km")


def brier_values(data: Data) -> dict[str, np.ndarray]:
    from sksurv.metrics import brier_score as sksurv_brier
    from torchsurv.metrics.brier_score import BrierScore
    from torchsurv.stats.ipcw import get_ipcw

    prediction = prediction_of(np.array(data.golden["log_risk"]), data.outcome, Ties.BRESLOW)
    times = np.array(data.golden["score"]["times"], float)
    survival, at = prediction.at(times).survival, torch.from_numpy(times)
    weight, weight_at = get_ipcw(*data.tensors), get_ipcw(*data.tensors, at)
    return {
        "R": np.array(data.golden["score"]["brier"], float),
        "survlens": brier_score(prediction, data.outcome, times, training=data.outcome).values,
        "scikit-survival": sksurv_brier(data.records, data.records, survival.numpy(), times)[1],
        "torchsurv": BrierScore()(survival, *data.tensors, at, weight, weight_at).numpy().astype(float),
        "pycox": pycox_curves(data).brier_score(times).to_numpy(),
    }


def brier_row(data: Data) -> Values:
    return {name: float(values[2]) for name, values in brier_values(data).items()}


def integrated_row(data: Data) -> Values:
    """Trapezoid over R's five times, divided by their range, from each library's Brier scores."""
    times = np.array(data.golden["score"]["times"], float)
    span = times[-1] - times[0]
    return {name: float(np.trapezoid(values, times) / span) for name, values in brier_values(data).items()}


def auc_row(data: Data) -> Values:
    from sksurv.metrics import cumulative_dynamic_auc as theirs
    from torchsurv.metrics.auc import Auc
    from torchsurv.stats.ipcw import get_ipcw

    risk, times = np.array(data.golden["log_risk"]), np.array(data.golden["score"]["times"], float)
    at = torch.from_numpy(times)
    died, time = data.tensors
    weight, weight_at = get_ipcw(died, time).double(), get_ipcw(died, time, at).double()
    torchsurv = Auc()(torch.from_numpy(risk), died, time, new_time=at, weight=weight, weight_new_time=weight_at)
    return {
        "R": float(data.golden["score"]["auc"][2]),
        "survlens": float(cumulative_dynamic_auc(risk, data.outcome, times, training=data.outcome).values[2]),
        "scikit-survival": float(theirs(data.records, data.records, risk, times)[0][2]),
        "torchsurv": float(torchsurv[2]),
    }


ROWS: dict[str, Callable[[Data], Values]] = {
    "Kaplan-Meier S, at the median": kaplan_meier_row,
    "Restricted mean survival time": restricted_mean_row,
    "Cox coefficient, Efron": coefficient_row(Ties.EFRON),
    "Cox coefficient, Breslow": coefficient_row(Ties.BRESLOW),
    "Cox log likelihood, Efron": likelihood_row(Ties.EFRON),
    "Cox log likelihood, Breslow": likelihood_row(Ties.BRESLOW),
    "Cox S(t, x), Efron": survival_row(Ties.EFRON),
    "Cox S(t, x), Breslow": survival_row(Ties.BRESLOW),
    "Harrell's C": harrell_row(rounded=False),
    "Harrell's C, tied risks": harrell_row(rounded=True),
    "Uno's C": uno_row,
    "Antolini's C": antolini_row,
    "Brier score": brier_row,
    "Integrated Brier score": integrated_row,
    "AUC(t)": auc_row,
}


def cell(value: float | None, reference: float) -> str:
    """The number, and where it is another one than R's, by how much."""
    if value is None:
        return "-"
    if math.isnan(value):
        return "refused"
    return f"{value:.6f}" if same(value, reference) else f"{value:.6f} ({value - reference:+.1e})"


def same(value: float, reference: float) -> bool:
    return abs(value - reference) <= SAME * max(1.0, abs(reference))


def table(data: Data) -> tuple[list[str], dict[tuple[str, str], float]]:
    """The table of one data set; and of each cell that differs from R, how far its reason is from explaining it."""
    lines = [f"| {data.name} | " + " | ".join(LIBRARIES) + " |", "|---" * (len(LIBRARIES) + 1) + "|"]
    unexplained = {}
    for what, row in ROWS.items():
        found = row(data)
        extra = [f"{name.split(', ')[1]} {cell(found[name], found['R'])}" for name in found if name not in LIBRARIES]
        cells = [cell(found.get(name), found["R"]) for name in LIBRARIES]
        cells[-1] = "; ".join([cells[-1], *extra])
        lines.append(f"| {what} | " + " | ".join(cells) + " |")
        for name, value in found.items():
            if not same(value, found["R"]):
                key = what, name.split(", ")[0]
                reason = REASONS.get(key)
                unexplained[key] = math.inf if reason is None else abs(reason.reproduce(data) - value)
    return lines, unexplained


def main() -> None:
    warnings.simplefilter("ignore")
    lines, unexplained = [], {}
    for name in DATA:
        data = Data.read(name)
        rows, apart = table(data)
        unexplained |= {key: max(far, unexplained.get(key, 0.0)) for key, far in apart.items()}
        n, events = len(data.outcome), data.outcome.n_events
        lines += [f"## {name}: {n} rows, {events} events, t = {data.horizon:g} days", "", *rows, ""]
    print("\n".join(lines))
    wrong = {key: far for key, far in unexplained.items() if not far < EXPLAINED}
    if wrong:
        raise SystemExit(f"No reason is given that yields the number of: {wrong}")
    software = json.loads((GOLDEN / "lung.json").read_text())["software"]
    peers = ", ".join(f"{name} {version(name)}" for name in LIBRARIES[1:])
    page = [
        "# Parity: the same data through six libraries",
        "",
        f"{software}; {peers}. Made by `.venv-peers/bin/python benchmarks/parity.py`.",
        "In brackets the difference from R, where it is one; - where a library does not have the quantity.",
        "",
        *lines,
        "## Every difference explained",
        "",
        "Each reason was tested: our own code with that one rule changed gives the other library's number, to the",
        "distance in brackets on all three data sets.",
        "",
        *explanations(unexplained),
        "",
        SHIMS,
        "",
    ]
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "parity.md").write_text("\n".join(page))
    print("\n".join(explanations(unexplained)))


def explanations(unexplained: dict[tuple[str, str], float]) -> list[str]:
    """One line for each reason, with the cells that it explains and how well."""
    cells: dict[str, list[tuple[str, str]]] = {}
    for key in unexplained:
        cells.setdefault(REASONS[key].sentence, []).append(key)
    lines = []
    for sentence, keys in cells.items():
        named = "; ".join(f"{what}, {library}" for what, library in keys)
        lines.append(f"- **{named}.** {sentence} ({max(unexplained[key] for key in keys):.0e})")
    return lines


if __name__ == "__main__":
    main()

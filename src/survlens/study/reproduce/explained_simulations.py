"""The published experiments with time-independent and time-dependent effects: what networks say beside the truth."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scipy.stats import t as student
from torch import Tensor

from survlens.core.prediction import SurvivalPrediction
from survlens.core.targets import density, log_hazard_rate
from survlens.evaluate.accuracy import integrated_brier_score
from survlens.evaluate.concordance import concordance_index_antolini
from survlens.explain.gradient import Gradient
from survlens.explain.integrated import IntegratedGradients
from survlens.explain.references import References
from survlens.models.survival_model import SurvivalModel
from survlens.study.reproduce.simulated_networks import (
    NETWORKS,
    RULES,
    SIGN_CHANGE,
    SimulatedParts,
    Simulation,
    common_times,
    fitted_network,
    simulated_parts,
)
from survlens.study.reproduce.tables import Findings, ResultTable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PUBLISHED_FIT: Mapping[Simulation, Mapping[str, tuple[float, float]]] = {
    Simulation.TIME_INDEPENDENT: {"CoxTime": (0.809, 0.099), "DeepSurv": (0.809, 0.099), "DeepHit": (0.809, 0.142)},
    Simulation.TIME_DEPENDENT: {"CoxTime": (0.846, 0.058), "DeepSurv": (0.860, 0.060), "DeepHit": (0.806, 0.096)},
}
"""Concordance and integrated Brier score that Langbein et al. 2025 print."""

_AROUND, _WINDOW = (0.8, 3.4), 4 / 3


@dataclass(frozen=True, slots=True)
class TruthPlan:
    """Sizes of an experiment.

    Attributes:
        train: Training rows; the published files have 9,500.
        test: Rows explained.
        times: Number of times.
        refits: Networks of each family for the time at which the effect of x1 changes its sign, each fitted to other
            rows drawn from the simulation; at least 2.
        epochs: Most epochs of a fit.
        folder: Folder with the published files; data are drawn anew where None.
        seed: Seed of everything.
    """

    train: int = 2000
    test: int = 500
    times: int = 43
    refits: int = 4
    epochs: int = 200
    folder: Path | None = None
    seed: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class _Explained:
    """Curves and attributions of one model, (instance, feature, time)."""

    survival: np.ndarray
    by_method: Mapping[str, np.ndarray]


def explained_simulation(
    simulation: Simulation, plan: TruthPlan, tell: Callable[[str], object] | None = None
) -> Findings:
    """Fits the three families, explains every test row, and compares with explanations of the true hazard.

    Gradients and integrated gradients of S(t), the latter from the mean of the training rows. The truth is explained by
    the same methods, exactly.

    Args:
        simulation: Which simulation.
        plan: Sizes.
        tell: Told of every fit.
    """
    parts = simulated_parts(simulation, train=plan.train, test=plan.test, folder=plan.folder, seed=plan.seed)
    models = {}
    for name in NETWORKS:
        models[name] = fitted_network(name, parts.train, seed=plan.seed, epochs=plan.epochs)
        if tell is not None:
            tell(f"fitted {name}")
    times = common_times(list(models.values()), len(parts.features), plan.times)
    start = References.mean({"table": parts.train.covariates})
    found = {name: _explained(name, model, parts, start, times) for name, model in models.items()}
    truth = _explained("truth", parts.truth, parts, start, times)
    tables = [
        ResultTable("fit", "Fit on the test rows.", _fit_rows(simulation, models, parts)),
        ResultTable(
            "error",
            "Error against the closed form: mean absolute error of S; relative L2 error of attributions of S over "
            "rows, features and times; share of the noise feature in the sum of absolute attributions (0 in truth).",
            [_error_row(name, method, found[name], truth) for name in found for method in truth.by_method],
        ),
    ]
    figures = {
        f"{simulation.value}_{method.lower()}": _drawing(method, times, found, truth, parts)
        for method in truth.by_method
    }
    remarks: list[str] = list(_REMARKS)
    if simulation is Simulation.TIME_DEPENDENT:
        tables.append(ResultTable("sign_change", _SIGN_TITLE, _sign_changes(parts, plan, models, tell)))
        remarks += _SIGN_REMARKS
    title = f"{simulation.value.replace('_', '-')} effects: networks beside the truth".capitalize()
    return Findings(f"explanations_{simulation.value}", title, tables, remarks, figures)


_REMARKS = (
    "The truth is the published hazard as a model, explained by the same code; its gradients and integrated gradients "
    "agree with formulas to machine precision.",
    "Published figures show single patients of networks tuned on 9,500 rows; no table of their attributions exists, so "
    "fit alone can be compared by number.",
    "C is Antolini's time-dependent concordance; the published C of the time-dependent simulation is another index, "
    "whose best possible value there is 0.847.",
    "DeepHit is fitted with its ranking loss (alpha 0.2, sigma 0.1), as published: it ranks well, but S(t) is not "
    "calibrated, and the error of its attributions is that of S(t).",
)
_SIGN_TITLE = (
    f"Time at which the effect of x1 on the log-hazard changes its sign; in truth e^0.5 = {SIGN_CHANGE:.4f}. 95 % "
    "interval of one fit, from the spread of refits."
)
_SIGN_REMARKS = (
    "The time of the change: mean over 100 test rows of d log h(t)/dx1, weighted by their density of events at t, at "
    "40 times between 0.8 and 3.4, a straight line in log t through them, its zero; then the same within a third of it "
    "to either side. In truth it is 6 log t - 3 for every row. Interval: the spread of refits (Student's t on the "
    "logarithm), each to rows drawn anew (from the published files: to bootstrap draws of them), so that it holds the "
    "randomness of data and of fitting, but no bias that all fits share.",
    "A fit that is stopped early shrinks effects towards 0, most where events are few, which moves the time of change "
    "to the left; the bias falls with the number of rows. The ranking loss of DeepHit adds one that does not fall.",
    "DeepSurv has proportional hazards: d log h/dx1 of a row is the same at all times and never changes its sign. Its "
    "mean gradient of S(t) does: rows with effects of both signs weigh differently at different times.",
)


def _explained(name: str, model: SurvivalModel, parts: SimulatedParts, start: References, times: Tensor) -> _Explained:
    inputs = {"table": parts.test.covariates}
    slopes = Gradient()(model, inputs, times)["table"]
    integrated = IntegratedGradients(start, RULES.get(name))(model, inputs, times)["table"]
    if slopes.prediction is None:
        return _Explained(np.zeros(0), {})
    return _Explained(slopes.prediction.numpy(), {"Grad": slopes.numpy(), "IntGrad": integrated.numpy()})


def _fit_rows(
    simulation: Simulation, models: Mapping[str, SurvivalModel], parts: SimulatedParts
) -> list[dict[str, Any]]:
    inputs, knots = {"table": parts.test.covariates}, parts.test.outcome.time.unique()
    rows = [_judged("truth", parts.train.truth.predict(parts.test.covariates, knots), parts) | _printed(None)]
    for name, model in models.items():
        with torch.no_grad():
            prediction = model.predict_survival(inputs)
        rows.append(
            _judged(name, prediction.at(knots, extrapolate="hold"), parts)
            | _printed(PUBLISHED_FIT[simulation].get(name))
        )
    return rows


def _judged(name: str, prediction: SurvivalPrediction, parts: SimulatedParts) -> dict[str, Any]:
    outcome, last = parts.test.outcome, float(parts.test.outcome.time.max())
    grid = np.linspace(0.02, 0.98, 60) * last
    brier = integrated_brier_score(prediction, outcome, training=parts.train.outcome, times=grid)
    return {"model": name, "C": concordance_index_antolini(prediction, outcome).value, "IBS": brier.value}


def _printed(numbers: tuple[float, float] | None) -> dict[str, Any]:
    concordance, brier = numbers or (None, None)
    return {"published C": concordance, "published IBS": brier}


def _error_row(name: str, method: str, found: _Explained, truth: _Explained) -> dict[str, Any]:
    values, expected = found.by_method[method], truth.by_method[method]
    return {
        "model": name,
        "method": method,
        "MAE of S": float(np.abs(found.survival - truth.survival).mean()),
        "relative L2": float(np.linalg.norm(values - expected) / np.linalg.norm(expected)),
        "correlation": float(np.corrcoef(values.ravel(), expected.ravel())[0, 1]),
        "noise share": float(np.abs(values[:, -1]).sum() / np.abs(values).sum()),
    }


def sign_change(model: SurvivalModel, covariates: Tensor) -> float:
    """Time at which the mean effect of the first feature on the log-hazard changes its sign.

    The mean over rows of d log h(t)/dx1, each row weighted by its density of events h(t) S(t) at that time, is taken at
    40 times between 0.8 and 3.4, and a straight line in log t put through it by least squares; its zero, held within
    these times, is the middle of a window of a third to either side, in which the same is done again. The weights keep
    out rows of which nothing can be learnt at that time, since they have no events then. NaN where the line is level.

    Args:
        model: A fitted network.
        covariates: Rows over which the mean is taken.
    """
    inputs = {"table": covariates}
    low, high, zero = *_AROUND, float("nan")
    for _ in range(2):
        times = torch.exp(torch.linspace(np.log(low), np.log(high), 40, dtype=torch.float64))
        slopes = Gradient()(model, inputs, times, log_hazard_rate)["table"].values[:, 0]
        weights = Gradient()(model, inputs, times, density)["table"].prediction
        if weights is None:
            return float("nan")
        found = (weights * slopes).sum(0) / weights.sum(0)
        slope, level = np.polyfit(times.log().numpy(), found.numpy(), 1)
        if abs(slope) < 1e-9:
            return float("nan")
        zero = float(np.exp(np.clip(-level / slope, *np.log(_AROUND))))
        low, high = max(zero / _WINDOW, _AROUND[0]), min(zero * _WINDOW, _AROUND[1])
    return zero


def change_interval(changes: Sequence[float]) -> tuple[float, float]:
    """95 % interval of the time of change that one fit gives, from the spread of refits.

    exp(m -/+ q s) with m and s the mean and standard deviation of the logarithms over refits and q Student's quantile:
    the bootstrap interval by standard error, s not divided by the number of refits.

    Args:
        changes: Times of change of independent refits, at least 2.
    """
    logs = np.log(changes)
    half = student.ppf(0.975, len(logs) - 1) * logs.std(ddof=1)
    return float(np.exp(logs.mean() - half)), float(np.exp(logs.mean() + half))


def _sign_changes(
    parts: SimulatedParts,
    plan: TruthPlan,
    models: Mapping[str, SurvivalModel],
    tell: Callable[[str], object] | None,
) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    covariates = parts.test.covariates[:100]
    for name in NETWORKS:
        if name == "DeepSurv":
            rows.append({"model": name, "refits": 1, "time": None, "low": None, "high": None, "covers": None})
            continue
        changes = [sign_change(models[name], covariates)]
        for refit in range(1, plan.refits):
            seed = plan.seed + 1000 * refit
            train = _other_rows(parts, plan, seed)
            changes.append(sign_change(fitted_network(name, train, seed=seed, epochs=plan.epochs), covariates))
            if tell is not None:
                tell(f"{name}, refit {refit}: the effect of x1 changes at {changes[-1]:.3f}")
        low, high = change_interval(changes)
        mean = float(np.exp(np.log(changes).mean()))
        covers = "yes" if low <= SIGN_CHANGE <= high else "no"
        rows.append({"model": name, "refits": plan.refits, "time": mean, "low": low, "high": high, "covers": covers})
    return rows


def _other_rows(parts: SimulatedParts, plan: TruthPlan, seed: int) -> Any:
    if plan.folder is None:
        return parts.simulation.draw(plan.train, seed=seed)
    return parts.train[np.random.default_rng(seed).integers(0, len(parts.train), len(parts.train))]


def _drawing(
    method: str, times: Tensor, found: Mapping[str, _Explained], truth: _Explained, parts: SimulatedParts
) -> Callable[[], Figure]:
    """The mean attribution of each feature over time, a panel per model with the truth dashed."""

    def draw() -> Figure:
        from survlens.report.figures.canvas import light_grid, new_figure, styled
        from survlens.report.palette import GREY, SERIES

        @styled
        def drawn() -> Figure:
            figure = new_figure(3.0 * len(found), 2.8)
            panels = figure.subplots(1, len(found), sharey=True, squeeze=False)[0]
            expected = np.abs(truth.by_method[method]).mean(0) if method == "IntGrad" else None
            expected = truth.by_method[method].mean(0) if expected is None else expected
            for axes, (name, each) in zip(panels, found.items(), strict=True):
                values = each.by_method[method]
                mean = np.abs(values).mean(0) if method == "IntGrad" else values.mean(0)
                for feature, label in enumerate(parts.features):
                    colour = SERIES[feature % len(SERIES)]
                    axes.plot(times.numpy(), mean[feature], color=colour, label=label)
                    axes.plot(times.numpy(), expected[feature], color=colour, linestyle=(0, (4, 2)), linewidth=1)
                axes.axhline(0, color=GREY, linewidth=0.6)
                axes.set_title(name)
                axes.set_xlabel("time (time units)")
                light_grid(axes)
            words = "mean |IntGrad| of S(t)" if method == "IntGrad" else "mean Grad of S(t)"
            panels[0].set_ylabel(words)
            panels[-1].plot([], [], color=GREY, linestyle=(0, (4, 2)), linewidth=1, label="truth")
            panels[-1].legend(frameon=False)
            return figure

        return drawn()

    return draw

"""Tables and figures of CNN-Survival on phantoms."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from survlens.core.errors import InvalidValueError
from survlens.core.outcome import SurvivalOutcome
from survlens.data.simulate.phantom import FIELD_OF_VIEW
from survlens.report.figures.cnn_survival import ipa_figure, slice_montage, two_patients_figure
from survlens.report.wording import compact
from survlens.study.reproduce.cnn_survival import (
    CLINICAL,
    CNN,
    CURVE_TIMES,
    FEATURES,
    HORIZON,
    IPA_TIMES,
    RADIOMICS,
    SCRATCH,
    SIZE,
    TRUTH,
    UNIT,
    UNTUNED,
    CNNSurvivalPlan,
    Repetition,
    Scored,
    repetition,
)
from survlens.study.reproduce.phantom_slices import WINDOW, Slices
from survlens.study.reproduce.tables import Findings, ResultTable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PUBLISHED: Mapping[str, tuple[float, float]] = {
    RADIOMICS: (0.491, -0.038),
    FEATURES: (0.603, 0.044),
    CNN: (0.651, 0.1181),
}
"""C and IPA at 18 months of the paper, on its 30 test patients."""


def cnn_survival_experiment(
    plan: CNNSurvivalPlan | None = None, tell: Callable[[str], object] | None = None
) -> Findings:
    """All repetitions: the three ways of the paper, beside size alone, the clinical table alone and the truth.

    Args:
        plan: Sizes.
        tell: Told of every repetition.
    """
    plan = plan or CNNSurvivalPlan()
    found = []
    for number in range(plan.repetitions):
        found.append(repetition(plan, number))
        if tell is not None:
            scores = found[-1].scores
            shown = ", ".join(f"{name} {scores[name].concordance:.3f}" for name in (SIZE, RADIOMICS, FEATURES, CNN))
            tell(f"repetition {number + 1} of {plan.repetitions}: C of {shown}")
    return findings(plan, found)


def findings(plan: CNNSurvivalPlan, found: Sequence[Repetition]) -> Findings:
    """The tables and figures of some repetitions."""
    first = found[0]
    tables = [
        ResultTable(
            "three_way",
            f"Cohort C of {plan.test} patients: mean over {len(found)} repetitions, 95 % interval of the mean, "
            "and standard deviation from draw to draw",
            _summary([each.scores for each in found], published=True),
        ),
        ResultTable(
            "differences",
            "The same cohorts, differences of C and of IPA at 18 months",
            _differences([each.scores for each in found]),
        ),
    ]
    larger = [each.larger for each in found if each.larger]
    if len(larger) > 1:
        title = f"B of {plan.larger_tune} and C of {plan.larger_test} patients, {len(larger)} repetitions"
        tables += [
            ResultTable("larger", title, _summary(larger)),
            ResultTable(
                "larger_differences", f"{title}: differences of C and of IPA at 18 months", _differences(larger)
            ),
        ]
    tables.append(ResultTable("slices", "Slices by size of the region, mean over repetitions", _mean_rows(found)))
    rows = [
        {"repetition": number, **{name: each.scores[name].concordance for name in each.scores}}
        for number, each in enumerate(found)
    ]
    tables.append(ResultTable("repetitions", "C of every repetition", rows))
    shown = (SIZE, CLINICAL, RADIOMICS, FEATURES, CNN, SCRATCH)
    chosen = two_patients(first.outcome)
    time, event = first.outcome.numpy()

    def ipa() -> Figure:
        values = {name: np.stack([each.scores[name].ipa for each in found]) for name in shown}
        truth = np.stack([each.scores[TRUTH].ipa for each in found])
        return ipa_figure(IPA_TIMES, values, truth, horizon=HORIZON, unit=UNIT)

    def patients() -> Figure:
        curves = {name: first.scores[name].curves[list(chosen)] for name in (SIZE, RADIOMICS, FEATURES, CNN, TRUTH)}
        truth = curves.pop(TRUTH)
        observed = [(float(time[row]), bool(event[row])) for row in chosen]
        return two_patients_figure(CURVE_TIMES, curves, observed, truth, horizon=HORIZON, unit=UNIT)

    def montage() -> Figure:
        return slice_montage(
            {
                f"A, {'another' if plan.shift else 'own'} hospital": _spread(first.pretraining),
                "C, own hospital": _spread(first.tested),
            },
            caption=f"Slices of {plan.side} × {plan.side} voxels of about {FIELD_OF_VIEW[0] / plan.voxels:.0f} mm, "
            "from the smallest region to the largest; above each its voxels of tumour.\n"
            f"The patient's right is on the left. Grey: {compact(WINDOW[0])} to {WINDOW[1]:g} HU within the contour",
        )

    drawn = {"cnn_survival_ipa": ipa, "cnn_survival_patients": patients, "cnn_survival_slices": montage}
    return Findings("cnn_survival", "CNN-Survival on phantoms", tables, _remarks(plan, found), drawn)


def two_patients(outcome: SurvivalOutcome) -> tuple[int, int]:
    """The rule for pictures, which looks at no prediction.

    Of the patients who died within 18 months the one with the median time, and of those followed longer the one with
    the median time; of two in the middle the earlier.

    Args:
        outcome: What was observed.

    Raises:
        InvalidValueError: If nobody died within 18 months, or nobody was followed longer.
    """
    time, event = outcome.numpy()
    died, lived = np.flatnonzero((time <= HORIZON) & (event > 0)), np.flatnonzero(time > HORIZON)
    if not len(died) or not len(lived):
        raise InvalidValueError(
            "`outcome` must hold a death within 18 months and a longer follow-up. Draw more patients."
        )
    return _median_row(died, time), _median_row(lived, time)


def _median_row(rows: np.ndarray, time: np.ndarray) -> int:
    return int(rows[np.argsort(time[rows], kind="stable")[(len(rows) - 1) // 2]])


def _spread(slices: Slices, count: int = 12) -> tuple[np.ndarray, np.ndarray]:
    """Pictures and region sizes of slices spread evenly from the smallest region to the largest."""
    order = np.argsort(slices.voxels, kind="stable")
    rows = order[np.linspace(0, len(order) - 1, min(count, len(order))).round().astype(int)]
    return slices.images[torch.from_numpy(rows), 0].numpy(), slices.voxels[rows]


def _summary(scores: Sequence[Mapping[str, Scored]], *, published: bool = False) -> list[dict[str, Any]]:
    rows = []
    for name in scores[0]:
        concordance, accuracy = (
            _Spread([getattr(each[name], field) for each in scores]) for field in ("concordance", "at_horizon")
        )
        row = {"model": name, "C": concordance.mean, "C, 95 %": concordance.interval, "C, SD": concordance.deviation}
        row |= {"IPA at 18 months": accuracy.mean, "IPA, 95 %": accuracy.interval, "IPA, SD": accuracy.deviation}
        if published:
            paper = PUBLISHED.get(name, (None, None))
            row |= {"C in the paper": paper[0], "IPA in the paper": paper[1]}
        rows.append(row)
    return rows


def _differences(scores: Sequence[Mapping[str, Scored]]) -> list[dict[str, Any]]:
    pairs = ((CNN, SCRATCH), (CNN, UNTUNED), (CNN, SIZE), (CNN, RADIOMICS), (CNN, FEATURES), (RADIOMICS, SIZE))
    rows = []
    for first, second in pairs:
        gain = _Spread([each[first].concordance - each[second].concordance for each in scores])
        accuracy = _Spread([each[first].at_horizon - each[second].at_horizon for each in scores])
        row = {"first": first, "second": second, "C, first - second": gain.mean, "C, 95 %": gain.interval}
        rows.append(row | {"IPA, first - second": accuracy.mean, "IPA, 95 %": accuracy.interval})
    return rows


class _Spread:
    """Mean over repetitions, Student's interval of it and standard deviation, of the values that are known."""

    def __init__(self, values: Sequence[float]):
        known = np.array([value for value in values if np.isfinite(value)])
        self.mean = float(known.mean()) if len(known) else float("nan")
        self.deviation = float(known.std(ddof=1)) if len(known) > 1 else float("nan")
        self.interval = "–"
        if len(known) > 1:
            from scipy.stats import t

            half = float(t.ppf(0.975, len(known) - 1)) * self.deviation / len(known) ** 0.5
            self.interval = f"{self.mean - half:.3f} to {self.mean + half:.3f}"


def _mean_rows(found: Sequence[Repetition]) -> list[dict[str, Any]]:
    rows = []
    for place, first in enumerate(found[0].slices):
        numbers = {
            name: float(np.mean([each.slices[place][name] for each in found])) for name in first if name != "cohort"
        }
        rows.append({"cohort": first["cohort"], **{name: _number(value) for name, value in numbers.items()}})
    return rows


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 or value == round(value) else f"{value:.1f}"


def _remarks(plan: CNNSurvivalPlan, found: Sequence[Repetition]) -> list[str]:
    undefined = np.mean([each.undefined for each in found])
    known = sum(np.isfinite(each.scores[TRUTH].at_horizon) for each in found)
    return [
        f"Scans of {plan.voxels} voxels a side; slices of {plan.side} x {plan.side} voxels cut out by the contour, and "
        f"a network of {plan.channels} channels with padded convolutions, pools of 2 and dropout of 0.2: the paper's "
        "network takes 140 x 140.",
        ("A is another hospital: noise of 30 instead of 15 HU and half the contrast. " if plan.shift else "")
        + "Patients without tumour are not enrolled.",
        "In A the slices with the largest regions of the whole cohort are used, as many per patient as in the paper; "
        "in B and C the five largest of each patient, so that nobody is dropped from the test.",
        "Everything but the interval outputs is frozen in fine-tuning, and features are computed once. Curves (and "
        "features) are averaged over the slices of a patient before any score.",
        "C is Harrell's, of the linear predictor or of 1 - S(18 months). IPA compares with Kaplan-Meier of C; the "
        f"censoring weights are those of B; repetitions whose C was followed for less than 18 months have none, which "
        f"leaves {known} of {len(found)}. LASSO penalties are chosen by five folds within B.",
        "In these phantoms the hazard depends on the volume of all tumours and on age, and on nothing else: size "
        "and age together are nearly the truth, and no picture of single slices can beat them.",
        f"On average {undefined:.1f} of 107 radiomics features were left out, because they are constant or have no "
        "value in a small region of B.",
    ]

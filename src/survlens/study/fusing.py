"""Late fusion of models that a study has fitted before: read from the run folder, not fitted again."""

from __future__ import annotations

import numpy as np
import pandas as pd

from survlens.artifacts.run_folder import RunFolder, write_json
from survlens.core.nonparametric import breslow_baseline
from survlens.core.outcome import SurvivalOutcome
from survlens.explain.latent import per_patient
from survlens.models.classical import CoxRegression
from survlens.models.estimator_files import save_estimator
from survlens.models.proportional import with_last_time
from survlens.study.bench import Bench, fitted_rows
from survlens.study.estimators import FUSION_PENALTY
from survlens.study.unit import Unit, UnitResult, curves_of
from survlens.study.unit_tables import rows_of_fit


def fuse(unit: Unit, bench: Bench, run: RunFolder) -> UnitResult:
    """A Cox regression on the members' risks of validation patients, to whom no member was fitted.

    Without validation patients the weights come from training patients, where members that overfit look too good.

    Args:
        unit: The fusion.
        bench: The split.
        run: Folder with the predictions of the members.
    """
    rows, cohort, members = bench.rows, bench.cohort, unit.entry.needs
    patient, outcome = cohort.patient[rows], cohort.outcome[rows]
    tables = [rows_of_fit(run.predictions(name), unit.fold, unit.seed, cohort.instance[rows]) for name in members]
    risks = _patient_means(np.column_stack([table["risk"] for table in tables]), patient)
    apart = "train" if bench.split.validation is None else "validation"
    learnt = np.flatnonzero(bench.parts == apart)
    means, own_outcome = per_patient(risks[learnt], outcome[learnt], patient[learnt])
    centre, spread = means.mean(0), np.where(means.std(0) > 0, means.std(0), 1.0)
    frame = pd.DataFrame((risks - centre) / spread, columns=pd.Index(members))
    fused = CoxRegression(penalty=FUSION_PENALTY)
    fused.fit(pd.DataFrame((means - centre) / spread, columns=frame.columns), own_outcome)
    log_risk = fused.predict(frame)
    _fit_baseline(fused, bench, log_risk, apart)
    folder = run.model(unit.entry.name) / unit.name
    save_estimator(fused, folder)
    write_json(folder / "members.json", {"members": members, "centre": centre, "spread": spread, "learnt_on": apart})
    return UnitResult(log_risk, curves_of(fused, frame, bench.times))


def _fit_baseline(fused: CoxRegression, bench: Bench, log_risk: np.ndarray, apart: str) -> None:
    """Gives the fusion a baseline whose shape comes from all fitted patients and whose level from those set apart.

    Validation patients alone are few and followed less long; training risks of members that overfit are too far apart,
    which lowers the level.
    """
    learnt = np.isin(bench.rows, fitted_rows(bench.split))
    risk, outcome = _per_patient(bench, log_risk, learnt)
    shape = breslow_baseline(risk, outcome)
    own_risk, own = _per_patient(bench, log_risk, bench.parts == apart)
    time, event = own.numpy()
    expected = float((shape.at(time) * np.exp(own_risk)).sum())
    level = float((event > 0).sum()) / expected if expected > 0 else 1.0
    fused.baseline_times_, hazard = with_last_time(shape, outcome)
    fused.baseline_hazard_ = level * hazard


def _per_patient(bench: Bench, log_risk: np.ndarray, chosen: np.ndarray) -> tuple[np.ndarray, SurvivalOutcome]:
    rows = bench.rows[chosen]
    means, outcome = per_patient(log_risk[chosen, None], bench.cohort.outcome[rows], bench.cohort.patient[rows])
    return means[:, 0], outcome


def _patient_means(values: np.ndarray, patient: np.ndarray) -> np.ndarray:
    """Each row gets the mean over the rows of its patient."""
    codes = pd.factorize(patient)[0]
    counts = np.bincount(codes)
    return np.column_stack([np.bincount(codes, weights=column) / counts for column in values.T])[codes]

"""What a cohort can support: events for the parameters of each model, and how sure its scores can be.

Nothing here stops a study. What is counted is known before any fit: events, features and weights.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from survlens.core.outcome import SurvivalOutcome
from survlens.data.cohort import Cohort
from survlens.data.findings import Finding, Severity, finding
from survlens.data.pixels import Channels
from survlens.data.preprocessing import Preprocessing
from survlens.data.scans import ScanView
from survlens.study.bench import preprocessing_settings
from survlens.study.covariate_names import chosen
from survlens.study.model_settings import KINDS, CoxModel, ForestModel, LassoCoxModel, Modality, ModelEntry
from survlens.study.networks import Shape, network
from survlens.study.settings import DataSettings, SplitKind, StudySettings

EVENTS_PER_PARAMETER = 10
"""Events per parameter that a Cox model without penalty wants (Peduzzi et al. 1995)."""

EVENTS_PER_VARIABLE = 200
"""Events per variable from which forests and networks were stable (van der Ploeg, Austin and Steyerberg 2014)."""

SPREAD_OF_C = 0.28
"""Standard error of Harrell's C near 0.7, times the square root of the number of events.

By simulation: exponential times with a normal log hazard and independent exponential censoring; the product lay between
0.26 and 0.31 for 6 to 400 events and up to 85 % censored.
"""

_CLEAR = 100
"""Events from which the interval of C is about 0.1 wide."""


def interval_width(events: float) -> float:
    """Expected width of the 95 % interval of Harrell's C near 0.7: 2 * 1.96 * `SPREAD_OF_C` / sqrt(events)."""
    return 2 * 1.96 * SPREAD_OF_C / math.sqrt(max(events, 1.0))


@dataclass(frozen=True, slots=True)
class Demand:
    """What one model has to learn.

    Attributes:
        name: The model.
        parameters: Coefficients of a Cox model, variables of a forest, weights of a network.
        unit: What `parameters` counts, in words.
        wanted: Events per parameter that it wants; 0 where a penalty makes do with fewer.
        flexible: Whether it is a forest or a network.
        variables: Columns of the clinical table that it sees; 0 where it sees images alone.
        events: Events that each fit learns from, about.
    """

    name: str
    parameters: int
    unit: str
    wanted: int
    flexible: bool
    variables: int
    events: float

    @property
    def each(self) -> float:
        """Events per parameter."""
        return self.events / max(self.parameters, 1)


def study_advice(settings: StudySettings, cohort: Cohort, external: SurvivalOutcome | None = None) -> list[Finding]:
    """What the cohort of a study can support.

    Args:
        settings: The study.
        cohort: Its rows.
        external: Outcome of the patients of an external test cohort, who are scored in place of its own.
    """
    outcome = cohort.outcome[cohort.per_patient()]
    learnt, scored = _shares(settings)
    events = float(outcome.n_events)
    plain = replace(cohort, images=None, masks=None)
    asked = replace(preprocessing_settings(settings.data), mask_channel=False)
    columns = {each.name: len(each.features()) for each in Preprocessing.fit(plain, asked).columns}
    features = {entry.name: _features(entry, columns) for entry in settings.models}
    learning = (events * learnt, events * learnt * (1 - settings.split.validation_fraction))
    demands = [
        demand
        for entry in settings.models
        if (demand := _demand(entry, settings.data, features[entry.name], outcome, learning))
    ]
    tested = events * scored if external is None else float(external.n_events)
    penalised = [entry.name for entry in settings.models if _is_penalised(entry)]
    return list(advice(len(outcome), outcome.n_events, tested, demands, penalised))


def table_advice(outcome: SurvivalOutcome, parameters: int) -> list[Finding]:
    """What a bare table can support: one Cox model on all its columns, and scores of all its patients.

    Args:
        outcome: One row per patient.
        parameters: Features of the table.
    """
    events = float(outcome.n_events)
    name = "a Cox model on all columns"
    cox = Demand(name, parameters, "parameters", EVENTS_PER_PARAMETER, False, parameters, events)
    return list(advice(len(outcome), outcome.n_events, events, [cox] if parameters else [], ()))


def advice(
    patients: int, events: int, tested: float, demands: Sequence[Demand], penalised: Sequence[str]
) -> Iterator[Finding]:
    """What can be said of a cohort of this size.

    Args:
        patients: Number of patients.
        events: Number of events.
        tested: Events among the patients who are scored, about.
        demands: What each model has to learn.
        penalised: Names of the Cox models of the study that are penalised.
    """
    if not events:
        return
    if demands:
        listed = "; ".join(f"{each.name} {_number(each.each)} ({each.parameters:,} {each.unit})" for each in demands)
        fits = f"{demands[0].events:.0f}" if demands[0].events < events else "all"
        yield _advice(
            "support", f"{events} events in {patients} patients, {fits} of them in each fit. Events for each: {listed}."
        )
    width = interval_width(tested)
    low, high = max(0.0, 0.7 - width / 2), min(1.0, 0.7 + width / 2)
    blunt = " Only large differences between models can be shown." if tested < _CLEAR else ""
    yield _advice(
        "interval-of-c",
        f"a C of 0.7 on about {tested:.0f} scored events will have a 95 % interval about {width:.2f} wide "
        f"({low:.2f} to {high:.2f}; standard error {SPREAD_OF_C} / sqrt(events), by simulation).{blunt}",
    )
    yield from _simpler(demands, penalised)


def _simpler(demands: Sequence[Demand], penalised: Sequence[str]) -> Iterator[Finding]:
    """The simpler model, by name, where a model asks for more than there is."""
    ridge = 'put a ridge Cox beside it (kind = "cox", penalty = 0.1)'
    beside = f"judge it by {', '.join(penalised)}" if penalised else ridge
    for each in demands:
        if not each.flexible and each.each < each.wanted:
            most = int(each.events // each.wanted)
            columns = f", or choose at most {most} column{'s' * (most > 1)} beforehand" if most else ""
            yield _advice(
                "simpler-model",
                f"{each.name} has {_number(each.each)} events per parameter; {each.wanted} are wanted without a "
                f'penalty. Use a ridge Cox (kind = "cox", penalty = 0.1){columns}.',
            )
    hungry = [each for each in demands if each.flexible and each.variables]
    hungry = [each for each in hungry if each.events < EVENTS_PER_VARIABLE * each.variables]
    if hungry:
        least = min(each.events / each.variables for each in hungry)
        yield _advice(
            "simpler-than-flexible",
            f"{', '.join(each.name for each in hungry)}: forests and networks want some {EVENTS_PER_VARIABLE} events "
            f"per variable; here are {_number(least)}. Cox on few columns may do as well: {beside}.",
        )
    blind = [each for each in demands if each.flexible and not each.variables and each.events < EVENTS_PER_VARIABLE]
    if blind:
        yield _advice(
            "image-on-few-events",
            f"{', '.join(each.name for each in blind)}: a network on images learns from {blind[0].events:.0f} events. "
            "Whether the image adds anything to the clinical table is shown by a model of both beside clinical_cox; "
            "the report says so at its top.",
        )


def _demand(
    entry: ModelEntry, data: DataSettings, features: int, outcome: SurvivalOutcome, events: tuple[float, float]
) -> Demand | None:
    """What a model has to learn; None for the reference curve and for models built on others."""
    variables = features if Modality.TABLE in entry.inputs else 0
    if KINDS[entry.kind].trained:
        model = network(entry, entry.seeds[0], asked_shape(data), features, outcome)
        kept = tuple(f"{name}." for name in entry.fit.frozen)
        weights = sum(weight.numel() for name, weight in model.named_parameters() if not name.startswith(kept))
        return Demand(entry.name, weights, "weights", 0, True, variables, events[1])
    if isinstance(entry.settings, ForestModel):
        return Demand(entry.name, features, "variables", 0, True, variables, events[0])
    if isinstance(entry.settings, CoxModel | LassoCoxModel):
        if _is_penalised(entry):
            return Demand(entry.name, features, "penalised parameters", 0, False, variables, events[0])
        return Demand(entry.name, features, "parameters", EVENTS_PER_PARAMETER, False, variables, events[0])
    return None


def _features(entry: ModelEntry, columns: Mapping[str, int]) -> int:
    """Features of the table that a model takes."""
    taken = tuple(columns) if entry.columns is None else chosen(entry.columns, tuple(columns))
    return sum(columns[name] for name in taken)


def _is_penalised(entry: ModelEntry) -> bool:
    settings = entry.settings
    return isinstance(settings, LassoCoxModel) or (isinstance(settings, CoxModel) and settings.penalty > 0)


def asked_shape(data: DataSettings) -> Shape | None:
    """Channels and sides of the image, as far as the study file says them: weights hardly depend on other sides."""
    if data.has_scans:
        scans = data.scans
        return scans.settings.channels, *(scans.size or (32,) * (3 if scans.view is ScanView.VOLUME else 2))
    if data.image is None:
        return None
    return _COLOURS[data.channels] + int(data.mask is not None), data.image_size, data.image_size


_COLOURS: Mapping[Channels, int] = {Channels.GREY: 1, Channels.STAINS: 2, Channels.RGB: 3}


def _shares(settings: StudySettings) -> tuple[float, float]:
    """Share of the events that each fit learns from, and that are scored; 1 where the table decides."""
    split = settings.split
    if split.kind is SplitKind.HOLDOUT:
        return 1 - split.test_fraction, split.test_fraction
    if split.kind in (SplitKind.FOLDS, SplitKind.SITE_FOLDS):
        return 1 - 1 / split.folds, 1.0
    return 1.0, 1.0


def _number(value: float) -> str:
    return f"{value:.0f}" if value >= 10 else f"{value:.2g}"


def _advice(code: str, message: str) -> Finding:
    return finding(code, Severity.ADVICE, message)

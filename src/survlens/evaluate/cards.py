"""Metric cards: everything a reader needs to compute a score again."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from importlib import metadata

from survlens.core.errors import InvalidValueError
from survlens.core.score import Score
from survlens.evaluate.definitions import DEFINITIONS

_NOT_RECORDED = "not recorded"


@dataclass(frozen=True, slots=True)
class MetricCard:
    """A score with its definition.

    Attributes:
        name: Name of the score.
        value: Its value; NaN where the data do not define it.
        question: What it is about: discrimination, accuracy, calibration or clinical use.
        direction: Which way is better.
        definition: The definition in a sentence.
        formula: The definition in symbols.
        ties: What happens to equal risks and equal times.
        horizon: End point with its unit, or that there is none.
        censoring_model: What stands in for censored rows.
        risk: Which number of the prediction orders the patients, or is compared with what was observed.
        rows: Rows scored.
        events: Events among them, of all causes.
        interval: Level and method of the interval, or that there is none.
        software: Program and version.
        paper: Where the score was proposed.
    """

    name: str
    value: float
    question: str
    direction: str
    definition: str
    formula: str
    ties: str
    horizon: str
    censoring_model: str
    risk: str
    rows: int | str
    events: int | str
    interval: str
    software: str
    paper: str

    def to_dict(self) -> dict[str, object]:
        """Plain values for a json file; a NaN value becomes None."""
        fields: dict[str, object] = asdict(self)
        fields["value"] = None if math.isnan(self.value) else self.value
        return fields

    def text(self) -> str:
        """One line per field."""
        fields = self.to_dict()
        width = max(len(name) for name in fields)
        return "\n".join(f"{name.replace('_', ' '):<{width}}  {value}" for name, value in fields.items())


def metric_card(score: Score) -> MetricCard:
    """The card of a score: its definition, and from its settings the tie rule, horizon, censoring model and counts.

    Args:
        score: A score of `survlens.evaluate`, or the difference of two.

    Raises:
        InvalidValueError: If no definition is known under the name of the score.
    """
    if score.name not in DEFINITIONS:
        raise InvalidValueError(
            f"`score` must be one that survlens.evaluate defines; got {score.name!r}. "
            "Add its record to survlens.evaluate.definitions."
        )
    known, settings = DEFINITIONS[score.name], score.settings
    interval = score.interval
    return MetricCard(
        name=score.name,
        value=score.value,
        question=score.category.value,
        direction=_direction(score),
        definition=known.meaning,
        formula=known.formula,
        ties=str(settings.get("ties", known.ties)),
        horizon=_horizon(score),
        censoring_model=str(settings.get("censoring_model", "none: censored rows leave when they were last seen")),
        risk=str(settings.get("risk", known.risk)),
        rows=_count(score, "n"),
        events=_count(score, "n_events"),
        interval="none" if interval is None else f"{100 * interval.confidence:g} %, {interval.method}",
        software=f"survlens {metadata.version('survlens')}",
        paper=known.paper,
    )


def _direction(score: Score) -> str:
    target = score.settings.get("target")
    return score.direction.value if target is None else f"{score.direction.value} ({target:g})"


def _horizon(score: Score) -> str:
    horizon, unit = score.settings.get("horizon"), score.settings.get("unit", _NOT_RECORDED)
    if horizon is None:
        return _NOT_RECORDED
    if isinstance(horizon, str):
        return f"none: the whole follow-up, in {unit}"
    start = score.settings.get("from")
    return f"{horizon:g} {unit}" if start is None else f"{start:g} to {horizon:g} {unit}"


def _count(score: Score, name: str) -> int | str:
    count = score.settings.get(name, _NOT_RECORDED)
    return count if isinstance(count, str) else int(count)

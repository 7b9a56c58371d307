"""What limits the findings, and how to repeat them."""

from __future__ import annotations

import re
import shlex

from survlens.report.blocks import Block, Bullets, Column, Paragraph, Section, Table, left_out
from survlens.report.records import Choice, RunContent
from survlens.report.verdict import FEW_EVENTS
from survlens.report.wording import MISSING, decimal, whole

_FIRST = ("survlens", "command", "seed", "date", "python", "torch", "platform")
_VALIDATION = {
    "external": "Validation is external: scored patients come from another cohort than training patients. "
    "It shows how the models do in that cohort, not in every other.",
    "site": "Validation is between sites: patients of each site were scored by models trained at the other sites. "
    "There is no validation outside these sites.",
    "site_folds": "Validation is between sites: no test patient shares a site with a training patient. "
    "There is no validation outside these sites.",
    "date": "Validation is temporal: scored patients came later than training patients, from the same source. "
    "There is no external validation.",
}
"""What each kind of split tells, where it is more than chance that divides the patients."""
_INNER_SCORES = {"concordance": "Harrell's C (higher is better)", "loss": "loss (lower is better)"}
_NO_EXTERNAL = "There is no external validation: scored patients come from the same source as training patients."


def limits(content: RunContent) -> Section:
    """What a reader must keep in mind."""
    return Section("limits", "Limits", (Bullets(limit_sentences(content)),))


def limit_sentences(content: RunContent) -> tuple[str, ...]:
    """The limits of this run, as sentences, derived from its data.

    Args:
        content: What the report shows.
    """
    metrics = content.metrics
    said = ["The findings are associations in these patients. They hold for patients like them, at best."]
    if metrics.study.simulated:
        said.append("Survival was simulated with a known hazard, so the scores say nothing about real patients.")
    said.append(_VALIDATION.get(content.split, _NO_EXTERNAL))
    if metrics.n_events < FEW_EVENTS:
        said.append(
            f"Only {metrics.n_events} scored patients had the event. "
            f"With fewer than {FEW_EVENTS}, scores and calibration are imprecise."
        )
    if not any(model.seed_spread for model in metrics.models):
        said.append("Models were trained with one seed. Another seed would give somewhat different scores.")
    said.append(
        "Intervals reflect the choice of scored patients, not the choice of training patients, seeds or settings."
    )
    said += _latent_limits(content)
    serious = sum(finding.severity.lower() in {"error", "warning"} for finding in content.findings or ())
    if serious:
        said.append(f"The check of the data raised {serious} warning{'' if serious == 1 else 's'}; see Patients.")
    if metrics.model(metrics.clinical) is None:
        said.append("Without a clinical table, the image was not compared with what the clinic already knows.")
    return tuple(said)


def without_folders(command: str) -> str:
    """The command line with the last part of each path alone, since folders may name people."""
    try:
        words = shlex.split(command)
    except ValueError:
        words = command.split()
    return shlex.join(re.sub(r"[^=,]*[/\\](?=[^/\\])", "", word) for word in words)


def _latent_limits(content: RunContent) -> list[str]:
    if not content.explanations:
        return []
    said = ["Decoded images show what the decoder draws. They are not images of patients, and fine detail is lost."]
    dimensions = content.explanations[0].dimensions
    if all(d.reliability is None for d in dimensions):
        said.append("It is not known whether another training would find the same latent dimensions.")
    loose = [str(d.dimension) for d in dimensions if d.active and d.reliability is not None and d.reliability < 0.5]
    if loose:
        said.append(f"Not stable over seeds, so not to be interpreted: dimension {', '.join(loose)}.")
    return said


def _choices(choices: tuple[Choice, ...]) -> Table:
    """What was chosen where, and by what."""
    heads = (
        Column("Model", numeric=False),
        Column("Fold"),
        Column("Chosen settings", numeric=False),
        Column("Inner score", numeric=False),
        Column("Mean"),
        Column("Candidates"),
        Column("Inner folds"),
    )
    rows = tuple(
        (
            choice.label,
            whole(choice.fold),
            choice.settings,
            _INNER_SCORES.get(choice.score, choice.score),
            MISSING if choice.value is None else decimal(choice.value, 3),
            whole(choice.candidates),
            whole(choice.inner_folds),
        )
        for choice in choices
    )
    note = (
        "Chosen by cross-validation, by patient, inside the training part of each fold; the patients who are scored "
        "had no part in it. The inner score of the chosen settings is flattered by the choice: it says less of the "
        "model than the scores of the comparison."
    )
    return Table("Settings chosen in each fold", heads, rows, note=note)


def reproducibility(content: RunContent) -> Section:
    """Versions, seeds, hashes and the command."""
    facts = dict(content.environment)
    if "command" in facts:
        facts["command"] = without_folders(facts["command"])
    facts.setdefault("seed", content.metrics.study.seed)
    ordered = [key for key in _FIRST if facts.get(key)] + [
        key for key in sorted(facts) if key not in _FIRST and facts[key]
    ]
    if not ordered and not content.hashes and not content.choices:
        return left_out("reproducibility", "Reproducibility", "the run folder holds no environment.json")
    heads = (Column("What", numeric=False), Column("Value", numeric=False))
    blocks: list[Block] = [Paragraph("Drawn from the run folder alone; no model was run to make this page.")]
    if content.choices:
        blocks.append(_choices(content.choices))
    if ordered:
        blocks.append(Table("Software, seed and command", heads, tuple((key, facts[key]) for key in ordered)))
    if content.hashes:
        blocks.append(Table("Hashes", heads, tuple(content.hashes.items())))
    return Section("reproducibility", "Reproducibility", tuple(blocks))

"""Tables, figures and claims of the experiment on drawn portraits."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from survlens.report.figures.comparison import Panel, comparison_figure
from survlens.report.figures.edits import EditRow, FrontPoint, edit_front_figure, edit_grid_figure, restart_figure
from survlens.report.sections.portraits import ETHICS
from survlens.study.portrait_comparison import beside_controls, compared, ratio_of
from survlens.study.portrait_edit_job import READ_ANEW
from survlens.study.portrait_edits import AGE, COVARIATE, PROJECTED, RAW, RISK, JudgedEdit
from survlens.study.portrait_record import UNIT, PortraitFacts, write_record
from survlens.study.portrait_survival import CLINICAL, LATE, PHOTO
from survlens.study.reproduce.portraits import READ, READ_BY_FACTOR, PortraitChain
from survlens.study.reproduce.tables import Findings, Record, ResultTable

CLOSE = 0.03
"""Largest distance from the concordance of what a photograph shows."""
FACES = 0.9
"""Least share of faces whose illness rises at every step."""
LEFT = 1 / 3
"""Largest share of the slope on age that projecting age out may leave."""
CLAIMED_SIZE = 32
"""Smallest side at which the claims are made."""
_SHOWN = 4
VISIBLE = "oracle, what a photograph shows"


def portrait_findings(chain: PortraitChain) -> Findings:
    """What the chain found, ready to be written."""
    size = chain.plan.size
    return Findings(
        "portraits",
        f"Portraits: {chain.plan.patients} drawn faces of {size} pixels, {len(chain.embedded.test)} held out",
        (
            ResultTable("claims", "What was claimed", claims(chain)),
            ResultTable("models", "Held-out patients", _models(chain)),
            ResultTable("differences", "Photo and clinical data less one of them, concordance", _differences(chain)),
            ResultTable("subgroups", "Late fusion in subgroups of held-out patients", _subgroups(chain)),
            ResultTable("factors", "Known factors from latent vectors of held-out faces", _factors(chain)),
            ResultTable(
                "edits", "Edited held-out faces, slopes per standard deviation of predicted risk", _edits(chain)
            ),
            ResultTable("embedding", "Embedding", [dict(chain.embedded.embedding.summary())]),
        ),
        _remarks(chain),
        {
            "portraits_edits": lambda: _grid(chain),
            "portraits_subgroups": lambda: _forest(chain),
            "portraits_front": lambda: _front(chain),
            "portraits_restarts": lambda: restart_figure(chain.embedded.restarted.agreement.tolist(), space="w"),
        },
    )


def write_portraits(out: Path, chain: PortraitChain) -> Path:
    """Writes the record that a report shows of the chain, into the folder `portraits` of `out`."""
    found = chain.embedded.embedding
    patient = chain.embedded.cohort.patient
    facts = PortraitFacts(
        found.summary(),
        chain.embedded.restarted.agreement.tolist(),
        found.space.value,
        [each.remark(patient[chain.embedded.test].tolist()) for each in chain.embedded.fitted_on],
        any(each.seen(patient[chain.embedded.test].tolist()) for each in chain.embedded.fitted_on),
        {name: each.score for name, each in chain.survival.scores.items()},
        [
            (column, str(each.group), each.n, each.n_events, each.score)
            for column, groups in chain.survival.subgroups.items()
            for each in groups
        ],
        readers={RISK: READ_ANEW} | dict.fromkeys(READ, READ_BY_FACTOR),
    )
    photographs = chain.embedded.cohort.pictures[chain.embedded.test[0] :]
    comparisons = compared(chain.edits, chain.directions, chain.plan.edits)
    return write_record(out, facts, chain.edits, comparisons, photographs, shown=_SHOWN)


def claims(chain: PortraitChain) -> list[Record]:
    """What the experiment is to show, a row each, with the number, what it has to be, and whether it is."""
    scores = {name: each.score.value for name, each in chain.survival.scores.items()}
    gap = scores[VISIBLE] - scores[PHOTO]
    rows: list[Record] = [_claim("C of what a photograph shows less C of the embedding", gap, "<=", CLOSE, None)]
    for single in (PHOTO, CLINICAL):
        score = chain.survival.differences[f"{LATE} less {single}"]
        low = None if score.interval is None else (score.interval.lower, score.interval.upper)
        rows.append(_claim(f"C of {LATE} less {single}", score.value, ">", 0.0, low))
    found = {edit.name: edit for edit in chain.edits}
    for name in (RAW, PROJECTED, COVARIATE):
        if name in found:
            share = found[name].readings["illness"].strict
            low = None if share.interval is None else (share.interval.lower, share.interval.upper)
            rows.append(_claim(f"faces whose true illness rises at every step, {name}", share.value, ">=", FACES, low))
    ratio = ratio_of(chain.edits, "age", PROJECTED, RAW, chain.plan.edits)
    if ratio is not None:
        low = None if ratio.interval is None else (ratio.interval.lower, ratio.interval.upper)
        rows.append(_claim("slope on age after projecting it out over that before", ratio.value, "<", LEFT, low))
    for name, beside in beside_controls(chain.edits, "illness", chain.plan.edits).items():
        if name == RAW:
            low = (
                None if beside.excess.interval is None else (beside.excess.interval.lower, beside.excess.interval.upper)
            )
            rows.append(
                _claim("slope on illness less the mean size of a control's", beside.excess.value, ">", 0.0, low)
            )
            slope = found[name].readings["illness"].slope.value
            rows.append(_claim("largest control's slope over that", beside.largest / max(slope, 1e-12), "<", 0.5, None))
    rising = [edit.readings["illness"].strict.value for edit in chain.edits if edit.control]
    if rising:
        rows.append(_claim("faces whose illness rises along a control, mean", float(np.mean(rising)), "<", 0.5, None))
    return rows


def not_shown(chain: PortraitChain) -> str:
    """Which claims do not hold at this size, in a sentence; "" where all do."""
    failed = [
        f"{row['claim']} ({row['value']:.3f}, has to be {row['has to be']})"
        for row in claims(chain)
        if not row["holds"]
    ]
    if not failed:
        return ""
    size = chain.plan.size
    test = " This size tests the chain; the claims are for 32 pixels and more." if size < CLAIMED_SIZE else ""
    return f"At {size} pixels not shown: {'; '.join(failed)}.{test}"


def _claim(what: str, value: float, rule: str, limit: float, interval: tuple[float, float] | None) -> Record:
    held = {"<=": value <= limit, ">=": value >= limit, "<": value < limit, ">": value > limit}[rule]
    sure = "" if interval is None else f"{interval[0]:.3f} to {interval[1]:.3f}"
    return {
        "claim": what,
        "value": float(value),
        "95 % CI": sure,
        "has to be": f"{rule} {limit:.2g}",
        "holds": bool(held),
    }


def _models(chain: PortraitChain) -> list[Record]:
    best = chain.survival.scores[VISIBLE].score.value
    rows: list[Record] = []
    for name, each in chain.survival.scores.items():
        ends = each.score.interval
        rows.append(
            {
                "model": name,
                "C": each.score.value,
                "95 % CI": "" if ends is None else f"{ends.lower:.3f} to {ends.upper:.3f}",
                "C less that of what a photograph shows": each.score.value - best,
            }
        )
    return rows


def _differences(chain: PortraitChain) -> list[Record]:
    rows: list[Record] = []
    for name, score in chain.survival.differences.items():
        ends = score.interval
        interval = "" if ends is None else f"{ends.lower:.3f} to {ends.upper:.3f}"
        rows.append({"difference": name, "C": score.value, "95 % CI": interval, "chi-squared": None, "p": None})
    chi2, p = chain.survival.added
    told = "photo beside clinical, likelihood ratio on held-out patients"
    return [*rows, {"difference": told, "C": None, "95 % CI": "", "chi-squared": chi2, "p": p}]


def _subgroups(chain: PortraitChain) -> list[Record]:
    rows: list[Record] = []
    for column, groups in chain.survival.subgroups.items():
        for each in groups:
            ends = each.score.interval
            rows.append(
                {
                    "column": column,
                    "level": each.group,
                    "n": each.n,
                    "events": each.n_events,
                    "C": each.score.value,
                    "95 % CI": "" if ends is None else f"{ends.lower:.3f} to {ends.upper:.3f}",
                }
            )
    return rows


def _factors(chain: PortraitChain) -> list[Record]:
    from sklearn.linear_model import RidgeCV

    latents, cohort = chain.embedded.latents, chain.embedded.cohort
    train, test = chain.embedded.train, chain.embedded.test
    rows: list[Record] = []
    for name in ("illness", "age", "skin_tone", "glasses", "yaw", "background_light"):
        values = cohort.factors[name].to_numpy(dtype=np.float64)
        model = RidgeCV(np.geomspace(1e-2, 1e4, 25)).fit(latents[train], values[train])
        rows.append({"factor": name, "R2, held out": float(model.score(latents[test], values[test]))})
    return rows


def _edits(chain: PortraitChain) -> list[Record]:
    return [_edit(edit) for edit in chain.edits]


def _edit(edit: JudgedEdit) -> Record:
    row: dict[str, object] = {"direction": edit.name, "control": "yes" if edit.control else ""}
    for name, each in edit.readings.items():
        ends = each.slope.interval
        row[f"{name}: slope"] = each.slope.value
        row[f"{name}: 95 % CI"] = "" if ends is None else f"{ends.lower:.2f} to {ends.upper:.2f}"
        row[f"{name}: rises at every step"] = each.strict.value
        row[f"{name}: Spearman"] = each.spearman.value
    row["recognised"] = edit.identity.recognised.value
    row["background change"] = None if edit.background is None else edit.background.value
    row["capped"] = float(edit.latents.capped.mean())
    return row


def _remarks(chain: PortraitChain) -> list[str]:
    held_out = chain.embedded.cohort.patient[chain.embedded.test].tolist()
    restarted = chain.embedded.restarted
    missed = not_shown(chain)
    return [
        *([missed] if missed else []),
        *(each.remark(held_out) for each in chain.embedded.fitted_on),
        chain.directions.agreement.sentence(),
        f"Directions and the risk model that reads edited pictures were fitted to two parts of the training patients. "
        f"C of that model on the others: {chain.judge.concordance:.3f}.",
        f"Distance of the embedding: {chain.embedded.distance.name}. Restart agreement in w of {len(restarted)} "
        f"held-out faces, two cold starts: {float(restarted.agreement.mean()):.2f}.",
        "Illness and age of edited pictures are read by a regression that was fitted to other drawings and knows "
        "neither generator, latent vector nor hazard; slopes are in standard deviations over training faces.",
        "The generator was trained from scratch on the training patients, without changes of the discriminator's "
        f"pictures, in {chain.plan.generator_steps} batches of {chain.plan.generator_batch}; colour drift "
        f"{chain.embedded.history.get('drift', float('nan')):.1f} in CIE Lab. What a photograph shows of the hazard is "
        "illness and age, not the stage.",
        *(f"Left out: {name}, because {reason}" for name, reason in chain.directions.left_out.items()),
        *ETHICS[:1],
    ]


def _grid(chain: PortraitChain):  # noqa: ANN202
    photographs = chain.embedded.cohort.pictures[chain.embedded.test[0] :].numpy()
    rows = [
        EditRow(f"face {person + 1}, {edit.name}", edit.pictures[person].numpy(), photographs[person])
        for person in range(min(_SHOWN, len(chain.edits[0].pictures)))
        for edit in chain.edits
        if not edit.control and edit.name in (RAW, PROJECTED, AGE)
    ]
    unit = f"{UNIT}; for {AGE}, of predicted age"
    return edit_grid_figure(rows, steps=chain.plan.edits.steps, unit=unit, remark=chain.directions.agreement.sentence())


def _forest(chain: PortraitChain):  # noqa: ANN202
    whole = chain.survival.scores[LATE].score
    outcome = chain.survival.outcome
    named = [(f"All ({outcome.n_events} of {len(outcome)})", whole)]
    for column, groups in chain.survival.subgroups.items():
        named += [(f"{column}: {each.group} ({each.n_events} of {each.n})", each.score) for each in groups]
    panel = Panel([score for _, score in named], "C (probability)", 0.5)
    return comparison_figure([name for name, _ in named], [panel], inputs=[("image", "table")] * len(named), strong=0)


def _front(chain: PortraitChain):  # noqa: ANN202
    points = [
        FrontPoint(edit.name, edit.readings["illness"].slope, edit.readings["age"].slope, edit.control)
        for edit in chain.edits
    ]
    return edit_front_figure(
        points, along="Slope on true illness (SD per step)", aside="Slope on true age (SD per step)"
    )

"""Is an explanation of a run any good? What matters over all patients, and checks on a few of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from survlens.artifacts.run_folder import RunFolder
from survlens.core.attribution import Attribution
from survlens.core.protocols import Inputs
from survlens.core.score import Score
from survlens.evaluate.attribution_definitions import checks_to_json
from survlens.evaluate.complexity import attribution_complexity
from survlens.evaluate.faithfulness import Removal, deletion_curve, insertion_curve, local_accuracy
from survlens.evaluate.randomisation import Cascade, RandomisationTest, weight_randomisation
from survlens.evaluate.score_over_time import Intervals
from survlens.explain.asked import asked, column_count, values_of
from survlens.explain.importance import global_importance
from survlens.explain.references import References
from survlens.study.contributions import GROUPS
from survlens.study.explained_patients import spread_rows
from survlens.study.explanation_job import Job
from survlens.study.model_metrics import subgroup_labels
from survlens.study.model_settings import Modality

_DRAWS = 1000
_SQUARES = 16
_RANDOM_ORDERS = 5
_RANDOM_COPIES = 2
_MOST_ROWS = 256
_COPIES = 4


def global_of(run: RunFolder, job: Job, found: Mapping[str, Attribution]) -> dict[str, Any] | None:
    """What matters over all explained patients, with intervals and by subgroup; None where no values are kept of all.

    Covariates count with all their features, and images as a whole, where contributions add up; features of the table
    elsewhere.

    Args:
        run: The run, for its subgroups.
        job: The explanation.
        found: Its attributions.
    """
    parts = _by_modality(found[GROUPS]) if GROUPS in found else {}
    if not parts and "table" in found:
        parts = {"table": found["table"]}
    if not parts:
        return None
    patients = job.fit.patients[job.rows]
    labels = subgroup_labels(run)
    subgroups = {} if labels is None else {name: labels[name].reindex(patients).to_numpy() for name in labels}
    subgroups = {
        name: values for name, values in subgroups.items() if name != "instance" and 1 < len(set(values)) <= _SQUARES
    }
    summary = global_importance(parts, subgroups=subgroups, patient=patients, draws=_DRAWS, seed=job.settings.seed)
    return summary.to_json()


def _by_modality(groups: Attribution) -> dict[str, Attribution]:
    """The groups of the table and of the images apart."""
    names = np.asarray(groups.coords["group"])
    parts = {}
    for modality, here in (("table", names != Modality.IMAGE.value), ("image", names == Modality.IMAGE.value)):
        if here.any():
            at = torch.from_numpy(np.flatnonzero(here))
            error = None if groups.sampling_error is None else groups.sampling_error[:, at]
            coords = {**groups.coords, "group": names[here]}
            parts[modality] = replace(groups, values=groups.values[:, at], sampling_error=error, coords=coords)
    return parts


def checks_of(job: Job, found: Mapping[str, Attribution]) -> dict[str, Any]:
    """Scores of an explanation on a few patients, spread evenly over the order of risk.

    Args:
        job: The explanation.
        found: Its attributions, for what is judged on all patients.
    """
    places = spread_rows(min(job.settings.checks, len(job.rows)), job.fit.risk[job.rows])
    explained = _explained(job, places)
    rows = job.rows[places]
    made = Intervals(_DRAWS, job.settings.seed, patient=job.fit.patients[rows])
    scores: list[Score] = []
    curves: dict[str, dict[str, list[float]]] = {}
    columns = column_count(job.times, job.target)
    if all("group" not in each.dims and each.values.shape[-1] == columns for each in explained.values()):
        with asked(job.fit.model) as model:
            ready = model.ready(job.fit.inputs(rows))

            def predict(inputs: Inputs) -> Tensor:
                return values_of(model, model.ready(inputs), job.times, job.target, job.memory)

            removal = _removal(job, ready, len(rows))
            fitting = {name: _by_channel(each, ready[name]) for name, each in explained.items()}
            deletion = deletion_curve(predict, ready, fitting, removal, intervals=made)
            insertion = insertion_curve(predict, ready, fitting, removal, intervals=made)
        scores += [deletion.score, insertion.score]
        curves = {"deletion": deletion.to_json(), "random": deletion.to_json(random=True)}
    if all(each.additive and each.prediction is not None for each in explained.values()):
        scores.append(local_accuracy(explained, intervals=made).score)
    if job.fit.is_network:
        scores += _randomised(job, explained, places, made).scores
    if GROUPS in found:
        of_all = Intervals(_DRAWS, job.settings.seed, patient=job.fit.patients[job.rows])
        scores.append(attribution_complexity({GROUPS: found[GROUPS]}, intervals=of_all).effective_features.score)
    return {**checks_to_json(scores, curves), "patients": len(rows)}


def _by_channel(explained: Attribution, values: Tensor) -> Attribution:
    """A map without channels as one with an equal share of each channel, as the removal of features needs it."""
    if "height" not in explained.dims or "channel" in explained.dims:
        return explained
    channels = values.shape[1]
    spread = explained.values[:, None].expand(-1, channels, *explained.values.shape[1:]) / channels
    return replace(explained, values=spread, dims=("channel", *explained.dims), sampling_error=None)


def _removal(job: Job, inputs: Inputs, count: int) -> Removal:
    """Features are replaced by their mean over the references; images in squares, of which a side has 16."""
    row = sum(tensor.numel() * tensor.element_size() for tensor in inputs.values()) / count
    batch = max(1, min(_MOST_ROWS, int(job.memory / (_COPIES * row))))
    shape = job.fit.preprocessing.image_shape
    patch = 1 if shape is None else max(1, min(shape[1:]) // _SQUARES)
    filling = References.mean(job.references.inputs)
    return Removal(filling, patch=patch, random_orders=_RANDOM_ORDERS, batch=batch, seed=job.settings.seed)


def _explained(job: Job, places: np.ndarray, model: nn.Module | None = None) -> dict[str, Attribution]:
    """The rows at `places` explained one by one, so that all of their images fit into the memory."""
    parts = [job.explained(np.array([place]), model) for place in places]
    return {name: Attribution.concatenate([part[name] for part in parts]) for name in parts[0]}


def _randomised(job: Job, explained: dict[str, Attribution], places: np.ndarray, made: Intervals) -> RandomisationTest:
    """The same rows explained by copies of the network with random weights."""

    def explain(model: nn.Module) -> dict[str, Attribution]:
        return explained if model is job.fit.model else _explained(job, places, model)

    seed = job.settings.seed
    return weight_randomisation(
        job.fit.model, explain, cascade=Cascade.AT_ONCE, copies=_RANDOM_COPIES, seed=seed, intervals=made
    )

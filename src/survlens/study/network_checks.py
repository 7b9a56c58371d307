"""Builds the networks of a study before anything is trained, to find what no setting shows alone."""

from __future__ import annotations

from survlens.core.errors import SurvlensError, UsageError
from survlens.data.cohort import Cohort
from survlens.study.advice import asked_shape
from survlens.study.image_encoders import Shape
from survlens.study.model_settings import KINDS, Modality, ModelEntry
from survlens.study.networks import network, objective
from survlens.study.settings import DataSettings, StudySettings
from survlens.training.freezing import frozen_parts


def check_networks(settings: StudySettings, cohort: Cohort) -> None:
    """Builds each network of a study, fills it from its file of weights, and freezes what it freezes.

    Args:
        settings: The study.
        cohort: Its rows, whose first scan says how large scans are.

    Raises:
        UsageError: If a network cannot take the images, a file does not hold its weights, a frozen part is none of its
            parts, nothing is left to train, or its loss cannot honour an outcome such as this; with its name.
    """
    shape = None
    for entry in settings.models:
        if not KINDS[entry.kind].trained:
            continue
        if Modality.IMAGE in entry.inputs and shape is None:
            shape = _shape(settings.data, cohort)
        for each in entry.variants():
            try:
                _build(each, shape, cohort)
            except SurvlensError as error:
                raise UsageError(f"model {entry.name}: {error}") from error


def _build(entry: ModelEntry, shape: Shape | None, cohort: Cohort) -> None:
    features = max(len(cohort.covariates), 1)
    model = network(entry, entry.seeds[0], shape, features, cohort.outcome)
    objective(entry, cohort.outcome)
    with frozen_parts(model, entry.fit.frozen):
        if not any(weight.requires_grad for weight in model.parameters()):
            raise UsageError("`fit.frozen` must leave a part to train; got all of them. Name the encoders alone.")


def _shape(data: DataSettings, cohort: Cohort) -> Shape | None:
    if data.has_scans and cohort.images:
        return tuple(cohort.images[0].shape())
    return asked_shape(data)

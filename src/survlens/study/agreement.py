"""Settings that are fine alone and contradict each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from survlens.data.pixels import Channels, ImageScaling
from survlens.study.binding import Origin
from survlens.study.covariate_names import chosen, clinical_columns, image_columns, matching
from survlens.study.model_section import CLINICAL_COX
from survlens.study.model_settings import Modality, ModelEntry
from survlens.study.network_settings import CoxVaeModel, PoolingKind, VaeEncoder
from survlens.study.rules import shown
from survlens.study.settings import DataSettings, EvaluationSettings, SplitKind, SplitSettings
from survlens.study.toml_lines import Key


def check_agreement(sections: Mapping[str, Any], models: Sequence[ModelEntry], origin: Origin) -> None:
    """Tests the sections of a study against each other.

    Raises:
        UsageError: If a split, a model or a subgroup needs a column that [data] does not name.
    """
    data: DataSettings = sections["data"]
    for name in data.image_embedding:
        if not matching(name, data.covariates):
            raise origin.unknown(("data", "image_embedding", name), data.covariates, "covariate, or a pattern of some")
    _check_split(data, sections["split"], origin)
    _check_subgroups(data, sections["evaluation"], origin)
    _check_primary(sections["evaluation"], models, origin)
    for at, entry in enumerate(models):
        for variant in entry.variants():
            _check_model(data, variant, at, origin)
            if entry.tune is not None and not variant.predicts:
                raise origin.error(("model", at, "tune"), "leave tau below 1", "1, with which nothing is predicted")


def _check_split(data: DataSettings, split: SplitSettings, origin: Origin) -> None:
    site = ("site", data.site)
    needed = {SplitKind.SITE: site, SplitKind.SITE_FOLDS: site, SplitKind.DATE: ("date", data.date)}
    key, column = needed.get(split.kind, ("", "given"))
    if column is None:
        kind = f'[split] kind = "{split.kind.value}"'
        raise origin.error(("data", key), f"be given for {kind}", "nothing", f'Add {key} = "COLUMN" to [data].')


def _check_subgroups(data: DataSettings, evaluation: EvaluationSettings, origin: Origin) -> None:
    known = [*data.covariates, *data.keep, *(each for each in (data.site,) if each)]
    for name in evaluation.subgroups:
        if name not in known:
            raise origin.unknown(
                ("evaluation", "subgroups", name), known, "column of [data] (a covariate, site or keep)"
            )


def _check_primary(evaluation: EvaluationSettings, models: Sequence[ModelEntry], origin: Origin) -> None:
    names = [entry.name for entry in models]
    if evaluation.primary is not None and evaluation.primary not in (*names, CLINICAL_COX):
        raise origin.unknown(("evaluation", "primary", evaluation.primary), names, "model of the study")


def _check_model(data: DataSettings, entry: ModelEntry, at: int, origin: Origin) -> None:
    key = ("model", at)
    if Modality.IMAGE in entry.inputs and not data.has_pictures:
        advice = "Add image = ..., or scan = ... or scan_folder = ..., there."
        raise origin.error((*key, "inputs"), "not name the image", "no image column in [data]", advice)
    if Modality.TABLE in entry.inputs and not data.covariates:
        advice = "Add numeric, categorical or ordered there."
        raise origin.error((*key, "inputs"), "not name the table", "no covariates in [data]", advice)
    if CLINICAL_COX in entry.needs and not clinical_columns(data):
        raise origin.error((*key, "members"), f"not name {CLINICAL_COX}", "no clinical covariates in [data]")
    _check_columns(data, entry, key, origin)
    _check_images(data, entry, key, origin)
    settings = entry.settings
    if isinstance(settings, CoxVaeModel):
        if Modality.IMAGE not in entry.inputs:
            raise origin.error((*key, "inputs"), 'hold "image" for a cox_vae', "the table alone")
        if data.image_scaling is not ImageScaling.UNIT:
            got = shown(data.image_scaling.value)
            raise origin.error(("data", "image_scaling"), f'be "unit" for the cox_vae {entry.name}', got)
        if data.channels is Channels.STAINS:
            rule = f'be "grey" or "rgb" for the cox_vae {entry.name}, whose images stay in [0, 1]'
            raise origin.error(("data", "channels"), rule, shown(data.channels.value))
        if settings.mask_channels > int(data.has_mask_channel):
            rule = f"be at most {int(data.has_mask_channel)}, the masks among the channels of the images"
            advice = "" if data.has_mask_channel else "Set mask_channel = true in [data.scans], or mask in [data]."
            raise origin.error((*key, "mask_channels"), rule, shown(settings.mask_channels), advice)
        stages = 1 if settings.hidden is None else len(settings.hidden)
        sides = (data.scans.size or ()) if data.has_scans else (data.image_size,)
        if settings.encoder is VaeEncoder.RESIDUAL and any(side % 2**stages for side in sides):
            rule = f"be a multiple of {2**stages}, because {entry.name} halves the image {stages} times"
            where, got = (("scans", "size"), sides) if data.has_scans else (("image_size",), data.image_size)
            raise origin.error(("data", *where), rule, shown(got), "Change it, or give fewer `hidden`.")


def _check_columns(data: DataSettings, entry: ModelEntry, key: Key, origin: Origin) -> None:
    if entry.columns is not None and Modality.TABLE not in entry.inputs:
        raise origin.error((*key, "columns"), "be left out for a model that does not look at the table", "columns")
    for name in entry.columns or ():
        if not matching(name, data.covariates):
            raise origin.unknown((*key, "columns", name), data.covariates, "covariate of [data], or a pattern of some")
    embedded = set(image_columns(data))
    taken = data.covariates if entry.columns is None else chosen(entry.columns, data.covariates)
    if entry.name == CLINICAL_COX and (seen := [name for name in taken if name in embedded]):
        rule = f"hold no column of image_embedding for {CLINICAL_COX}, with which the report compares the image"
        advice = "Give it the columns that the clinic knows, or another name."
        raise origin.error((*key, "columns"), rule, shown(seen[0]), advice)


def _check_images(data: DataSettings, entry: ModelEntry, key: Key, origin: Origin) -> None:
    """What is asked of images needs images, and what is done to them leaves them what they are."""
    fit = entry.fit
    if Modality.IMAGE not in entry.inputs:
        if (weights := getattr(entry.settings, "weights", None)) is not None:
            rule, advice = "be left out for a model that looks at no image", 'Add inputs = ["image"].'
            raise origin.error((*key, "weights"), rule, shown(weights), advice)
        if entry.pooling is not PoolingKind.NONE:
            rule, advice = 'be "none" for a model that looks at no image', 'Add inputs = ["image"].'
            raise origin.error((*key, "pooling"), rule, shown(entry.pooling.value), advice)
        if fit.augmentation.active:
            rule = "change no images for a model that looks at none"
            raise origin.error((*key, "fit"), rule, "flips, quarter_turns, gain or shift")
        return
    shaded = next((name for name in ("gain", "shift") if getattr(fit, name) > 0), None)
    if shaded is not None and isinstance(entry.settings, CoxVaeModel):
        raise origin.error(
            (*key, "fit", shaded), "be 0 for a cox_vae, whose images stay in [0, 1]", shown(getattr(fit, shaded))
        )
    if shaded is not None and data.has_mask_channel:
        rule = "be 0 where a mask is a channel of the image"
        raise origin.error((*key, "fit", shaded), rule, shown(getattr(fit, shaded)))
    if entry.pooling is not PoolingKind.NONE and data.patient is None:
        rule, advice = 'be "none" without a patient column', 'Add patient = "COLUMN" to [data].'
        raise origin.error((*key, "pooling"), rule, shown(entry.pooling.value), advice)

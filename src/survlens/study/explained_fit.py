"""One fit of a finished run, brought back with its data: model, held-out rows, training rows, names and pictures."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from survlens.artifacts.run_folder import RunFolder, plain, read_json
from survlens.core.errors import CorruptFileError, UsageError
from survlens.core.outcome import SurvivalOutcome
from survlens.core.protocols import Inputs
from survlens.data.cohort import Cohort
from survlens.data.loaders import Source
from survlens.data.pixels import ImageEncoding
from survlens.data.preprocessing import Preprocessing
from survlens.data.scan_rows import ScanEncoding, ScanImage
from survlens.data.splits import Splits
from survlens.data.table import read_table
from survlens.models.estimator_files import DESCRIPTION as ESTIMATOR
from survlens.models.estimator_files import load_estimator
from survlens.models.saving import DESCRIPTION as NETWORK
from survlens.models.saving import load_model
from survlens.study.bench import Bench
from survlens.study.cohort_schema import schema_of
from survlens.study.dividing import divided
from survlens.study.estimators import is_classical
from survlens.study.explain_settings import ExplainSettings
from survlens.study.model_rows import asked_rows
from survlens.study.model_settings import DownstreamModel, KaplanMeierModel, LateFusionModel, Modality, ModelEntry
from survlens.study.network_settings import PoolingKind
from survlens.study.resolved import from_resolved
from survlens.study.run import data_hash
from survlens.study.settings import StudySettings
from survlens.study.toml_source import with_files
from survlens.study.tuning import chosen_entry
from survlens.study.unit_tables import rows_of_fit

_REFUSED: Mapping[type, str] = {
    KaplanMeierModel: "it looks at nothing. Choose another model",
    LateFusionModel: "it sees the risks of its members only. Explain its members",
    DownstreamModel: "it sees the embedding of another model only. Explain that model",
}
_STUDY_FILE = re.compile(r".+\.toml")


@dataclass(frozen=True, slots=True, eq=False)
class ExplainedFit:
    """A fit with the rows that are explained and those that they are compared with.

    Attributes:
        entry: The model in the study, with the settings that tuning chose.
        fold: Number of the split.
        seed: Seed of the fit.
        model: The fitted model.
        source: Held-out rows, as the model takes them: one per image, or one per patient.
        names: Name of each of these rows.
        patients: Patient of each.
        risk: Predicted risk of each; higher is worse.
        training: Training rows, as the model takes them.
        preprocessing: Of the columns that the model takes.
        bench: The split.
        images_of: Rows of the cohort behind each held-out row.
        horizons: Horizons of the study.
        unit: Unit of time.
    """

    entry: ModelEntry
    fold: int
    seed: int
    model: Any
    source: Source
    names: np.ndarray
    patients: np.ndarray
    risk: np.ndarray
    training: Source
    preprocessing: Preprocessing
    bench: Bench
    images_of: list[np.ndarray]
    horizons: tuple[float, ...]
    unit: str

    @property
    def outcome(self) -> SurvivalOutcome:
        """Outcome of the held-out rows."""
        return self.source.outcome

    @property
    def is_network(self) -> bool:
        """Whether gradients can be taken."""
        return isinstance(self.model, nn.Module)

    @property
    def columns(self) -> dict[str, tuple[int, ...]]:
        """Features of the table by the covariate that they come from."""
        found, start = {}, 0
        for column in self.preprocessing.columns if Modality.TABLE in self.entry.inputs else ():
            width = len(column.features())
            found[column.name] = tuple(range(start, start + width))
            start += width
        return found

    def inputs(self, rows: np.ndarray) -> Inputs:
        """Inputs of some of the held-out rows."""
        return self.source.batch(torch.from_numpy(np.ascontiguousarray(rows)))[0]

    def pictures(self, row: int) -> Tensor | None:
        """The images of a held-out row in [0, 1] and their own colours; None for a model without images.

        Of a scan without its mask, and of three slices the middle one.
        """
        image = self.preprocessing.image
        if Modality.IMAGE not in self.entry.inputs or image is None:
            return None
        if isinstance(image, ScanEncoding):
            middle = (image.channels - image.mask_channel) // 2
            found = [self.preprocessing.image_at(self.bench.cohort, int(each)) for each in self.images_of[row]]
            return torch.stack(found)[:, middle : middle + 1]
        channels = 3 if image.stains else image.channels
        shown: ImageEncoding = replace(image, mean=(), std=(), each=False, stains=False, channels=channels)
        settings = replace(self.preprocessing.settings, mask_channel=False)
        plain_pixels = replace(self.preprocessing, image=shown, settings=settings)
        return torch.stack([plain_pixels.image_at(self.bench.cohort, int(each)) for each in self.images_of[row]])

    def affines(self, rows: np.ndarray) -> np.ndarray | None:
        """Voxel to world matrix of the scan of each of some held-out rows; None where a row has no or several scans."""
        images = self.bench.cohort.images
        if images is None or any(len(self.images_of[int(row)]) != 1 for row in rows):
            return None
        scans = [images[int(self.images_of[int(row)][0])] for row in rows]
        found = [each.affine() for each in scans if isinstance(each, ScanImage)]
        return np.stack(found) if found and len(found) == len(rows) else None


def explained_fit(run: RunFolder, settings: ExplainSettings, study: Path | None) -> ExplainedFit:
    """Brings one fit of a run back, with its data.

    Args:
        run: The run.
        settings: Which model, fold and seed.
        study: The study file that was run, or its folder; None looks in the run folder and where the run was started.

    Raises:
        UsageError: If the run has no such model, fold or seed, the model cannot be explained, or the data are not
            found or not those of the run.
        CorruptFileError: If a saved file is not whole.
    """
    known = from_resolved(read_json(run.resolved))
    entry = _explainable(known, settings.model)
    folder, seed = _folder_of_fit(run, entry, settings)
    known, cohort, splits = _data_of(run, known, study)
    entry = chosen_entry(entry, settings.fold, run)
    split = splits[settings.fold - 1]
    times = np.array([float(cohort.outcome.time.max())])
    bench = Bench.of(cohort, split, settings.fold, known.data, times).taking(entry.columns)
    model = _loaded(folder, entry, bench)
    test, train = split.test, split.train
    if Modality.IMAGE not in entry.inputs:
        test, train = bench.one_per_patient(test), bench.one_per_patient(train)
    asked = asked_rows(entry, bench, test)
    behind = [np.sort(test[asked.place == row]) for row in range(len(asked.source))]
    first = np.array([rows[0] for rows in behind])
    by_image = entry.pooling is PoolingKind.NONE and Modality.IMAGE in entry.inputs
    names = cohort.instance if by_image else cohort.patient
    predicted = rows_of_fit(run.predictions(entry.name), settings.fold, seed, cohort.instance[first])
    return ExplainedFit(
        entry=entry, fold=settings.fold, seed=seed, model=model, source=asked.source, names=names[first],
        patients=cohort.patient[first], risk=predicted["risk"].to_numpy(dtype=np.float64),
        training=asked_rows(entry, bench, train).source, preprocessing=bench.preprocessing, bench=bench,
        images_of=behind, horizons=known.evaluation.horizons, unit=cohort.outcome.unit,
    )  # fmt: skip


def _explainable(settings: StudySettings, name: str) -> ModelEntry:
    entry = settings.model(name)
    why = _REFUSED.get(type(entry.settings))
    if why is None and not entry.predicts:
        why = "its head is untrained (tau = 1). Choose another model"
    if why is not None:
        raise UsageError(f"`model` must be one that can be explained; got {name!r}: {why}.")
    return entry


def _folder_of_fit(run: RunFolder, entry: ModelEntry, settings: ExplainSettings) -> tuple[Path, int]:
    """Folder and seed of the fit."""
    said = ESTIMATOR if is_classical(entry) else NETWORK
    saved = sorted(path.parent.name for path in run.model(entry.name).glob(f"*/{said}"))
    if not saved:
        raise UsageError(
            f"`RUN` must hold the saved model {entry.name!r}; got none in {run.model(entry.name)}. "
            "Run the study again with --resume, or copy the folder of its models."
        )
    seeds = entry.seeds if settings.training_seed is None else (settings.training_seed,)
    wanted = [f"fold{settings.fold}-seed{seed}" for seed in seeds]
    for name, seed in zip(wanted, seeds, strict=True):
        if name in saved:
            return run.model(entry.name) / name, seed
    argument = "fold" if settings.training_seed is None else "training_seed"
    raise UsageError(f"`{argument}` must name a saved fit, of {', '.join(saved)}; got {wanted[0]}.")


def _data_of(run: RunFolder, settings: StudySettings, study: Path | None) -> tuple[StudySettings, Cohort, Splits]:
    """The cohort and the splits of the run, read again, and known to be the same."""
    settings = _with_found_files(run, settings, study)
    paths, schema = settings.files(), schema_of(settings.data, settings.split)
    cohort = Cohort.from_frame(read_table(paths.table), schema, root=paths.root)
    beside = None if paths.external is None else read_table(paths.external)
    other = None if beside is None else Cohort.from_frame(beside, schema, root=paths.root)
    cohort, splits = divided(settings, cohort, other)
    before = read_json(run.splits)
    if Splits.from_json(before).hash != splits.hash or before.get("data") != data_hash(cohort):
        raise UsageError(
            f"`--study` must name the study that was run, with unchanged data; got other rows or values in "
            f"{paths.table.name} or its images. Restore them, or run the study again."
        )
    return settings, cohort, splits


def _with_found_files(run: RunFolder, settings: StudySettings, study: Path | None) -> StudySettings:
    if study is not None:
        if not study.exists():
            raise UsageError(f"`--study` must be the study file that was run, or its folder; got {study}.")
        return with_files(settings, study.parent if study.is_file() else study)
    for folder in (run.path, *_started_in(run)):
        try:
            return with_files(settings, folder)
        except UsageError:
            continue
    raise UsageError(
        f"`--study` must name the study file that was run, to read {settings.data.table!r} again; got none, and the "
        f"table is not beside {run.study}. Add --study STUDY.toml."
    )


def _started_in(run: RunFolder) -> list[Path]:
    """Folders of the study file that the command of the run named."""
    if not run.environment.exists():
        return []
    said = read_json(run.environment).get("command", [])
    words = said if isinstance(said, list) else [said]
    parts = [part for word in words for part in shlex.split(str(word))]
    return [Path(part).parent for part in parts if _STUDY_FILE.fullmatch(part)]


def _loaded(folder: Path, entry: ModelEntry, bench: Bench) -> Any:
    if is_classical(entry):
        model, fitted = load_estimator(folder), read_json(folder / "preprocessing.json")
    else:
        saved = load_model(folder)
        model, fitted = saved.model, saved.extra.get("preprocessing")
    if plain(fitted) != plain(bench.preprocessing.to_json()):
        raise CorruptFileError(
            f"`{folder}` must hold the preprocessing that the training rows give; got another. "
            "It was made by another version of survlens: run the study again."
        )
    return model

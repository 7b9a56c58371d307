"""What a study file can say: one frozen dataclass per section."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from survlens.core.errors import UsageError
from survlens.data.pixels import Channels, ImageScaling
from survlens.data.preprocessing import Unseen
from survlens.data.schema import ZeroTimes
from survlens.study.model_settings import ModelEntry
from survlens.study.rules import (
    SettingError,
    at_least,
    check_rules,
    increasing_times,
    inside,
    not_empty,
    setting,
    shown,
)
from survlens.study.scan_section import ScanSection


class SplitKind(Enum):
    """How rows are divided into training, validation and test."""

    HOLDOUT = "holdout"
    FOLDS = "folds"
    COLUMN = "column"
    DATE = "date"
    SITE = "site"
    SITE_FOLDS = "site_folds"
    EXTERNAL = "external"


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyInfo:
    """Section [study].

    Attributes:
        name: Title of the study.
        description: One or two sentences for the report.
        seed: Source of every random number of the study.
        simulated: Whether the outcome is simulated; the report says so.
        data_note: One sentence on where the data come from.
    """

    name: str = setting(rule=not_empty())
    description: str = ""
    seed: int = setting(0, at_least(0))
    simulated: bool = False
    data_note: str = ""

    def __post_init__(self) -> None:
        check_rules(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSettings:
    """Section [data]: where the cohort is and which column is what.

    Attributes:
        root: Folder that holds everything, from the study file's folder; nothing may resolve outside it.
        table: csv or parquet file with one row per image or per patient, from `root`.
        unit: Unit of `time`.
        time: Column with the follow-up time.
        event: Column with the event.
        patient: Column that names the patient; without it every row is a patient.
        image: Column with image paths, from `root`.
        mask: Column with mask paths, from `root`.
        scan: Column with paths of scans: NIfTI files, or folders with a DICOM series.
        structure: Column with the structure of the mask of a scan, or with labels of a NIfTI mask.
        scan_folder: Folder of scans named by their patients, in place of `scan` and `mask`.
        scans: Section [data.scans].
        instance: Column that names the row.
        entry: Column with the time at which observation began (delayed entry); an empty cell is 0.
        weight: Column that says how often a patient counts.
        stratum: Column with the number of the stratum; Cox models compare patients within it alone.
        numeric: Numeric covariates; shell-style patterns such as "original_*" stand for columns of the table.
        categorical: Categorical covariates, and patterns of them.
        ordered: Ordered covariates and their levels, lowest first.
        image_embedding: Covariates that stand for the image, such as the latent vector of a photograph, and patterns of
            them; a model that takes them sees the image.
        site: Column that names the hospital.
        date: Column with the date of inclusion.
        keep: Further columns kept for subgroups.
        event_values: What the entries of `event` mean: 0 censored, 1 event.
        zero_times: What happens to follow-up of length 0.
        image_size: Edge in pixels that images are resized to.
        channels: Grey, colour, or the two stains of a tissue section.
        image_scaling: How intensities reach the network.
        unseen: What happens to a category that training rows did not have.
        true_log_hazard: Column with the true log-hazard of a simulation; no model sees it.
    """

    table: str = setting(rule=not_empty())
    unit: str = setting(rule=not_empty())
    time: str = setting(rule=not_empty())
    event: str = setting(rule=not_empty())
    root: str = setting(".", not_empty())
    patient: str | None = None
    image: str | None = None
    mask: str | None = None
    scan: str | None = None
    structure: str | None = None
    scan_folder: str | None = None
    scans: ScanSection = field(default_factory=ScanSection)
    instance: str | None = None
    entry: str | None = None
    weight: str | None = None
    stratum: str | None = None
    numeric: tuple[str, ...] = ()
    categorical: tuple[str, ...] = ()
    ordered: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    image_embedding: tuple[str, ...] = ()
    site: str | None = None
    date: str | None = None
    keep: tuple[str, ...] = ()
    event_values: Mapping[str, int] = field(default_factory=dict)
    zero_times: ZeroTimes = ZeroTimes.ERROR
    image_size: int = setting(64, at_least(8))
    channels: Channels = Channels.GREY
    image_scaling: ImageScaling = ImageScaling.UNIT
    unseen: Unseen = Unseen.ERROR
    true_log_hazard: str | None = None

    def __post_init__(self) -> None:
        check_rules(self)
        self._check_scans()
        seen: set[str] = set()
        for key in ("numeric", "categorical", "ordered"):
            for name in getattr(self, key):
                if name in seen:
                    raise SettingError(key, "name each covariate once", f'"{name}" twice', "Keep one of the two.")
                seen.add(name)
        for key, levels in self.ordered.items():
            if len(levels) < 2 or len(set(levels)) != len(levels):
                raise SettingError("ordered", f"give at least two different levels of '{key}'", str(list(levels)))

    def _check_scans(self) -> None:
        if self.image is not None and self.has_scans:
            raise SettingError("image", "be left out beside scans", shown(self.image), "Give one of them.")
        if self.scan is not None and self.scan_folder is not None:
            raise SettingError("scan_folder", "be left out beside `scan`", shown(self.scan_folder), "Give one of them.")
        if self.scan_folder is not None and (self.patient is None or self.mask is not None):
            rule = "stand beside `patient`, whose names it has, and without `mask`, which it holds"
            raise SettingError("scan_folder", rule, shown(self.scan_folder))
        if not self.has_scans and (self.structure is not None or self.scans != ScanSection()):
            key = "scans" if self.structure is None else "structure"
            raise SettingError(key, "stand beside `scan` or `scan_folder`", "neither")
        if self.has_scans and self.image_scaling is not ImageScaling.UNIT:
            got = shown(self.image_scaling.value)
            raise SettingError("image_scaling", 'be "unit" for scans', got, "Set window in [data.scans].")

    @property
    def has_scans(self) -> bool:
        """Whether rows have scans."""
        return self.scan is not None or self.scan_folder is not None

    @property
    def has_pictures(self) -> bool:
        """Whether there is something that models know as the image: pictures or scans."""
        return self.image is not None or self.has_scans

    @property
    def has_mask_channel(self) -> bool:
        """Whether the last channel of the image is a mask."""
        return self.scans.mask_channel if self.has_scans else self.mask is not None

    @property
    def covariates(self) -> tuple[str, ...]:
        """Names of all covariates."""
        return (*self.numeric, *self.categorical, *self.ordered)


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitSettings:
    """Section [split]; patients are never divided.

    Attributes:
        kind: How rows are divided.
        test_fraction: Share of the patients that is held out.
        validation_fraction: Share of the training patients that decides when to stop.
        folds: Number of folds, of patients or of whole sites.
        repeats: How often the folds are drawn anew.
        column: Column whose value says which rows are test rows.
        test_values: Values of `column` (or sites) that are test rows.
        cutoff: First date (YYYY-MM-DD) of the test rows.
        table: csv or parquet file of an external test cohort, from the data root.
    """

    kind: SplitKind = SplitKind.HOLDOUT
    test_fraction: float = setting(0.3, inside(0.01, 1))
    validation_fraction: float = setting(0.2, inside(0, 0.9))
    folds: int = setting(5, at_least(2))
    repeats: int = setting(1, at_least(1))
    column: str | None = None
    test_values: tuple[str, ...] = ()
    cutoff: str | None = None
    table: str | None = None

    def __post_init__(self) -> None:
        check_rules(self)
        needed = {
            SplitKind.COLUMN: ("column", "test_values"),
            SplitKind.DATE: ("cutoff",),
            SplitKind.EXTERNAL: ("table",),
        }
        for key in needed.get(self.kind, ()):
            if not getattr(self, key):
                raise SettingError(key, f'be given for kind = "{self.kind.value}"', "nothing", f"Add {key} = ....")


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationSettings:
    """Section [evaluation].

    Attributes:
        horizons: Times at which predictions are judged, in the unit of the data; empty: quartiles of the event times.
        bootstrap: Draws of patients behind every interval; 0 leaves intervals out.
        subgroups: Columns whose levels are scored one by one.
        groups: Number of risk groups, cut at quantiles of the training risk.
        primary: The model that the study is about; left out, the first one that is no reference.
    """

    horizons: tuple[float, ...] = setting((), increasing_times())
    bootstrap: int = setting(500, at_least(0))
    subgroups: tuple[str, ...] = ()
    groups: int = setting(3, at_least(2))
    primary: str | None = None

    def __post_init__(self) -> None:
        check_rules(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportSettings:
    """Section [report].

    Attributes:
        title: Title of the report; empty takes the name of the study.
    """

    title: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyPaths:
    """Files of a study on this machine.

    Attributes:
        root: Data root.
        table: The table.
        external: The table of an external test cohort.
    """

    root: Path
    table: Path
    external: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StudySettings:
    """Everything a study file says.

    Attributes:
        study: Section [study].
        data: Section [data].
        models: Sections [[model]], in the order they are fitted; the two reference rows come first.
        split: Section [split].
        evaluation: Section [evaluation].
        report: Section [report].
        paths: Where the data are; None for settings read back from a run folder.
    """

    study: StudyInfo
    data: DataSettings
    models: tuple[ModelEntry, ...]
    split: SplitSettings
    evaluation: EvaluationSettings
    report: ReportSettings
    paths: StudyPaths | None = None

    def model(self, name: str) -> ModelEntry:
        """The model called `name`.

        Raises:
            UsageError: If there is none.
        """
        for entry in self.models:
            if entry.name == name:
                return entry
        known = ", ".join(entry.name for entry in self.models)
        raise SettingError("model", f"be one of {known}", shown(name))

    def files(self) -> StudyPaths:
        """Where the data are.

        Raises:
            UsageError: If the settings were read back from a run folder.
        """
        if self.paths is None:
            raise UsageError("`settings` must come from a study file to read data; got settings of a run folder.")
        return self.paths

"""The rows that one network learns from and is asked about: one per image, or one per patient where they are pooled."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from survlens.data.augmentation import AugmentedSource
from survlens.data.loaders import Source, SubsetSource
from survlens.study.bench import Bench
from survlens.study.model_settings import Modality, ModelEntry
from survlens.study.network_settings import LossKind, PoolingKind
from survlens.training.martingale import NumberedSource


@dataclass(frozen=True, slots=True, eq=False)
class AskedRows:
    """Some rows of a split as a network sees them.

    Attributes:
        source: What the network is given.
        place: Row of `source` of each row that was asked for; rows of a pooled patient share one.
    """

    source: Source
    place: np.ndarray


def learnt_rows(entry: ModelEntry, bench: Bench) -> Source:
    """Training rows of a network, their images changed at random where its study says so.

    Args:
        entry: A network of the study.
        bench: The split, with the columns that the network takes.
    """
    rows = bench.split.train
    if Modality.IMAGE not in entry.inputs:
        return _numbered(entry, bench.subset(entry.inputs, bench.one_per_patient(rows)))
    source = asked_rows(entry, bench, rows).source
    augmentation = entry.fit.augmentation
    return _numbered(entry, AugmentedSource(source, augmentation) if augmentation.active else source)


def _numbered(entry: ModelEntry, source: Source) -> Source:
    """The rows with their numbers, where a memory of risks asks for them."""
    return NumberedSource(source) if entry.fit.loss is LossKind.MARTINGALE else source


def asked_rows(entry: ModelEntry, bench: Bench, rows: np.ndarray) -> AskedRows:
    """Rows of a split as a network sees them, unchanged.

    Args:
        entry: A network of the study.
        bench: The split, with the columns that the network takes.
        rows: Rows of the cohort.
    """
    if entry.pooling is PoolingKind.NONE:
        return AskedRows(bench.subset(entry.inputs, rows), np.arange(len(rows)))
    settings: Any = entry.settings
    bags = bench.bags(entry.inputs, settings.max_items)
    number = {patient: at for at, patient in enumerate(bags.patient)}
    patients, place = np.unique([number[each] for each in bench.cohort.patient[rows]], return_inverse=True)
    return AskedRows(SubsetSource(bags, torch.from_numpy(patients)), place)

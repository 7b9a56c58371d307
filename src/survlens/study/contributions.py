"""Attributions of a block of patients with their names, and the contributions of whole covariates and images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch

from survlens.core.attribution import Attribution, row_sums

GROUPS = "groups"
"""Key of the contributions per group: every covariate with all its features, and the images as a whole."""


def on_cpu(found: Mapping[str, Attribution]) -> dict[str, Attribution]:
    """The same attributions, wherever they were computed."""
    moved = {}
    for name, each in found.items():
        tensors = {key: getattr(each, key) for key in Attribution.__dataclass_fields__}
        here = {key: value.detach().cpu() for key, value in tensors.items() if isinstance(value, torch.Tensor)}
        moved[name] = replace(each, **here)
    return moved


def named(
    found: Mapping[str, Attribution], instances: np.ndarray, features: Mapping[str, Sequence[str]]
) -> dict[str, Attribution]:
    """Attributions with the names of instances, and of the features of modalities that have them.

    Args:
        found: Attributions by modality.
        instances: Name of each instance.
        features: Names of the features of a modality.
    """
    labels = {"instance": np.array([str(name) for name in instances], dtype=object)}
    result = {}
    for name, each in found.items():
        own = {"feature": np.array(features[name], dtype=object)} if name in features and "feature" in each.dims else {}
        result[name] = each.labelled({**labels, **own})
    return result


def group_contributions(found: Mapping[str, Attribution], columns: Mapping[str, Sequence[int]]) -> Attribution:
    """The contribution of every group: sums over the features of a covariate, and over images with all their items.

    Attributions that are of groups already stay as they are.

    Args:
        found: Attributions of features that add up, by modality.
        columns: Features of the table by covariate.
    """
    names: list[str] = []
    values: list[torch.Tensor] = []
    errors: list[torch.Tensor] = []
    notes: list[str] = []
    for modality, each in found.items():
        if each.dims == ("group",):
            names += [str(name) for name in each.coords["group"]]
            values.append(each.values if each.rows is None else row_sums(each.values, each.rows, each.instances))
            errors += [] if each.sampling_error is None or each.rows is not None else [each.sampling_error]
            notes += () if each.rows is None else ("The effects of the images of a patient are added up.",)
        elif each.dims == ("feature",):
            for name, features in columns.items():
                names.append(name)
                values.append(each.values[:, list(features)].sum(1, keepdim=True))
                if len(features) == 1 and each.sampling_error is not None:
                    errors.append(each.sampling_error[:, list(features)])
        else:
            names.append(modality)
            values.append(each.total[:, None])
    first = next(iter(found.values()))
    together = torch.cat(values, dim=1)
    error = torch.cat(errors, dim=1) if errors else None
    return replace(
        first, values=together, dims=("group",), notes=(*first.notes, *notes), rows=None, affine=None,
        quadrature_error=None, sampling_error=error if error is not None and error.shape == together.shape else None,
        coords={"instance": first.coords["instance"], "group": np.array(names, dtype=object)},
    )  # fmt: skip

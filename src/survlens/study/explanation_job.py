"""One explanation of a run as it is going to be made: which rows, with what, when, and in which blocks."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from survlens.artifacts.run_folder import RunFolder, plain
from survlens.core.attribution import Attribution
from survlens.core.errors import InvalidTypeError, InvalidValueError, UsageError
from survlens.core.targets import Target
from survlens.explain.asked import asked, column_count, values_of
from survlens.explain.coalitions import Player, column_players
from survlens.explain.references import References
from survlens.study.contributions import GROUPS, named, on_cpu
from survlens.study.explain_methods import Explain, Given, Method, method_of
from survlens.study.explain_settings import ExplainSettings, KeptImages
from survlens.study.explained_fit import ExplainedFit, explained_fit
from survlens.study.explained_patients import chosen_two, explained_rows
from survlens.study.model_settings import Modality
from survlens.study.networks import fit_settings

_MEGABYTE = 1 << 20
_COPIES = 4
_MOST_ROWS = 32
_STEPS = 20


@dataclass(frozen=True, slots=True, eq=False)
class Job:
    """Everything that one explanation is made of.

    Attributes:
        settings: What was asked.
        fit: The fit.
        rows: Held-out rows that are explained.
        chosen: The two of them that pictures show, as positions among `rows`.
        target: What is explained.
        times: When.
        method: How.
        explain: The explainer.
        references: What with.
        blocks: Positions among `rows` that are explained together.
        home: Folder of the explanation.
    """

    settings: ExplainSettings
    fit: ExplainedFit
    rows: np.ndarray
    chosen: np.ndarray
    target: Target
    times: torch.Tensor
    method: Method
    explain: Explain
    references: References
    blocks: list[np.ndarray]
    home: Path

    @property
    def modalities(self) -> tuple[str, ...]:
        """What the model looks at."""
        return tuple(each.value for each in self.fit.entry.inputs)

    @property
    def memory(self) -> int:
        """Bytes that a block may take."""
        return self.settings.memory * _MEGABYTE

    def explained(self, at: np.ndarray, model: Any = None) -> dict[str, Attribution]:
        """Attributions of some rows by modality, with their names.

        Args:
            at: Positions among `rows`.
            model: Another model in place of the fit.
        """
        inputs = self.fit.inputs(self.rows[at])
        found = on_cpu(self.explain(self.fit.model if model is None else model, inputs, self.times, self.target))
        found = {name: found[name] for name in (*self.modalities, GROUPS) if name in found}
        affine = self.fit.affines(self.rows[at]) if "image" in found else None
        if affine is not None:
            found["image"] = replace(found["image"], affine=affine)
        return named(found, self.fit.names[self.rows[at]], {"table": self.fit.preprocessing.feature_names})

    def plan(self) -> dict[str, Any]:
        """What the result depends on, as json holds it."""
        asked_for = {each.name: getattr(self.settings, each.name) for each in fields(self.settings)}
        digest = hashlib.sha256()
        if isinstance(self.fit.model, nn.Module):
            for name, tensor in sorted(self.fit.model.state_dict().items()):
                digest.update(name.encode() + tensor.detach().cpu().numpy().tobytes())
        made = {
            "training_seed": self.fit.seed,
            "times": self.times.tolist(),
            "patients": [str(name) for name in self.fit.names[self.rows]],
            "training data": self.fit.bench.fingerprint,
            "weights": digest.hexdigest(),
            "rows of a block": len(self.blocks[0]),
        }
        return plain({**asked_for, **made})


def explanation_job(run: RunFolder, settings: ExplainSettings, study: Path | None) -> Job:
    """Brings back what is explained, and refuses what cannot be before any work is done.

    Args:
        run: The run.
        settings: What is explained, and how.
        study: The study file that was run, or its folder; None looks in the run folder and where the run was started.

    Raises:
        UsageError: If something asked for does not exist or does not go together.
    """
    method, target = method_of(settings.method), settings.explained()
    fit = explained_fit(run, settings, study)
    image = Modality.IMAGE in fit.entry.inputs
    sees = tuple(each.value for each in fit.entry.inputs)
    method.check(settings.method, fit.entry.name, settings.target, network=fit.is_network, sees=sees)
    event = fit.outcome.event.numpy()
    rows = explained_rows(settings.patients, fit.names, fit.patients, fit.risk, event)
    times = torch.tensor(settings.times or _default_times(fit), dtype=torch.float64)
    _check_answer(fit, rows[:1], settings, target, times)
    references = _references(fit, settings)
    players = list(column_players("table", fit.columns))
    if image:
        players.append(Player("image", "image"))
    if fit.is_network:
        device = replace(fit_settings(fit.entry, fit.seed, validated=False), device=settings.device).torch_device()
        fit.model.to(device)
    features = sum(len(each) for each in fit.columns.values())
    shape = fit.preprocessing.image_shape if image else None
    given = Given(
        references, tuple(players), features, 1 if shape is None else min(shape[1:]), settings.seed, settings.tolerance,
        settings.memory * _MEGABYTE,
    )  # fmt: skip
    explain = method.make(given)
    step = _rows_of_a_block(fit, rows, settings, column_count(times, target))
    blocks = np.split(np.arange(len(rows)), range(step, len(rows), step))
    home = run.explanations(fit.entry.name) / "over_time" / settings.folder
    chosen = chosen_two(fit.risk[rows], event[rows])
    return Job(settings, fit, rows, chosen, target, times, method, explain, references, blocks, home)


def _default_times(fit: ExplainedFit) -> tuple[float, ...]:
    last = max(fit.horizons)
    return tuple(last * step / _STEPS for step in range(1, _STEPS + 1))


def _references(fit: ExplainedFit, settings: ExplainSettings) -> References:
    """Training rows of the fold, drawn without replacement; all of them where there are fewer than asked for."""
    count = min(settings.references, len(fit.training))
    drawn = torch.randperm(len(fit.training), generator=torch.Generator().manual_seed(settings.seed))[:count]
    inputs, _ = fit.training.batch(drawn.sort().values)
    words = f"{count} of {len(fit.training)} training rows of fold {fit.fold}, drawn at random (seed {settings.seed})"
    return References(inputs, words, drawn=True)


def _rows_of_a_block(fit: ExplainedFit, rows: np.ndarray, settings: ExplainSettings, columns: int) -> int:
    """How many rows are explained together within the memory, the row with most images deciding."""
    features = sum(len(each) for each in fit.columns.values())
    shape = fit.preprocessing.image_shape
    if shape is not None and Modality.IMAGE in fit.entry.inputs:
        features += math.prod(shape) * max(len(fit.images_of[int(row)]) for row in rows)
    row, memory = _COPIES * 8 * max(features, 1) * max(columns, 8), settings.memory * _MEGABYTE
    if settings.keep_images is KeptImages.ALL and row * len(rows) > memory:
        raise UsageError(
            f"`keep_images` must be chosen where all images take more than --memory {settings.memory}; got all, which "
            f"takes about {math.ceil(row * len(rows) / _MEGABYTE)} MB. Raise --memory, or explain fewer patients."
        )
    return max(1, min(_MOST_ROWS, memory // row))


def _check_answer(
    fit: ExplainedFit, rows: np.ndarray, settings: ExplainSettings, target: Target, times: torch.Tensor
) -> None:
    """Asks the model for the target of one row."""
    try:
        with asked(fit.model) as model:
            values_of(model, model.ready(fit.inputs(rows)), times, target)
    except (InvalidValueError, InvalidTypeError) as error:
        raise UsageError(
            f"`target` and `times` must be what {fit.entry.name!r} can answer; got {settings.target!r}: {error}"
        ) from error

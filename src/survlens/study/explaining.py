"""Explains the held-out patients of one fit of a run over time: block by block, so that it can stop and go on."""

from __future__ import annotations

import shutil
import time as clock
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from survlens.artifacts.attribution_files import read_attributions, write_attributions
from survlens.artifacts.run_folder import RunFolder, read_json, write_json
from survlens.artifacts.tensors import save_tensors
from survlens.core.attribution import Attribution
from survlens.core.errors import UsageError
from survlens.study.contributions import GROUPS, group_contributions
from survlens.study.explain_settings import ExplainSettings, KeptImages
from survlens.study.explained_patients import RULE
from survlens.study.explanation_checks import checks_of, global_of
from survlens.study.explanation_job import Job, explanation_job
from survlens.study.run import uncounted
from survlens.study.unit import Count

ATTRIBUTIONS, PICTURES = "attributions.safetensors", "pictures.safetensors"
SETTINGS, GLOBAL, CHECKS, PLAN, BLOCKS = "settings.json", "global.json", "checks.json", "plan.json", "blocks"


def explain_patients(
    run: RunFolder,
    settings: ExplainSettings,
    *,
    study: Path | None = None,
    overwrite: bool = False,
    count: Count = uncounted,
    tell: Callable[[str], None] = lambda said: None,
) -> Path:
    """Explains held-out patients of one fit, and writes RUN/explanations/MODEL/over_time/NAME.

    References are drawn from the training patients of the same fold. Patients are explained in blocks, and a block that
    is written is not computed again: the same call goes on where an earlier one was stopped, with the same bits.

    Args:
        run: The run.
        settings: What is explained, and how.
        study: The study file that was run, or its folder; None looks in the run folder and where the run was started.
        overwrite: Replaces an explanation of the same name that was made otherwise.
        count: Told of every block.
        tell: Told what is left to do.

    Returns:
        The folder of the explanation.

    Raises:
        UsageError: If something asked for does not exist or does not go together; the message says what to do.
        CorruptFileError: If a saved file is not whole.
    """
    job = explanation_job(run, settings, study)
    _begin(job, overwrite=overwrite)
    if (job.home / SETTINGS).exists():
        tell("nothing left to do: this explanation is finished")
        return job.home
    try:
        _explain_blocks(job, count, tell)
        _finish(run, job, tell)
    except KeyboardInterrupt as error:
        raise KeyboardInterrupt("Finished blocks of patients were kept.") from error
    return job.home


def _begin(job: Job, *, overwrite: bool) -> None:
    """Makes the folder, or makes sure that what stands there was made alike."""
    plan = job.plan()
    if job.home.exists() and overwrite:
        shutil.rmtree(job.home)
    if (job.home / PLAN).exists():
        before = read_json(job.home / PLAN)
        changed = sorted(name for name in plan if before.get(name) != plan[name])
        if changed:
            raise UsageError(
                f"`{changed[0]}` must be that of the explanation in {job.home}; got another "
                f"({', '.join(changed)} changed). Pass --overwrite to replace it, or --name for another folder."
            )
        return
    if job.home.exists() and any(job.home.iterdir()):
        raise UsageError(
            f"`name` must be that of a new folder; got {job.home}, which holds other files. Choose another --name."
        )
    write_json(job.home / PLAN, plan)


def _block(job: Job, number: int) -> Path:
    return job.home / BLOCKS / f"{number + 1:04d}.safetensors"


def _explain_blocks(job: Job, count: Count, tell: Callable[[str], None]) -> None:
    left = [number for number in range(len(job.blocks)) if not _block(job, number).exists()]
    done = len(job.rows) - sum(len(job.blocks[number]) for number in left)
    tell(f"{len(job.rows) - done} of {len(job.rows)} patients left, written to {job.home}")
    with count(f"{job.fit.entry.label}, {job.method.label} of {job.target.name}", len(job.rows)) as on_block:
        for number in left:
            block, began = job.blocks[number], clock.perf_counter()
            found = _kept(job, block, job.explained(block))
            seconds = clock.perf_counter() - began
            write_json(_block(job, number).with_suffix(".json"), {"seconds": seconds})
            write_attributions(_block(job, number), found)
            done += len(block)
            on_block(done, f"{seconds / len(block):.2g} s per patient")


def _kept(job: Job, block: np.ndarray, found: dict[str, Attribution]) -> dict[str, Attribution]:
    """The groups and tables of all, and the images that were asked for."""
    summed = job.method.sums and GROUPS not in found
    groups = {GROUPS: group_contributions(found, job.fit.columns)} if summed else {}
    if job.settings.keep_images is KeptImages.CHOSEN:
        shown = np.flatnonzero(np.isin(block, job.chosen))
        found = {name: each[shown] if "height" in each.dims else each for name, each in found.items()}
    return found | groups


def _finish(run: RunFolder, job: Job, tell: Callable[[str], None]) -> None:
    """Puts the blocks together; settings.json comes last and says that all is there."""
    parts = [read_attributions(_block(job, number)) for number in range(len(job.blocks))]
    together = {name: Attribution.concatenate([part[name] for part in parts]) for name in parts[0]}
    write_attributions(job.home / ATTRIBUTIONS, together)
    _write_pictures(job)
    found = global_of(run, job, together)
    if found is not None:
        write_json(job.home / GLOBAL, found)
    if job.settings.checks:
        tell("checking the explanation")
        write_json(job.home / CHECKS, checks_of(job, together))
    seconds = sum(read_json(path)["seconds"] for path in sorted((job.home / BLOCKS).glob("*.json")))
    fit, settings = job.fit, job.settings
    write_json(
        job.home / SETTINGS,
        {
            "model": fit.entry.name,
            "label": fit.entry.label,
            "fold": fit.fold,
            "seed": fit.seed,
            "draw_seed": settings.seed,
            "method": settings.method,
            "method_label": job.method.label,
            "target": job.target.name,
            "target_label": job.target.name.replace("_", " "),
            "unit": fit.unit,
            "times": next(iter(together.values())).times,
            "reference": job.references.description if job.method.compares else "",
            "rule": RULE,
            "patients": [str(name) for name in fit.names[job.rows]],
            "chosen": job.chosen,
            "modalities": job.modalities,
            "seconds": seconds,
            "notes": list(dict.fromkeys(note for each in together.values() for note in each.notes)),
        },
    )
    shutil.rmtree(job.home / BLOCKS, ignore_errors=True)


def _write_pictures(job: Job) -> None:
    shown = [(place, job.fit.pictures(int(job.rows[at]))) for place, at in enumerate(job.chosen)]
    images = [image for _, image in shown if image is not None]
    if images:
        rows = [place for place, image in shown if image is not None for _ in range(len(image))]
        save_tensors(job.home / PICTURES, {"image": torch.cat(images), "row": torch.tensor(rows, dtype=torch.int64)})

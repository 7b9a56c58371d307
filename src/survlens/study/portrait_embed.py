"""The job of `survlens portrait embed`: photographs to latent vectors, with what is needed to judge them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from survlens.artifacts.run_folder import read_json, write_json
from survlens.artifacts.stylegan2_checkpoint import load_weights
from survlens.core.errors import CorruptFileError, DataError, LeakageError, UsageError
from survlens.data.fitted_on import FittedOn
from survlens.generators.stylegan2.discriminator import Discriminator
from survlens.generators.stylegan2.generator import Generator
from survlens.generators.stylegan2.loading import discriminator_from, generator_from
from survlens.study.portrait_columns import SUMMARY, coordinates
from survlens.study.portrait_files import PATIENT, TEST, TRAIN, PhotoTable, told_copies, write_frame
from survlens.training.inversion import embed
from survlens.training.inversion_encoder import EncoderSettings, LatentEncoder, fit_encoder, picture_hash
from survlens.training.inversion_result import Embedding
from survlens.training.inversion_settings import InversionSettings, Start
from survlens.training.picture_distance import (
    DiscriminatorDistance,
    PictureDistance,
    PyramidDistance,
    VGGDistance,
    weights_hash,
)
from survlens.training.settings import Device
from survlens.training.training_photographs import FITTED_ON, TrainingRecord

WEIGHTS, DISCRIMINATOR = "generator.safetensors", "discriminator.safetensors"
ENCODER, ENCODER_RECORD = "encoder.safetensors", "encoder.json"
TABLE, FILE = "embedding.csv", "embedding.npz"


@dataclass(frozen=True, slots=True)
class EmbedPlan:
    """How photographs are embedded.

    Attributes:
        inversion: The descent.
        encoder: How the encoder of a warm start is fitted.
        vgg: File of VGG-16's weights for the distance; None for the discriminator's features and pixels.
        pixels: Whether only pixels are compared, which costs least.
    """

    inversion: InversionSettings
    encoder: EncoderSettings
    vgg: Path | None = None
    pixels: bool = False


def read_networks(path: Path) -> tuple[Generator, Discriminator | None]:
    """The networks of a converted checkpoint, or of the folder of a fine-tuned generator.

    Args:
        path: A file, or a folder with `generator.safetensors` and perhaps `discriminator.safetensors`.

    Raises:
        CorruptFileError: If a file is missing or holds something else.
    """
    weights = load_weights(path / WEIGHTS if path.is_dir() else path)
    beside = path / DISCRIMINATOR
    judged = load_weights(beside) if path.is_dir() and beside.is_file() else weights
    return generator_from(weights), discriminator_from(judged) if judged.discriminator else None


def picture_distance(discriminator: Discriminator | None, plan: EmbedPlan) -> PictureDistance:
    """The distance of a plan: VGG-16 where its file is given, else features of the discriminator with pixels."""
    if plan.vgg is not None:
        return VGGDistance(plan.vgg)
    if plan.pixels or discriminator is None:
        return PyramidDistance()
    return DiscriminatorDistance(discriminator)


def embed_job(
    table: PhotoTable,
    generator: Path,
    out: Path,
    plan: EmbedPlan,
    *,
    tell: Callable[[str], object] = lambda _: None,
) -> Embedding:
    """Embeds the photographs of a table, and writes vectors, what is known of them, and on whom what was fitted.

    Written are `embedding.csv` (the table with the vectors), `embedding.npz` (all starts), `embedding.json` (summary
    and record) and, for a warm start, `encoder.safetensors`, fitted on photographs of the training part, with
    `encoder.json`, which says how and on which. Batches that an interrupted call finished are not done again, nor is
    the encoder.

    Args:
        table: Aligned photographs.
        generator: Its weights, or the folder of a fine-tuned generator.
        out: Folder to write.
        plan: How.
        tell: Told of the progress.

    Raises:
        DataError: If the table has columns named as coordinates of latent vectors are.
        LeakageError: If one picture stands under two patients.
        UsageError: If `out` holds an embedding with other settings or networks, or an encoder of other photographs.
    """
    space = plan.inversion.space.value
    taken = coordinates(map(str, table.frame.columns), space)
    if taken:
        raise DataError(
            f"columns named {space}1, {space}2, ... must be free for the vectors; got {taken[0]!r}. Rename it."
        )
    network, discriminator = read_networks(generator)
    pictures = table.pictures(network.shape.resolution)
    _check_copies(pictures, table.words(PATIENT))
    out.mkdir(parents=True, exist_ok=True)
    remark = told_copies(pictures, table.words(PATIENT), out, TABLE)
    distance = picture_distance(discriminator, plan)
    tell(f"{len(table)} photographs, distance: {distance.name}")
    training = table.part(TRAIN)
    encoder = None
    if plan.inversion.first_start() is Start.WARM:
        if not training.size:
            raise UsageError("`part` must be train in some rows for a warm start; got none. Use --start cold.")
        encoder = _encoder(network, pictures[torch.as_tensor(training)], plan, distance, out, tell)
    found = embed(
        network,
        pictures,
        plan.inversion,
        distance,
        encoder=encoder,
        folder=out,
        resume=True,
        on_batch=lambda done, of: tell(f"{done} of {of} photographs"),
    )
    found.save(out / FILE)
    write_frame(out / TABLE, latent_frame(table, found))
    record = _record(table, generator, training if encoder is not None else None)
    beside = os.path.relpath(table.folder, out)
    networks = networks_of(network, distance)
    content = {"summary": found.summary(), "photographs": beside, "networks": networks}
    content |= {"settings": plan.inversion.to_json(), "remarks": [remark] if remark else []}
    write_json(out / SUMMARY, content | record)
    return found


def recorded_settings(embedding: Path) -> InversionSettings:
    """How the photographs of an embedding were embedded.

    Args:
        embedding: Folder that `embed_job` wrote.

    Raises:
        CorruptFileError: If its record is missing or is not whole.
    """
    try:
        return InversionSettings.from_json(read_json(embedding / SUMMARY)["settings"])
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise CorruptFileError(
            f"`{embedding / SUMMARY}` must say how the photographs were embedded; got a fault ({error}). Run `survlens "
            "portrait embed` again."
        ) from error


def networks_of(network: Generator, distance: PictureDistance) -> dict[str, str]:
    """What tells generator and distance from others."""
    return {"generator": weights_hash(network), "distance": distance.fingerprint}


def latent_frame(table: PhotoTable, found: Embedding):  # noqa: ANN201
    """The table with a column for every coordinate of the latent vector, and the distance and agreement of each row."""
    import pandas as pd

    width = found.latents.shape[1]
    columns = [f"{found.space.value}{number}" for number in range(1, width + 1)]
    vectors = pd.DataFrame(found.latents.numpy(), columns=pd.Index(columns))
    known = pd.DataFrame({"embedding_distance": found.distance.numpy(), "restart_agreement": found.agreement.numpy()})
    return pd.concat([table.frame.reset_index(drop=True), known, vectors], axis=1)


def latents_of(frame, space: str) -> np.ndarray:  # noqa: ANN001
    """The vectors in a table that `latent_frame` made."""
    names = coordinates(map(str, frame.columns), space)
    return frame[sorted(names, key=lambda name: int(name[len(space) :]))].to_numpy(dtype=np.float64)


def _check_copies(pictures: Tensor, patient: np.ndarray) -> None:
    owners: dict[str, set[str]] = {}
    for picture, one in zip(pictures, patient.tolist(), strict=True):
        owners.setdefault(picture_hash(picture), set()).add(one)
    shared = sum(len(each) > 1 for each in owners.values())
    if shared:
        raise LeakageError(
            f"each picture must be of one patient; got {shared} that stand under two or more, pixel by pixel the same. "
            "Correct the table: a copy in another fold or part would be known by heart."
        )


def fitted_before(generator: Path) -> FittedOn | None:
    """On whom a generator was fine-tuned, where its folder says so by patient."""
    record = record_of(generator)
    return None if record is None else record.patients


def record_of(networks: Path | None) -> TrainingRecord | None:
    """The record of the training beside networks, a folder or a file in it; None where there is none."""
    if networks is None:
        return None
    folder = networks if networks.is_dir() else networks.parent
    return TrainingRecord.read(folder) if (folder / FITTED_ON).is_file() else None


def _encoder(
    network: Generator,
    pictures: Tensor,
    plan: EmbedPlan,
    distance: PictureDistance,
    out: Path,
    tell: Callable[[str], object],
) -> LatentEncoder:
    path, beside = out / ENCODER, out / ENCODER_RECORD
    shown = hashlib.sha256("".join(sorted(map(picture_hash, pictures))).encode()).hexdigest()
    identity = {
        "training photographs": f"{len(pictures)} with the hash {shown[:16]}",
        "encoder settings": str(replace(plan.encoder, device=Device.CPU)),
        **networks_of(network, distance),
    }
    if path.is_file() and beside.is_file():
        before = read_json(beside)
        for name, now in identity.items():
            if before.get(name) != now:
                raise UsageError(
                    f"`{name}` must be as when the encoder in the folder was fitted ({before.get(name)}); got {now}. "
                    "Use the same, or another folder."
                )
        tell("encoder: fitted before")
        return LatentEncoder.load(path)
    write_json(beside, identity)
    every = max(1, plan.encoder.steps // 10)

    def on_step(step: int, loss: float) -> None:
        if step % every == 0:
            tell(f"encoder: step {step} of {plan.encoder.steps}, loss {loss:.3f}")

    encoder = fit_encoder(network, pictures, plan.encoder, distance, on_step=on_step)
    encoder.save(path)
    return encoder


def _record(table: PhotoTable, generator: Path, encoder_rows: np.ndarray | None) -> dict[str, object]:
    """Sentences on whom generator and encoder were fitted, and whether that includes patients of the test part."""
    patient = table.words(PATIENT)
    held_out = patient[table.part(TEST)]
    known = fitted_before(generator)
    sentences, transductive = [], False
    if known is None:
        sentences.append("generator: on whom it was fitted is not known; say so where its results are reported.")
    elif held_out.size:
        sentences.append(known.remark(held_out))
        transductive = known.seen(held_out) > 0
    if encoder_rows is not None:
        fitted = FittedOn.of("encoder of the warm start", patient[encoder_rows])
        sentences.append(fitted.remark(held_out))
    return {
        "fitted_on": sentences,
        "transductive": transductive,
        "generator": None if known is None else known.to_json(),
    }

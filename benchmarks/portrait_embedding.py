"""What an embedding of portraits costs and is worth: steps by start and space, batches, restarts, survival, factors.

    .venv/bin/python benchmarks/portrait_embedding.py --folder FOLDER [--photos 16] [--patients 300]

A StyleGAN2 of 16 pixels is trained for a short time on drawn faces, an encoder is fitted to it on the same faces, and
faces of other patients are embedded. What is finished is kept in FOLDER and not computed again. Writes
results/portrait_embedding.md.
"""

from __future__ import annotations

import argparse
import copy
import json
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from side_by_side import write
from sklearn.linear_model import RidgeCV
from torch import Tensor

from survlens.artifacts.tensors import load_tensors, save_tensors
from survlens.data.simulate.portraits import PortraitCohort, portrait_cohort
from survlens.evaluate.concordance import concordance_index
from survlens.generators.stylegan2 import Discriminator, Generator, StyleGAN2Shape, to_network
from survlens.losses.adversarial import generated_loss, photograph_loss, r1_penalty
from survlens.models.penalised import RidgeCox
from survlens.training.inversion import embed
from survlens.training.inversion_encoder import EncoderSettings, LatentEncoder, fit_encoder
from survlens.training.inversion_settings import DescentRule, InversionSettings, LatentSpace, Start
from survlens.training.picture_distance import PyramidDistance

SHAPE = StyleGAN2Shape(16, latent=64, width=64, mapping_layers=8, channel_base=512, channel_max=64)
TRAINED, GAN_STEPS, GAN_BATCH = 1000, 1000, 16
LENGTHS = (0, 5, 10, 20, 40, 80, 300)
FACTORS = ("illness", "age", "skin_tone", "yaw", "background_light")
DISTANCE = PyramidDistance()


def short_training(pictures: Tensor) -> Generator:
    """The moving average of a generator after a short training without augmentation."""
    generator, discriminator = Generator(SHAPE, seed=0), Discriminator(SHAPE, seed=1)
    average, lazy = copy.deepcopy(generator).eval(), 16 / 17
    first = torch.optim.Adam(generator.parameters(), lr=2.5e-3, betas=(0.0, 0.99), eps=1e-8)
    second = torch.optim.Adam(discriminator.parameters(), lr=2.5e-3 * lazy, betas=(0.0, 0.99**lazy), eps=1e-8)
    source = torch.Generator().manual_seed(0)
    for step in range(GAN_STEPS):
        loss = photograph_loss(discriminator(generator(torch.randn(GAN_BATCH, SHAPE.latent, generator=source)))).mean()
        first.zero_grad()
        loss.backward()
        first.step()
        real = to_network(pictures[torch.randint(len(pictures), (GAN_BATCH,), generator=source)])
        with torch.no_grad():
            made = generator(torch.randn(GAN_BATCH, SHAPE.latent, generator=source))
        real.requires_grad_(step % 16 == 0)
        logits = discriminator(real)
        loss = photograph_loss(logits).mean() + generated_loss(discriminator(made)).mean()
        if step % 16 == 0:
            loss = loss + 16 * 0.05 / 2 * r1_penalty(real, logits).mean()
        second.zero_grad()
        loss.backward()
        second.step()
        memory = min(0.5 ** (GAN_BATCH / 2000), 0.5 ** (1 / (0.05 * step))) if step else 0.0
        with torch.no_grad():
            for kept, new in zip(average.parameters(), generator.parameters(), strict=True):
                kept.lerp_(new, 1 - memory)
            average.mapping.w_avg.copy_(generator.mapping.w_avg)
    return average


def networks(
    folder: Path, pictures: Tensor, encoder_steps: int, spaces: tuple[LatentSpace, ...]
) -> tuple[Generator, dict[LatentSpace, LatentEncoder]]:
    """The generator and its encoders, from the folder where they are there."""
    path, generator = folder / "generator.safetensors", Generator(SHAPE, seed=0)
    if not path.exists():
        save_tensors(path, short_training(pictures).state_dict())
    generator.load_state_dict(load_tensors(path))
    encoders = {}
    for space in spaces:
        path = folder / f"encoder-{space.value}.safetensors"
        if not path.exists():
            settings = EncoderSettings(
                space=space,
                steps=encoder_steps,
                batch=16,
                passes=2,
                channels=24,
                channel_max=96,
                learning_rate=2e-3,
                mean_draws=2000,
            )
            fit_encoder(generator, pictures, settings, DISTANCE).save(path)
        encoders[space] = LatentEncoder.load(path)
    return generator.eval(), encoders


def kept(folder: Path, name: str, compute: Callable[[], object]) -> object:
    """The value of `compute`, from the folder where it is there."""
    path = folder / f"{name}.json"
    if not path.exists():
        path.write_text(json.dumps(compute()))
    return json.loads(path.read_text())


def asked(**changes: object) -> InversionSettings:
    usual = {"restarts": 0, "patience": None, "batch": 50, "mean_draws": 2000}
    return InversionSettings(**(usual | changes))


def curve(
    generator: Generator, encoders: dict[LatentSpace, LatentEncoder], pictures: Tensor, **changes: object
) -> list[float]:
    """Mean distance after whole schedules of different lengths."""
    encoder = encoders[changes.get("space", LatentSpace.W)] if changes.get("start") is Start.WARM else None
    found = []
    for steps in LENGTHS:
        result = embed(generator, pictures, asked(steps=steps, **changes), DISTANCE, encoder=encoder)
        found.append(float(result.distance.mean()))
    return found


def needed(lengths: tuple[int, ...], values: list[float], level: float) -> float:
    """Steps at which a curve first reaches a level, by linear interpolation in the logarithm of the distance."""
    for place, value in enumerate(values):
        if value <= level:
            if place == 0:
                return float(lengths[0])
            low, high = np.log(values[place - 1]), np.log(value)
            return lengths[place - 1] + (np.log(level) - low) / (high - low) * (lengths[place] - lengths[place - 1])
    return float("nan")


def worth(cohort: PortraitCohort, latents: np.ndarray, train: slice, test: slice) -> dict[str, object]:
    """C-index of a ridge Cox model on other patients, and R^2 of the factors there."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = RidgeCox(folds=5, seed=0).fit(latents[train], cohort.outcome[train])
    score = concordance_index(model.risk(latents[test]), cohort.outcome[test]).value
    shares = {}
    for name in FACTORS:
        values = cohort.factors[name].to_numpy()
        centre, spread = latents[train].mean(0), latents[train].std(0)
        ridge = RidgeCV(np.geomspace(1, 1e4, 13)).fit((latents[train] - centre) / spread, values[train])
        shares[name] = ridge.score((latents[test] - centre) / spread, values[test])
    return {"C": score, "R2": shares}


def survival(
    generator: Generator, encoders: dict[LatentSpace, LatentEncoder], cohort: PortraitCohort, steps: int
) -> dict[str, dict[str, object]]:
    """What each way to embed is worth; the first two thirds of the patients train, the others test."""
    cut = 2 * len(cohort) // 3
    train, test = slice(0, cut), slice(cut, len(cohort))
    ways = {
        "w, cold": {"restarts": 1},
        "w, encoder and descent": {"start": Start.WARM},
        "w, encoder only": {"start": Start.WARM, "steps": 0},
        "z, best of 64": {"space": LatentSpace.Z, "restarts": 1},
        "z, encoder and descent": {"space": LatentSpace.Z, "start": Start.WARM},
        "z, encoder only": {"space": LatentSpace.Z, "start": Start.WARM, "steps": 0},
    }
    found: dict[str, dict[str, object]] = {}
    for name, changes in ways.items():
        settings = asked(**({"steps": steps} | changes))
        if settings.first_start() is Start.WARM and settings.space not in encoders:
            continue
        encoder = encoders[settings.space] if settings.first_start() is Start.WARM else None
        start = time.process_time()
        result = embed(generator, cohort.pictures, settings, DISTANCE, encoder=encoder)
        latents = result.latents.double().numpy()
        found[name] = worth(cohort, latents, train, test) | {
            "distance": float(result.distance[test].mean()),
            "agreement": float(result.agreement.mean()),
            "about": float(result.agreement_about_mean.mean()),
            "seconds": (time.process_time() - start) / len(cohort),
        }
        if settings.space is LatentSpace.Z and "best" in name:
            with torch.no_grad():
                mapped = generator.mapping.w(result.latents_of_starts.flatten(0, 1)).unflatten(0, (2, -1)).double()
            centred = mapped - mapped.mean(1, keepdim=True)
            cosine = torch.cosine_similarity(*centred, dim=1).mean()
            rest = {"distance": found[name]["distance"], "agreement": float(cosine), "about": None, "seconds": 0.0}
            found["the same z, mapped to w"] = worth(cohort, mapped[0].numpy(), train, test) | rest
    factors = cohort.factors[["illness", "age"]].to_numpy()
    found["illness and age themselves"] = worth(cohort, factors, train, test)
    found["age alone"] = worth(cohort, factors[:, 1:], train, test)
    return found


def batches(generator: Generator, pictures: Tensor) -> dict[str, float]:
    """Seconds per photograph and evaluation by the size of a batch."""
    found = {}
    for batch in (1, 16):
        embed(generator, pictures[:1], asked(steps=1, batch=batch), DISTANCE)
        start = time.process_time()
        embed(generator, pictures[:16], asked(steps=9, batch=batch, mean_draws=2), DISTANCE)
        found[str(batch)] = (time.process_time() - start) / 160
    return found


def curve_lines(curves: dict[str, dict[str, list[float]]]) -> list[str]:
    lines = []
    for kind, rows in curves.items():
        lines += [
            f"## Distance by steps: {kind}",
            "",
            f"Mean {DISTANCE.name} x 10^4 after a whole schedule of that many steps, ramps included.",
            "",
            "| start | " + " | ".join(map(str, LENGTHS)) + " |",
            "|---|" + "---|" * len(LENGTHS),
        ]
        lines += [
            f"| {name} | " + " | ".join(f"{1e4 * value:.2f}" for value in row) + " |" for name, row in rows.items()
        ]
        level, cold, warm = rows["w, cold"][-1], rows["w, cold"], rows["w, warm"]
        lines += [
            "",
            f"Steps to the distance of w, cold, after {LENGTHS[-1]} steps, and to 5, 10, 25 % above it, interpolated. "
            "The ratio is of pictures made: a start is one, and the encoder's second look is one more.",
            "",
            "| distance | w, cold | w, warm | ratio | w, cold, L-BFGS | w, warm, L-BFGS |",
            "|---|---|---|---|---|---|",
        ]
        for slack in (1.0, 1.05, 1.1, 1.25):
            steps = [needed(LENGTHS, row, slack * level) for row in (cold, warm)]
            fast = [needed(LENGTHS, rows[f"w, {name}, L-BFGS"], slack * level) for name in ("cold", "warm")]
            ratio = (steps[0] + 1) / (steps[1] + 2)
            cells = [f"{1e4 * slack * level:.2f}", *(f"{each:.0f}" for each in steps), f"{ratio:.1f}"]
            lines.append("| " + " | ".join([*cells, *(f"{each:.0f}" for each in fast)]) + " |")
        lines.append("")
    return lines


def survival_lines(found: dict[str, dict[str, object]], cohort: PortraitCohort, steps: int) -> list[str]:
    def number(value: object, form: str) -> str:
        return "" if value is None or value != value else format(value, form)

    tested = cohort.outcome[slice(2 * len(cohort) // 3, len(cohort))]
    lines = [
        "## Survival, factors, restart agreement",
        "",
        f"{len(cohort)} patients that no network was trained on, one photograph each; {steps} steps. Ridge Cox and "
        "ridge regressions are fitted on two thirds of the patients and scored on the others, "
        f"{len(tested)} with {tested.n_events} events: small differences of C mean nothing. Agreement: cosine between "
        "two starts, centred on the cohort; in brackets about the generator's mean. Where it is given, the seconds are "
        "those of both descents.",
        "",
        "| embedding | distance x 10^4 | C | agreement | CPU seconds per photograph | "
        + " | ".join(f"R² {name}" for name in FACTORS)
        + " |",
        "|---|---|---|---|---|" + "---|" * len(FACTORS),
    ]
    for name, row in found.items():
        agreement = number(row.get("agreement"), ".2f")
        about = number(row.get("about"), ".2f")
        cells = [
            number(None if row.get("distance") is None else 1e4 * row["distance"], ".2f"),
            number(row["C"], ".3f"),
            f"{agreement} ({about})" if about else agreement,
            number(row.get("seconds") or None, ".3f"),
            *(number(row["R2"][factor], ".2f") for factor in FACTORS),
        ]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return [*lines, ""]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--photos", type=int, default=16)
    parser.add_argument("--patients", type=int, default=300)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--encoder-steps", type=int, default=400)
    parser.add_argument("--without-z-encoder", action="store_true")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    chosen.folder.mkdir(parents=True, exist_ok=True)
    everyone = portrait_cohort(TRAINED + chosen.patients, size=16, seed=0)
    spaces = (LatentSpace.W,) if chosen.without_z_encoder else tuple(LatentSpace)
    generator, encoders = networks(chosen.folder, everyone.pictures[:TRAINED], chosen.encoder_steps, spaces)
    rows = torch.arange(TRAINED, len(everyone))
    cohort = _rows(everyone, rows)
    with torch.no_grad():
        z = torch.randn(chosen.photos, SHAPE.latent, generator=torch.Generator().manual_seed(99))
        made = generator.decode(generator.mapping.w(z))
    targets = {"generated pictures": made, "photographs of other patients": cohort.pictures[: chosen.photos]}
    starts = {
        "w, cold": {},
        "w, warm": {"start": Start.WARM},
        "w, cold, L-BFGS": {"descent": DescentRule.LBFGS},
        "w, warm, L-BFGS": {"start": Start.WARM, "descent": DescentRule.LBFGS},
        "z, best of 64": {"space": LatentSpace.Z},
        "z, warm": {"space": LatentSpace.Z, "start": Start.WARM},
    }
    curves = {
        kind: {
            name: kept(
                chosen.folder,
                f"{kind} {name}",
                lambda pictures=pictures, changes=changes: curve(generator, encoders, pictures, **changes),
            )
            for name, changes in starts.items()
            if changes.get("start") is None or changes.get("space", LatentSpace.W) in encoders
        }
        for kind, pictures in targets.items()
    }
    found = kept(chosen.folder, "survival", lambda: survival(generator, encoders, cohort, chosen.steps))
    seconds = kept(chosen.folder, "batches", lambda: batches(generator, cohort.pictures))
    lines = [
        f"StyleGAN2 of 16 pixels, z and w of {SHAPE.width}, {SHAPE.mapping_layers} mapping layers; {GAN_STEPS} steps "
        f"of {GAN_BATCH} pictures on {TRAINED:,} drawn faces. Encoder: {chosen.encoder_steps} steps of 16 pictures, "
        f"two looks, half of the pictures generated and half the same {TRAINED:,} faces. Below are {chosen.photos} "
        "generated pictures, and photographs of patients whom no network has seen. All descents by Adam with the "
        "settings' ramps unless L-BFGS is said; no plateau stop.",
        "",
        *curve_lines(curves),
        "## Batches",
        "",
        "CPU seconds per photograph and step (picture, distance, gradient): "
        + ", ".join(f"{value:.4f} in batches of {batch}" for batch, value in seconds.items())
        + ". The latent vectors are the same up to rounding.",
        "",
        *survival_lines(found, cohort, chosen.steps),
    ]
    command = f"portrait_embedding.py --folder FOLDER --photos {chosen.photos} --patients {chosen.patients}"
    command += f" --steps {chosen.steps} --encoder-steps {chosen.encoder_steps}"
    command += " --without-z-encoder" if chosen.without_z_encoder else ""
    write("portrait_embedding", "Embedding of portraits", lines, command=command)


def _rows(cohort: PortraitCohort, rows: Tensor) -> PortraitCohort:
    index = rows.numpy()
    return PortraitCohort(
        pictures=cohort.pictures[rows],
        factors=cohort.factors.iloc[index].reset_index(drop=True),
        stage=cohort.stage[index],
        patient=cohort.patient[index],
        outcome=cohort.outcome[rows],
        face=cohort.face[rows],
        background=cohort.background[rows],
        landmarks=cohort.landmarks[index],
    )


if __name__ == "__main__":
    main()

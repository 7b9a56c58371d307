"""Photographs to latent vectors of a generator, by gradient descent."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import interpolate

from survlens.core.errors import FitError, InvalidValueError, UsageError
from survlens.generators.stylegan2.generator import Generator
from survlens.training.inversion_descent import descent_from
from survlens.training.inversion_encoder import LatentEncoder, check_pictures, picture_hash
from survlens.training.inversion_files import BatchFiles, Row
from survlens.training.inversion_result import Embedding
from survlens.training.inversion_settings import InversionSettings, LatentSpace, Start
from survlens.training.latent_spaces import LatentPoints, latent_points
from survlens.training.picture_distance import PictureDistance, PyramidDistance, weights_hash
from survlens.training.settings import Precision
from survlens.training.thread_count import threads_for_side

_THUMBNAIL = 64
"""Largest side at which random starts are compared with a photograph."""


def embed(
    generator: Generator,
    pictures: Float[Tensor, "instance channel height width"],
    settings: InversionSettings,
    distance: PictureDistance,
    *,
    encoder: LatentEncoder | None = None,
    folder: Path | str | None = None,
    resume: bool = False,
    on_batch: Callable[[int, int], object] | None = None,
) -> Embedding:
    """Finds for each photograph x a latent vector v whose picture G(v) is close to it: min over v of d(G(v), x).

    The noise of the generator stays as it is stored: were it free, it would take up what then is missing from v.
    Photographs are independent: a batch gives what its members give one by one, up to rounding, and a photograph that
    stands in `pictures` twice is embedded once. What is kept is the best point seen, never the last.

    Args:
        generator: As fine-tuned on training patients; it is left as it is.
        pictures: Aligned photographs in [0, 1], of the generator's size.
        settings: Space, start, steps.
        distance: What is made small; its name is kept in the result.
        encoder: For Start.WARM; see `fit_encoder`.
        folder: Where finished batches are written, under hashes of the photographs.
        resume: Takes the photographs that `folder` holds from there, and embeds the others.
        on_batch: Called after each batch with the number of photographs finished, and of all.

    Raises:
        InvalidValueError: If pictures are of another size, not finite or outside [0, 1]; if a warm start has no encoder
            of that space, or an encoder is given to another start.
        UsageError: If the folder holds batches and `resume` is not set, or batches of other settings or networks.
        CorruptFileError: If a batch in the folder is damaged.
        FitError: If the distance is not a finite number.
        WriteError: If a batch cannot be written.

    References:
        Karras et al. 2020; Hagag et al. 2024.
    """
    check_pictures(generator, pictures)
    _check_encoder(settings, encoder, generator)
    hashes = [picture_hash(picture) for picture in pictures]
    files = None
    if folder is not None:
        files = BatchFiles(folder, _identity(generator, settings, distance, encoder))
    done = _known_rows(files, resume)
    copies = Counter(hashes)
    first_rows = {one: row for row, one in reversed(list(enumerate(hashes)))}
    todo = [first_rows[one] for one in copies if one not in done]
    with threads_for_side(generator.shape.resolution, settings.torch_device()):
        run = _Run.of(generator, settings, distance, encoder)
        finished = sum(count for one, count in copies.items() if one in done)
        for first in range(0, len(todo), settings.batch):
            rows = todo[first : first + settings.batch]
            names = [hashes[row] for row in rows]
            found = run.batch(pictures[rows], names)
            if files is not None:
                files.write(names, found)
            done |= {name: {key: value[row] for key, value in found.items()} for row, name in enumerate(names)}
            finished += sum(copies[name] for name in names)
            if on_batch is not None:
                on_batch(finished, len(hashes))
    return _assembled(hashes, done, settings, distance, run)


def _check_encoder(settings: InversionSettings, encoder: LatentEncoder | None, generator: Generator) -> None:
    if settings.first_start() is not Start.WARM:
        if encoder is not None:
            raise InvalidValueError(
                f"`encoder` must be None where the start is {settings.first_start().value!r}; got one. "
                "Set start=Start.WARM."
            )
        return
    if encoder is None:
        raise InvalidValueError("`encoder` must be given for a warm start; got None. Fit one with fit_encoder.")
    width = generator.shape.latent if settings.space is LatentSpace.Z else generator.shape.width
    want = (settings.space, generator.shape.resolution, width)
    got = (encoder.shape.space, encoder.shape.resolution, encoder.shape.width)
    if want != got:
        raise InvalidValueError(
            "`encoder` must be fitted to this generator and space: (space, side, width) "
            f"({want[0].value}, {want[1]}, {want[2]}); got ({got[0].value}, {got[1]}, {got[2]})."
        )


def _identity(
    generator: Generator, settings: InversionSettings, distance: PictureDistance, encoder: LatentEncoder | None
) -> dict[str, str]:
    encoded = "none" if encoder is None else weights_hash(encoder)
    networks = {"generator": weights_hash(generator), "distance": distance.fingerprint, "encoder": encoded}
    return settings.identity() | networks


def _known_rows(files: BatchFiles | None, resume: bool) -> dict[str, Row]:
    if files is None or not files.paths():
        return {}
    if not resume:
        raise UsageError(
            f"`folder` must hold no batches of an earlier embedding; got {len(files.paths())}. "
            "Pass resume=True to go on with them, or another folder."
        )
    return files.read()


def _assembled(
    hashes: Sequence[str],
    done: Mapping[str, Row],
    settings: InversionSettings,
    distance: PictureDistance,
    run: _Run,
) -> Embedding:
    def stacked(name: str, axis: int = 0) -> Tensor:
        return torch.stack([done[one][name] for one in hashes], axis)

    fitted_on = frozenset[str]() if run.encoder is None else run.encoder.fitted_on
    return Embedding(
        hashes=tuple(hashes),
        space=settings.space,
        start=settings.first_start(),
        distance_name=distance.name,
        latents_of_starts=stacked("latents", 1),
        distance_of_starts=stacked("distance", 1),
        pyramid_error=stacked("pyramid_error"),
        steps=stacked("steps"),
        evaluations=stacked("evaluations"),
        shared_evaluations=settings.candidates * run.rounds_of_candidates,
        mean=run.points.mean.cpu(),
        seen=torch.tensor([one in fitted_on for one in hashes]),
    )


@dataclass(slots=True)
class _Run:
    """Networks on their device, and what is shared by all batches."""

    settings: InversionSettings
    distance: PictureDistance
    encoder: LatentEncoder | None
    points: LatentPoints
    device: torch.device
    candidates: dict[int, tuple[Tensor, Tensor]]

    @staticmethod
    def of(
        generator: Generator, settings: InversionSettings, distance: PictureDistance, encoder: LatentEncoder | None
    ) -> _Run:
        device = settings.torch_device()
        worker = copy.deepcopy(generator).eval().requires_grad_(False).to(device)
        distance = copy.deepcopy(distance).eval().requires_grad_(False).to(device)
        if device.type == "cuda":
            for network in (worker, distance):
                network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        if encoder is not None:
            encoder = copy.deepcopy(encoder).eval().requires_grad_(False).to(device)
        points = latent_points(worker, settings.space, draws=settings.mean_draws, seed=settings.seed)
        run = _Run(settings, distance, encoder, points, device, {})
        for start in range(1 + settings.restarts):
            if start > 0 or settings.first_start() is Start.BEST_OF:
                run.candidates[start] = run._draw_candidates(start)
        return run

    @property
    def rounds_of_candidates(self) -> int:
        return len(self.candidates)

    def batch(self, pictures: Tensor, names: Sequence[str]) -> dict[str, Tensor]:
        """Latent vectors and what is told of them, for some photographs."""
        pictures = pictures.to(self.device)
        with self._precision(), torch.no_grad():
            targets = self.distance.features(pictures)
        latents, distances, first = [], [], None
        for start in range(1 + self.settings.restarts):
            sources = [_source(self.settings.seed, start, name) for name in names]
            best = self._descend(self._start(start, pictures, sources), targets, sources)
            latents.append(best.latents)
            distances.append(best.distance)
            first = best if first is None else first
        with self._precision(), torch.no_grad():
            error = PyramidDistance()(self.points.pictures(latents[0]), pictures)
        looks = 0 if self.encoder is None else self.encoder.shape.passes - 1
        found = {
            "latents": torch.stack(latents, 1),
            "distance": torch.stack(distances, 1),
            "pyramid_error": error,
            "steps": first.evaluations - 1,  # type: ignore[union-attr]
            "evaluations": first.evaluations + looks,  # type: ignore[union-attr]
        }
        return {name: value.cpu() for name, value in found.items()}

    def _start(self, number: int, pictures: Tensor, sources: Sequence[torch.Generator]) -> Tensor:
        if number in self.candidates:
            latents, thumbnails = self.candidates[number]
            own = PyramidDistance().features(_thumbnail(pictures))
            return latents[torch.stack([(one - thumbnails).square().sum(1).argmin() for one in own])]
        if self.encoder is not None:
            with self._precision():
                return self.encoder.encode(self.points, pictures).to(self.points.mean.dtype)
        if self.settings.space is LatentSpace.W:
            return self.points.mean.expand(len(pictures), -1).clone()
        return torch.cat([self.points.draw(1, source) for source in sources])

    @torch.no_grad()
    def _draw_candidates(self, start: int) -> tuple[Tensor, Tensor]:
        source = _source(self.settings.seed, start, "candidates")
        latents = self.points.draw(self.settings.candidates, source)
        with self._precision():
            small = [_thumbnail(self.points.pictures(part)) for part in latents.split(self.settings.batch)]
        return latents, PyramidDistance().features(torch.cat(small))

    def _descend(self, latents: Tensor, targets: Tensor, sources: Sequence[torch.Generator]) -> _Best:
        best = _Best.before(latents)
        descent = descent_from(self.points, latents, self.settings, sources)
        alive = torch.arange(len(latents), device=self.device)
        for step in range(self.settings.steps + 1):
            asked = descent.ask(step)
            distance, gradient = self._evaluate(asked, targets)
            going = best.take(alive, asked, distance, step, self.settings)
            if step == self.settings.steps or not going.any():
                break
            descent.tell(step, distance, gradient)
            if not going.all():
                descent.keep(going)
                alive, targets = alive[going], targets[going]
        return best

    def _evaluate(self, latents: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        asked = latents.detach().requires_grad_()
        with torch.enable_grad():
            with self._precision():
                features = self.distance.features(self.points.pictures(asked))
            distance = (features - targets).square().sum(1)
            (gradient,) = torch.autograd.grad(distance.sum(), asked)
        if not (torch.isfinite(distance).all() and torch.isfinite(gradient).all()):
            raise FitError(
                "The distance of a photograph or its gradient is not finite: the generator's picture has broken down. "
                "Lower `learning_rate`, compute in 32-true, or use a generator from before its training broke down."
            )
        return distance.detach(), gradient

    def _precision(self) -> torch.autocast:
        half = self.settings.precision is Precision.BFLOAT_MIXED
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=half)


@dataclass(slots=True)
class _Best:
    """The best point of each photograph so far, and when it was last better by enough."""

    latents: Tensor
    distance: Tensor
    mark: Tensor
    marked: Tensor
    evaluations: Tensor

    @staticmethod
    def before(latents: Tensor) -> _Best:
        nothing = torch.full((len(latents),), float("inf"), device=latents.device, dtype=latents.dtype)
        never = torch.zeros(len(latents), dtype=torch.int64, device=latents.device)
        return _Best(latents.clone(), nothing, nothing.clone(), never, never.clone())

    def take(self, rows: Tensor, latents: Tensor, distance: Tensor, step: int, settings: InversionSettings) -> Tensor:
        """Takes in what was evaluated; says which of the rows go on."""
        better = distance < self.distance[rows]
        self.latents[rows[better]] = latents[better]
        self.distance[rows[better]] = distance[better]
        enough = distance < self.mark[rows] * (1 - settings.tolerance)
        self.mark[rows[enough]] = distance[enough]
        self.marked[rows[enough]] = step
        self.evaluations[rows] = step + 1
        if settings.patience is None:
            return torch.ones_like(better)
        return step - self.marked[rows] < settings.patience


def _source(seed: int, start: int, name: str) -> torch.Generator:
    """A source of random numbers that a photograph has for itself, whatever stands beside it."""
    entropy = [seed, start, *name.encode()]
    mixed = int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0])
    return torch.Generator().manual_seed(mixed >> 1)


def _thumbnail(pictures: Tensor) -> Tensor:
    pictures = pictures.float()
    side = min(pictures.shape[2], _THUMBNAIL)
    return interpolate(pictures, size=(side, side), mode="area") if pictures.shape[2] > side else pictures

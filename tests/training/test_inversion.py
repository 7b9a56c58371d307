"""Photographs are put back where they came from in a generator's latent space, each by itself."""

import copy
import dataclasses
import json

import pytest
import torch

from survlens.core.errors import CorruptFileError, FitError, InvalidValueError, UsageError
from survlens.generators.stylegan2 import Generator, StyleGAN2Shape
from survlens.training import (
    DescentRule,
    Embedding,
    InversionSettings,
    LatentSpace,
    Precision,
    PyramidDistance,
    Start,
    embed,
    picture_hash,
)
from survlens.training.inversion_descent import descent_from, step_size
from survlens.training.latent_spaces import ZPoints, latent_points

SHAPE = StyleGAN2Shape(16, latent=8, width=8, mapping_layers=2, channel_base=64, channel_max=16)


def settings(**changes):
    usual = {"steps": 12, "restarts": 0, "mean_draws": 100, "candidates": 8, "patience": None}
    return InversionSettings(**(usual | changes))


@pytest.fixture(scope="module")
def network():
    return Generator(SHAPE, seed=0).eval()


@pytest.fixture(scope="module")
def truth(network):
    """Vectors w and z, and their pictures."""
    z = ZPoints(network).draw(4, torch.Generator().manual_seed(5))
    with torch.no_grad():
        w = network.mapping.w(z)
        return w, z, network.decode(w)


def same(left, right):
    return all(
        torch.equal(getattr(left, name), getattr(right, name))
        for name in ("latents_of_starts", "distance_of_starts", "pyramid_error", "steps", "evaluations")
    )


@pytest.mark.parametrize(("descent", "steps"), [(DescentRule.ADAM, 80), (DescentRule.LBFGS, 40)])
def test_w_of_generated_pictures_is_recovered(network, truth, descent, steps):
    w, _, pictures = truth
    found = embed(network, pictures, settings(steps=steps, descent=descent), PyramidDistance())
    cosine = torch.cosine_similarity(found.latents - found.mean, w - found.mean, dim=1)
    assert cosine.min() > 0.9
    start = embed(network, pictures, settings(steps=0), PyramidDistance())
    assert found.distance.max() < 0.1 * start.distance.mean()
    again = network.decode(found.latents).detach()
    assert torch.allclose(PyramidDistance()(again, pictures), found.pyramid_error, atol=1e-6)


def test_z_comes_closer_but_need_not_be_the_one_that_made_the_picture(network, truth):
    _, _, pictures = truth
    start = embed(network, pictures, settings(space=LatentSpace.Z, steps=0, candidates=64), PyramidDistance())
    found = embed(network, pictures, settings(space=LatentSpace.Z, steps=40, candidates=64), PyramidDistance())
    assert (found.distance < start.distance).all()
    assert found.distance.mean() < 0.5 * start.distance.mean()


@pytest.mark.parametrize("descent", DescentRule)
def test_z_lies_on_the_sphere_after_every_step(network, truth, descent):
    points, asked = ZPoints(network), settings(space=LatentSpace.Z, noise=0.05, descent=descent)
    latents = points.draw(3, torch.Generator().manual_seed(1))
    going = descent_from(points, latents, asked, [torch.Generator().manual_seed(row) for row in range(3)])
    distance, seen = PyramidDistance(), []
    for step in range(asked.steps):
        here = going.ask(step).detach().requires_grad_()
        seen.append(here.detach())
        value = distance(points.pictures(here), truth[2][:3])
        going.tell(step, value.detach(), torch.autograd.grad(value.sum(), here)[0])
    radii = torch.stack(seen).norm(dim=2)
    assert torch.allclose(radii, torch.tensor(8.0**0.5), atol=1e-5)
    assert (seen[0] - seen[-1]).abs().max() > 0.01


@pytest.mark.parametrize(
    "changes",
    [
        {"noise": 0.05, "restarts": 1},
        {"descent": DescentRule.LBFGS},
        {"space": LatentSpace.Z, "start": Start.COLD},
        {"space": LatentSpace.Z, "patience": 3, "tolerance": 0.05, "steps": 12},
    ],
)
def test_a_batch_is_the_same_as_its_members(truth, changes):
    exact = Generator(SHAPE, seed=0).eval().double()
    pictures = truth[2].double()
    asked = settings(**({"steps": 6} | changes))
    together = embed(exact, pictures, asked, PyramidDistance())
    for row in (0, 3):
        alone = embed(exact, pictures[row : row + 1], asked, PyramidDistance())
        assert torch.allclose(alone.latents_of_starts[:, 0], together.latents_of_starts[:, row], atol=1e-8)
        assert torch.equal(alone.steps[0], together.steps[row])
    halves = embed(exact, pictures.flip(0), dataclasses.replace(asked, batch=2), PyramidDistance())
    assert torch.allclose(halves.latents_of_starts.flip(1), together.latents_of_starts, atol=1e-8)


def test_single_precision_batches_agree_to_rounding(network, truth):
    together = embed(network, truth[2], settings(), PyramidDistance())
    alone = embed(network, truth[2], settings(batch=1), PyramidDistance())
    assert torch.allclose(alone.latents, together.latents, atol=1e-3)


def test_the_same_seed_gives_the_same_result_and_another_does_not(network, truth):
    asked = settings(space=LatentSpace.Z, start=Start.COLD, steps=4)
    first, second = (embed(network, truth[2], asked, PyramidDistance()) for _ in range(2))
    assert same(first, second)
    other = embed(network, truth[2], dataclasses.replace(asked, seed=1), PyramidDistance())
    assert not torch.equal(first.latents, other.latents)


def test_the_generator_is_left_as_it_is(truth):
    network = Generator(SHAPE, seed=0).train()
    before = copy.deepcopy(network.state_dict())
    embed(network, truth[2], settings(steps=2), PyramidDistance())
    after = network.state_dict()
    assert network.training
    assert all(weight.requires_grad and weight.grad is None for weight in network.parameters())
    assert all(torch.equal(before[name], after[name]) for name in before)


class Listening(PyramidDistance):
    """Keeps every distance that it was asked for, and what it is asked about."""

    def __init__(self):
        super().__init__()
        self.rows = []

    def __deepcopy__(self, memory):
        return self

    def features(self, pictures):
        self.rows.append(len(pictures))
        return super().features(pictures)


def test_a_plateau_ends_a_photograph_and_never_costs_it_the_best_point(network, truth):
    pictures = torch.cat(
        [truth[2], network.decode(latent_points(network, LatentSpace.W, draws=100, seed=0).mean[None])]
    )
    listening = Listening()
    found = embed(
        network, pictures.detach(), settings(steps=60, patience=5, tolerance=0.02, learning_rate=0.5), listening
    )
    whole = embed(network, pictures.detach(), settings(steps=60, learning_rate=0.5), PyramidDistance())
    assert (found.steps < 60).any()
    assert listening.rows[-1] <= len(pictures)
    assert sorted(listening.rows[1:], reverse=True) == listening.rows[1:]
    assert listening.rows[-1] < len(pictures)
    start = embed(network, pictures.detach(), settings(steps=0), PyramidDistance())
    assert (found.distance <= start.distance).all()
    assert found.steps[-1] == 5
    assert found.distance[-1] < 1e-12
    rendered = PyramidDistance()(network.decode(found.latents).detach(), pictures.detach())
    assert torch.allclose(rendered, found.distance, atol=1e-6)
    assert (whole.distance <= found.distance + 1e-9).all()


def test_more_steps_are_never_worse_than_the_start(network, truth):
    start = embed(network, truth[2], settings(steps=0), PyramidDistance())
    wild = embed(network, truth[2], settings(steps=6, learning_rate=50.0), PyramidDistance())
    assert (wild.distance <= start.distance).all()
    assert start.evaluations.tolist() == [1] * 4
    assert wild.evaluations.tolist() == [7] * 4


def test_resumed_is_the_same_as_straight(network, truth, tmp_path):
    asked, distance = settings(batch=2, restarts=1, steps=5), PyramidDistance()
    straight = embed(network, truth[2], asked, distance)
    embed(network, truth[2][:2], asked, distance, folder=tmp_path)
    listening = Listening()
    resumed = embed(network, truth[2], asked, listening, folder=tmp_path, resume=True)
    assert same(resumed, straight)
    assert sum(listening.rows) == 2 + 2 * 2 * 6
    listening.rows.clear()
    again = embed(network, truth[2].flip(0), asked, listening, folder=tmp_path, resume=True)
    assert listening.rows == []
    assert torch.equal(again.latents.flip(0), straight.latents)


def test_only_an_added_photograph_is_embedded(network, truth, tmp_path):
    told = []
    embed(network, truth[2][1:], settings(), PyramidDistance(), folder=tmp_path)
    listening = Listening()
    both = torch.cat([truth[2], truth[2][:1]])
    found = embed(
        network, both, settings(), listening, folder=tmp_path, resume=True, on_batch=lambda *row: told.append(row)
    )
    assert max(listening.rows) == 1
    assert told == [(5, 5)]
    assert torch.equal(found.latents[0], found.latents[4])


def test_batches_of_other_settings_or_networks_are_refused(network, truth, tmp_path):
    embed(network, truth[2], settings(), PyramidDistance(), folder=tmp_path)
    with pytest.raises(UsageError, match="resume=True"):
        embed(network, truth[2], settings(), PyramidDistance(), folder=tmp_path)
    with pytest.raises(UsageError, match="`steps`"):
        embed(network, truth[2], settings(steps=3), PyramidDistance(), folder=tmp_path, resume=True)
    with pytest.raises(UsageError, match="`generator`"):
        embed(Generator(SHAPE, seed=1), truth[2], settings(), PyramidDistance(), folder=tmp_path, resume=True)
    with pytest.raises(UsageError, match="`distance`"):
        embed(network, truth[2], settings(), PyramidDistance(2), folder=tmp_path, resume=True)
    next((tmp_path / "batches").iterdir()).write_bytes(b"\x80\x04 no tensors")
    with pytest.raises(CorruptFileError):
        embed(network, truth[2], settings(), PyramidDistance(), folder=tmp_path, resume=True)


def test_nothing_but_hashes_names_a_photograph(network, truth, tmp_path):
    found = embed(network, truth[2], settings(steps=1), PyramidDistance(), folder=tmp_path)
    assert found.hashes == tuple(picture_hash(picture) for picture in truth[2])
    assert len(set(found.hashes)) == 4
    assert list(found.to_frame().index) == list(found.hashes)


def test_pictures_that_do_not_fit_are_refused(network, truth):
    pictures = truth[2]
    with pytest.raises(InvalidValueError, match=r"\(3, 16, 16\)"):
        embed(network, torch.rand(1, 3, 32, 32), settings(), PyramidDistance())
    with pytest.raises(InvalidValueError, match="at least one"):
        embed(network, pictures[:0], settings(), PyramidDistance())
    with pytest.raises(InvalidValueError, match="in row 2"):
        embed(network, torch.cat([pictures[:2], pictures[2:] * 255]), settings(), PyramidDistance())
    broken = pictures.clone()
    broken[1, 0, 0, 0] = torch.nan
    with pytest.raises(InvalidValueError, match="not finite in row 1"):
        embed(network, broken, settings(), PyramidDistance())


def test_a_generator_that_has_broken_down_is_named(truth):
    broken = Generator(SHAPE, seed=0)
    with torch.no_grad():
        broken.get_parameter("synthesis.b16.conv1.weight").fill_(torch.nan)
    with pytest.raises(FitError, match="broken down"):
        embed(broken, truth[2], settings(), PyramidDistance())


def test_a_warm_start_needs_an_encoder(network, truth):
    with pytest.raises(InvalidValueError, match="fit_encoder"):
        embed(network, truth[2], settings(start=Start.WARM), PyramidDistance())


def test_half_precision_comes_close(network, truth):
    asked = settings(steps=40, precision=Precision.BFLOAT_MIXED)
    found = embed(network, truth[2], asked, PyramidDistance())
    start = embed(network, truth[2], settings(steps=0), PyramidDistance())
    assert (found.distance < 0.2 * start.distance).all()
    assert found.latents.dtype == torch.float32


@pytest.mark.gpu
def test_a_gpu_comes_as_close(network, truth):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    from survlens.training import Device

    for precision in (Precision.SINGLE, Precision.BFLOAT_MIXED):
        asked = settings(steps=80, device=Device.CUDA, precision=precision, restarts=1)
        found = embed(network, truth[2], asked, PyramidDistance())
        assert found.latents.device.type == "cpu"
        assert torch.cosine_similarity(found.latents - found.mean, truth[0] - found.mean, dim=1).min() > 0.8


def test_the_step_size_rises_and_falls_as_written():
    asked = InversionSettings(steps=200)
    sizes = [step_size(asked, step) for step in range(200)]
    assert sizes[0] == pytest.approx(0.1 * 0.5 / 200 / 0.05)
    assert sizes[10:149] == pytest.approx([0.1] * 139)
    assert (sizes[174] + sizes[175]) / 2 == pytest.approx(0.05)
    assert sizes[-1] < 1e-4
    assert min(sizes) > 0


@pytest.mark.parametrize(
    "changes",
    [
        {"steps": -1},
        {"batch": 0},
        {"learning_rate": 0.0},
        {"ramp_up": 1.0},
        {"noise": -1.0},
        {"patience": 0},
        {"space": "w"},
        {"start": "cold"},
        {"precision": Precision.HALF_MIXED},
    ],
)
def test_settings_outside_their_range_are_refused(changes):
    with pytest.raises(InvalidValueError, match=f"`{next(iter(changes))}`"):
        InversionSettings(**changes)


def result(latents, mean):
    starts, rows, _ = latents.shape
    whole = torch.ones(rows, dtype=torch.int64)
    return Embedding(
        hashes=tuple(f"{row:064d}" for row in range(rows)),
        space=LatentSpace.W,
        start=Start.COLD,
        distance_name="pixels",
        latents_of_starts=latents,
        distance_of_starts=torch.rand(starts, rows),
        pyramid_error=torch.rand(rows),
        steps=whole,
        evaluations=whole,
        shared_evaluations=0,
        mean=mean,
        seen=torch.zeros(rows, dtype=torch.bool),
    )


def test_settings_are_read_as_they_were_written():
    given = InversionSettings(space=LatentSpace.Z, start=Start.WARM, steps=7, patience=None, descent=DescentRule.LBFGS)
    read = InversionSettings.from_json(json.loads(json.dumps(given.to_json())))
    assert read == given
    assert read.identity() == given.identity()
    assert InversionSettings.from_json(InversionSettings().to_json()) == InversionSettings()
    for wrong, error in (({"space": "v"}, ValueError), ({"stepps": 3}, TypeError)):
        with pytest.raises(error):
            InversionSettings.from_json(wrong)


def test_agreement_ignores_what_all_photographs_have_in_common(generator):
    shared, own = 100 * torch.ones(6), torch.randn(2, 300, 6, generator=generator)
    unrelated = result(own + shared, torch.zeros(6))
    assert unrelated.agreement_about_mean.min() > 0.99
    assert abs(float(unrelated.agreement.mean())) < 0.1
    equal = result(torch.stack([own[0], own[0] + 3.0]) + shared, torch.zeros(6))
    assert torch.allclose(equal.agreement, torch.ones(300, dtype=torch.float64), atol=1e-6)
    slow = [
        float(left @ right / left.norm() / right.norm())
        for left, right in zip(own[0] - own[0].mean(0), own[1] - own[1].mean(0), strict=True)
    ]
    assert torch.allclose(result(own, torch.zeros(6)).agreement, torch.tensor(slow).double(), atol=1e-5)


def test_agreement_is_unknown_with_one_start_or_one_photograph():
    assert result(torch.rand(1, 5, 3), torch.zeros(3)).agreement.isnan().all()
    assert result(torch.rand(2, 1, 3), torch.zeros(3)).agreement.isnan().all()
    assert result(torch.rand(2, 1, 3), torch.zeros(3)).agreement_about_mean.isfinite().all()


@pytest.mark.parametrize("ending", ["npz", "parquet"])
def test_an_embedding_is_read_as_it_was_written(network, truth, tmp_path, ending):
    path = tmp_path / f"faces.{ending}"
    found = embed(network, truth[2], settings(steps=2, restarts=2), PyramidDistance())
    found.save(path)
    read = Embedding.load(path)
    for field in dataclasses.fields(Embedding):
        old, new = getattr(found, field.name), getattr(read, field.name)
        assert torch.equal(old, new) if isinstance(old, torch.Tensor) else old == new
    assert read.summary() == found.summary()
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(CorruptFileError):
        Embedding.load(path)


def test_an_embedding_of_another_ending_is_refused(tmp_path):
    with pytest.raises(InvalidValueError, match="npz"):
        result(torch.rand(1, 5, 3), torch.zeros(3)).save(tmp_path / "faces.pkl")

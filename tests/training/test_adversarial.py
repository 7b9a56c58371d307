import json
import math
import os
import socket
import subprocess
import sys
from dataclasses import replace
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pandas as pd
import pytest
import torch

from survlens.artifacts.stylegan2_checkpoint import load_weights
from survlens.artifacts.tensors import load_tensors, read_metadata
from survlens.core.errors import FitError, InvalidTypeError, InvalidValueError, UsageError
from survlens.core.outcome import SurvivalOutcome
from survlens.data.loaders import TensorSource
from survlens.generators.stylegan2.discriminator import Discriminator
from survlens.generators.stylegan2.generator import Generator
from survlens.generators.stylegan2.loading import discriminator_from, generator_from
from survlens.generators.stylegan2.shape import StyleGAN2Shape
from survlens.training.adversarial import finetune
from survlens.training.adversarial_phases import Draws, Phases
from survlens.training.adversarial_player import Player
from survlens.training.adversarial_settings import AdversarialSettings, TrainingStart
from survlens.training.adversarial_state import AdversarialState
from survlens.training.moving_average import follow, memory
from survlens.training.settings import Precision
from survlens.training.training_photographs import Photographs, TrainingRecord, dealt_rows

SCRIPT = Path(__file__).with_name("adversarial_ranks.py")
pytestmark = pytest.mark.filterwarnings("ignore:The mean colour of generated")


def _problem():
    spec = spec_from_file_location("adversarial_problem", Path(__file__).with_name("adversarial_problem.py"))
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


problem = _problem()
blobs, networks, settings = problem.blobs, problem.networks, problem.settings


def tensors(*modules: torch.nn.Module) -> list[torch.Tensor]:
    return [value.clone() for module in modules for value in module.state_dict().values()]


def same(left: list[torch.Tensor], right: list[torch.Tensor]) -> bool:
    return len(left) == len(right) and all(torch.equal(one, other) for one, other in zip(left, right, strict=True))


def phases(**changes) -> Phases:
    generator, discriminator = networks()
    draws = Draws.of_step(0, 0, 0, torch.device("cpu"))
    given = settings(**changes)
    return Phases(generator.train(), discriminator.train(), given, 0.1, given.first_p, draws)


def test_an_interrupted_training_ends_with_the_bits_of_a_straight_one(tmp_path):
    photographs, names = blobs(), [f"p{row // 2}" for row in range(40)]
    finetune(*networks(), photographs, settings(), folder=tmp_path / "straight", patients=names)
    first = finetune(*networks(), photographs, settings(seconds=1e-9), folder=tmp_path / "cut", patients=names)
    assert not first.finished
    finetune(*networks(), photographs, settings(steps=3), folder=tmp_path / "cut", resume=True, patients=names)
    resumed = networks()
    whole = finetune(*resumed, photographs, settings(), folder=tmp_path / "cut", resume=True, patients=names)
    assert whole.finished
    left, right = (tmp_path / name / "checkpoints" / "last.safetensors" for name in ("straight", "cut"))
    left_tensors, right_tensors = load_tensors(left), load_tensors(right)
    assert left_tensors.keys() == right_tensors.keys()
    assert {name.partition("/")[0] for name in left_tensors} == {
        "generator", "average", "discriminator", "optimiser_g", "optimiser_d",
    }  # fmt: skip
    assert all(torch.equal(left_tensors[name], right_tensors[name]) for name in left_tensors)
    states = [json.loads(read_metadata(path)["training"])["state"] for path in (left, right)]
    for name in ("step", "control", "overfitting", "usual_length", "broken"):
        assert states[0][name] == states[1][name]
    assert states[0]["control"]["p"] != 0.3
    for name in ("fitted_on.json", "shape.json"):
        assert (tmp_path / "straight" / name).read_bytes() == (tmp_path / "cut" / name).read_bytes()
    average = generator_from(load_weights(tmp_path / "cut" / "generator.safetensors"))
    assert same(tensors(average), tensors(resumed[0]))
    again = discriminator_from(load_weights(tmp_path / "cut" / "discriminator.safetensors"))
    assert same(tensors(again), tensors(resumed[1]))


@pytest.mark.slow
def test_the_rows_of_a_resumed_history_are_those_of_a_straight_one(tmp_path):
    straight = finetune(*networks(), blobs(), settings(log_interval=2), folder=tmp_path / "a")
    finetune(*networks(), blobs(), settings(log_interval=2, seconds=1e-9), folder=tmp_path / "b")
    resumed = finetune(*networks(), blobs(), settings(log_interval=2), folder=tmp_path / "b", resume=True)
    assert [(row.step, row.images, row.values) for row in straight.rows] == [
        (row.step, row.images, row.values) for row in resumed.rows
    ]
    table = pd.read_csv(tmp_path / "b" / "history.csv")
    assert table["step"].tolist() == [2, 4, 6]
    assert {"loss_generator", "loss_discriminator", "r1", "path_length", "p", "overfitting", "drift"} <= set(table)
    assert sorted(path.name for path in (tmp_path / "b" / "grids").iterdir()) == [
        "step-0000001.png",
        "step-0000006.png",
    ]


def test_the_seed_decides_and_the_callers_state_does_not():
    found = []
    for seed, state in ((0, 1), (0, 2), (1, 1)):
        torch.manual_seed(state)
        both = networks()
        finetune(*both, blobs(), settings(steps=3, seed=seed))
        found.append(tensors(*both))
    assert same(found[0], found[1])
    assert not same(found[0], found[2])


def test_a_checkpoint_of_other_settings_or_photographs_is_refused(tmp_path):
    finetune(*networks(), blobs(), settings(steps=1), folder=tmp_path)
    with pytest.raises(UsageError, match="must hold no checkpoint"):
        finetune(*networks(), blobs(), settings(), folder=tmp_path)
    with pytest.raises(UsageError, match="`batch` must be as in the checkpoint"):
        finetune(*networks(), blobs(), settings(batch=8), folder=tmp_path, resume=True)
    with pytest.raises(UsageError, match="`photographs` must be as in the checkpoint"):
        finetune(*networks(), blobs(seed=3), settings(), folder=tmp_path, resume=True)


def test_frozen_blocks_keep_their_weights_and_the_rest_learns():
    generator, discriminator = networks()
    before = {name: value.clone() for name, value in discriminator.state_dict().items()}
    finetune(generator, discriminator, blobs(), settings(steps=3, frozen_blocks=1))
    after = discriminator.state_dict()
    trained = [name for name, _ in discriminator.named_parameters() if not name.startswith("b16.")]
    assert any(name.startswith("b16.fromrgb") for name in before)
    assert all(torch.equal(before[name], after[name]) for name in before if name.startswith("b16."))
    assert not any(torch.equal(before[name], after[name]) for name in trained)
    assert all(weight.requires_grad for weight in discriminator.parameters())
    assert not generator.training
    assert not discriminator.training


def test_the_moving_average_follows_its_law():
    first, second = torch.nn.BatchNorm1d(3), torch.nn.BatchNorm1d(3)
    for weight in second.parameters():
        weight.data.fill_(5.0)
    second.running_mean.fill_(7.0)
    kept = memory(32, 320)
    for _ in range(10):  # 320 pictures: half of the average is new
        follow(first, second, kept)
    assert torch.allclose(first.weight, torch.full((3,), 3.0))
    assert torch.equal(first.running_mean, second.running_mean)
    assert memory(32, 10_000, seen=640, ramp=0.05) == pytest.approx(0.5)
    assert memory(32, 10_000, seen=10**9, ramp=0.05) == memory(32, 10_000)


def test_without_memory_the_generator_is_the_one_trained_last(tmp_path):
    generator, _ = both = networks()
    finetune(*both, blobs(), settings(steps=2, average_images=1e-3), folder=tmp_path)
    kept = load_tensors(tmp_path / "checkpoints" / "last.safetensors")
    for name, value in generator.state_dict().items():
        assert torch.equal(value, kept[f"generator/{name}"])


def test_the_mean_latent_follows_one_batch_a_step():
    generator, _ = both = networks()
    finetune(*both, blobs(), settings(steps=1, style_mixing=0.0, learning_rate=1e-9))
    z = torch.randn(4, 8, generator=host_after(mirrors=4))
    assert torch.allclose(generator.mapping.w_avg, 0.005 * generator.mapping.w(z).mean(0), atol=1e-6)


def host_after(mirrors: int) -> torch.Generator:
    host = Draws.of_step(0, 0, 0, torch.device("cpu")).host
    torch.rand(mirrors, generator=host)
    return host


def test_style_mixing_takes_one_latent_first_and_another_after():
    slots = problem.SHAPE.slots
    counts = []
    for mixing, seen in ((0.0, {1}), (1.0, {2}), (0.9, {1, 2})):
        ws = phases(style_mixing=mixing).latents(400)
        changes = (ws[:, 1:] != ws[:, :-1]).any(2)
        counts.append(changes.sum(1))
        assert {int(count) + 1 for count in counts[-1].unique()} == seen
        if mixing == 1.0:
            share = changes.double().mean(0)
            assert torch.allclose(share, torch.full_like(share, 1 / (slots - 1)), atol=0.1)
    assert float(counts[2].double().mean()) == pytest.approx(0.9, abs=0.05)


def test_the_discriminator_gets_no_gradient_in_the_generators_turn():
    given = phases()
    player = Player(given.discriminator, 0.1, 16)
    with player.resting():
        loss, pictures = given.generate(8)
        loss.backward()
    assert not pictures.requires_grad
    assert all(weight.grad is None for weight in given.discriminator.parameters())
    assert all(weight.grad is not None for weight in given.generator.parameters())


def test_the_penalties_stand_for_the_steps_between_them():
    often, seldom = (phases(r1_interval=k, path_length_interval=k) for k in (1, 8))
    one, eight = (given.steepness(blobs(8) * 2 - 1) for given in (often, seldom))
    assert torch.allclose(8 * one[0], eight[0])
    assert torch.allclose(one[0], 0.1 / 2 * one[1])
    one, eight = (given.lengths(8, 0.3) for given in (often, seldom))
    assert torch.allclose(8 * one[0], eight[0], rtol=1e-4)
    assert torch.allclose(one[2], 0.99 * 0.3 + 0.01 * one[1])
    first = phases().lengths(8, None)
    assert torch.equal(first[1], first[2])


def test_adam_is_corrected_for_the_steps_of_a_penalty():
    line = torch.nn.Linear(1, 1)
    group = Player(line, 0.0025, 16).optimiser.param_groups[0]
    assert group["lr"] == pytest.approx(0.0025 * 16 / 17)
    assert group["betas"] == pytest.approx((0.0, 0.99 ** (16 / 17)))
    assert Player(line, 0.0025, None).optimiser.param_groups[0]["lr"] == 0.0025


def test_numbers_that_are_not_finite_are_taken_out_of_the_gradient():
    line = torch.nn.Linear(3, 1, bias=False)
    player, state, before = Player(line, 0.1, None), AdversarialState(None), line.weight.detach().clone()
    weight = torch.tensor([math.nan, math.inf, -1.0])
    player.learn((line.weight[0] * weight).sum(), 1, state)
    moved = line.weight.detach() - before
    assert state.broken == 1
    assert moved[0].tolist() == pytest.approx([0.0, -0.1, 0.1], abs=1e-5)
    player.learn((line.weight[0] ** 2).sum(), 1, state)
    assert state.broken == 1


def test_losses_that_are_not_finite_stop_the_training():
    generator, discriminator = networks()
    discriminator.b4.out.weight.data.fill_(math.nan)
    with pytest.raises(FitError, match="must stay finite"):
        finetune(generator, discriminator, blobs(), settings())


def test_every_photograph_comes_once_before_any_comes_again():
    rows = torch.cat([dealt_rows(7, 4, step, seed=3) for step in range(7)])
    for turn in rows.split(7):
        assert sorted(turn.tolist()) == list(range(7))
    assert not torch.equal(rows[:7], rows[7:14])
    assert not torch.equal(rows[:7], dealt_rows(7, 7, 0, seed=4))
    assert dealt_rows(3, 8, 0, seed=0).bincount().tolist() in ([3, 3, 2], [3, 2, 3], [2, 3, 3])


def test_bytes_a_source_and_a_tensor_give_the_same_training():
    pictures = (blobs(8) * 255).round().to(torch.uint8)
    plain = pictures.float() / 255
    outcome = SurvivalOutcome.from_arrays(torch.ones(8), torch.ones(8, dtype=torch.bool), "months")
    found = []
    for given in (pictures, plain, TensorSource({"image": plain}, outcome)):
        both = networks()
        finetune(*both, given, settings(steps=1))
        found.append(tensors(*both))
    assert same(found[0], found[1])
    assert same(found[0], found[2])
    assert len(Photographs(pictures)) == 8


def test_the_record_knows_photographs_and_patients_and_no_name(tmp_path):
    finetune(*networks(), blobs(), settings(steps=1), folder=tmp_path, patients=["Miller"] * 20 + ["Smith"] * 20)
    record = TrainingRecord.read(tmp_path)
    assert record.seen(torch.cat([blobs()[3:5], blobs(2, seed=9)])) == [True, True, False, False]
    assert record.patients.seen(["Smith", "Jones"]) == 1
    assert len(record.photographs) == 40
    everything = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert b"Miller" not in everything


@pytest.mark.slow
def test_reusing_generated_pictures_trains_otherwise_but_as_well():
    found = []
    for reuse in (False, True):
        both = networks()
        history = finetune(*both, blobs(), settings(reuse_generated=reuse))
        found.append(tensors(*both))
        assert all(math.isfinite(value) for value in history.rows[-1].values.values())
    assert not same(found[0], found[1])


def test_small_numbers_and_channels_last_train_as_well(tmp_path):
    both = networks()
    given = settings(steps=2, precision=Precision.BFLOAT_MIXED, channels_last=True)
    cut = finetune(*both, blobs(), replace(given, seconds=1e-9), folder=tmp_path)
    assert not cut.finished
    history = finetune(*networks(), blobs(), given, folder=tmp_path, resume=True)
    assert math.isfinite(history.rows[-1].values["loss_discriminator"])
    exact = finetune(*networks(), blobs(), settings(steps=2))
    assert history.rows[-1].values["loss_generator"] == pytest.approx(exact.rows[-1].values["loss_generator"], rel=0.05)
    assert all(weight.is_contiguous() for weight in both[1].parameters())


def test_defaults_follow_photographs_and_networks():
    shape, small = StyleGAN2Shape(256), AdversarialSettings(steps=1)
    many, few = (small.resolved(shape, count) for count in (300, 299))
    assert (many.learning_rate, few.learning_rate) == pytest.approx((0.0025, 0.0005))
    assert many.r1 == pytest.approx(0.0002 * 256**2 / 32)
    assert (many.average_images, many.average_ramp, many.adapted_images) == (10_000, None, 100_000)
    scratch = replace(small, start=TrainingStart.SCRATCH).resolved(StyleGAN2Shape(1024), 10)
    assert (scratch.learning_rate, scratch.average_ramp, scratch.adapted_images) == (0.002, 0.05, 500_000)
    assert replace(small, learning_rate=0.01, r1=0.0).resolved(shape, 10).learning_rate == 0.01


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 0}, "`steps` must be a whole number >= 1"),
        ({"frozen_blocks": -1}, "`frozen_blocks` must be a whole number >= 0"),
        ({"learning_rate": 0.0}, "`learning_rate` must be a finite number > 0"),
        ({"r1": -1.0}, "`r1` must be a finite number >= 0"),
        ({"largest_p": 1.2}, "`largest_p` must lie in"),
        ({"first_p": 0.9}, "`first_p` must be <= `largest_p`"),
        ({"target": 1.0}, "`target` must lie in"),
        ({"precision": Precision.HALF_MIXED}, "whose range gradients leave"),
    ],
)
def test_settings_out_of_range_are_refused(changes, message):
    with pytest.raises(InvalidValueError, match=message):
        settings(**changes)


def test_networks_photographs_and_settings_must_fit():
    generator, discriminator = networks()
    larger = Generator(replace(problem.SHAPE, resolution=32), seed=0)
    for arguments, extra, message in [
        ((larger, discriminator, blobs(), settings()), {}, "must take the pictures of the generator"),
        ((generator, discriminator, blobs(), settings(batch=6)), {}, "`batch` must be a multiple"),
        ((generator, discriminator, blobs(), settings(frozen_blocks=3)), {}, "`frozen_blocks` must leave"),
        ((generator, discriminator, blobs(), settings()), {"patients": ["a"]}, "one per photograph; got 1 for 40"),
        ((generator, discriminator, blobs() * 2 - 1, settings()), {}, "`pictures` must lie in"),
        ((generator, discriminator, blobs(size=32), settings()), {}, "`pictures` must be at least one of shape"),
    ]:
        with pytest.raises(InvalidValueError, match=message):
            finetune(*arguments, **extra)
    with pytest.raises(InvalidTypeError, match="`start` must be a TrainingStart"):
        settings(start="scratch")


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_small_generator_learns_where_blobs_are_and_that_they_differ(seed):
    """With the usual settings its mean picture is nearer to that of unseen blobs than any picture of one colour.

    A picture of one colour knows no place; the nearest, of the median colour, is 0.06 away, and two true sets of 64
    blobs are 0.01 apart. It is not shown that one learns with changes of the discriminator's pictures: they are on, but
    in 6,400 photographs their probability cannot rise above 0.013.
    """
    shape = StyleGAN2Shape(16, latent=8, width=8, mapping_layers=1, channel_base=128)
    generator, discriminator = Generator(shape, seed=seed), Discriminator(shape, seed=10 + seed)
    given = AdversarialSettings(steps=400, batch=16, start=TrainingStart.SCRATCH, seed=seed)
    assert finetune(generator, discriminator, blobs(100, seed=seed), given).finished
    with torch.no_grad():
        drawn = generator.decode(generator.mapping.w(torch.randn(64, 8, generator=torch.Generator().manual_seed(5))))
    unseen, others = blobs(64, seed=100), blobs(64, seed=200)
    middle = unseen.mean(0)
    one_colour = middle.flatten(1).median(1).values[:, None, None]
    far, chance = ((picture - middle).abs().mean() for picture in (one_colour, others.mean(0)))
    assert chance < far / 4
    assert (drawn.mean(0) - middle).abs().mean() < 0.75 * far
    assert 0.5 < drawn.std(0).mean() / unseen.std(0).mean() < 2


@pytest.mark.slow
def test_two_processes_learn_the_same(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    commands = [[sys.executable, str(SCRIPT), str(rank), port, str(tmp_path)] for rank in range(2)]
    running = [subprocess.Popen(command, env=environment) for command in commands]
    assert [process.wait(timeout=120) for process in running] == [0, 0]
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2))
    assert first["weights"].keys() == second["weights"].keys()
    assert all(torch.equal(first["weights"][name], second["weights"][name]) for name in first["weights"])
    assert torch.equal(first["values"], second["values"])
    alone = networks()
    finetune(*alone, blobs(), settings(steps=3))
    assert not torch.equal(first["weights"]["g/synthesis.b4.const"], alone[0].synthesis.b4.const)
    kept = load_tensors(tmp_path / "result" / "checkpoints" / "last.safetensors")
    assert torch.equal(kept["discriminator/b4.out.weight"], first["weights"]["d/b4.out.weight"])

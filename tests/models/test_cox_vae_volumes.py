"""CoxVAE on volumes: the same class, any size, masks that stay chances, and less memory without another result."""

import math

import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from survlens.core.errors import InvalidValueError
from survlens.core.outcome import SurvivalOutcome
from survlens.encoders.residual import ResidualCNN
from survlens.generators.decoders import ResidualDecoder
from survlens.generators.vae import VariationalAutoencoder, warn_if_collapsed
from survlens.models.cox_vae import CoxVAE, cox_vae
from survlens.models.saving import load_model, save_model
from survlens.training.objectives import CoxVAEObjective, TrainingProgress

SHAPE = (2, 16, 16, 16)
OUTCOME = SurvivalOutcome.from_arrays([3.0, 1.0, 2.0], [1, 1, 0], "months")
PROGRESS = TrainingProgress(0, 1, 0, 1)


@pytest.fixture
def volumes(generator):
    intensity = torch.rand(3, 1, 16, 16, 16, generator=generator)
    mask = (torch.rand(3, 1, 16, 16, 16, generator=generator) > 0.9).float()
    return torch.cat([intensity, mask], dim=1)


def built(**options):
    return cox_vae(SHAPE, latent=3, widths=(4, 8, 16, 32), **{"mask_channels": 1, **options})


def value(model, volumes):
    objective = CoxVAEObjective(tau=0.9)
    torch.manual_seed(5)
    found = objective(model, {"image": volumes}, OUTCOME, PROGRESS)
    found.total.backward()
    return found.total.item(), {name: weight.grad.clone() for name, weight in model.named_parameters()}


@pytest.mark.parametrize("sides", [(16, 16, 16), (24, 17, 20), (33, 16, 16)])
def test_four_blocks_take_and_give_volumes_of_any_size(sides, generator):
    model = cox_vae((1, *sides), mask_channels=0).eval()
    image = torch.rand(1, 1, *sides, generator=generator)
    assert len(model.vae.encoder.channels) == len(model.vae.decoder.channels) == 4
    assert model.decode(model.latent({"image": image})).shape == image.shape


def test_blocks_that_would_end_in_nothing_are_refused():
    with pytest.raises(InvalidValueError, match="more than 8"):
        ResidualCNN(1, (4, 4, 8, 8), dimensions=3, image_size=(16, 16, 16))


@pytest.mark.parametrize(("side", "halvings", "last"), [(16, 3, 2), (24, 4, 2), (32, 4, 2), (64, 4, 4)])
def test_last_map_keeps_two_voxels_along_each_side(side, halvings, last):
    vae = cox_vae((1, side, side, side)).vae
    assert (vae.encoder.halvings, vae.decoder.doublings) == (halvings, halvings)
    assert vae.decoder.start == (128, last, last, last)
    assert vae.encoder.out_features == 128 * last**3


def test_more_halvings_than_blocks_are_refused():
    with pytest.raises(InvalidValueError, match="halvings"):
        ResidualCNN(1, (4,), halvings=2)
    with pytest.raises(InvalidValueError, match="doublings"):
        ResidualDecoder(2, (1, 8, 8), (4,), doublings=2)


def test_images_keep_the_widths_they_had():
    assert cox_vae((1, 16, 16)).vae.encoder.channels == (16, 32, 64)
    with pytest.raises(InvalidValueError, match="even sides"):
        cox_vae((1, 5, 5))


def test_checkpointing_changes_neither_value_nor_gradients(volumes):
    (plain, slopes), (saved, again) = (value(built(checkpointing=on).train(), volumes) for on in (False, True))
    assert plain == saved
    assert slopes.keys() == again.keys()
    for name in slopes:
        torch.testing.assert_close(slopes[name], again[name], rtol=1e-5, atol=1e-7)


def test_checkpointing_keeps_less_on_the_way_forward(volumes):
    def kept(model):
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(lambda x: sizes.append(x.numel()) or x, lambda x: x):
            model.evidence({"image": volumes})
        return sum(sizes)

    assert kept(built(checkpointing=True).train()) < 0.5 * kept(built().train())


@pytest.mark.parametrize("template", [False, True])
def test_channels_last_changes_the_layout_and_not_the_result(volumes, template):
    first, last = (built(channels_last=on, template=template) for on in (False, True))
    weight = last.vae.encoder.blocks[0].body[2].weight
    assert weight.is_contiguous(memory_format=torch.channels_last_3d)
    (one, slopes), (other, again) = value(first, volumes), value(last, volumes)
    assert math.isclose(one, other, rel_tol=1e-5)
    for name in slopes:
        torch.testing.assert_close(slopes[name], again[name], rtol=1e-2, atol=1e-5)


def test_sums_over_a_volume_are_in_full_precision_under_bfloat16(volumes):
    model = built()
    exact = model.evidence({"image": volumes}, generator=torch.Generator().manual_seed(2))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = model.evidence({"image": volumes}, generator=torch.Generator().manual_seed(2))
        assert model.decode(exact.embedding_mean).dtype == torch.float32
    assert mixed.reconstruction.dtype == mixed.kl.dtype == torch.float32
    torch.testing.assert_close(mixed.reconstruction, exact.reconstruction, rtol=0.02, atol=0)


def test_bound_is_gaussian_intensities_and_weighted_bernoulli_masks(volumes):
    model = built(mask_weights=(7.0,), sd=0.3)
    evidence = model.evidence({"image": volumes})
    raw = model.vae.decoder(evidence.embedding_draw)
    expected = -torch.distributions.Normal(raw[:, 0], 0.3).log_prob(volumes[:, 0]).sum((1, 2, 3))
    expected += 7 * binary_cross_entropy_with_logits(raw[:, 1], volumes[:, 1], reduction="none").sum((1, 2, 3))
    torch.testing.assert_close(evidence.reconstruction, expected, rtol=1e-4, atol=1e-2)
    assert evidence.n_values == 2 * 16**3


def test_best_decoded_chance_of_a_weighted_mask_is_the_share_of_volumes_that_have_it():
    target = torch.tensor([1.0, 0.0, 0.0, 0.0]).view(4, 1, 1, 1, 1).expand(4, 1, 1, 1, 1)
    chance = torch.linspace(0.05, 0.95, 19)
    shape = (2, 8, 8, 8)
    vae = cox_vae(shape, widths=(4,), latent=2, mask_channels=1, mask_weights=(25.0,)).vae

    def cost(p):
        raw = torch.cat([torch.zeros(4, 1, 1, 1, 1), p.logit().expand(4, 1, 1, 1, 1)], dim=1)
        return vae._reconstruction(raw, torch.cat([torch.zeros(4, 1, 1, 1, 1), target], dim=1)).sum().item()

    assert math.isclose(min(chance, key=cost).item(), 0.25, abs_tol=1e-6)


def blobs(count, generator):
    """Volumes that differ by the size of one ball, with its mask."""
    away = torch.linspace(-1, 1, 16).square()
    distance = (away[:, None, None] + away[:, None] + away).sqrt()
    size = 0.3 + 0.5 * torch.rand(count, 1, 1, 1, 1, generator=generator)
    mask = torch.sigmoid((size - distance) * 12)
    return torch.cat([0.2 + 0.5 * mask, mask], dim=1)


def test_decoder_with_a_template_starts_as_principal_components(generator):
    images = blobs(40, generator)
    model = built(template=True, normalised_decoder=False)
    mean, share = images.mean(0), images.mean(0)[1].mean()
    model.vae.start_at(images)
    centre = model.decode(torch.zeros(1, 3))[0]
    torch.testing.assert_close(centre[0], mean[0], rtol=0, atol=1e-6)
    torch.testing.assert_close(centre[1], 0.99 * mean[1] + 0.01 * share, rtol=0, atol=1e-6)
    away = (images - mean).flatten(2) * torch.tensor([5.0, 2.0])[:, None]
    away = away.flatten(1)
    first = torch.linalg.svd(away, full_matrices=False).Vh[0].view(2, 16, 16, 16)
    drawn = model.decode(torch.eye(3)[2:])[0, 0] - mean[0]
    cosine = torch.nn.functional.cosine_similarity(drawn.flatten(), first[0].flatten(), dim=0).abs()
    assert cosine > 0.9999


def test_started_autoencoder_draws_images_it_has_not_seen(generator):
    images = blobs(60, generator)
    started, fresh = (built(template=True, normalised_decoder=False).eval() for _ in range(2))
    started.vae.start_at(images[:40])
    held_out, mean = images[40:], images[:40].mean(0)
    missed = [(model.decode(model.vae(held_out)) - held_out).square().mean() for model in (started, fresh)]
    assert missed[0] < 0.25 * (held_out - mean).square().mean() < missed[1]
    _, log_var = started.vae.encode(held_out)
    assert log_var.exp().sqrt().mean() < 0.2


def test_start_leaves_the_first_dimension_empty_and_the_global_source_alone(generator):
    images, model, state = blobs(40, generator), built(template=True), torch.random.get_rng_state()
    model.vae.start_at(images)
    assert model.vae(images)[:, 0].unique().numel() == 1
    assert not model.vae.decoder.linear.weight[:, 0].any()
    assert torch.equal(torch.random.get_rng_state(), state)


def test_decoder_without_normalisation_goes_on_along_a_walk():
    far = torch.tensor([[1.0, 0, 0], [4.0, 0, 0], [16.0, 0, 0]])
    steps = []
    for normalised in (True, False):
        raw = built(normalised_decoder=normalised).vae.decoder(far)
        steps.append((raw[2] - raw[1]).norm() / (raw[1] - raw[0]).norm())
    assert steps[0] < 1.5 < steps[1]


def test_averaged_shortcut_sees_a_tumour_of_one_voxel_wherever_it_lies(generator):
    seen = []
    for averaged in (False, True):
        encoder = ResidualCNN(1, (4,), dimensions=3, averaged=averaged)
        shortcut = encoder.blocks[0].shortcut
        volumes = torch.zeros(8, 4, 4, 4, 4)
        for corner in range(8):
            volumes[corner, :, corner // 4, corner // 2 % 2, corner % 2] = 1.0
        seen.append(int((shortcut(volumes) != shortcut(torch.zeros(1, 4, 4, 4, 4))).flatten(1).any(1).sum()))
    assert seen == [1, 8]


def test_decoder_without_a_template_starts_at_the_mean_of_each_channel(generator):
    model, images = built(), blobs(8, generator)
    model.vae.start_at(images)
    mean = images.mean(0)
    bias = model.vae.decoder.blocks[-1].bias
    torch.testing.assert_close(bias, torch.stack([mean[0].mean(), mean[1].mean().logit()]))


def test_start_refuses_empty_masks_other_shapes_and_too_few_images(generator):
    model, images = built(), blobs(8, generator)
    with pytest.raises(InvalidValueError, match="neither empty nor full"):
        model.vae.start_at(torch.stack([images[:, 0], torch.zeros_like(images[:, 1])], dim=1))
    with pytest.raises(InvalidValueError, match="shape"):
        model.vae.start_at(images[:, :, :8])
    with pytest.raises(InvalidValueError, match="more than 3"):
        model.vae.start_at(images[:3])


@pytest.mark.parametrize("weights", [(1.0,), (1.0, 0.0)])
def test_mask_weights_are_positive_and_one_per_mask(weights):
    with pytest.raises(InvalidValueError, match="mask_weights"):
        cox_vae((3, 16, 16, 16), widths=(4,), mask_channels=2, mask_weights=weights)


def test_idle_latent_is_warned_of_and_an_active_one_is_not():
    with pytest.warns(UserWarning, match="No latent dimension is active"):
        warn_if_collapsed(torch.full((5, 8), 0.01))
    warn_if_collapsed(torch.tensor([[0.01, 0.2], [0.01, 0.1]]))


def test_standard_deviation_one_collapses_and_is_warned_of(volumes):
    vae = built(sd=1.0).vae
    assert isinstance(vae, VariationalAutoencoder)
    with torch.no_grad():
        vae.posterior.weight.zero_()
        vae.posterior.bias.zero_()
    with pytest.warns(UserWarning, match="collapsed|active"):
        warn_if_collapsed(vae.evidence(volumes).kl)


def test_saved_volume_model_is_the_same_again(volumes, tmp_path):
    options = {"template": True, "checkpointing": True, "normalised_decoder": False}
    model = built(**options, mask_weights=(4.0,), covariates=1).eval()
    inputs = {"image": volumes, "table": torch.randn(3, 1)}
    model.head.fit_baseline(model.embed(inputs), OUTCOME)
    save_model(model, tmp_path)
    loaded = load_model(tmp_path).model
    assert isinstance(loaded, CoxVAE)
    assert loaded.vae.mask_weights == (4.0,)
    assert loaded.vae.encoder.checkpointing
    assert loaded.vae.decoder.template
    assert not loaded.vae.decoder.normalised
    assert torch.equal(loaded.risk(inputs), model.risk(inputs))
    assert torch.equal(loaded.decode(torch.ones(1, 3)), model.decode(torch.ones(1, 3)))


@pytest.mark.gpu
def test_a_gpu_step_has_the_gradients_of_the_processor():
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    found = {}
    for device in ("cpu", "cuda"):
        model = cox_vae(SHAPE, mask_channels=1, template=True, channels_last=True, widths=(8, 16)).train().to(device)
        volumes = torch.rand(3, *SHAPE, generator=torch.Generator().manual_seed(0)).to(device)
        with torch.autocast(device, dtype=torch.bfloat16):
            mean, log_var = model.vae.encode(volumes)
        (mean.square().sum() + log_var.square().sum()).backward()
        found[device] = model.get_parameter("vae.posterior.weight").grad.cpu()
    assert torch.cosine_similarity(found["cpu"].flatten(), found["cuda"].flatten(), dim=0) > 0.99

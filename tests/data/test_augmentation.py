"""Laws of random changes of images."""

import numpy as np
import pytest
import torch

from survlens.core.errors import InvalidValueError
from survlens.core.outcome import SurvivalOutcome
from survlens.data.augmentation import Augmentation, AugmentedSource
from survlens.data.loaders import TensorSource

IMAGES = torch.arange(2 * 3 * 4 * 4, dtype=torch.float32).reshape(2, 3, 4, 4)


def drawn(augmentation, images=IMAGES, seed=0):
    return augmentation(images, torch.Generator().manual_seed(seed))


def symmetries(image):
    turned = [torch.rot90(image, k, (-2, -1)) for k in range(4)]
    return [*turned, *(one.flip(-1) for one in turned)]


def test_turns_and_flips_reach_all_eight_symmetries_of_the_square_and_nothing_else():
    seen = set()
    for seed in range(60):
        image = drawn(Augmentation(flips=True, quarter_turns=True), seed=seed)[0]
        seen.add(next(k for k, one in enumerate(symmetries(IMAGES[0])) if torch.equal(one, image)))
    assert seen == set(range(8))


def test_each_image_of_a_batch_has_its_own_draws():
    batch = IMAGES[:1].repeat(32, 1, 1, 1)
    assert len({tuple(image.flatten().tolist()) for image in drawn(Augmentation(flips=True), batch)}) == 4


def test_volumes_are_mirrored_along_every_axis():
    volume = torch.rand(1, 1, 2, 3, 4, generator=torch.Generator().manual_seed(1))
    seen = {tuple(drawn(Augmentation(flips=True), volume, seed).flatten().tolist()) for seed in range(60)}
    assert len(seen) == 8


def test_gain_and_shift_change_a_channel_as_a_whole():
    changed = drawn(Augmentation(gain=0.2, shift=0.3))
    x, y = IMAGES.flatten(2).double(), changed.flatten(2).double()
    slope = (y[..., -1] - y[..., 0]) / (x[..., -1] - x[..., 0])
    torch.testing.assert_close(y, y[..., :1] + slope[..., None] * (x - x[..., :1]), rtol=1e-5, atol=1e-4)
    assert len(set(slope.flatten().tolist())) == 6


def test_the_default_changes_nothing():
    assert not Augmentation().active
    assert torch.equal(drawn(Augmentation()), IMAGES)


def test_a_seed_repeats_and_the_original_is_untouched():
    kept = IMAGES.clone()
    all_of_it = Augmentation(flips=True, quarter_turns=True, gain=0.1, shift=0.1)
    assert torch.equal(drawn(all_of_it, seed=3), drawn(all_of_it, seed=3))
    assert torch.equal(IMAGES, kept)


def test_a_source_changes_its_images_only():
    outcome = SurvivalOutcome.from_arrays([1.0, 2.0], [1, 0], "years")
    source = AugmentedSource(
        TensorSource({"image": IMAGES, "table": torch.ones(2, 1)}, outcome), Augmentation(flips=True)
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        batches = [source.batch(np.array([1, 0])) for _ in range(12)]
    assert len(source) == 2
    assert all(torch.equal(inputs["table"], torch.ones(2, 1)) for inputs, _ in batches)
    assert all(kept.time.tolist() == [2.0, 1.0] for _, kept in batches)
    assert len({tuple(inputs["image"].flatten().tolist()) for inputs, _ in batches}) > 1


def test_wrong_settings_and_names_are_refused():
    with pytest.raises(InvalidValueError, match="`gain` and `shift` must be >= 0"):
        Augmentation(gain=-0.1)
    outcome = SurvivalOutcome.from_arrays([1.0, 2.0], [1, 0], "years")
    source = AugmentedSource(TensorSource({"image": IMAGES}, outcome), Augmentation(), modality="scan")
    with pytest.raises(InvalidValueError, match="`modality` must be one of image; got 'scan'"):
        source.batch([0])

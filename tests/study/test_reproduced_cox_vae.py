"""`survlens reproduce coxvae`: the rule for τ, the measures along a walk, and the files that are written."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from survlens.cli.main import main
from survlens.study.reproduce.phantom_cox_vae import (
    held_out_ratio,
    models_table,
    never_falls,
    oracle_ratio,
    true_ratio,
)
from survlens.study.reproduce.phantom_latents import (
    STEPS,
    CoxVAEPlan,
    FittedVAE,
    chosen_on,
    fit_phantom_vae,
    phantom_parts,
    unexplained,
    walk_towards_hazard,
)

SMALL = CoxVAEPlan(size=16, patients=60, epochs=1, taus=(0.9,), batch=18)


@pytest.fixture(scope="module")
def parts():
    return phantom_parts(SMALL)


@pytest.fixture(scope="module")
def fitted(parts):
    return fit_phantom_vae(parts, SMALL, 0.9)


def test_parts_share_no_patient_and_hold_all(parts):
    assert np.concatenate([parts.train, parts.validation, parts.test]).tolist() == list(range(60))


def test_channels_are_windowed_intensities_liver_and_tumour(parts):
    volume, labels = parts.volumes[3], parts.study.labels[3]
    np.testing.assert_allclose(volume[0], np.clip((parts.study.volumes[3, 0] + 160) / 400, 0, 1), atol=1e-6)
    assert volume[1].sum() == np.isin(labels, (3, 4)).sum()
    assert volume[2].sum() == (labels == 4).sum()


def test_same_seed_same_fit_and_another_seed_another(parts, fitted):
    again = fit_phantom_vae(parts, SMALL, 0.9)
    np.testing.assert_array_equal(again.latents, fitted.latents)
    assert again.error == fitted.error
    other = fit_phantom_vae(parts, replace(SMALL, seed=1), 0.9)
    assert not np.allclose(other.latents, fitted.latents)


def points(*pairs):
    return [FittedVAE(tau, None, np.zeros(0), (), error, 0.7, 1, 1) for tau, error in pairs]


def test_rule_takes_the_smallest_tau_within_a_tenth_of_the_best_error():
    assert chosen_on(points((0.1, 0.9), (0.5, 0.549), (0.9, 0.52), (1.0, 0.5))).tau == 0.5
    assert chosen_on(points((0.1, 0.9), (0.5, 0.551), (0.9, 0.52), (1.0, 0.5))).tau == 0.9


def test_rule_never_takes_the_plain_autoencoder():
    assert chosen_on(points((0.1, 0.9), (0.5, 0.8), (1.0, 0.5))).tau == 0.5


def test_mean_volume_leaves_everything_unexplained(parts, fitted):
    centre = parts.volumes[parts.train].mean(0)

    class Mean(torch.nn.Module):
        def vae(self, image):
            return torch.zeros(len(image), 8)

        def decode(self, latent):
            return centre.expand(len(latent), *centre.shape)

    assert math.isclose(unexplained(Mean(), parts.volumes[parts.test], centre), 1.0, rel_tol=1e-6)


def test_walk_moves_the_worst_dimension_towards_hazard_and_counts_voxels(parts, fitted):
    walk = walk_towards_hazard(fitted, parts)
    train = fitted.latents[parts.train]
    place = fitted.worst.dimension - 1
    latent = train.mean(0)
    latent[place] += 2 * fitted.towards_hazard * train[:, place].std()
    with torch.no_grad():
        last = fitted.model.decode(torch.from_numpy(latent[None]).float())[0].numpy()
    np.testing.assert_allclose(walk.volumes[-1], last, atol=1e-4)
    voxel = np.prod([320, 320, 240]) / 16**3 / 1000
    assert math.isclose(walk.liver[-1], (last[1] > 0.5).sum() * parts.voxel)
    assert math.isclose(parts.voxel, voxel, rel_tol=0.05)
    weights = fitted.model.get_parameter("head.linear.weight").detach().numpy()[0]
    assert weights[place] * latent[place] > weights[place] * train[:, place].mean()


def test_walk_from_a_patient_leaves_the_other_dimensions_with_them(parts, fitted):
    start = fitted.latents[parts.test[0]]
    before = start.copy()
    middle = walk_towards_hazard(fitted, parts, start).volumes[len(STEPS) // 2]
    place = fitted.worst.dimension - 1
    np.testing.assert_array_equal(start, before)
    before[place] = fitted.latents[parts.train, place].mean()
    with torch.no_grad():
        expected = fitted.model.decode(torch.from_numpy(before[None]).float())[0].numpy()
    np.testing.assert_allclose(middle, expected, atol=1e-4)


def test_latent_that_is_the_load_has_the_oracles_ratio(parts, fitted):
    load = parts.study.covariates[:, 0]
    latents = np.zeros_like(fitted.latents)
    latents[:, fitted.worst.dimension - 1] = -3 * load * fitted.towards_hazard
    mirrored = replace(fitted, latents=-latents)
    found, expected = held_out_ratio(mirrored, parts), oracle_ratio(parts)
    assert (found.lower, found.hazard_ratio) == pytest.approx((expected.lower, expected.hazard_ratio))


def test_oracle_recovers_the_true_ratio_in_a_large_cohort():
    many = phantom_parts(CoxVAEPlan(size=16, patients=600))
    found = oracle_ratio(many)
    assert found.lower < true_ratio(many) < found.upper
    assert found.upper / found.lower < 2.5


@pytest.mark.parametrize(("values", "rises"), [([0, 0, 1], True), ([0, 0, 0], False), ([0, 2, 1], False)])
def test_never_falls_and_ends_higher(values, rises):
    assert never_falls(np.array(values)) is rises


def test_table_holds_the_truth_and_the_simple_models(parts, fitted):
    rows = {row["model"]: row for row in models_table(fitted, replace(fitted, tau=1.0), parts)}
    assert {"true hazard (oracle)", "CoxVAE", "VAE latents, Cox", "size only", "clinical only"} <= set(rows)
    assert rows["true hazard (oracle)"]["C - oracle"] == 0
    assert rows["CoxVAE"]["published C"] == 0.560
    assert all(0 < row["IBS, 36 months"] < 1 for row in rows.values())


def test_command_writes_tables_and_figures(tmp_path):
    arguments = "reproduce coxvae --size 16 --patients 60 --epochs 1 --tau 0.9 --out".split()
    result = CliRunner().invoke(main, [*arguments, str(tmp_path)])
    assert result.exit_code == 0, result.output
    found = json.loads((tmp_path / "coxvae.json").read_text())
    assert [row["tau"] for row in found["tables"]["tau_path"]] == [0.9, 1.0]
    assert found["tables"]["claims"][0]["tau"] == 0.9
    for name in ("tau_path", "traversal", "sizes"):
        assert (tmp_path / f"coxvae_{name}.png").stat().st_size > 10_000

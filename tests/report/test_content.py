"""Reading a run folder."""

import json

import numpy as np
import pandas as pd
import pytest

from survlens.core.errors import CorruptFileError, DataError
from survlens.report.content import read_content
from survlens.report.sections.latent import dimensions, reading


def test_everything_is_read(run_folder):
    content = read_content(run_folder)
    assert [m.name for m in content.metrics.models][-1] == "fused"
    assert content.explanations[0].model == "coxvae_0.5"
    assert [e.label for e in content.embeddings] == ["VAE (τ = 1)", "CoxVAE (τ = 0.5)"]
    assert content.hashes["patients in each part (splits.json)"].startswith("c0ffee")
    assert content.environment["numpy"] == "2.4"


def test_models_that_were_not_scored_keep_their_label_and_place(run_folder, change):
    change("metrics.json", lambda top: top.update(models=[m for m in top["models"] if m["name"] != "vae"]))
    named = {"model": [{"name": "vae", "label": "Plain VAE"}, {"name": "coxvae_0.5", "label": "?"}]}
    (run_folder / "resolved.json").write_text(json.dumps(named), encoding="utf-8")
    content = read_content(run_folder)
    assert [e.label for e in content.embeddings] == ["Plain VAE", "CoxVAE (τ = 0.5)"]
    assert [h.label for h in content.histories] == ["CoxVAE (τ = 0.5)", "Plain VAE"]


def test_held_out_points_are_shown_where_there_are_any(run_folder):
    content = read_content(run_folder)
    assert {(e.part, len(e)) for e in content.embeddings} == {("test", 100)}


def test_dimensions_stand_in_order_of_importance(run_folder):
    importance = [d.importance for d in read_content(run_folder).explanations[0].dimensions]
    assert importance == sorted(importance, reverse=True)


def test_missing_metrics_names_the_next_step(tmp_path):
    with pytest.raises(DataError, match="survlens evaluate"):
        read_content(tmp_path)
    with pytest.raises(DataError, match="must be a folder"):
        read_content(tmp_path / "none")


@pytest.mark.parametrize("key", ["study", "unit", "n_patients"])
def test_missing_key_is_named(run_folder, change, key):
    change("metrics.json", lambda top: top.pop(key))
    with pytest.raises(CorruptFileError, match=key):
        read_content(run_folder)


def test_missing_key_deep_inside_is_named_with_its_path(run_folder, change):
    change("metrics.json", lambda top: top["models"][3].pop("name"))
    with pytest.raises(CorruptFileError, match=r"models\[3\]\.name"):
        read_content(run_folder)


def test_wrong_type_is_named(run_folder, change):
    change("metrics.json", lambda top: top["models"][1]["scores"][0].update(value="high"))
    with pytest.raises(CorruptFileError, match=r"scores\[0\]\.value.*must be a number"):
        read_content(run_folder)


def test_lists_of_different_length_are_refused(run_folder, change):
    change("metrics.json", lambda top: top["models"][1]["brier_curve"]["ipa"].pop())
    with pytest.raises(CorruptFileError, match="one length"):
        read_content(run_folder)
    change("metrics.json", lambda top: top["models"][1].update(brier_curve=None))
    change("metrics.json", lambda top: top["models"][1]["risk_groups"]["at_risk"]["counts"].pop())
    with pytest.raises(CorruptFileError, match="one row per group"):
        read_content(run_folder)


@pytest.mark.parametrize("text", ["{", "\x00\x01", ""])
def test_broken_json_is_a_clear_error(run_folder, text):
    (run_folder / "metrics.json").write_text(text, encoding="utf-8")
    with pytest.raises(CorruptFileError, match=r"metrics\.json.*json text"):
        read_content(run_folder)


def test_scores_that_are_not_numbers_read_as_missing(run_folder, change):
    change("metrics.json", lambda top: top["models"][1]["scores"][0].update(value=float("nan"), lower=None))
    score = read_content(run_folder).metrics.models[1].score("concordance_index")
    assert score is not None
    assert np.isnan(score.value)
    assert score.interval is None


def test_model_name_cannot_lead_out_of_the_folder(run_folder, change):
    change("metrics.json", lambda top: top["models"][3].update(name="../../explanations/coxvae_0.5"))
    assert read_content(run_folder).explanations == ()


@pytest.mark.parametrize("broken", ["traversal.npz", "dimensions.json"])
def test_broken_explanation_is_a_clear_error(run_folder, broken):
    (run_folder / "explanations/coxvae_0.5" / broken).write_bytes(b"not it")
    with pytest.raises(CorruptFileError, match=broken):
        read_content(run_folder)


def test_pictures_that_do_not_fit_are_refused(run_folder):
    path = run_folder / "explanations/coxvae_0.5/traversal.npz"
    images = np.zeros((4, 9, 1, 8, 8), dtype=np.float32)
    np.savez(path, images=images, difference=images[:, 0], steps=np.arange(7.0), order=np.arange(1, 5))
    with pytest.raises(CorruptFileError, match="7 steps"):
        read_content(run_folder)


def test_of_volumes_the_slice_that_changes_is_shown_as_radiologists_read_it(run_folder):
    path = run_folder / "explanations/coxvae_0.5/traversal.npz"
    volumes = np.zeros((4, 7, 1, 6, 5, 3), dtype=np.float32)
    volumes[:, -1, :, 5, 1, 2] = 1.0  # the patient's right, towards the back, upper slice
    np.savez(
        path, images=volumes, difference=volumes[:, -1] - volumes[:, 0], steps=np.arange(7.0), order=np.arange(1, 5)
    )
    (explanation,) = read_content(run_folder).explanations
    assert explanation.traversal.images.shape == (4, 7, 1, 5, 6)
    assert explanation.traversal.images[0, -1, 0, 3, 0] == 1.0
    assert explanation.traversal.difference.sum() == 4.0


def test_pickled_pictures_are_refused(run_folder):
    path = run_folder / "explanations/coxvae_0.5/traversal.npz"
    np.savez(path, images=np.array([{}]))
    with pytest.raises(CorruptFileError):
        read_content(run_folder)


def test_axes_of_every_embedding_have_their_share_of_the_training_variance(run_folder):
    """Also of a network that no explanation was written for; by the singular values of the training embeddings."""
    random = np.random.default_rng(0)
    latents = random.normal(size=(150, 3)) * [3.0, 1.0, 0.2]
    path = run_folder / "embeddings/vae.parquet"
    frame = pd.read_parquet(path)
    training = latents[frame["part"] == "train"]
    _, singular, directions = np.linalg.svd(training - training.mean(0), full_matrices=False)
    frame[["z1", "z2", "z3"]] = latents
    frame[["pc1", "pc2"]] = (latents - training.mean(0)) @ directions[:2].T
    frame.assign(seed=0, fold=1).to_parquet(path)
    points = next(each for each in read_content(run_folder).embeddings if each.model == "vae")
    np.testing.assert_allclose(points.explained, (singular**2 / (singular**2).sum())[:2], atol=1e-9)


def test_embedding_without_components_is_a_clear_error(run_folder):
    import pandas as pd

    pd.DataFrame({"time": [1.0], "event": [1]}).to_parquet(run_folder / "embeddings/vae.parquet")
    with pytest.raises(CorruptFileError, match="pc1, pc2"):
        read_content(run_folder)


def test_explanation_without_the_newer_keys_is_read(run_folder):
    explanation = read_content(run_folder).explanations[0]
    assert explanation.explained == ()
    for d in explanation.dimensions:
        assert (d.held_out, d.univariable, d.variance_inflation, d.pixel_change) == (None,) * 4
        assert d.judged == d.training


def test_separated_dimension_has_no_ratio_and_says_so(run_folder, change):
    nulls = dict.fromkeys(("hazard_ratio", "lower", "upper", "p")) | {"separated": True}
    change("explanations/coxvae_0.5/dimensions.json", lambda top: [d.update(nulls) for d in top["dimensions"]])
    content = read_content(run_folder)
    first = content.explanations[0].dimensions[0]
    assert first.training is not None
    assert first.training.separated
    assert reading(first).startswith("separated")
    blocks = dimensions(content).blocks
    assert any("separated" in str(block) for block in blocks)
    assert any("alone or with others it orders the events so completely" in str(block) for block in blocks)


def test_held_out_fit_that_failed_leaves_the_training_fit(run_folder, change):
    nulls = dict.fromkeys(("hazard_ratio", "lower", "upper", "p"))
    change("explanations/coxvae_0.5/dimensions.json", lambda top: [d.update(held_out=nulls) for d in top["dimensions"]])
    first = read_content(run_folder).explanations[0].dimensions[0]
    assert first.held_out is None
    assert first.judged == first.training

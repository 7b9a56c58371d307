"""CNN-Survival on phantoms, on tiny sizes: choice of slices, averages per patient, and what is always beside it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from survlens.cli.main import main
from survlens.core.errors import InvalidValueError
from survlens.core.outcome import SurvivalOutcome
from survlens.data.simulate.phantom import Organ, drawn_phantoms
from survlens.report.figures.cnn_survival import slice_montage
from survlens.study.reproduce import cnn_survival, cnn_survival_findings, phantom_slices
from survlens.study.reproduce.cnn_survival import CNN, SCRATCH, SIZE, CNNSurvivalPlan, repetition
from survlens.study.reproduce.cnn_survival_findings import findings, two_patients
from survlens.study.reproduce.phantom_slices import (
    ScannedPatients,
    Scanner,
    dropped_by,
    largest_of_cohort,
    largest_of_patient,
    scanned_patients,
)

PLAN = CNNSurvivalPlan(pretrain=24, tune=16, test=12, repetitions=2, larger=0, voxels=20, side=10, channels=4, epochs=1)


@pytest.fixture(scope="module")
def patients() -> ScannedPatients:
    return scanned_patients(12, Scanner(noise=15.0, contrast=1.0), size=20, seed=3)


def test_only_patients_with_a_tumour_are_enrolled(patients: ScannedPatients) -> None:
    drawn = list(drawn_phantoms(12 + patients.without_tumour, size=20, noise=15.0, seed=3))
    with_tumour = [each for each in drawn if (each.labels == Organ.TUMOUR.value).any()]
    assert len(with_tumour) == 12
    np.testing.assert_array_equal(patients.age, [each.age for each in with_tumour])
    np.testing.assert_allclose(patients.scans[4][0].values, with_tumour[4].volume, rtol=1e-6, atol=1e-3)
    np.testing.assert_allclose(
        patients.size, [(e.labels == Organ.TUMOUR.value).sum() * e.spacing.prod() / 1000 for e in with_tumour]
    )


def test_another_scanner_changes_noise_and_contrast() -> None:
    plain, other = (scanned_patients(3, scanner, size=20, seed=5) for scanner in (Scanner(0.0, 1.0), Scanner(0.0, 0.5)))
    np.testing.assert_allclose(
        other.scans[1][0].values, 40 + 0.5 * (plain.scans[1][0].values - 40), rtol=1e-5, atol=1e-3
    )


def test_the_largest_slices_of_a_cohort_drop_patients_with_small_tumours(patients: ScannedPatients) -> None:
    everything = largest_of_patient(patients, 100, 12)
    chosen = largest_of_cohort(patients, len(everything) // 3, 12)
    assert len(everything) == everything.available
    assert chosen.voxels.min() >= np.sort(everything.voxels)[-len(chosen)]
    assert len(chosen.dropped) > 0
    assert sorted({*chosen.patient, *chosen.dropped}) == list(range(12))
    largest = np.array([everything.voxels[everything.patient == k].max() for k in range(12)])
    assert dropped_by(patients, int(chosen.voxels.min())) == int((largest < chosen.voxels.min()).sum())
    # Slices as large as the limit may be left out, where there are more of them than places.
    assert largest[chosen.dropped].max() <= chosen.voxels.min()


def test_the_largest_slices_of_each_patient_drop_nobody(patients: ScannedPatients) -> None:
    chosen = largest_of_patient(patients, 2, 12)
    assert len(chosen.dropped) == 0
    for number, (_, mask) in enumerate(patients.scans):
        areas = np.sort(mask.sum((0, 1)))[::-1]
        kept = np.sort(chosen.voxels[chosen.patient == number])[::-1]
        np.testing.assert_array_equal(kept, areas[: min(2, int((areas > 0).sum()))])


def test_slices_are_cut_out_and_in_the_middle(patients: ScannedPatients) -> None:
    chosen = largest_of_patient(patients, 1, 12)
    for number, (scan, mask) in enumerate(patients.scans):
        place = int(np.argmax(mask.sum((0, 1))))
        picture, inside = chosen.images[number, 0].numpy(), mask[:, :, place]
        values = np.clip((scan.values[:, :, place][inside] + 100) / 300, 0, 1)
        if np.ptp(np.argwhere(inside), axis=0).max() < 6:
            assert np.count_nonzero(picture) == np.count_nonzero(values)
            assert float(picture.sum()) == pytest.approx(float(values.sum()), rel=1e-5)
            assert np.abs(np.argwhere(picture > 0).mean(0) - 6).max() <= 1.0


@pytest.fixture(scope="module")
def repetitions() -> list[cnn_survival.Repetition]:
    return [repetition(PLAN, number) for number in range(2)]


def test_size_and_clinical_table_alone_always_stand_beside(repetitions: list[cnn_survival.Repetition]) -> None:
    expected = {
        *("Size only (Cox)", "Clinical only (Cox)", "Size + clinical (Cox)"),
        *("Radiomics + LASSO-Cox", "Transfer features + LASSO-Cox", "Interval outputs + LASSO-Cox"),
        *("CNN-Survival", "CNN from scratch on B", "CNN of A, not fine-tuned", "True hazard"),
    }
    for each in repetitions:
        assert set(each.scores) == expected
        assert all(scored.curves.shape == (12, 48) for scored in each.scores.values())
        assert all(0 <= scored.concordance <= 1 for scored in each.scores.values())


def test_findings_hold_the_published_numbers(repetitions: list[cnn_survival.Repetition]) -> None:
    found = findings(PLAN, repetitions)
    table = {row["model"]: row for row in found.tables[0].rows}
    assert table["CNN-Survival"]["C in the paper"] == 0.651
    assert table["CNN-Survival"]["C"] == pytest.approx(np.mean([each.scores[CNN].concordance for each in repetitions]))
    assert table["Size only (Cox)"]["C in the paper"] is None


def test_frozen_parts_of_the_fine_tuned_network_are_those_of_the_pretrained_one() -> None:
    everyone = scanned_patients(20, cnn_survival.OWN_HOSPITAL, size=PLAN.voxels, seed=9)
    part = cnn_survival._Part(everyone, largest_of_patient(everyone, 5, PLAN.side))
    pretrained = cnn_survival._network(PLAN, 1)
    before = {name: tensor.clone() for name, tensor in pretrained.state_dict().items()}
    tuned = cnn_survival._fine_tuned(pretrained, part, PLAN, 1)
    moved = {name for name, tensor in tuned.state_dict().items() if not torch.equal(tensor, before[name])}
    assert moved == {"head.linear.weight", "head.linear.bias"}
    assert all(torch.equal(tensor, before[name]) for name, tensor in pretrained.state_dict().items())


def test_curves_are_means_over_the_slices_of_a_patient() -> None:
    everyone = scanned_patients(10, cnn_survival.OWN_HOSPITAL, size=PLAN.voxels, seed=9)
    part = cnn_survival._Part(everyone, largest_of_patient(everyone, 3, PLAN.side))
    model = cnn_survival._network(PLAN, 1).eval()
    curves = cnn_survival._patient_curves(model, part).survival
    with torch.no_grad():
        of_slices = model.predict_survival({"image": part.slices.images}, torch.arange(1.0, 49.0).double()).survival
    for number in range(10):
        rows = torch.from_numpy(part.slices.patient == number)
        torch.testing.assert_close(curves[number], of_slices[rows].mean(0), rtol=1e-5, atol=1e-7)


def test_the_same_plan_gives_the_same_numbers(repetitions: list[cnn_survival.Repetition]) -> None:
    again = repetition(PLAN, 0).scores
    for name, scored in repetitions[0].scores.items():
        assert again[name].concordance == scored.concordance
        np.testing.assert_array_equal(again[name].curves, scored.curves)


def test_larger_cohorts_stand_in_their_own_tables(repetitions: list[cnn_survival.Repetition]) -> None:
    more = [dataclasses.replace(each, larger=each.scores) for each in repetitions]
    names = [table.name for table in findings(PLAN, more).tables]
    assert names == ["three_way", "differences", "larger", "larger_differences", "slices", "repetitions"]
    assert [table.name for table in findings(PLAN, repetitions).tables] == [n for n in names if "larger" not in n]


def test_the_two_patients_are_chosen_without_predictions() -> None:
    time, event = [3.0, 5.0, 9.0, 20.0, 30.0, 40.0, 17.0], [1, 1, 1, 0, 1, 0, 0]
    assert two_patients(SurvivalOutcome.from_arrays(time, event, "months")) == (1, 4)
    with pytest.raises(InvalidValueError, match="Draw more"):
        two_patients(SurvivalOutcome.from_arrays([3.0], [1], "months"))


def test_sizes_out_of_range_are_refused() -> None:
    with pytest.raises(InvalidValueError, match="`repetitions` >= 2"):
        CNNSurvivalPlan(repetitions=1)
    with pytest.raises(InvalidValueError, match="`larger` must lie in 0 to 4; got 5"):
        CNNSurvivalPlan(repetitions=4, larger=5)


def test_scans_in_which_no_tumour_is_seen_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(phantom_slices, "drawn_phantoms", lambda *_, **__: iter(()))
    with pytest.raises(InvalidValueError, match="larger scans"):
        scanned_patients(10, Scanner(0.0, 1.0), size=12, seed=0)


@pytest.mark.slow
def test_with_more_patients_size_and_age_come_near_the_truth_and_pictures_above_chance() -> None:
    scores = repetition(CNNSurvivalPlan(), 0).larger
    found = {name: scored.concordance for name, scored in scores.items()}
    assert min(found[CNN], found[SCRATCH]) > 0.55
    assert found["Size + clinical (Cox)"] > found["True hazard"] - 0.02
    assert found[SIZE] > found[CNN] - 0.02
    assert scores["True hazard"].at_horizon > max(scores[name].at_horizon for name in (SIZE, CNN, SCRATCH))


def test_the_command_writes_tables_and_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, repetitions: list[cnn_survival.Repetition]
) -> None:
    asked = []

    def drawn(plan: CNNSurvivalPlan, number: int) -> cnn_survival.Repetition:
        asked.append((plan, number))
        return repetitions[number]

    monkeypatch.setattr(cnn_survival_findings, "repetition", drawn)
    command = [
        "reproduce",
        "cnn-survival",
        "--out",
        str(tmp_path),
        "--repetitions",
        "2",
        "--tune",
        "30",
        "--larger",
        "9",
    ]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 0, result.output
    assert asked == [(CNNSurvivalPlan(tune=30, repetitions=2, larger=2), number) for number in (0, 1)]
    assert "CNN-Survival" in result.output
    page = (tmp_path / "cnn_survival.md").read_text()
    for name in ("cnn_survival_ipa", "cnn_survival_patients", "cnn_survival_slices"):
        assert (tmp_path / f"{name}.png").stat().st_size > 5_000
        assert name in page


def test_slices_are_shown_with_the_right_of_the_patient_on_the_left() -> None:
    picture = np.zeros((1, 4, 4), np.float32)
    picture[0, 3, 0] = 1.0  # far to the patient's right, at the back
    figure = slice_montage({"A": (picture, np.array([1]))}, caption="")
    (image,) = figure.subfigs[0].axes[0].images
    assert image.origin == "lower"
    assert np.argwhere(np.asarray(image.get_array()) > 0).tolist() == [[0, 0]]


def _altered(change: Callable[[ScannedPatients], ScannedPatients], which: int) -> tuple[Any, Any]:
    """What is fitted, and the scores, where one cohort (0 to 2 for A to C) is another than it was drawn."""
    drawn, fitted, kept = scanned_patients, cnn_survival._fitted, []

    def other(count: int, scanner: Scanner, *, size: int, seed: int) -> ScannedPatients:
        patients = drawn(count, scanner, size=size, seed=seed)
        return change(patients) if seed % 10 == which else patients

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cnn_survival, "scanned_patients", other)
        patch.setattr(cnn_survival, "_fitted", lambda *given: kept.append(fitted(*given)) or kept[-1])
        scores = repetition(PLAN, 0).scores
    return kept[0], scores


def _numbers(fitted: Any) -> dict[str, np.ndarray]:
    """Every number that was fitted."""
    found = {"medians": fitted.medians.to_numpy()}
    for name, model in fitted.regressions.items():
        found |= {
            f"{name} coefficients": model.coef_,
            f"{name} baseline": model.predict_survival(0 * model.coef_[None]),
        }
        found[f"{name} penalty"] = np.array(getattr(model, "penalty_", 0.0))
    for name, model in fitted.networks.items():
        found |= {f"{name} {part}": tensor.numpy() for part, tensor in model.state_dict().items()}
    return {
        name: each.survival.numpy() if hasattr(each, "survival") else np.asarray(each) for name, each in found.items()
    }


def _same(first: Any, second: Any) -> bool:
    one, other = _numbers(first), _numbers(second)
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


def _with_others_outcome(patients: ScannedPatients) -> ScannedPatients:
    return dataclasses.replace(patients, outcome=patients.outcome[np.arange(len(patients))[::-1].copy()])


def _with_other_images(patients: ScannedPatients) -> ScannedPatients:
    """Scans upside down and brighter, masks moved with them, other ages and sizes."""
    scans = tuple(
        (dataclasses.replace(scan, values=(scan.values[:, ::-1] + 40).copy()), mask[:, ::-1].copy())
        for scan, mask in patients.scans
    )
    return dataclasses.replace(patients, scans=scans, age=patients.age + 5, size=patients.size[::-1].copy())


def test_nothing_is_fitted_on_the_outcome_of_the_cohort_that_is_scored() -> None:
    plain, scores = _altered(lambda patients: patients, 2)
    permuted, others = _altered(_with_others_outcome, 2)
    assert _same(plain, permuted)
    for name, scored in scores.items():
        np.testing.assert_array_equal(others[name].curves, scored.curves)
    assert any(others[name].concordance != scored.concordance for name, scored in scores.items())


def test_nothing_is_fitted_on_the_scans_of_the_cohort_that_is_scored() -> None:
    plain, scores = _altered(lambda patients: patients, 2)
    turned, others = _altered(_with_other_images, 2)
    assert _same(plain, turned)
    assert not np.array_equal(others[CNN].curves, scores[CNN].curves)
    # The comparison would notice: another outcome in B changes what is fitted.
    assert not _same(plain, _altered(_with_others_outcome, 1)[0])

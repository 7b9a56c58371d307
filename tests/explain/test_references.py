"""What an explanation compares with is said, real and laid out like the row that is explained."""

from __future__ import annotations

import pytest
import torch

from survlens.core.errors import InvalidValueError
from survlens.core.inputs import count_key, present_key, select_rows
from survlens.explain.references import Blurred, References, ReferenceSource

ROWS = 40


def training(rows: int = ROWS) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    return {
        "table": torch.randn((rows, 3), generator=generator, dtype=torch.float64),
        "image": torch.rand((rows, 1, 6, 6), generator=generator),
    }


def lines(count: int, references: ReferenceSource) -> tuple[torch.Tensor, torch.Tensor]:
    each = len(references.weights)
    line = torch.arange(count * each)
    return line // each, line % each


def test_every_kind_is_a_source_and_its_weights_add_up_to_one() -> None:
    inputs = training()
    kinds = [
        References.all(inputs),
        References.sample(inputs, 5),
        References.k_means(inputs, 4),
        References.mean(inputs),
        References.where(inputs, inputs["table"][:, 0] > 0, "first column above 0"),
        Blurred(1.5, others=References.mean(inputs)),
    ]
    for each in kinds:
        assert isinstance(each, ReferenceSource)
        assert each.description
        torch.testing.assert_close(each.weights.sum(), torch.tensor(1.0, dtype=torch.float64))


def test_a_sample_is_drawn_without_replacement_and_by_its_seed() -> None:
    inputs = training()
    found, again, other = (References.sample(inputs, 20, seed=seed) for seed in (3, 3, 4))
    assert len(found.inputs["table"].unique(dim=0)) == 20
    assert bool((found.inputs["table"][:, None] == inputs["table"]).all(2).any(1).all())
    assert torch.equal(found.inputs["image"], again.inputs["image"])
    assert not torch.equal(found.inputs["table"], other.inputs["table"])
    assert found.drawn
    assert not References.mean(inputs).drawn


def test_all_of_the_rows_are_taken_by_a_sample_of_their_number() -> None:
    inputs = training()
    sample = References.sample(inputs, ROWS).inputs["table"]
    assert torch.equal(sample.sort(0).values, inputs["table"].sort(0).values)


def test_k_means_gives_real_rows_weighted_by_their_clusters() -> None:
    centres = torch.tensor([[0.0, 0.0], [50.0, 0.0], [0.0, 50.0]], dtype=torch.float64)
    sizes = torch.tensor([6, 10, 4])
    noise = torch.randn((20, 2), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    table = centres.repeat_interleave(sizes, 0) + noise
    found = References.k_means({"table": table}, 3)
    assert bool((found.inputs["table"][:, None] == table).all(2).any(1).all())
    nearest = torch.cdist(found.inputs["table"], centres).argmin(1)
    torch.testing.assert_close(found.weights[nearest.argsort()], sizes / 20.0, check_dtype=False)


def test_the_mean_is_taken_over_the_rows_that_have_the_modality() -> None:
    inputs = training(4) | {present_key("image"): torch.tensor([True, False, True, False])}
    found = References.mean(inputs).inputs
    torch.testing.assert_close(found["image"][0], inputs["image"][[0, 2]].mean(0))
    torch.testing.assert_close(found["table"][0], inputs["table"].mean(0))


def test_starts_are_laid_out_as_the_rows_they_are_for() -> None:
    references = References.sample(training(), 3)
    rows, numbers = lines(2, references)
    found = references.starts(training(2), rows, numbers)
    assert torch.equal(found["table"], references.inputs["table"].repeat(2, 1))
    assert torch.equal(found["image"], references.inputs["image"].repeat(2, 1, 1, 1))


def test_items_of_a_reference_are_repeated_to_the_number_of_the_row() -> None:
    generator = torch.Generator().manual_seed(1)
    references = References(
        {"image": torch.rand((3, 1, 2, 2), generator=generator), count_key("image"): torch.tensor([2, 1])}, "two rows"
    )
    counts = torch.tensor([3, 0, 1])
    inputs = {"image": torch.rand((4, 1, 2, 2), generator=generator), count_key("image"): counts}
    rows, numbers = lines(3, references)
    found = references.starts(inputs, rows, numbers)
    items = references.inputs["image"]
    expected = [items[0], items[1], items[0], items[2], items[2], items[2], items[0], items[2]]
    assert torch.equal(found["image"], torch.stack(expected))
    assert found[count_key("image")].tolist() == [3, 3, 0, 0, 1, 1]
    laid_out = select_rows(inputs, rows)
    assert {name: each.shape for name, each in found.items()} == {name: each.shape for name, each in laid_out.items()}


def test_a_row_without_a_modality_has_references_without_it() -> None:
    references = References.sample(training(), 2)
    inputs = training(2) | {present_key("image"): torch.tensor([True, False])}
    found = references.starts(inputs, *lines(2, references))
    assert found[present_key("image")].tolist() == [True, True, False, False]
    assert torch.equal(found["image"][2:], inputs["image"][[1, 1]])


def test_a_reference_must_have_what_the_row_has() -> None:
    inputs = training(3) | {present_key("image"): torch.tensor([True, False, True])}
    references = References.all(inputs)
    with pytest.raises(InvalidValueError, match="1 references without"):
        references.starts(training(2), *lines(2, references))
    with pytest.raises(InvalidValueError, match="must hold image"):
        References.all({"table": training()["table"]}).starts(training(2), *lines(2, references))


def test_blurring_keeps_the_mean_of_a_row_its_own_and_leaves_other_inputs_in_place() -> None:
    inputs = training(3)
    inputs["image"][2] = 0.25
    rows = torch.tensor([2, 0, 0])
    found = Blurred(2.0).starts(inputs, rows, torch.zeros(3, dtype=torch.int64))
    torch.testing.assert_close(found["image"][0], inputs["image"][2])  # a flat picture stays as it is
    assert torch.equal(found["image"][1], found["image"][2])
    assert float(found["image"][1].std()) < 0.5 * float(inputs["image"][0].std())
    assert torch.equal(found["table"], inputs["table"][rows])
    joint = Blurred(2.0, others=References.mean(training()))
    moved = joint.starts(inputs, *lines(3, joint))
    torch.testing.assert_close(moved["table"], training()["table"].mean(0).expand(3, 3))


def test_what_cannot_be_is_refused() -> None:
    inputs = training()
    with pytest.raises(InvalidValueError, match="`count` must lie in 1..40"):
        References.sample(inputs, 41)
    with pytest.raises(InvalidValueError, match="`mask`"):
        References.where(inputs, torch.zeros(ROWS, dtype=torch.bool), "nobody")
    with pytest.raises(InvalidValueError, match="`modality` must name a table"):
        References.k_means(inputs, 3, modality="image")
    with pytest.raises(InvalidValueError, match="`share`"):
        References(inputs, "all", share=torch.ones(ROWS))
    with pytest.raises(InvalidValueError, match="`sigma`"):
        Blurred(0)
    with pytest.raises(InvalidValueError, match="`modalities` must name pictures"):
        Blurred(1.0, modalities=("table",)).starts(inputs, *lines(2, References.mean(inputs)))
